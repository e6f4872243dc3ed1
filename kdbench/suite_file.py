"""Suite files: found by name or path, read, and told apart from files that cannot be one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kdbench.errors import BadInput, SuiteError, UnknownName, suggestion
from kdbench.recipe import Pair, Recipe, TeacherRecipe
from kdbench.suite import LANGUAGE, Suite
from kdbench.yaml_source import Key, Source, parse_yaml, read_yaml

_SECTIONS: dict[str, type[BaseModel]] = {"recipe": Recipe, "teacher_recipe": TeacherRecipe, "pairs": Pair}


@dataclass(frozen=True)
class SuiteSummary:
    """One packaged suite, as listings show it; `pairs` and `methods` (controls not among them) are counts."""

    name: str
    id: str
    title: str
    path: Path
    tasks: tuple[str, ...]
    pairs: int
    methods: int


def load_suite(reference: str | Path) -> Suite:
    """The suite at a path, or the packaged one of that name: `NAME`, `NAME@MAJOR` or `NAME@MAJOR.MINOR`.

    Text with a separator, ending in .yaml or .yml, or naming a file here, is a path; packaged names come first.

    Raises:
        UnknownName: no packaged suite bears the name.
        BadInput: the packaged suite has another major version, or an older minor one.
        SuiteError: the file cannot be read as a suite; one line per problem, each with file, line and key.
    """
    name, _, version = str(reference).partition("@")
    packaged = packaged_suites()
    if (
        isinstance(reference, Path)
        or _looks_like_path(reference)
        or (name not in packaged and os.path.exists(reference))
    ):
        return read_suite(Path(reference))
    if name not in packaged:
        raise UnknownName("suite", name, packaged)
    suite = read_suite(packaged[name])
    if version:
        _check_version(suite, str(reference), version)
    return suite


def list_suites() -> tuple[SuiteSummary, ...]:
    """The packaged suites, by name."""
    suites = [(path, read_suite(path)) for path in packaged_suites().values()]
    return tuple(
        SuiteSummary(
            name=suite.name,
            id=suite.id,
            title=suite.title,
            path=path,
            tasks=tuple(str(task) for task in suite.tasks),
            pairs=len(suite.pairs),
            methods=len(suite.methods),
        )
        for path, suite in suites
    )


def packaged_suites() -> dict[str, Path]:
    """The files of the suites that come with kdbench, by name."""
    folder = Path(str(resources.files("kdbench_suites")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_suite(path: Path) -> Suite:
    """The suite in the file at `path`.

    Raises:
        SuiteError: see `load_suite`.
    """
    return _suite(read_yaml(path), path)


def parse_suite(text: str, name: str = "suite") -> Suite:
    """The suite written in `text`; `name` stands for the file in messages.

    Raises:
        SuiteError: see `load_suite`.
    """
    return _suite(parse_yaml(text, name), None)


def _suite(source: Source, path: Path | None) -> Suite:
    # First and alone: in a file for another version, every other complaint would be noise.
    version = source.data.get("kdbench", LANGUAGE)
    if type(version) is not int or version != LANGUAGE:
        problem = f"this kdbench reads suites of version {LANGUAGE}, not {version!r:.60}"
        raise SuiteError(source.at(("kdbench",), problem))
    try:
        return Suite.from_file(source, path)
    except ValidationError as error:
        raise SuiteError(_message(source, error.errors())) from error


def _looks_like_path(reference: str) -> bool:
    separators = [separator for separator in (os.sep, os.altsep) if separator]
    return any(separator in reference for separator in separators) or reference.endswith((".yaml", ".yml"))


def _check_version(suite: Suite, asked: str, version: str) -> None:
    try:
        numbers = [int(part) for part in version.split(".")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 2:
        raise BadInput(f"cannot read the version of '{asked}'", hint=f"write {suite.name}@{suite.major}.{suite.minor}")
    if numbers[0] != suite.major or numbers[1:] > [suite.minor]:
        raise BadInput(f"there is no {asked} here", hint=f"this kdbench brings {suite.id}")


def _message(source: Source, errors: Iterable[ErrorDetails]) -> str:
    news = [error for error in errors if _is_news(source, error)]
    problems = sorted({(source.line(error["loc"]), _problem(source, error)) for error in news})
    lines = [text for _, text in problems]
    return "\n".join([f"{source.name}: {len(lines)} problems", *lines] if len(lines) > 1 else lines)


def _is_news(source: Source, error: ErrorDetails) -> bool:
    """False for what follows from another problem: keys that a recipe inherits, lists short of bad entries."""
    key = error["loc"]
    recipe = key[:1] == ("teacher_recipe",) or (
        key[:1] == ("pairs",) and key[2:3] in (("recipe",), ("teacher_recipe",))
    )
    inherited = recipe and key not in source.lines
    return not inherited and not (error["type"] == "too_short" and error["input"])


def _problem(source: Source, error: ErrorDetails) -> str:
    key: Key = error["loc"]
    return source.at(key, _plain_words(error["type"], error["input"], error.get("ctx", {}), key) or error["msg"])


def _plain_words(kind: str, given: Any, limits: dict[str, Any], key: Key) -> str:
    not_given = ", but is empty" if given is None else f", not {given!r:.60}"
    match kind:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            section = next((_SECTIONS[str(part)] for part in reversed(key[:-1]) if str(part) in _SECTIONS), Suite)
            return f"unknown key; {suggestion(str(key[-1]), section.model_fields)}"
        case "literal_error":
            return f"must be {limits['expected']}{not_given}"
        case "int_type" | "int_from_float":
            return f"must be a whole number{not_given}"
        case "float_type":
            return f"must be a number{not_given}"
        case "finite_number":
            return f"must be a finite number{not_given}"
        case "bool_type":
            return f"must be true or false{not_given}"
        case "string_type":
            return f"must be text{not_given}"
        case "tuple_type":
            return f"must be a list{not_given}"
        case "model_type" | "dict_type":
            return f"must be a mapping ('key: value' lines){not_given}"
        case "too_short":
            return "must have at least one entry"
        case "greater_than":
            return f"must be greater than {limits['gt']:g}{not_given}"
        case "greater_than_equal":
            return f"must be at least {limits['ge']:g}{not_given}"
        case "less_than":
            return f"must be less than {limits['lt']:g}{not_given}"
        case "less_than_equal":
            return f"must be at most {limits['le']:g}{not_given}"
    return ""
