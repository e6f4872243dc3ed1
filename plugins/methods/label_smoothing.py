"""Label smoothing: soft targets without a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch.nn.functional import log_softmax

from kdbench import Family, Fraction, Method, Range, Step, full_precision

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LabelSmoothing(Method):
    """Softens the true labels evenly over all classes, without a teacher.

    The control that rules out that any softened target would have helped as much as a teacher's.
    Szegedy et al. 2016, section 7: (1 - smoothing) CE + smoothing * mean over classes of -log p, with smoothing 0.1.
    Some write the second term over the wrong classes only; here, as in the paper and in PyTorch, over all.
    """

    family: ClassVar[Family] = "control"
    paper: ClassVar[str] = "Szegedy et al. 2016, arXiv:1512.00567"
    explains: ClassVar[tuple[Family, ...]] = ("response", "feature", "relation", "online", "self", "ensemble")
    search_space: ClassVar = {"smoothing": Range(0.01, 0.5, log=True)}

    smoothing: Fraction = 0.1

    def losses(self, step: Step) -> dict[str, Tensor]:
        logits = step.student["logits"]
        uniform = -log_softmax(full_precision(logits), dim=1).mean()
        return {"task": (1 - self.smoothing) * step.task_loss(logits), "uniform": self.smoothing * uniform}
