"""Suite: what is crossed with what, under which recipe. Errors name file, line and key."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Recipe(_Section):
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
    milestones: tuple[Annotated[float, Gt(0), Lt(1)], ...] = (0.625, 0.75, 0.875)
    gamma: Annotated[float, Gt(0), Le(1)] = 0.1
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.0
    clip_grad_norm: Annotated[float, Gt(0)] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    augmentation: tuple[str, ...] = ()


class Pair(_Section):
    """Teachers and the student that learns from them. Most methods look at the first teacher only."""

    teacher: tuple[str, ...]
    student: str
