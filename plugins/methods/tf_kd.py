"""Teacher-free KD: the teacher is a formula of the true class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch.nn.functional import kl_div, log_softmax, one_hot

from kdbench import Family, Fraction, Method, NotApplicable, Positive, Range, Step, full_precision

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TfKD(Method):
    """Learns from a designed teacher: right, and unsure of all other classes alike.

    Yuan et al. 2020, section 5 (Tf-KD_reg): (1 - weight) CE + weight KL(designed || student). The teacher gives
    `correct` to the true class and shares the rest among the others; then its answers are softened. As in the authors'
    code that is the softmax of these probabilities over T, almost uniform at T = 20, and the student is not softened,
    though the equation has it so. Their mean over classes times 100 is, for their 100 classes, the sum that is here.
    Tf-KD_self, the paper's other variant, is born_again[temperature=20,hard_weight=0.05,soft_weight=0.95].
    """

    family: ClassVar[Family] = "self"
    paper: ClassVar[str] = "Yuan et al. 2020, arXiv:1909.11723"
    controls: ClassVar[tuple[str, ...] | None] = ("label_smoothing",)
    search_space: ClassVar = {"weight": Range(0.01, 0.9, log=True), "temperature": Range(0.1, 40.0, log=True)}

    weight: Fraction = 0.1
    temperature: Positive = 20.0
    correct: Fraction = 0.99

    def build_auxiliary(self, example: Step) -> None:
        if example.labels is None:
            raise NotApplicable("the designed teacher needs answers that have a class each")

    def losses(self, step: Step) -> dict[str, Tensor]:
        logits = step.student["logits"]
        student = log_softmax(full_precision(logits), dim=1)
        regularizer = kl_div(student, self.designed(step, student), reduction="batchmean")
        return {"task": (1 - self.weight) * step.task_loss(logits), "designed": self.weight * regularizer}

    def designed(self, step: Step, like: Tensor) -> Tensor:
        """The softened answers of the designed teacher, [N, classes]."""
        assert step.labels is not None
        true = one_hot(step.labels, like.shape[1]).to(like.dtype)
        wrong = (1 - self.correct) / max(1, like.shape[1] - 1)
        return ((true * (self.correct - wrong) + wrong) / self.temperature).softmax(dim=1)
