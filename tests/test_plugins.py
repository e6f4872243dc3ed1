"""Discovery: the built-ins come through the strangers' door, and a broken plugin harms nobody else."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from kdbench.errors import BadInput, BrokenPlugin, UnknownName
from kdbench.plugins import Origin, Registry, collect, discover
from kdbench.spec import Spec

GOOD = """
from dataclasses import dataclass
from kdbench import Method, hookimpl

@dataclass(frozen=True)
class Mine(Method):
    '''Mine alone.'''
    weight: float = 1.0

@hookimpl
def kdbench_methods():
    return {"mine": Mine}
"""
BROKEN = {
    "does not import": ("import nothing_of_this_name", "ModuleNotFoundError"),
    "syntax error": ("def (:", "SyntaxError"),
    "exits at import": ("raise SystemExit(3)", "SystemExit"),
    "misspelt hook": (
        "from kdbench import hookimpl\n@hookimpl\ndef kdbench_method():\n    return {}",
        "kdbench_method",
    ),
    "raising hook": (
        "from kdbench import hookimpl\n@hookimpl\ndef kdbench_tasks():\n    raise RuntimeError('no')",
        "no",
    ),
    "wrong answer": (
        "from kdbench import hookimpl\n@hookimpl\ndef kdbench_tasks():\n    return ['a']",
        "not a mapping",
    ),
    "name clash": (GOOD.replace('"mine"', '"kd"'), "already the name"),
}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs loose modules as plugins beside the built-ins."""
    monkeypatch.syspath_prepend(tmp_path)

    def installed(**sources: str) -> Registry:
        found = [(Origin("kdbench", "0", "kdbench_plugins"), EntryPoint("builtin", "kdbench_plugins", "kdbench"))]
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)
            found.append((Origin(f"kdbench-{name}", "1.2", name), EntryPoint(name, name, "kdbench")))
        return collect(found)

    before = set(sys.modules)
    yield installed
    for name in set(sys.modules) - before:
        if name.startswith("plugin_"):
            del sys.modules[name]


def test_builtins_come_through_the_entry_point() -> None:
    registry = discover()
    assert {"kd", "scratch"} <= set(registry.plugins["method"])
    assert "digits" in registry.plugins["task"]
    assert "resnet20" in registry.plugins["architecture"]
    assert registry.plugins["method"]["kd"].origin.distribution == "kdbench"


def test_a_stranger_is_found_and_built(install) -> None:
    registry = install(plugin_good=GOOD)
    assert not registry.broken
    method = registry.create("method", Spec.parse("mine[weight=2]"))
    assert method.weight == 2.0


@pytest.mark.parametrize("case", BROKEN, ids=str)
def test_a_broken_plugin_is_kept_apart(install, case: str) -> None:
    source, expected = BROKEN[case]
    registry = install(plugin_good=GOOD, plugin_bad=source)
    (broken,) = registry.broken
    assert (broken.origin.distribution, broken.origin.version) == ("kdbench-plugin_bad", "1.2")
    assert expected in broken.error
    assert registry.create("method", Spec("mine")) is not None
    assert registry.plugins["method"]["kd"].origin.distribution == "kdbench"


def test_a_lazy_target_fails_only_when_asked_for(install) -> None:
    source = "from kdbench import hookimpl\n@hookimpl\ndef kdbench_methods():\n    return {'lazy': 'nowhere.at_all:X'}"
    registry = install(plugin_lazy=source)
    assert not registry.broken
    with pytest.raises(BrokenPlugin, match=r"method 'lazy' of kdbench-plugin_lazy 1\.2 .*ModuleNotFoundError"):
        registry.create("method", Spec("lazy"))


def test_a_class_of_another_kind_is_refused(install) -> None:
    source = "from kdbench import hookimpl\n@hookimpl\ndef kdbench_methods():\n    return {'odd': int}"
    with pytest.raises(BrokenPlugin, match="not a dataclass derived from Method"):
        install(plugin_odd=source).create("method", Spec("odd"))


def test_unknown_names_get_a_suggestion_and_name_broken_plugins(install) -> None:
    registry = install(plugin_bad="import nothing_of_this_name")
    with pytest.raises(UnknownName) as caught:
        registry.create("method", Spec("fitnet"))
    assert caught.value.message == "unknown method 'fitnet'"
    assert "'fitnets'" in str(caught.value.hint)
    assert "kdbench-plugin_bad 1.2" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("kd[temprature=2]", "has no parameter 'temprature'"),
        ("kd[temperature=hot]", "temperature='hot'"),
        ("kd[temperature=nan]", "temperature='nan'"),
        ("kd[temperature=-1]", "greater than 0"),
        ("kd[oddity]", "'oddity' is not key=value"),
    ],
)
def test_bad_parameters_are_refused_before_anything_runs(spec: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        discover().create("method", Spec.parse(spec))
    assert message in caught.value.message


def test_a_preset_cannot_be_overridden() -> None:
    with pytest.raises(BadInput, match="already fixes 'depth'"):
        discover().create("architecture", Spec.parse("resnet20[depth=8]"))


def test_provenance_changes_with_the_source(install, tmp_path: Path) -> None:
    registry = install(plugin_good=GOOD)
    from kdbench.provenance import source_digest

    first = registry.provenance("method", "mine")
    (tmp_path / "plugin_good.py").write_text(GOOD + "\n# a comment alone changes nothing\n")
    source_digest.cache_clear()
    assert registry.provenance("method", "mine") == first
    (tmp_path / "plugin_good.py").write_text(GOOD.replace("1.0", "1.5"))
    source_digest.cache_clear()
    assert registry.provenance("method", "mine")["source"] != first["source"]
