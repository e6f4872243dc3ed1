"""Contrastive representation distillation: examples told apart across teacher and student."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from kdbench import Count, Family, Fraction, Method, Needs, Positive, Range, Step, Weight

from ._memory import Memory


@dataclass(frozen=True)
class CRD(Method):
    """Tells an example from others by what is remembered of the other network.

    Tian et al. 2020: CE + weight * the sum, over student and teacher as anchor, of -log h(own) - sum log(1 - h(drawn)),
    h = e / (e + N c), e = exp(cosine / temperature), mean over the batch; its own and N drawn examples are looked up in
    the bank of the other network. As in the authors' code its own entry is that of the epoch before, and c is the mean
    e of the first batch, by which the number of examples cancels (the paper: c = 1 / examples). Departures: the N are
    drawn for a batch, not for each example, and banks grow to the largest index seen (see `_memory`).
    """

    family: ClassVar[Family] = "feature"
    paper: ClassVar[str] = "Tian et al. 2020, arXiv:1910.10699"
    search_space: ClassVar = {"weight": Range(0.01, 10.0, log=True), "temperature": Range(0.03, 0.5, log=True)}
    batch_coupled: ClassVar[bool] = True

    weight: Weight = 0.8
    negatives: Count = 16384
    temperature: Positive = 0.07
    momentum: Fraction = 0.5  # how much of a bank's old entry stays
    features: Count = 128

    @property
    def needs(self) -> Needs:
        return Needs(student=("logits", "embedding"), teacher=("embedding",))

    def build_auxiliary(self, example: Step) -> nn.ModuleList:
        embeddings = example.student["embedding"], example.teacher["embedding"]
        return nn.ModuleList(Memory(embedding.shape[1], self.features) for embedding in embeddings)

    def losses(self, step: Step) -> dict[str, Tensor]:
        student, teacher = cast("tuple[Memory, Memory]", step.auxiliary)
        own, goal, indices = student(step.student["embedding"]), teacher(step.teacher["embedding"]), step.indices
        for memory in (student, teacher):
            memory.reach(step.largest_index + 1)
        drawn = torch.randint(len(student.bank), (self.negatives,), device=indices.device)
        losses = {
            "task": step.task_loss(step.student["logits"]),
            "student": self.weight * teacher.contrast(own, indices, drawn, self.temperature),
            "teacher": self.weight * student.contrast(goal, indices, drawn, self.temperature),
        }
        student.remember(own, indices, self.momentum)
        teacher.remember(goal, indices, self.momentum)
        return losses
