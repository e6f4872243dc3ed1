"""A placebo: the teacher's mean answer to each class, the same for all examples of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from kdbench import Family, NotApplicable, Positive, Step, Weight, full_precision

from .kd import KD, MaskedClass


@dataclass(frozen=True)
class ClassMeanTeacher(KD):
    """KD in which every example follows the teacher's mean answer to its class.

    The mean of softened probabilities over all rows seen of a class: what KD gains over it is known of single examples.
    """

    family: ClassVar[Family] = "control"
    paper: ClassVar[str] = ""
    explains: ClassVar[tuple[Family, ...]] = ("response", "ensemble")
    without_dark_knowledge: ClassVar[bool] = True
    batch_coupled: ClassVar[bool] = True

    temperature: Positive = 4.0
    hard_weight: Weight = 0.1
    soft_weight: Weight = 0.9
    masked_class: MaskedClass = None

    def build_auxiliary(self, example: Step) -> nn.Module:
        if example.labels is None:
            raise NotApplicable("a class's mean answer needs answers that have a class each")
        return ClassSums(example.teacher["logits"].shape[1])

    def teacher_logits(self, step: Step) -> Tensor:
        answers = (full_precision(step.teacher["logits"]) / self.temperature).softmax(dim=1)
        return self.temperature * cast(ClassSums, step.auxiliary)(answers, step.labels).log()


class ClassSums(nn.Module):
    """Sums of probabilities [classes, classes] by label; kept in checkpoints, never trained."""

    sums: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(classes, classes))

    @torch.no_grad()
    def forward(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        """Adds a batch (no index_add: its order varies on CUDA); the mean answer to each row's class, nowhere 0."""
        self.sums += one_hot(labels, len(self.sums)).to(self.sums).T @ probabilities.to(self.sums)
        means = self.sums[labels] / self.sums[labels].sum(dim=1, keepdim=True)
        return means.clamp(min=torch.finfo(means.dtype).tiny)
