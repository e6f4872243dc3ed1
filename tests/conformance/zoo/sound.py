"""Two methods that keep every promise; each neighbour breaks exactly one of them, the one that it is named after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from kdbench import Family, Method, Needs, Positive, Range, Step, Weight, hookimpl, soft_loss


@dataclass(frozen=True)
class Imitates(Method):
    """Imitates the mean of the teacher's first stage through a regressor.

    Sound et al. 2026, equation 1: CE + weight * mean((regressor(student) - teacher)^2).
    """

    family: ClassVar[Family] = "feature"
    paper: ClassVar[str] = "Sound et al. 2026, nowhere"
    search_space: ClassVar = {"weight": Range(0.1, 10.0, log=True)}

    weight: Weight = 1.0

    def __init_subclass__(cls) -> None:
        cls.__doc__ = cls.__doc__ or Imitates.__doc__

    @property
    def needs(self) -> Needs:
        return Needs(student=("logits", "stage1"), teacher=("stage1",))

    def build_auxiliary(self, example: Step) -> nn.Module:
        return nn.Linear(example.student["stage1"].shape[1], example.teacher["stage1"].shape[1])

    def losses(self, step: Step) -> dict[str, Tensor]:
        return {"task": step.task_loss(step.student["logits"]), "match": self.weight * self.match(step)}

    def match(self, step: Step) -> Tensor:
        """What the neighbours replace."""
        return mse_loss(self.regressed(step), pooled(step.teacher))

    def regressed(self, step: Step) -> Tensor:
        """The student's mean features, with as many channels as the teacher's, [batch, channels]."""
        assert step.auxiliary is not None
        regressed: Tensor = step.auxiliary(pooled(step.student))
        return regressed


@dataclass(frozen=True)
class Softens(Method):
    """Learns the teacher's softened answers.

    Sound et al. 2026, equation 2: CE + weight * T^2 KL(teacher || student).
    """

    family: ClassVar[Family] = "response"
    paper: ClassVar[str] = "Sound et al. 2026, nowhere"
    search_space: ClassVar = {"weight": Range(0.1, 10.0, log=True), "temperature": Range(1.0, 8.0)}

    weight: Weight = 1.0
    temperature: Positive = 4.0

    def __init_subclass__(cls) -> None:
        cls.__doc__ = cls.__doc__ or Softens.__doc__

    @property
    def needs(self) -> Needs:
        return Needs()

    def losses(self, step: Step) -> dict[str, Tensor]:
        student, teacher = step.student["logits"], step.teacher["logits"]
        return {"task": step.task_loss(student), "soft": self.weight * self.soft(student, teacher)}

    def soft(self, student: Tensor, teacher: Tensor) -> Tensor:
        """What the neighbours replace."""
        return soft_loss(student, teacher, self.temperature)


def pooled(taps: Mapping[str, Tensor]) -> Tensor:
    """The mean of stage 1 over its positions, [batch, channels]."""
    return taps["stage1"].flatten(2).mean(2)


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"imitates": Imitates, "softens": Softens}
