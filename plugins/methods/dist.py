"""DIST: answers that correlate with the teacher's, rather than equal them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch.nn.functional import normalize

from kdbench import Family, Method, Needs, Positive, Range, Step, Weight, full_precision

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DIST(Method):
    """Correlates the softened answers of student and teacher, by row and by class.

    Huang et al. 2022, section 3: CE + T^2 inter_weight (1 - mean over rows of r) + T^2 intra_weight (1 - mean
    over classes of r), r the Pearson correlation of softened probabilities. T^2, the authors' code's, is not in the
    paper. That code adds 1e-8 to the product of the lengths, which pulls the r of classes that are rare in a batch
    to 0; here only lengths below 1e-12 give 0. T = 4 and weights of 2 are theirs for CIFAR-100.
    A batch of one has no correlation along a class, and the term is a constant.
    """

    family: ClassVar[Family] = "response"
    paper: ClassVar[str] = "Huang et al. 2022, arXiv:2205.10536"
    search_space: ClassVar = {
        "temperature": Range(1.0, 8.0, log=True),
        "inter_weight": Range(0.1, 10.0, log=True),
        "intra_weight": Range(0.1, 10.0, log=True),
    }
    batch_coupled: ClassVar[bool] = True
    expected_failed_checks: ClassVar = {"temperature_scaling": "the authors' T^2, on what softening does not shrink"}

    temperature: Positive = 4.0
    inter_weight: Weight = 2.0
    intra_weight: Weight = 2.0

    @property
    def needs(self) -> Needs:
        return Needs()

    def losses(self, step: Step) -> dict[str, Tensor]:
        taps = (step.student, step.teacher)
        student, teacher = ((full_precision(each["logits"]) / self.temperature).softmax(dim=1) for each in taps)
        inter, intra = (1 - correlations(student, teacher, dim).mean() for dim in (1, 0))
        return {
            "task": step.task_loss(step.student["logits"]),
            "inter": self.inter_weight * self.temperature**2 * inter,
            "intra": self.intra_weight * self.temperature**2 * intra,
        }


def correlations(first: Tensor, second: Tensor, dim: int) -> Tensor:
    """Pearson's correlations of two matrices along one axis; 0 where either is constant."""
    directions = [normalize(matrix - matrix.mean(dim, keepdim=True), dim=dim) for matrix in (first, second)]
    return (directions[0] * directions[1]).sum(dim)
