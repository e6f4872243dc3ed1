"""Correlation congruence: a kernel between all examples of a batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn.functional import mse_loss, normalize

from kdbench import Count, Family, Method, Needs, Positive, Range, Step, Weight, full_precision

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CC(Method):
    """Matches a Gaussian kernel between the examples of a batch.

    Peng et al. 2019, section 3: CE + weight / batch^2 * sum over all pairs of (k_s - k_t)^2, where k(x, y) is the
    Taylor series of exp(-gamma ||x - y||^2) up to power `order` of x y, for embeddings of length 1. The paper adds KD;
    not here. The code of popular benchmarks, said to be the authors', has no kernel: it multiplies |s - t| of adjacent
    examples, at weight 0.02, where learnt layers bring both networks to a common width, which lets them agree on
    nothing. A kernel needs none. gamma, order and weight are those of a public port of the paper's kernel.
    """

    family: ClassVar[Family] = "relation"
    paper: ClassVar[str] = "Peng et al. 2019, arXiv:1904.01802"
    search_space: ClassVar = {"weight": Range(1.0, 1000.0, log=True), "gamma": Range(0.1, 3.0, log=True)}
    batch_coupled: ClassVar[bool] = True

    gamma: Positive = 0.4
    order: Count = 2
    weight: Weight = 100.0

    @property
    def needs(self) -> Needs:
        return Needs(student=("logits", "embedding"), teacher=("embedding",))

    def losses(self, step: Step) -> dict[str, Tensor]:
        student, teacher = (self.kernel(taps["embedding"]) for taps in (step.student, step.teacher))
        return {
            "task": step.task_loss(step.student["logits"]),
            "correlation": self.weight * mse_loss(student, teacher),
        }

    def kernel(self, embedding: Tensor) -> Tensor:
        """The kernel between all pairs of embeddings [batch, features]: [batch, batch]."""
        directions = normalize(full_precision(embedding), dim=1)
        scaled = 2 * self.gamma * directions @ directions.T
        series = torch.ones_like(scaled)
        for power in range(self.order, 0, -1):  # Horner's scheme: no factorial that overflows
            series = 1 + scaled / power * series
        return math.exp(-2 * self.gamma) * series
