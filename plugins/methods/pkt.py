"""Probabilistic knowledge transfer: which examples of a batch are neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch.nn.functional import kl_div, normalize

from kdbench import Family, Method, Needs, Range, Step, Weight, full_precision

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 1e-7  # added to every probability before its logarithm, as in the authors' code


@dataclass(frozen=True)
class PKT(Method):
    """Matches the probability that an example picks another one as its neighbour.

    Passalis & Tefas 2018, section 3: CE + weight * mean over all pairs of p_t log(p_t / p_s); p is
    (1 + cosine) / 2 of two embeddings, divided by the sum of the row. The paper sums over the pairs of different
    examples; the authors' code, followed here, takes the mean over all batch^2, those of an example with itself
    included, so the term depends on the batch size. 30000 is the weight of the small-image benchmarks.
    """

    family: ClassVar[Family] = "relation"
    paper: ClassVar[str] = "Passalis & Tefas 2018, arXiv:1803.10837"
    search_space: ClassVar = {"weight": Range(100.0, 100000.0, log=True)}
    batch_coupled: ClassVar[bool] = True

    weight: Weight = 30000.0

    @property
    def needs(self) -> Needs:
        return Needs(student=("logits", "embedding"), teacher=("embedding",))

    def losses(self, step: Step) -> dict[str, Tensor]:
        student, teacher = (neighbours(taps["embedding"]) + SMALLEST for taps in (step.student, step.teacher))
        return {
            "task": step.task_loss(step.student["logits"]),
            "neighbours": self.weight * kl_div(student.log(), teacher, reduction="none").mean(),
        }


def neighbours(embedding: Tensor) -> Tensor:
    """The probabilities [i, j] that example i picks j, of embeddings [batch, features]; each row sums to 1."""
    directions = normalize(full_precision(embedding), dim=1)
    similarity = ((directions @ directions.T + 1) / 2).clamp(min=0)
    return similarity / similarity.sum(dim=1, keepdim=True)
