"""What is tuned of a method: its own search space, and the learning rate that every method is trained with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from kdbench.errors import BrokenPlugin
from kdbench.hyperparameters import Range, SearchSpace, construct, values
from kdbench.plan import Configuration
from kdbench.spec import Spec

LEARNING_RATE: Final = "learning rate"  # with a space, which no field's name has
FACTORS = Range(0.25, 4.0, log=True)  # around the recipe's own, alike for all: so that the baseline is tuned too


def space_of(own: Configuration) -> SearchSpace:
    """What is tried of a method; nothing where nothing is trained, so that validation has no last epoch to judge by.

    Raises:
        BrokenPlugin: it would search a parameter that it does not have.
    """
    method = own.method
    known = {field.name for field in dataclasses.fields(method)}
    if strange := sorted(method.search_space.keys() - known):
        raise BrokenPlugin(f"{own.method_name}: its search_space has '{strange[0]}', which is no parameter of it")
    return {} if method.needs.budget == "none" else {**method.search_space, LEARNING_RATE: FACTORS}


def point_of(configuration: Configuration, space: SearchSpace) -> dict[str, Any]:
    """Where in the space a configuration lies."""
    every = {**values(configuration.method), LEARNING_RATE: configuration.learning_rate_factor}
    return {name: every[name] for name in space}


def configuration_at(point: Mapping[str, Any], own: Configuration) -> Configuration:
    """The configuration at a point of the space, in all else like `own`.

    Raises:
        BadInput: the method refuses these values.
    """
    params = {**values(own.method), **{name: value for name, value in point.items() if name != LEARNING_RATE}}
    method = construct(type(own.method), params, where=own.method_name)
    return Configuration(own.method_name, method, point[LEARNING_RATE])


def contender_name(own: Configuration) -> str:
    """The method with what is not searched of it: configurations that differ in nothing else are tuned as one."""
    fixed = {name: value for name, value in values(own.method).items() if name not in own.method.search_space}
    return str(Spec(own.method_name, dict(sorted(fixed.items()))))
