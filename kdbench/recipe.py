"""Recipe and Pair: how networks are trained, and who learns from whom."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BeforeValidator, ValidationInfo, field_validator

from kdbench.spec import Spec
from kdbench.suite_fields import Listed, PluginName, Section, canonical, invalid, read_names

Speedup = Literal["channels_last", "bf16_teacher", "compiled", "stored_answers"]


class Recipe(Section):
    """How a network is trained; the same for every method of a suite.

    `milestones` and `warmup` are fractions of training, so that a recipe can be lengthened without rewriting it.

    Attributes:
        epochs: passes over the training examples; at least 1, but for teachers, which 0 takes as they are built.
        batch_size: examples in a step.
        optimizer: torch's SGD or AdamW.
        learning_rate: its highest value; the tuned track varies it for every method.
        momentum: of SGD.
        nesterov: Nesterov's momentum, of SGD.
        weight_decay: of the student's weights; auxiliary modules never decay.
        decay_biases_and_norms: whether biases and the parameters of normalisations decay too.
        schedule: falls by `gamma` at each of the `milestones`, falls to 0 along a cosine, or stays.
        milestones: of `multistep`: at which parts of training the learning rate falls.
        gamma: of `multistep`: what it is multiplied by.
        warmup: the first part of training, in which the learning rate rises evenly from 0.
        clip_grad_norm: the largest norm of the gradient, all parameters together.
        precision: `bf16` runs the networks forward under torch's autocast; weights and losses stay float32.
        augmentation: random changes of the images of a batch, in this order: `crop[padding=4]`, `flip`.
        speedups: what makes training faster and changes numbers a little, so that it is part of a trial's identity:
            `channels_last` lays images out by position; `bf16_teacher` asks the teacher under torch's autocast;
            `compiled` runs networks by what torch.compile makes of them, a minute or more each, which pays in long
            runs; `stored_answers` asks the teacher once for each example, not at each epoch, which takes a recipe
            without augmentation.
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
    speedups: Listed[Speedup] = ()

    @field_validator("milestones")
    @classmethod
    def _increase(cls, milestones: tuple[float, ...]) -> tuple[float, ...]:
        if list(milestones) != sorted(set(milestones)):
            raise invalid("must increase from one to the next")
        return milestones

    @field_validator("speedups")
    @classmethod
    def _answers_can_be_stored(cls, speedups: tuple[Speedup, ...], info: ValidationInfo) -> tuple[Speedup, ...]:
        if "stored_answers" in speedups and info.data.get("augmentation"):
            raise invalid("stored_answers needs a recipe without augmentation: a teacher sees other images each epoch")
        return tuple(sorted(set(speedups)))

    @field_validator("nesterov")
    @classmethod
    def _has_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        if nesterov and info.data.get("momentum") == 0:
            raise invalid("needs a momentum above 0")
        return nesterov


class TeacherRecipe(Recipe):
    """How teachers are trained; with 0 epochs they are taken as they are built, with the weights they come with."""

    epochs: Annotated[int, Ge(0)]


class Pair(Section):
    """Teachers and the student that learns from them. Most methods look at the first teacher only.

    Attributes:
        teacher: one, or several for the methods that learn from an ensemble.
        student: the network that is measured.
        tasks: those of the suite's tasks that the pair is for; all, where it names none.
        recipe, teacher_recipe: the suite's, with the keys that the pair overrides; None where it overrides nothing.
    """

    teacher: Annotated[Listed[PluginName], MinLen(1), BeforeValidator(read_names)]
    student: PluginName
    tasks: Annotated[Listed[PluginName], BeforeValidator(read_names)] = ()
    recipe: Recipe | None = None
    teacher_recipe: TeacherRecipe | None = None

    def __str__(self) -> str:
        return f"{self.teacher[0]} -> {self.student}"

    def serves(self, task: str) -> bool:
        """Whether the pair is for `task`, as the suite writes it."""
        return not self.tasks or canonical(Spec.parse(task)) in self.tasks
