"""Shipping: what other machines' kdbench may lack, in one folder for their import path: the plugins that are wanted
here, and the local modules that they import. What lies in site-packages besides, they must have themselves."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint
from pathlib import Path

from kdbench.discovery import Origin, Selection, candidates
from kdbench.hookspecs import PROJECT

_PACKAGE = "kdbench_shipped"  # holds the loose files, by which it finds them where it was unpacked
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_LEFT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*", "*.egg-info")


@dataclass(frozen=True)
class Shipment:
    """A folder that goes first on the import path elsewhere, and the value of KDBENCH_PLUGINS there; what is installed
    there besides is not for this run."""

    folder: Path
    plugins: str


def pack(selection: Selection, folder: Path) -> Shipment:
    """Fills `folder` with copies: installed plugins, editable ones too, with what makes them visible to discovery, and
    loose files.

    Raises:
        BadInput: the selection names what is not there.
    """
    wanted = candidates(selection)
    installed = [(origin, entry) for origin, entry in wanted if not origin.file and origin.distribution != PROJECT]
    own = {PROJECT, *(_top(entry.module) for origin, entry in wanted if origin.distribution == PROJECT)}
    package = folder / _PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('"""Loose plugin files of another machine."""\n', encoding="utf-8")
    for number, loose in enumerate(selection.folders):
        shutil.copytree(loose, package / f"{number:03}" / loose.name, ignore=_LEFT)
    for origin, entry in installed:
        _write_metadata(origin, entry, folder)
    modules = {name for _, entry in installed for name in _modules(entry)}
    _copy_modules(modules | _local_imports(package), folder, own)
    names = {origin.distribution for origin, _ in installed} if selection.only is None else selection.only
    return Shipment(folder, ",".join(sorted(names)))


def unpacked_folders() -> list[Path]:
    """The folders of loose plugin files that were shipped to this machine, in their order."""
    spec = importlib.util.find_spec(_PACKAGE)
    places = spec.submodule_search_locations if spec else None
    return sorted(folder for place in places or () for folder in Path(place).glob("[0-9][0-9][0-9]/*"))


def _write_metadata(origin: Origin, entry: EntryPoint, folder: Path) -> None:
    """What `importlib.metadata` reads: name, version and entry points of the distribution."""
    info = folder / f"{origin.distribution.replace('-', '_')}-{origin.version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(_text(entry, "METADATA") or _text(entry, "PKG-INFO"), encoding="utf-8")
    (info / "entry_points.txt").write_text(_text(entry, "entry_points.txt"), encoding="utf-8")


def _text(entry: EntryPoint, name: str) -> str:
    """A file of the distribution's metadata; empty where it has none."""
    return (entry.dist and entry.dist.read_text(name)) or ""


def _modules(entry: EntryPoint) -> Iterator[str]:
    """The top-level modules of a plugin's distribution; an editable one lists only that of the plugin, perhaps."""
    yield _importable(entry.module)
    yield from _text(entry, "top_level.txt").split()
    for file in (entry.dist and entry.dist.files) or ():
        if file.suffix == ".py" and not file.parts[0].startswith(("..", "__editable__")):
            yield file.parts[0].removesuffix(".py")


def _importable(module: str) -> str:
    """The module itself, or the outermost package above it that is no namespace shared with others."""
    parts = module.split(".")
    names = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return next((name for name in names if (spec := _spec(name)) and spec.origin), module)


def _copy_modules(names: Iterable[str], folder: Path, own: Iterable[str]) -> None:
    """Copies modules, and then the local ones that they import."""
    waiting, seen = set(names), set(own)
    while waiting:
        name = waiting.pop()
        spec = _spec(name)
        if name not in seen and spec is not None and spec.origin:
            waiting |= _local_imports(_copy(name, spec, folder))
        seen.add(name)
        waiting -= seen


def _copy(name: str, spec: ModuleSpec, folder: Path) -> Path:
    source = Path(str(spec.origin))
    target = folder.joinpath(*name.split("."))
    if spec.submodule_search_locations:
        shutil.copytree(source.parent, target, ignore=_LEFT, dirs_exist_ok=True)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(source, target.parent / source.name))


def _local_imports(copied: Path) -> set[str]:
    """The modules that the files of a copy may import, and that come neither with Python nor from a folder that
    packages are installed in."""
    return {name for name in set(_imported(copied)) - sys.stdlib_module_names if _is_local(name)}


def _imported(copied: Path) -> Iterator[str]:
    """By their outermost package."""
    for file in [copied] if copied.is_file() else copied.rglob("*.py"):
        if file.suffix != ".py":
            continue
        with suppress(SyntaxError, ValueError):  # discovery says so, here and there
            for node in ast.walk(ast.parse(file.read_bytes())):
                if isinstance(node, ast.Import):
                    yield from (_top(alias.name) for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    yield _top(node.module)


def _is_local(name: str) -> bool:
    spec = _spec(name)
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        return False
    return _INSTALLED.isdisjoint(Path(spec.origin).parts)


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):  # of a parent that does not import, or of __main__
        return None


def _top(module: str) -> str:
    return module.partition(".")[0]
