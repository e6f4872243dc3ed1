"""What `kdbench new` writes is formatted, keeps the contract, installs, and is ranked beside the built-ins."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import PathDistribution
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import get_args
from venv import EnvBuilder
from zipfile import Path as ZipPath

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from ruamel.yaml import YAML

from kdbench import Architecture, BadInput, Method, Task, __version__
from kdbench.hookspecs import API_VERSION
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


def ended(*command: str | Path, cwd: Path, python: Path | str = sys.executable) -> str:
    """The standard output of a Python module's command that must succeed; who runs the tests sets nothing for it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KDBENCH_", "PIP_", "PYTHON"))}
    result = subprocess.run(
        [python, "-m", *map(str, command)],
        cwd=cwd,
        env={**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def built(folder: Path, *sources: Path) -> list[Path]:
    """The wheels of some packages, built below `folder` without the network."""
    wheels = folder / "wheels"
    ended("pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", wheels, *sources, cwd=folder)
    return [next(wheels.glob(f"{source.name.replace('-', '_')}-*.whl")) for source in sources]


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """The Python of a new virtual environment that has what kdbench depends on, but not kdbench itself."""
    environment = tmp_path / "fresh"
    EnvBuilder(symlinks=True).create(environment)
    (packages,) = environment.glob("lib/python*/site-packages")
    for installed in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for each in Path(installed).iterdir():
            if "kdbench" not in each.name and each.name != "__pycache__":
                (packages / each.name).symlink_to(each)
    return environment / "bin" / "python"


@pytest.fixture
def kdbench_source(tmp_path: Path) -> Path:
    """A copy of what kdbench is built from: a build leaves files beside its source."""
    copy = tmp_path / "source" / "kdbench"
    for name in ("kdbench", "plugins", "suites"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


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
    assert "kdbench check my_method\nkdbench run quickstart --method my_method\n" in readme
    assert "plugins/README.md" in readme
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
    if kind != "method":
        assert parse_suite((folder / "suite.yaml").read_text(encoding="utf-8")).name == names.plugin


@every_start
def test_its_workflow_checks_and_publishes(kind: str, family: str, tmp_path: Path) -> None:
    names = Names.of(kind, f"sc-{family or kind}")
    write_package(names, tmp_path, family)
    github = tmp_path / names.distribution / ".github"
    workflow = YAML(typ="safe").load(github / "workflows" / "check.yml")
    check, publish = workflow["jobs"]["check"], workflow["jobs"]["publish"]
    commands = [step.get("run") for step in check["steps"]]
    assert {"pytest", "kdbench --strict plugins", "python -m build"} <= set(commands)
    assert (f"kdbench check {names.plugin}" in commands) == (kind == "method")
    # trusted publishing as PyPA's guide has it: a job of its own, the only one with a right to more than reading
    assert workflow["permissions"] == {"contents": "read"}
    assert "permissions" not in check
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["needs"] == "check"
    assert publish["if"] == "startsWith(github.ref, 'refs/tags/')"
    assert publish["environment"] == {"name": "pypi", "url": f"https://pypi.org/p/{names.distribution}"}
    actions = [step["uses"] for job in (check, publish) for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in actions)
    (updates,) = YAML(typ="safe").load(github / "dependabot.yml")["updates"]
    assert updates["package-ecosystem"] == "github-actions"


@pytest.mark.parametrize("family", STARTING_POINTS)
def test_the_method_keeps_the_contract(family: str, tmp_path: Path, load: Callable[[Path, Names], ModuleType]) -> None:
    names = Names.of("method", f"sc-{family}")
    write_package(names, tmp_path, family)
    module = load(tmp_path, names)
    assert module.kdbench_api == API_VERSION
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
    assert module.kdbench_api == API_VERSION
    path, _, class_name = getattr(module, f"kdbench_{kind}s")()[names.plugin].partition(":")
    assert issubclass(getattr(import_module(path), class_name), base)


# --- from nothing to a rank -----------------------------------------------------------------------------------------


@every_start
def test_its_wheel_holds_what_is_published(kind: str, family: str, tmp_path: Path) -> None:
    names = Names.of(kind, f"sc-{family or kind}")
    write_package(names, tmp_path, family)
    (wheel,) = built(tmp_path, tmp_path / names.distribution)
    distribution = PathDistribution(ZipPath(wheel, f"{names.module}-0.1.0.dist-info/"))
    assert {str(path) for path in distribution.files or () if ".dist-info" not in str(path)} == {
        f"{names.module}/__init__.py",
        f"{names.module}/{kind}.py",
    }
    (door,) = distribution.entry_points
    assert (door.group, door.name, door.value) == ("kdbench", names.plugin, names.module)
    requirements = [Requirement(line) for line in distribution.requires or ()]
    assert [each.specifier for each in requirements if each.name == "kdbench"] == [
        SpecifierSet(compatible_range(__version__))
    ]


def test_a_stranger_gets_from_nothing_to_a_rank(
    fresh: Path, kdbench_source: Path, tmp_path: Path, suite_text: Callable[..., str]
) -> None:
    """With wheels alone: kdbench's is installed, a package of each kind is begun with it, tested, built, installed
    beside it, found, checked, and ranked beside the built-ins in one small run."""

    def run(*command: str | Path) -> str:
        return ended(*command, cwd=tmp_path, python=fresh)

    install = ("pip", "install", "-q", "--no-index")  # what a wheel requires must be there already
    run(*install, *built(tmp_path, kdbench_source))
    code = Path(run("inspect", "--details", "kdbench").partition("Origin: ")[2].partition("\n")[0])
    assert code.is_relative_to(fresh.parents[1])
    run("kdbench", "new", "method", "sc-new-method", "--family", "feature")
    for kind in ("task", "architecture"):
        run("kdbench", "new", kind, f"sc-new-{kind}")
    packages = [tmp_path / f"kdbench-sc-new-{kind}" for kind in KINDS]
    run(*install, *built(tmp_path, *packages))

    found = json.loads(run("kdbench", "--strict", "plugins", "--json"))
    brought = {each["distribution"]: each for each in found["working"]}
    for kind in KINDS:
        assert brought[f"kdbench-sc-new-{kind}"][f"{kind}s"] == [f"sc_new_{kind}"]
    run("pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *(package / "tests" for package in packages))
    run("kdbench", "check", "sc_new_method")

    (tmp_path / "tiny.yaml").write_text(
        suite_text(
            tasks="'digits[train_examples=200]', sc_new_task",
            # the task's rows are no images, so it has a pair of its own; the other one is skipped on it
            student="'sc_new_architecture[width=0.5]'\n  - {teacher: conv1d, student: 'conv1d[width=0.25]'}",
            epochs="1",
        ),
        encoding="utf-8",
    )
    run("kdbench", "run", "./tiny.yaml", "--method", "kd", "--method", "sc_new_method")
    boards = json.loads(run("kdbench", "leaderboard", "--json"))["boards"]
    ranked = {(board["task"], row["method"]) for board in boards for row in board["rows"] if row["rank"]}
    tasks, methods = ("digits[train_examples=200]", "sc_new_task"), ("scratch", "kd", "sc_new_method")
    assert ranked == set(product(tasks, methods))
