"""What the entries of a suite file may be, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf
from pydantic_core import PydanticCustomError

from kdbench.errors import BadInput
from kdbench.spec import Spec

T = TypeVar("T")
Listed = Annotated[tuple[T, ...], Field(strict=False)]


def canonical(entry: Any) -> str:
    """One text for all spellings of the same thing: parameters in order of their names."""
    return str(Spec(entry.name, dict(sorted(entry.params.items())))) if isinstance(entry, Spec) else str(entry)


def invalid(message: str) -> PydanticCustomError:
    """The error of a value that cannot be meant, in words of our own."""
    return PydanticCustomError("suite", "{message}", {"message": message})


def read_spec(written: Any) -> Spec:
    """A plugin as a suite names it: NAME, NAME[key=value], or a mapping."""
    if isinstance(written, Spec):
        return written
    try:
        spec = Spec.parse(written)
    except BadInput as error:
        raise invalid(str(error).replace("\n", "; ")) from error
    if spec.flags:
        raise invalid(f"cannot read '{spec.flags[0]}' in '{spec}'; write key=value in the brackets")
    return spec


def read_names(written: Any) -> Any:
    """A list of names, where one alone will do."""
    return (written,) if isinstance(written, (str, Mapping)) else written


PluginSpec = Annotated[InstanceOf[Spec], BeforeValidator(read_spec)]
# A spec kept as its canonical text: records and leaderboards show it.
PluginName = Annotated[str, BeforeValidator(lambda written: canonical(read_spec(written)))]


class Section(BaseModel):
    """A mapping of a suite file: unknown keys, and values of other types, are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
