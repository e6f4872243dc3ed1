"""Whatever stands in a suite file or after `--method`: a suite, or an error meant for people. Never a traceback."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from kdbench.errors import BadInput, SuiteError
from kdbench.suite import Suite
from kdbench.suite_file import packaged_suites, parse_suite, read_suite

QUICKSTART = packaged_suites()["quickstart"].read_text(encoding="utf-8")
CONTENT: dict[str, Any] = YAML(typ="safe", pure=True).load(QUICKSTART)

bounded = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

MARKS = st.text(alphabet="abk01_:-?,[]{}#&*!|>'\"%@`=. \t\n\\/~<e\x00\ufeffé", max_size=60)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "kd", "kd[temperature=2]", "kd[", "a b", "x@1.0", "1e-4", ".nan", "yes", "\t", "a: b"])
    | st.text(max_size=8)
)
KEYS = st.sampled_from(
    [*Suite.model_fields, "name", "epochs", "learning_rate", "teacher", "student", "<<", ""]
) | st.text(max_size=4)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)


def check(text: str) -> None:
    """Reads `text`; a suite must answer everything that it is asked, a refusal must name the file."""
    try:
        suite = parse_suite(text, "fuzz.yaml")
    except SuiteError as error:
        assert str(error).startswith("fuzz.yaml:")  # noqa: PT017 - most texts are refused, some are suites
        return
    assert len(suite.digest) == 64
    assert suite.id == f"{suite.name}@{suite.major}.{suite.minor}"
    assert suite.tasks
    assert suite.pairs
    assert suite.seeds
    assert any(control.name == "scratch" for control in suite.controls)
    assert suite.source == text


def places(content: Any) -> list[tuple[Any, Any]]:
    """Every (container, key or index) of a nested content."""
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [place for key, value in entries for place in ((content, key), *places(value))]


def as_yaml(content: Any) -> str:
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(content, stream)
    return stream.getvalue()


@given(st.text(max_size=200) | MARKS | MARKS.map(lambda text: f"suite: x@1.0\n{text}"))
@bounded
def test_arbitrary_text(text: str) -> None:
    check(text)


@given(st.integers(0, len(QUICKSTART)), st.integers(0, 40), MARKS)
@bounded
def test_a_suite_with_a_part_overwritten(start: int, length: int, inserted: str) -> None:
    check(QUICKSTART[:start] + inserted + QUICKSTART[start + length :])


@given(st.data())
@bounded
def test_a_suite_with_values_replaced_keys_added_and_dropped(data: st.DataObject) -> None:
    content = copy.deepcopy(CONTENT)
    for _ in range(data.draw(st.integers(1, 3), label="changes")):
        container, key = data.draw(st.sampled_from(places(content) or [(content, "suite")]), label="place")
        change = data.draw(st.sampled_from(["replace", "drop", "add"]), label="change")
        if change == "replace":
            container[key] = data.draw(VALUES, label="value")
        elif change == "drop" and key in (container if isinstance(container, dict) else range(len(container))):
            del container[key]
        elif isinstance(container, dict):
            container[data.draw(KEYS, label="key")] = data.draw(VALUES, label="value")
    check(as_yaml(content))


@given(st.dictionaries(KEYS, VALUES, max_size=5))
@bounded
def test_an_arbitrary_mapping(content: dict[str, Any]) -> None:
    check(as_yaml(content))


@given(content=st.binary(max_size=100) | st.binary(max_size=20).map(lambda inserted: inserted + QUICKSTART.encode()))
@bounded
def test_arbitrary_bytes(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "fuzz.yaml"
    path.write_bytes(content)
    try:
        suite = read_suite(path)
    except SuiteError as error:
        assert str(error).startswith(f"{path}:")  # noqa: PT017
    else:
        assert suite.path == path


@given(
    st.lists(
        st.sampled_from(["kd", "rkd[a=1]", "kd[published]", "scratch", "crd"]) | MARKS | st.text(max_size=9), max_size=4
    ),
    st.none() | st.integers(-3, 20),
)
@bounded
def test_arbitrary_overrides(methods: list[str], seeds: int | None) -> None:
    suite = parse_suite(QUICKSTART)
    try:
        changed = suite.with_overrides(methods, seeds)
    except BadInput:
        return
    names = [str(method) for method in (*changed.controls, *changed.methods)]
    assert len(set(names)) == len(names)
    assert changed.digest == suite.digest


@pytest.mark.parametrize(
    "mark", ["[", "{", "- ", "? ", "a: ", "'", '"', "&a ", "*a ", "|", "#", "\t", "\\", "!", "%", "-\n", "0"]
)
def test_long_repetitions_end_soon(mark: str) -> None:
    check(mark * 20_000)
    check(f"title: {mark * 20_000}\n")
