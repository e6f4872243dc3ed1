"""`kdbench doctor`: what this machine has, and what is missing."""

from __future__ import annotations

import importlib.util
import os

from rich.table import Table
from rich.text import Text

from kdbench.cli.console import out, print_json
from kdbench.cli.data import data_states
from kdbench.data import DataFolders
from kdbench.plugins import Registry, discover


def show_doctor(as_json: bool) -> None:
    """Prints versions, devices, threads, plugins and data folders, each with what to do where something lacks."""
    facts = _facts()
    if as_json:
        print_json(facts)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, Text("\n".join(map(str, value)) if isinstance(value, list) else str(value)))
    out.print(table)


def _facts() -> dict[str, object]:
    import torch

    from kdbench import torchvision_ops
    from kdbench.measuring.environment import environment

    torchvision_ops.ensure()
    registry = discover()
    facts: dict[str, object] = dict(environment("cuda" if torch.cuda.is_available() else "cpu"))
    facts["devices"] = [name for name, there in _devices().items() if there]
    facts["torchvision operators"] = _torchvision_operators()
    facts["plugins"] = [str(origin) for origin in registry.origins]
    facts["broken plugins"] = [f"{broken.origin}: {broken.error}" for broken in registry.broken] or "none"
    facts["data folders"] = _data_folders()
    facts["data sets"] = _data_sets(registry)
    facts["missing"] = _missing() or "nothing"
    return facts


def _torchvision_operators() -> str:
    from importlib.util import find_spec

    from kdbench.torchvision_ops import native_library_loads

    found = find_spec("torchvision")
    if found is None or not found.submodule_search_locations:
        return "torchvision is not installed"
    whole = native_library_loads(found.submodule_search_locations[0])
    return "native" if whole else "not built for this torch; replaced where kdbench needs them"


def _devices() -> dict[str, bool]:
    import torch

    return {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


def _data_folders() -> list[str]:
    folders = DataFolders.from_environment()
    lines = [f"{folder} ({'there' if folder.is_dir() else 'absent'})" for folder in folders.search]
    if not os.environ.get("KDBENCH_DATA"):
        lines.append("set KDBENCH_DATA to folders that hold your data sets; others are downloaded to the last one")
    return lines


def _data_sets(registry: Registry) -> list[str]:
    states = data_states(registry, DataFolders.from_environment())
    return [f"{each.task}: {each.where}" for each in states if each.state != "none"]


def _missing() -> list[str]:
    wanted = ("mlflow", "fvcore", "torchmetrics", "torchvision")
    return [f"{name}: pip install {name}" for name in wanted if importlib.util.find_spec(name) is None]
