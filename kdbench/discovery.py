"""Where plugins come from: installed distributions and folders of loose files, and which of them are wanted.

KDBENCH_PLUGINS         third-party distributions or entry points to use, with commas; empty: none; unset: all
KDBENCH_PLUGIN_DIR      folders of loose files, separated as in PATH (`--plugin-dir`)
KDBENCH_PLUGIN_TIMEOUT  seconds without a further import after which a plugin counts as hung; default: 10
KDBENCH_STRICT          1: a broken plugin is an error (`--strict`)
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec
from pathlib import Path

from kdbench.errors import BadInput, suggestion
from kdbench.hookspecs import PROJECT

PATIENCE = 10.0


@dataclass(frozen=True)
class Origin:
    """The installed distribution and module that a plugin comes from, or the loose `file`."""

    distribution: str
    version: str
    module: str
    file: Path | None = None

    def __str__(self) -> str:
        return str(self.file) if self.file else f"{self.distribution} {self.version}"

    @property
    def removal(self) -> str:
        """How to be rid of it."""
        if self.file:
            return f"move {self.file.name} out of {self.file.parent}, or leave out --plugin-dir"
        return f"pip uninstall {self.distribution}"


@dataclass(frozen=True)
class Selection:
    """Which plugins are wanted besides the built-ins: `only` some of those installed (None: all), and loose files."""

    only: frozenset[str] | None = None
    folders: tuple[Path, ...] = ()
    patience: float = PATIENCE
    strict: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Selection:
        """As the variables above say.

        Raises:
            BadInput: the time-out is no positive number.
        """
        written = environment.get("KDBENCH_PLUGINS")
        only = None if written is None else frozenset(filter(None, map(str.strip, written.split(","))))
        folders = filter(None, environment.get("KDBENCH_PLUGIN_DIR", "").split(os.pathsep))
        resolved = dict.fromkeys(Path(folder).expanduser().resolve() for folder in folders)
        strict = environment.get("KDBENCH_STRICT", "") not in ("", "0")
        return cls(only, tuple(resolved), _seconds(environment.get("KDBENCH_PLUGIN_TIMEOUT")), strict)


def _seconds(written: str | None) -> float:
    if not written:
        return PATIENCE
    try:
        seconds = float(written)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise BadInput(f"KDBENCH_PLUGIN_TIMEOUT={written!r:.80} is not a number of seconds", hint="e.g. 60")
    return seconds


def candidates(selection: Selection) -> list[tuple[Origin, EntryPoint]]:
    """Every plugin that is wanted, none imported yet: the built-ins first, the loose files last.

    Raises:
        BadInput: a name in KDBENCH_PLUGINS or a plugin folder is not there.
    """
    installed = [(_origin(entry), entry) for entry in entry_points(group=PROJECT)]
    installed.sort(key=lambda found: (found[0].distribution != PROJECT, found[0].distribution, found[1].name))
    return [*_restricted(installed, selection.only), *_loose(selection.folders)]


def _origin(entry: EntryPoint) -> Origin:
    try:
        name, version = (entry.dist.name, entry.dist.version) if entry.dist else (None, None)
    except Exception:  # no METADATA: importlib.metadata's error is not that of the backport, which takes its place
        name = version = None
    return Origin(name or "unknown", version or "0", entry.value)


def _restricted(
    installed: list[tuple[Origin, EntryPoint]], only: frozenset[str] | None
) -> list[tuple[Origin, EntryPoint]]:
    if only is None:
        return installed
    names = {_canonical(name) for origin, entry in installed for name in (origin.distribution, entry.name)}
    for name in sorted(only):
        if _canonical(name) not in names:
            raise BadInput(
                f"KDBENCH_PLUGINS names '{name}', and no such plugin is installed",
                hint=f"{suggestion(name, sorted(names))}\nKDBENCH_PLUGINS= leaves only the built-ins",
            )
    wanted = {PROJECT, *map(_canonical, only)}
    return [
        (origin, entry)
        for origin, entry in installed
        if not wanted.isdisjoint((_canonical(origin.distribution), _canonical(entry.name)))
    ]


def _canonical(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _loose(folders: tuple[Path, ...]) -> list[tuple[Origin, EntryPoint]]:
    """Every `*.py` of the folders, as if installed; those that begin with _ only serve their neighbours."""
    found = []
    packages: set[str] = set()
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(
                f"there is no folder {folder} to load plugins from", hint="see --plugin-dir and KDBENCH_PLUGIN_DIR"
            )
        package = _mounted(folder, packages)
        for file in sorted(folder.glob("[!_.]*.py")):
            module = f"{package}.{file.stem}"
            # the path is left out: the same file elsewhere is the same plugin, and its source counts by its digest
            found.append((Origin(file.name, "loose", module, file), EntryPoint(file.stem, module, PROJECT)))
    return found


def _mounted(folder: Path, taken: set[str]) -> str:
    """Makes the folder a package of its own, so that its files may import each other (`from ._layers import ...`) and
    none hides a module of the same name elsewhere."""
    name = base = "kdbench_loose_" + re.sub(r"\W", "_", folder.name)
    while name in taken:
        name = f"{base}_{len(taken) + 1}"
    taken.add(name)
    for module in [module for module in sys.modules if module.startswith(f"{name}.")]:
        del sys.modules[module]
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules[name] = module_from_spec(spec)
    return name
