"""Digests of source code and of configurations: what a result depends on, besides data and seeds."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

_ENGINE = (
    "losses.py",
    "method.py",
    "own_loop.py",
    "networks.py",
    "flops.py",
    "task.py",
    "splits.py",
    "metrics.py",
    "augmentation.py",
    "plan.py",
    "planner.py",
    "training/*.py",
    "measuring/*.py",
)


def digest(value: Any) -> str:
    """SHA-256 of a JSON-able value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


@cache
def engine_digest() -> str:
    """SHA-256 of the core's source that can change a number: any edit of it, comments aside, makes results new."""
    root = Path(__file__).parent
    files = sorted(path for pattern in _ENGINE for path in root.glob(pattern))
    return digest([[path.relative_to(root).as_posix(), _normalised(path)] for path in files])


@cache
def source_digest(module: str) -> str:
    """SHA-256 of a module's source and of the modules of its own package that it imports, comments aside."""
    found: dict[str, str] = {}
    _follow(module, found)
    return digest(found)


def _follow(module: str, found: dict[str, str]) -> None:
    spec = importlib.util.find_spec(module)
    if module in found or spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return
    path = Path(spec.origin)
    found[module] = _normalised(path)
    package = module if spec.submodule_search_locations else module.rpartition(".")[0]
    top = module.partition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for name in _imported(node, package):
            # to look for a stranger's module would import the packages above it
            if name.partition(".")[0] == top and _exists(name):
                _follow(name, found)


def _imported(node: ast.AST, package: str) -> list[str]:
    """What a statement may import, by absolute name; of `from a import b`, b may be a module or a name in a."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = importlib.util.resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module
    return [str(base), *(f"{base}.{alias.name}" for alias in node.names)]


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _normalised(path: Path) -> str:
    return ast.unparse(ast.parse(path.read_text(encoding="utf-8")))
