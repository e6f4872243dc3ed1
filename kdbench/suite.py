"""Suite: what is crossed with what, under which recipe."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import (
    BaseModel,
    BeforeValidator,
    PlainValidator,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from kdbench.errors import BadInput, SuiteError
from kdbench.recipe import Pair, Recipe, TeacherRecipe
from kdbench.spec import Spec
from kdbench.suite_fields import Listed, PluginSpec, Section, canonical, invalid
from kdbench.yaml_source import Source

LANGUAGE: Final = 1

# Every verdict is a paired difference to the student trained alone, so the protocol runs it in every suite.
BASELINE_CONTROL = "scratch"

PUBLISHED = "published"
MAX_SEEDS = 10_000

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*@(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")
# They change no number, so they may be reworded within a version.
_PROSE = {"title", "question", "departures"}


def _read_seeds(written: Any) -> Any:
    if isinstance(written, int) and not isinstance(written, bool):
        if not 1 <= written <= MAX_SEEDS:
            raise invalid(f"must be 1 to {MAX_SEEDS} seeds, not {written}")
        return tuple(range(written))
    if not isinstance(written, (list, tuple)):
        raise invalid(f"must be a number of seeds or a list of them, not {written!r:.60}")
    return tuple(written)


def _read_margin(written: Any) -> Any:
    """A number, or numbers by name."""
    for margin in written.values() if isinstance(written, Mapping) else [written]:
        if isinstance(margin, bool) or not isinstance(margin, int | float):
            raise invalid(f"must be a number, or one for each metric, not {margin!r:.60}")
        if not 0 < margin < math.inf:
            raise invalid(f"must be greater than 0, not {margin}")
    return (
        {str(metric): float(margin) for metric, margin in written.items()} if isinstance(written, Mapping) else written
    )


class Suite(Section):
    """One experiment: tasks x pairs x (controls + methods) x seeds, under one recipe.

    Attributes:
        suite: `name@major.minor`; results of different majors are never put in one table.
        kdbench: the version of the suite language.
        title: what leaderboards and reports are headed with.
        question: what the verdict answers.
        tasks: what is learnt.
        pairs: who learns from whom.
        train_fractions: the parts of the training examples on which everything is run, stratified and, of a seed,
            nested. Teacher and student see the same part, for as many steps as of the whole.
        controls: methods that always run, whatever `--method` asks for; the baseline is always among them.
        add_controls: whether the controls that apply to the methods, by family, are run even where none lists them.
        methods: what is compared; `--method` replaces them.
        seeds: each fixes the student's initial weights, the batch order, the augmentation and (`teachers:
            per-seed`) the teacher. A number N stands for 0 to N-1.
        teachers: whether each seed has a teacher of its own, or all have that of seed 0.
        recipe: how students are trained.
        teacher_recipe: how teachers are trained: `recipe`, with the keys that the file overrides.
        validation_fraction: the part of the training examples kept apart, where the task brings no validation split.
        selection_epochs: among how many epochs, evenly spread, the secondary columns choose the best.
        equivalence_margin: the smallest effect of interest in the unit of the primary metric: one number, or one by
            the metric's name where tasks have different ones; none: half a point of a share, and a hundredth of the
            baseline's score of any other metric.
        departures: where the suite departs from the protocol; reports print them.
    """

    suite: str
    kdbench: Literal[1] = LANGUAGE
    title: str = ""
    question: str = "Does knowledge distillation really work here?"
    tasks: Annotated[Listed[PluginSpec], MinLen(1)]
    pairs: Annotated[Listed[Pair], MinLen(1)]
    train_fractions: Annotated[Listed[Annotated[float, Gt(0), Le(1)]], MinLen(1)] = (1.0,)
    controls: Listed[PluginSpec] = (Spec(BASELINE_CONTROL),)
    add_controls: bool = True
    methods: Listed[PluginSpec] = ()
    seeds: Annotated[Listed[Annotated[int, Ge(0), Lt(2**32)]], MinLen(1), BeforeValidator(_read_seeds)] = (0, 1, 2)
    teachers: Literal["per-seed", "fixed"] = "per-seed"
    recipe: Recipe
    teacher_recipe: TeacherRecipe
    validation_fraction: Annotated[float, Gt(0), Lt(0.5)] = 0.1
    selection_epochs: Annotated[int, Ge(0)] = 10
    equivalence_margin: Annotated[float | dict[str, float] | None, PlainValidator(_read_margin)] = None
    departures: Listed[str] = ()

    _source: Source | None = PrivateAttr(None)
    _path: Path | None = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    def _complete_recipes(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "recipe" not in data:
            return data
        recipe, overrides = data["recipe"], data.get("teacher_recipe", {})
        recipe = recipe.model_dump() if isinstance(recipe, Recipe) else recipe
        if not isinstance(recipe, Mapping) or not isinstance(overrides, Mapping):
            return data
        pairs = data.get("pairs")
        if isinstance(pairs, (list, tuple)):
            pairs = [_with_recipes(pair, recipe, overrides) for pair in pairs]
        return {**data, "pairs": pairs, "teacher_recipe": {**recipe, **overrides}}

    @field_validator("suite")
    @classmethod
    def _has_version(cls, suite: str) -> str:
        if not _ID.fullmatch(suite):
            raise invalid(f"must be name@major.minor, e.g. quickstart@1.0, not {suite!r:.60}")
        return suite

    @field_validator("tasks", "methods", "controls", "seeds", "pairs", "train_fractions")
    @classmethod
    def _are_distinct(cls, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        seen: set[str] = set()
        for text in map(canonical, entries):
            if text in seen:
                raise invalid(f"lists '{text}' twice")
            seen.add(text)
        return entries

    @field_validator("pairs")
    @classmethod
    def _are_for_tasks_of_the_suite(cls, pairs: tuple[Pair, ...], info: ValidationInfo) -> tuple[Pair, ...]:
        tasks = [canonical(task) for task in info.data.get("tasks", ())]
        for pair in pairs:
            for task in pair.tasks:
                if tasks and task not in tasks:
                    raise invalid(f"{pair} is for the task '{task}', which the suite does not list")
        return pairs

    @field_validator("controls")
    @classmethod
    def _include_baseline(cls, controls: tuple[Spec, ...]) -> tuple[Spec, ...]:
        has_baseline = any(control.name == BASELINE_CONTROL for control in controls)
        return controls if has_baseline else (Spec(BASELINE_CONTROL), *controls)

    @field_validator("methods")
    @classmethod
    def _are_no_controls(cls, methods: tuple[Spec, ...], info: ValidationInfo) -> tuple[Spec, ...]:
        controls = {canonical(control) for control in info.data.get("controls", ())}
        for method in methods:
            if canonical(method) in controls:
                raise invalid(f"'{method}' is a control already; list it once")
        return methods

    @classmethod
    def from_file(cls, source: Source, path: Path | None) -> Suite:
        """The suite that a parsed file describes.

        Raises:
            pydantic.ValidationError: it describes none.
        """
        suite = cls.model_validate(source.data)
        suite._source, suite._path = source, path
        return suite

    def located(self, spec: Spec, problem: BadInput) -> BadInput:
        """`problem`, with the line and key that ask for `spec`; as it is where the file does not (a command line's)."""
        key = self._source.find(lambda value: _asks_for(value, spec)) if self._source else None
        if self._source is None or key is None:
            return problem
        return SuiteError(self._source.at(key, problem.message), hint=problem.hint)

    @property
    def id(self) -> str:
        """`name@major.minor`."""
        return self.suite

    @property
    def name(self) -> str:
        """The part of `suite` before the '@'."""
        return self.suite.partition("@")[0]

    @property
    def major(self) -> int:
        """Changes when results stop being comparable."""
        return int(self.suite.partition("@")[2].split(".")[0])

    @property
    def minor(self) -> int:
        """Changes when something is added that leaves results comparable."""
        return int(self.suite.partition("@")[2].split(".")[1])

    @property
    def source(self) -> str:
        """The file as written, comments included; empty for a suite built in Python."""
        return self._source.text if self._source else ""

    @property
    def path(self) -> Path | None:
        """The file it was read from."""
        return self._path

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what the numbers depend on; methods and seeds may be added, and prose reworded, under it."""
        fields = type(self).model_fields.keys() - _PROSE - {"methods", "seeds"}
        resolved = {name: _jsonable(getattr(self, name)) for name in fields}
        return hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()

    def with_overrides(self, methods: Sequence[str] = (), seeds: int | None = None) -> Suite:
        """This suite with other methods (`--method`, if any) or the seeds 0..N-1 (`--seeds N`); the controls stay.

        `NAME` takes the suite's configuration of that method (each, if it lists several), `NAME[key=value]` changes
        these keys of it, and `NAME[published,...]` starts from the plugin's own defaults instead. A method that the
        controls already run is not run twice.

        Raises:
            BadInput: text that is no spec, another flag, the same method twice, or fewer than one seed.
        """
        changes: dict[str, Any] = {}
        if methods:
            changes["methods"] = self._resolve(methods)
        if seeds is not None:
            if not 1 <= seeds <= MAX_SEEDS:
                raise BadInput(f"--seeds {seeds}: must be 1 to {MAX_SEEDS}")
            changes["seeds"] = tuple(range(seeds))
        return self.model_copy(update=changes)

    def _resolve(self, asked: Sequence[str]) -> tuple[Spec, ...]:
        controls = {canonical(control) for control in self.controls}
        resolved: dict[str, Spec] = {}
        for text in asked:
            for method in self._configurations(Spec.parse(text)):
                key = canonical(method)
                if key in resolved:
                    raise BadInput(f"--method {text}: '{method}' is asked for twice")
                resolved[key] = method
        return tuple(method for key, method in resolved.items() if key not in controls)

    def _configurations(self, asked: Spec) -> list[Spec]:
        unknown = [flag for flag in asked.flags if flag != PUBLISHED]
        if unknown:
            raise BadInput(
                f"--method {asked}: unknown flag '{unknown[0]}'",
                hint=f"parameters are written key=value; the only flag is '{PUBLISHED}'",
            )
        listed = [method for method in (*self.methods, *self.controls) if method.name == asked.name]
        if PUBLISHED in asked.flags or not listed:
            listed = [Spec(asked.name)]
        changed = [Spec(asked.name, {**method.params, **asked.params}) for method in listed]
        return list({canonical(method): method for method in changed}.values())


def _with_recipes(pair: Any, recipe: Mapping[str, Any], overrides: Mapping[str, Any]) -> Any:
    """A pair as written, its recipes completed by the suite's; `overrides`: what the suite's `teacher_recipe` says."""
    if not isinstance(pair, Mapping) or not {"recipe", "teacher_recipe"} & pair.keys():
        return pair
    own, taught = pair.get("recipe", {}), pair.get("teacher_recipe", {})
    if not isinstance(own, Mapping) or not isinstance(taught, Mapping):
        return pair
    return {**pair, "recipe": {**recipe, **own}, "teacher_recipe": {**recipe, **overrides, **own, **taught}}


def _asks_for(written: Any, spec: Spec) -> bool:
    try:
        return canonical(Spec.parse(written)) == canonical(spec)
    except BadInput:
        return False


def _jsonable(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return canonical(value) if isinstance(value, Spec) else value
