"""What `kdbench new` writes is formatted, keeps the contract, installs, and is ranked beside the built-ins."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
from packaging.specifiers import SpecifierSet
from ruamel.yaml import YAML

from kdbench import Architecture, BadInput, Method, Task, __version__
from kdbench.method import Family
from kdbench.plugins import KINDS, Origin, Plugin, Registry
from kdbench.scaffold.naming import Names
from kdbench.scaffold.package import STARTING_POINTS, compatible_range, write_package
from kdbench.suite_file import parse_suite
from kdbench.testing import check_method

ROOT = Path(__file__).parent.parent
TEMPLATES = ROOT / "kdbench" / "scaffold" / "templates"
STARTS = [*(("method", family) for family in STARTING_POINTS), ("task", ""), ("architecture", "")]
every_start = pytest.mark.parametrize(("kind", "family"), STARTS, ids=lambda value: value or "-")

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path, Names], ModuleType]]:
    """Imports the module of a written package from its source folder, and forgets it afterwards."""
    before = set(sys.modules)

    def imported(parent: Path, names: Names) -> ModuleType:
        monkeypatch.syspath_prepend(parent / names.distribution / "src")
        return import_module(names.module)

    yield imported
    for name in [name for name in sys.modules if name not in before and name.startswith("kdbench_")]:
        del sys.modules[name]


def ended(*command: str | Path, cwd: Path, **environment: str) -> str:
    """The standard output of a command that must succeed."""
    result = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=cwd,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "plugin", "class_name"),
    [
        ("my-method", "my_method", "MyMethod"),
        ("my_method", "my_method", "MyMethod"),
        ("My.Method", "my_method", "MyMethod"),
        ("my--method", "my_method", "MyMethod"),
        ("kdbench-my-method", "my_method", "MyMethod"),
        ("kdbench_DKD2", "dkd2", "DKD2"),
        ("range", "range", "RangeMethod"),
        ("none", "none", "NoneMethod"),
    ],
)
def test_names_are_normalised(written: str, plugin: str, class_name: str) -> None:
    names = Names.of("method", written)
    assert (names.plugin, names.class_name) == (plugin, class_name)
    assert names.distribution == f"kdbench-{plugin.replace('_', '-')}"
    assert names.module == f"kdbench_{plugin}"
    assert names.module.isidentifier()
    assert names.class_name.isidentifier()


@pytest.mark.parametrize("written", ["", "kdbench-", "2fast", "-x", "x-", "a b", "über", "a/b", "..", "x[y]", "x" * 33])
def test_names_that_nothing_can_bear_are_refused(written: str, kdbench: Command, tmp_path: Path) -> None:
    status, _, message = kdbench("new", "task", "--dir", str(tmp_path), "--", written)
    assert status == 2
    assert "a task cannot be called" in message
    assert "my-method" in message
    assert not list(tmp_path.iterdir())


def test_a_plugin_of_the_same_name_is_told_apart_by_who_brings_it(kdbench: Command, tmp_path: Path) -> None:
    status, _, message = kdbench("new", "method", "KD", "--dir", str(tmp_path))
    assert status == 2
    assert f"method 'kd' is already the name of one by kdbench {__version__}" in message
    assert "kdbench list methods" in message
    registry = Registry()
    registry.plugins["task"]["mine"] = Plugin("task", "mine", Task, Origin("kdbench-stranger", "1.2", "stranger"))
    with pytest.raises(BadInput, match=r"kdbench-stranger 1\.2"):
        Names.of("task", "mine").check_free(registry)
    Names.of("method", "mine").check_free(registry)


def test_a_module_that_is_installed_is_not_shadowed(kdbench: Command, tmp_path: Path) -> None:
    status, _, message = kdbench("new", "method", "plugins", "--dir", str(tmp_path))
    assert status == 2
    assert "a module 'kdbench_plugins' is installed already" in message


# --- what is written ------------------------------------------------------------------------------------------------


def test_every_template_is_used() -> None:
    assert set(STARTING_POINTS) == set(get_args(Family)) - {"control", "compression"}
    methods = {path.name for path in (TEMPLATES / "method").iterdir()}
    assert methods == {"tests.py.j2", *(f"{family}.py.j2" for family in STARTING_POINTS)}
    assert {path.name for path in TEMPLATES.iterdir()} == {"package", *KINDS}


def test_the_command_says_what_it_wrote_and_what_to_do_next(kdbench: Command, tmp_path: Path) -> None:
    parent = tmp_path / "new" / "place"
    status, said, _ = kdbench("new", "method", "my-method", "--family", "relation", "--dir", str(parent))
    assert status == 0
    for line in ("pip install -e '.[test]'", "pytest", "kdbench run quickstart --method my_method"):
        assert line in said.splitlines()
    assert (parent / "kdbench-my-method" / "src" / "kdbench_my_method" / "method.py").exists()
    readme = (parent / "kdbench-my-method" / "README.md").read_text(encoding="utf-8")
    assert "kdbench run quickstart --method my_method\n" in readme
    assert "@misc{my_method,\n" in readme
    assert "badge.svg" in readme


def test_nothing_is_overwritten(kdbench: Command, tmp_path: Path) -> None:
    kept = tmp_path / "kdbench-mine" / "kept"
    kept.parent.mkdir()
    kept.touch()
    status, _, message = kdbench("new", "method", "mine", "--dir", str(tmp_path))
    assert status == 2
    assert "kdbench-mine exists already; nothing was written" in message
    assert "--dir" in message
    assert list(kept.parent.iterdir()) == [kept]
    status, _, message = kdbench("new", "method", "mine", "--dir", str(kept))
    assert status == 2
    assert str(kept) in message


def test_a_family_that_is_none_is_refused(kdbench: Command, tmp_path: Path) -> None:
    status, _, message = kdbench("new", "method", "mine", "--family", "relations", "--dir", str(tmp_path))
    assert status == 2
    assert "unknown family 'relations'" in message
    assert "did you mean 'relation'?" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("version", "inside", "outside"),
    [("0.1.0", "0.1.9", "0.2.0"), ("0.9.3", "0.9.4", "0.9.2"), ("1.4.2", "1.20.0", "2.0.0"), ("2.0.0", "2.0.0", "3.0")],
)
def test_the_range_of_versions_follows_semantic_versioning(version: str, inside: str, outside: str) -> None:
    allowed = SpecifierSet(compatible_range(version))
    assert version in allowed
    assert inside in allowed
    assert outside not in allowed


@every_start
@pytest.mark.parametrize("name", ["sc-x", "s" + "c" * 31])
def test_it_is_formatted_and_linted(kind: str, family: str, name: str, tmp_path: Path) -> None:
    names = Names.of(kind, name)
    write_package(names, tmp_path, family)
    folder = tmp_path / names.distribution
    ended("ruff", "check", "--no-cache", ".", cwd=folder)
    ended("ruff", "format", "--check", "--no-cache", ".", cwd=folder)


@every_start
def test_its_files_say_what_they_must(kind: str, family: str, tmp_path: Path) -> None:
    names = Names.of(kind, f"sc-{family or kind}")
    written = write_package(names, tmp_path, family)
    folder = tmp_path / names.distribution
    assert {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} == set(written)
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == names.distribution
    assert project["dependencies"] == [f"kdbench{compatible_range(__version__)}"]
    assert project["entry-points"] == {"kdbench": {names.plugin: names.module}}
    assert "test" in project["optional-dependencies"]
    workflow = YAML(typ="safe").load(folder / ".github" / "workflows" / "check.yml")
    assert workflow["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert workflow["jobs"]["publish"]["needs"] == "check"
    if kind != "method":
        assert parse_suite((folder / "suite.yaml").read_text(encoding="utf-8")).name == names.plugin


@pytest.mark.parametrize("family", STARTING_POINTS)
def test_the_method_keeps_the_contract(family: str, tmp_path: Path, load: Callable[[Path, Names], ModuleType]) -> None:
    names = Names.of("method", f"sc-{family}")
    write_package(names, tmp_path, family)
    module = load(tmp_path, names)
    path, _, class_name = module.kdbench_methods()[names.plugin].partition(":")
    cls = getattr(import_module(path), class_name)
    assert issubclass(cls, Method)
    assert cls.family == family
    assert set(cls.search_space) <= set(cls.__dataclass_fields__)
    assert re.search(r"equation", cls.__doc__)
    assert cls.paper.partition(",")[0] in cls.__doc__
    assert len(Path(import_module(path).__file__).read_text(encoding="utf-8").splitlines()) < 60
    check_method(cls())


@pytest.mark.parametrize(("kind", "base"), [("task", Task), ("architecture", Architecture)])
def test_tasks_and_architectures_are_found_by_their_names(
    kind: str, base: type, tmp_path: Path, load: Callable[[Path, Names], ModuleType]
) -> None:
    names = Names.of(kind, f"sc-{kind}")
    write_package(names, tmp_path)
    module = load(tmp_path, names)
    path, _, class_name = getattr(module, f"kdbench_{kind}s")()[names.plugin].partition(":")
    assert issubclass(getattr(import_module(path), class_name), base)


# --- from nothing to a rank -----------------------------------------------------------------------------------------


def test_it_installs_passes_its_tests_and_is_ranked(
    kdbench: Command, tmp_path: Path, suite_text: Callable[..., str]
) -> None:
    """One package of each kind, as wheels installed beside kdbench: seen, tested, and ranked in one small run."""
    packages = [tmp_path / f"kdbench-sc-new-{kind}" for kind in KINDS]
    for kind in KINDS:
        assert kdbench("new", kind, f"sc-new-{kind}", "--dir", str(tmp_path))[0] == 0
    wheels, installed = tmp_path / "wheels", tmp_path / "installed"
    ended("pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", wheels, *packages, cwd=tmp_path)
    built = sorted(wheels.glob("*.whl"))
    assert len(built) == len(packages)
    ended("pip", "install", "-q", "--no-deps", "--no-index", "--target", installed, *built, cwd=tmp_path)

    found = json.loads(ended("kdbench", "plugins", "--json", cwd=tmp_path, PYTHONPATH=str(installed)))
    brought = {each["distribution"]: each for each in found["working"]}
    for kind in KINDS:
        assert brought[f"kdbench-sc-new-{kind}"][f"{kind}s"] == [f"sc_new_{kind}"]

    tests = [package / "tests" for package in packages]
    ended("pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *tests, cwd=tmp_path, PYTHONPATH=str(installed))

    (tmp_path / "tiny.yaml").write_text(
        suite_text(
            tasks="'digits[train_examples=200]', sc_new_task",
            # the task's rows are no images, so it has a pair of its own; the other one is skipped on it
            student="'sc_new_architecture[width=0.5]'\n  - {teacher: conv1d, student: 'conv1d[width=0.25]'}",
        ),
        encoding="utf-8",
    )
    arguments = ("./tiny.yaml", "--method", "sc_new_method", "--seeds", "1", "--out", "results")
    ended("kdbench", "run", *arguments, cwd=tmp_path, PYTHONPATH=str(installed))
    boards = ended("kdbench", "leaderboard", "--json", "--out", "results", cwd=tmp_path, PYTHONPATH=str(installed))
    ranked = {
        board["task"]
        for board in json.loads(boards)["boards"]
        for row in board["rows"]
        if row["method"] == "sc_new_method" and row["rank"]
    }
    assert ranked == {"digits[train_examples=200]", "sc_new_task"}
