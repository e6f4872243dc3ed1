"""Checks of what a method says of itself, before anything is computed."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
from collections.abc import Iterator
from typing import Any

from kdbench.errors import BadInput
from kdbench.hyperparameters import Choices, Range, construct, values
from kdbench.method import FAMILIES, Method, Needs
from kdbench.testing.check import check
from kdbench.testing.example import check_taps

_LONGEST_SUMMARY = 100
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_EQUATION = re.compile(r"equation|\beq\.|section|algorithm|formula|\S [=+*] \S|\w\([^()]*\|\|", re.IGNORECASE)
_NO_DISTILLATION = ("control", "compression")


@check
def frozen_dataclass(method: Method) -> None:
    """Fields are the hyper-parameters: they are typed, recorded, and the same for the whole of a run."""
    parameters = vars(type(method)).get("__dataclass_params__")
    assert getattr(parameters, "frozen", False), "it must be decorated with @dataclass(frozen=True)"


@check
def known_family(method: Method) -> None:
    """By its family the controls are found that a method must beat."""
    assert method.family in FAMILIES, f"its family '{method.family}' is none of {', '.join(FAMILIES)}"


@check
def documented(method: Method) -> None:
    """A reader must be able to tell which equation of which paper was run, and what departs from it."""
    summary, _, rest = (inspect.getdoc(type(method)) or "").partition("\n")
    missing = not summary or summary.startswith(f"{type(method).__name__}(")  # what @dataclass makes of none
    assert not missing, "it has no docstring"
    assert summary.endswith("."), "its docstring must begin with one line that ends in a full stop"
    assert len(summary) <= _LONGEST_SUMMARY, f"its docstring's first line has more than {_LONGEST_SUMMARY} characters"
    if not method.paper:
        assert method.family == "control", "it must name its paper: author, year, where to find it"
        return
    author, year = method.paper.split()[0], _YEAR.search(method.paper)
    assert year, f"its paper must say author and year, as in 'Hinton et al. 2015': '{method.paper}'"
    uncited = [word for word in (author, year[0]) if word not in f"{summary}\n{rest}"]
    assert not uncited, f"its docstring must cite its paper: '{' '.join(uncited)}' is not in it"
    assert _EQUATION.search(rest), (
        "its docstring must say what is computed: the paper's equation, section or algorithm, or a formula"
    )


@check
def serialisable(method: Method) -> None:
    """Hyper-parameters are recorded as JSON, from which a run must be repeatable."""
    written = json.dumps(values(method), allow_nan=False)
    read = construct(type(method), json.loads(written), where=type(method).__name__)
    assert read == method, f"its hyper-parameters are not the same after JSON: {read}"


@check
def typed_parameters(method: Method) -> None:
    """Annotations are what refuses a mistyped value before hours of training."""
    for name, value in _parameters(method).items():
        assert not _takes(method, name, object()), f"the annotation of '{name}' takes anything"
        assert _takes(method, name, value), f"'{name}' is {value!r}, which its annotation does not take"


@check
def bounded_parameters(method: Method) -> None:
    """A negative weight or a temperature of NaN must be refused, not trained with."""
    for name, value in _parameters(method).items():
        if not _is_number(method, name, value):
            continue
        real = isinstance(value, float) or _takes(method, name, 0.5) or _takes(method, name, 1.5)
        for wrong in (math.nan, math.inf, -math.inf) if real else ():
            assert not _takes(method, name, wrong), f"'{name}' takes {wrong}"
        extremes = (-1e300, 1e300) if real else (-(10**9), 10**9)
        taken = [_takes(method, name, extreme) for extreme in extremes]
        assert not all(taken), f"'{name}' takes every number: bound it, as Positive, Weight, Fraction and Count do"


@check
def search_space(method: Method) -> None:
    """On the tuned track every method gets the same number of trials, from the space it declares."""
    defaults = dict(_defaults(method))
    for name, space in method.search_space.items():
        assert name in defaults, f"it has '{name}', which is no parameter of it"
        assert isinstance(space, Range | Choices), f"'{name}' must be a Range or Choices"
        default = defaults[name]
        assert default in space, f"the default of '{name}', {default}, lies outside of {space}"
        for value in space if isinstance(space, Choices) else (space.low, space.high):
            assert _takes(method, name, value), f"'{name}' does not take {value}, which its search space has"
            assert default is None or type(value) is type(default), (
                f"'{name}' has values of type {type(value).__name__}, its default is {type(default).__name__}"
            )
            assert not isinstance(value, float) or value == float(f"{value:.3g}"), f"'{name}': {value} is too precise"
    tunable = [name for name, default in defaults.items() if isinstance(default, float)]
    exempt = method.family in _NO_DISTILLATION or not tunable
    assert exempt or method.search_space, f"it has {', '.join(tunable)}, and no search space to tune them in"


@check
def known_needs(method: Method) -> None:
    """On a network without the tap a trial is skipped; a tap that no network has skips them all."""
    needs = method.needs
    assert isinstance(needs, Needs), "needs must be a Needs"
    try:
        construct(Needs, dataclasses.asdict(needs), where="needs")
    except BadInput as error:
        raise AssertionError(error.message) from error
    check_taps(needs)
    assert needs.students >= 1, "it trains no student"
    assert needs.teachers or not needs.teacher, "it asks for taps of a teacher, and for no teacher"
    assert needs.targets == "data" or needs.teachers, "it trains on its teacher's targets, and has no teacher"


CHECKS = (
    frozen_dataclass,
    known_family,
    documented,
    serialisable,
    typed_parameters,
    bounded_parameters,
    search_space,
    known_needs,
)


def _parameters(method: Method) -> dict[str, Any]:
    return {field.name: getattr(method, field.name) for field in dataclasses.fields(method) if field.init}


def _defaults(method: Method) -> Iterator[tuple[str, Any]]:
    """The class's own values; where a parameter has none, this method's."""
    for field in dataclasses.fields(method):
        made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        yield field.name, getattr(method, field.name) if made is dataclasses.MISSING else made


def _takes(method: Method, name: str, value: Any) -> bool:
    try:
        construct(type(method), {**_parameters(method), name: value}, where=type(method).__name__)
    except BadInput:
        return False
    return True


def _is_number(method: Method, name: str, value: Any) -> bool:
    if isinstance(value, bool) or _takes(method, name, object()):  # what takes anything is another check's
        return False
    return isinstance(value, int | float) or any(_takes(method, name, probe) for probe in (0.5, 1.5, 1, 2))
