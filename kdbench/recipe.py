"""Recipe and Pair: how networks are trained, and who learns from whom."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BeforeValidator, ValidationInfo, field_validator

from kdbench.spec import Spec
from kdbench.suite_fields import Listed, PluginName, Section, canonical, invalid, read_names


class Recipe(Section):
    """How a network is trained; the same for every method of a suite.

    `milestones` and `warmup` are fractions of training, so that a recipe can be lengthened without rewriting it.
    """

    epochs: Annotated[int, Ge(1)]
    batch_size: Annotated[int, Ge(2)] = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Annotated[float, Gt(0)] = 0.05
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Ge(0)] = 5e-4
    decay_biases_and_norms: bool = False
    schedule: Literal["multistep", "cosine", "constant"] = "multistep"
    milestones: Listed[Annotated[float, Gt(0), Lt(1)]] = (0.625, 0.75, 0.875)
    gamma: Annotated[float, Gt(0), Le(1)] = 0.1
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.0
    clip_grad_norm: Annotated[float, Gt(0)] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    augmentation: Listed[PluginName] = ()

    @field_validator("milestones")
    @classmethod
    def _increase(cls, milestones: tuple[float, ...]) -> tuple[float, ...]:
        if list(milestones) != sorted(set(milestones)):
            raise invalid("must increase from one to the next")
        return milestones

    @field_validator("nesterov")
    @classmethod
    def _has_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        if nesterov and info.data.get("momentum") == 0:
            raise invalid("needs a momentum above 0")
        return nesterov


class Pair(Section):
    """Teachers and the student that learns from them. Most methods look at the first teacher only.

    Attributes:
        tasks: those of the suite's tasks that the pair is for; all, where it names none.
        recipe, teacher_recipe: the suite's, with the keys that the pair overrides; None where it overrides nothing.
    """

    teacher: Annotated[Listed[PluginName], MinLen(1), BeforeValidator(read_names)]
    student: PluginName
    tasks: Annotated[Listed[PluginName], BeforeValidator(read_names)] = ()
    recipe: Recipe | None = None
    teacher_recipe: Recipe | None = None

    def __str__(self) -> str:
        return f"{self.teacher[0]} -> {self.student}"

    def serves(self, task: str) -> bool:
        """Whether the pair is for `task`, as the suite writes it."""
        return not self.tasks or canonical(Spec.parse(task)) in self.tasks
