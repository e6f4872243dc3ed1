"""Typed, checked construction of plugins: their dataclass fields are their parameters.

What a parameter may be is stated in its annotation, so that a bad value is refused before anything is trained; what is
worth trying, which is less, in `Method.search_space`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

from annotated_types import Ge, Gt, Le

from kdbench.errors import BadInput, suggestion

Positive = Annotated[float, Gt(0)]
Weight = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(1)]

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included: whole ones where both are ints; `log`: orders of magnitude are
    equally likely."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"{self}: low must be below high, and above 0 where log is true")

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


class Choices(tuple[Any, ...]):
    """Some values: `Choices("two", "joint")`; texts, numbers, truth values or None."""

    def __new__(cls, *values: Any) -> Choices:
        return super().__new__(cls, values)


SearchSpace = Mapping[str, Range | Choices]


def construct(cls: type[T], params: Mapping[str, Any], where: str) -> T:
    """An instance of the plugin dataclass `cls`, every parameter checked against its annotation.

    Strings are converted ("4" to 4.0 for a float); NaN and infinity are refused. `where` begins each message.

    Raises:
        BadInput: an unknown key, a value of the wrong type or out of range, or one the plugin itself refuses.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    fields = {field.name for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    hints = get_type_hints(cls, include_extras=True)
    values = {}
    for key, value in params.items():
        if key not in fields:
            raise BadInput(f"{where} has no parameter '{key}'", hint=suggestion(key, sorted(fields)))
        adapter: TypeAdapter[Any] = TypeAdapter(hints[key], config=ConfigDict(allow_inf_nan=False))
        try:
            # Only text and lists are converted: `true` is no number, and 1 no truth value.
            values[key] = adapter.validate_python(value, strict=not isinstance(value, (str, list)))
        except ValidationError as error:
            raise BadInput(f"{where}: {key}={value!r}: {error.errors()[0]['msg'].lower()}") from error
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{where}: {error}") from error


def values(plugin: Any) -> dict[str, Any]:
    """The resolved parameters of a plugin instance, as JSON can hold them."""
    from pydantic_core import to_jsonable_python

    return {field.name: to_jsonable_python(getattr(plugin, field.name)) for field in dataclasses.fields(plugin)}
