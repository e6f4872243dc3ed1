"""Parameters of plugins: typed, within their ranges, and refused in one sentence otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.errors import BadInput
from kdbench.hyperparameters import Count, Fraction, Positive, Weight, construct, values


@dataclass(frozen=True)
class Example:
    temperature: Positive = 4.0
    hard_weight: Weight = 0.1
    smoothing: Fraction = 0.1
    generations: Count = 1
    shift: float = 0.0
    detach: bool = False
    stages: Literal["two", "joint"] = "two"
    path: str = ""
    limit: float | None = None
    layers: tuple[int, ...] = ()
    hidden: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.temperature == 13:
            raise ValueError("13 is unlucky")


@dataclass(frozen=True)
class Required:
    path: str


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("temperature", "2", 2.0),
        ("temperature", "1e-4", 1e-4),
        ("temperature", 2, 2.0),
        ("hard_weight", "0", 0.0),
        ("smoothing", 1, 1.0),
        ("generations", "3", 3),
        ("shift", "-1.5", -1.5),
        ("detach", "true", True),
        ("detach", "False", False),
        ("detach", True, True),
        ("stages", "joint", "joint"),
        ("path", "12", "12"),
        ("limit", None, None),
        ("limit", "3", 3.0),
        ("layers", [1, 2], (1, 2)),
    ],
)
def test_values_take_the_type_of_their_field(key: str, given: Any, expected: Any) -> None:
    value = getattr(construct(Example, {key: given}, "method 'x'"), key)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("key", "given", "problem"),
    [
        ("temperature", 0, "input should be greater than 0"),
        ("temperature", "-1", "input should be greater than 0"),
        ("temperature", "hot", "input should be a valid number, unable to parse string as a number"),
        ("temperature", math.nan, "input should be a finite number"),
        ("temperature", "nan", "input should be a finite number"),
        ("shift", "inf", "input should be a finite number"),
        ("shift", -math.inf, "input should be a finite number"),
        ("shift", True, "input should be a valid number"),
        ("hard_weight", -0.1, "input should be greater than or equal to 0"),
        ("smoothing", 1.1, "input should be less than or equal to 1"),
        ("generations", 0, "input should be greater than or equal to 1"),
        ("generations", "2.5", "input should be a valid integer, unable to parse string as an integer"),
        ("generations", 2.5, "input should be a valid integer"),
        ("generations", True, "input should be a valid integer"),
        ("detach", "maybe", "input should be a valid boolean, unable to interpret input"),
        ("detach", 1, "input should be a valid boolean"),
        ("stages", "three", "input should be 'two' or 'joint'"),
        ("path", 12, "input should be a valid string"),
        ("layers", ["x"], "input should be a valid integer, unable to parse string as an integer"),
    ],
)
def test_other_values_are_refused(key: str, given: Any, problem: str) -> None:
    with pytest.raises(BadInput) as caught:
        construct(Example, {key: given}, "method 'x'")
    assert str(caught.value) == f"method 'x': {key}={given!r}: {problem}"


def test_unknown_keys_come_with_the_nearest() -> None:
    with pytest.raises(BadInput) as caught:
        construct(Example, {"temprature": 2}, "method 'x'")
    assert str(caught.value) == "method 'x' has no parameter 'temprature'\ndid you mean 'temperature'?"
    with pytest.raises(
        BadInput, match="no parameter 'hidden'\nchoices: detach, generations, hard_weight, layers, limit, "
    ):
        construct(Example, {"hidden": 2}, "method 'x'")


def test_what_the_plugin_itself_refuses_is_bad_input() -> None:
    with pytest.raises(BadInput, match=r"^method 'x': 13 is unlucky$"):
        construct(Example, {"temperature": 13}, "method 'x'")
    with pytest.raises(BadInput, match=r"^task 'y': .*missing.*'path'"):
        construct(Required, {}, "task 'y'")


def test_resolved_values_are_what_json_holds() -> None:
    assert values(construct(Example, {"layers": [1, 2], "temperature": "2"}, "x")) == {
        "temperature": 2.0,
        "hard_weight": 0.1,
        "smoothing": 0.1,
        "generations": 1,
        "shift": 0.0,
        "detach": False,
        "stages": "two",
        "path": "",
        "limit": None,
        "layers": [1, 2],
        "hidden": 0,
    }


@given(
    st.sampled_from(["temperature", "generations", "detach", "stages", "limit", "layers", "other"]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()) | st.binary(),
)
@settings(deadline=None)
def test_anything_else_is_bad_input(key: str, value: Any) -> None:
    try:
        example = construct(Example, {key: value}, "x")
    except BadInput:
        return
    assert math.isfinite(example.temperature)
    assert example.temperature > 0
    assert example.generations >= 1
