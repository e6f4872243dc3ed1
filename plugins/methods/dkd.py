"""Decoupled KD: the true class and the order of the others, each with a weight of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

import kdbench
from kdbench import Fraction, Needs, Positive, Range, Step, Weight, full_precision, soft_loss


@dataclass(frozen=True)
class DKD(kdbench.Method):
    """Weighs the teacher's sureness of the true class apart from its other answers.

    Zhao et al. 2022, section 3: CE + T^2 (target_weight TCKD + other_weight NCKD). TCKD is KL(teacher || student) of
    (p, 1 - p), p the softened probability of the true class; NCKD that of the answers among the other classes alone.
    KD's own KL is TCKD + (1 - p_teacher) NCKD. As in the authors' code, but not in the equation, both terms grow from 0
    in the first 20 of 240 epochs (`warmup`). other_weight is their beta, tuned for every pair; 8 is their default.
    """

    family: ClassVar[kdbench.Family] = "response"
    paper: ClassVar[str] = "Zhao et al. 2022, arXiv:2203.08679"
    search_space: ClassVar = {"temperature": Range(1.0, 20.0, log=True), "other_weight": Range(0.1, 20.0, log=True)}

    temperature: Positive = 4.0
    target_weight: Weight = 1.0
    other_weight: Weight = 8.0
    warmup: Fraction = 0.0833

    @property
    def needs(self) -> Needs:
        return Needs()

    def build_auxiliary(self, example: Step) -> None:
        if example.labels is None:
            raise kdbench.NotApplicable("it tells the true class from the others, and these answers have none each")

    def losses(self, step: Step) -> dict[str, Tensor]:
        assert step.labels is not None
        true = one_hot(step.labels, step.student["logits"].shape[1]).bool()
        student, teacher = (self.split(taps["logits"], true) for taps in (step.student, step.teacher))
        target, others = (soft_loss(*pair, temperature=1.0) for pair in zip(student, teacher, strict=True))
        scale = self.temperature**2 * (min(1.0, step.progress / self.warmup) if self.warmup else 1.0)
        return {
            "task": step.task_loss(step.student["logits"]),
            "target": scale * self.target_weight * target,
            "others": scale * self.other_weight * others,
        }

    def split(self, logits: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        """Softened logits: the true class against all others together, [N, 2], and the others alone, [N, classes]."""
        # -1e9 leaves a class out: its probability is 0, and its part in the loss too, which with -inf would be 0 * inf
        own, others = (full_precision(logits).masked_fill(mask, -1e9) / self.temperature for mask in (~true, true))
        return torch.stack([own.logsumexp(dim=1), others.logsumexp(dim=1)], dim=1), others
