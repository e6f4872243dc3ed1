"""One for all: teacher and student of different kinds, compared by their answers alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from annotated_types import Ge
from torch.nn.functional import log_softmax, one_hot

from kdbench import Family, Method, Needs, NotApplicable, Range, Step, Weight, full_precision

from ._exits import build_exits, exit_answers

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class OFA(Method):
    """Teaches the teacher's answer to the student's stages, through exits.

    Hao et al. 2023: CE + soft_weight * OFA(logits) + exit_weight * the sum of OFA over early exits; OFA is the mean of
    -sum(((p_t + y)^gamma - y) log p_s), y one-hot: the surer the teacher is of the true class, the more it weighs. As
    in the authors' code, which takes gamma = 1 (the cross-entropy with the teacher) on CIFAR-100, 1.5 on ImageNet.
    Departure: the exits are those of `self_distillation`, on every stage but the last; the authors' are on all four
    stages, and built after the kind of student.
    """

    family: ClassVar[Family] = "response"
    paper: ClassVar[str] = "Hao et al. 2023, arXiv:2310.19444"
    search_space: ClassVar = {"gamma": Range(1.0, 2.0), "exit_weight": Range(0.1, 10.0, log=True)}

    gamma: Annotated[float, Ge(1)] = 1.5
    soft_weight: Weight = 1.0
    exit_weight: Weight = 1.0

    @property
    def needs(self) -> Needs:
        # a network of one stage has no place for an exit: asking for a second one has it skipped
        return Needs(student=("logits", "embedding", "stages", "stage2"), teacher=("logits",))

    def build_auxiliary(self, example: Step) -> nn.Module:
        if example.labels is None:
            raise NotApplicable("a true class cannot be enhanced where answers have no class each")
        return build_exits(example)

    def losses(self, step: Step) -> dict[str, Tensor]:
        probabilities = full_precision(step.teacher["logits"]).softmax(dim=1)
        assert step.labels is not None
        truth = one_hot(step.labels, probabilities.shape[1])
        targets = (probabilities + truth) ** self.gamma - truth
        final, *early = (
            -(targets * log_softmax(full_precision(logits), dim=1)).sum(dim=1).mean()
            for logits in (step.student["logits"], *(answer for answer, _ in exit_answers(step)))
        )
        task, exits = step.task_loss(step.student["logits"]), torch.stack(early).sum()
        return {"task": task, "soft": self.soft_weight * final, "exits": self.exit_weight * exits}
