"""Writes the package of a new plugin from the templates beside this file."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import kdbench
from kdbench.errors import BadInput, UnknownName
from kdbench.hookspecs import API_VERSION
from kdbench.method import FAMILIES
from kdbench.scaffold.naming import Names

# Controls and compressions belong to the benchmark, not to those who are ranked by it.
STARTING_POINTS = tuple(family for family in FAMILIES if family not in ("control", "compression"))


def write_package(names: Names, parent: Path, family: str = "") -> dict[Path, str]:
    """Writes a folder named after the distribution below `parent`, and tells what is in it, by path within.

    `family`: of a method, whose first loss it is given; "" for tasks and architectures.

    Raises:
        UnknownName: there is no such family to begin with.
        BadInput: the folder exists, or cannot be written; nothing was overwritten.
    """
    if names.kind == "method" and family not in STARTING_POINTS:
        raise UnknownName("family", family, STARTING_POINTS)
    files = _render(names, family)
    folder = parent / names.distribution
    try:
        folder.mkdir(parents=True)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content, encoding="utf-8")
    except OSError as error:
        if error.errno == errno.EEXIST:
            raise BadInput(
                f"{error.filename} exists already; nothing was written",
                hint="choose another name, or another place with --dir",
            ) from error
        raise BadInput(f"cannot write {folder}: {error.strerror or error}", hint="choose a place with --dir") from error
    return files


def compatible_range(version: str) -> str:
    """The versions of kdbench that a plugin written for `version` runs on, by semantic versioning: before 1.0 a minor
    release may break it, from then on a major one."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return f">={version},<{f'0.{minor + 1}' if major == 0 else major + 1}"


def _render(names: Names, family: str) -> dict[Path, str]:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("kdbench.scaffold"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values: Mapping[str, Any] = {
        "names": names,
        "family": family,
        "compatible": compatible_range(kdbench.__version__),
        "api_version": API_VERSION,
        "year": date.today().year,
    }
    return {
        Path(path): environment.get_template(f"{template}.j2").render(values)
        for path, template in _layout(names, family).items()
    }


def _layout(names: Names, family: str) -> dict[str, str]:
    """The template of every file, by its path: what is to be edited first comes first."""
    kind = names.kind
    return {
        f"src/{names.module}/{kind}.py": f"{kind}/{family or kind}.py",
        f"src/{names.module}/__init__.py": "package/init.py",
        f"tests/test_{names.plugin}.py": f"{kind}/tests.py",
        **({} if family else {"suite.yaml": f"{kind}/suite.yaml"}),
        "README.md": "package/README.md",
        "pyproject.toml": "package/pyproject.toml",
        "LICENSE": "package/LICENSE",
        ".gitignore": "package/gitignore",
        ".github/workflows/check.yml": "package/check.yml",
        ".github/dependabot.yml": "package/dependabot.yml",
    }
