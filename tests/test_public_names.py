"""What plugins are written against, pinned: to change a line here is to change the contract (see `API_VERSION`)."""

from __future__ import annotations

import inspect

import kdbench
from kdbench import hookspecs

PUBLIC = [
    "ALL",
    "Answers",
    "Architecture",
    "BadInput",
    "Batch",
    "Choices",
    "Count",
    "Data",
    "DataFile",
    "DataFolders",
    "DataSpec",
    "Family",
    "Fraction",
    "IGNORED",
    "LoadedSplit",
    "Loop",
    "Method",
    "Metric",
    "MissingData",
    "MissingExtra",
    "NO_TEACHER",
    "Needs",
    "NotApplicable",
    "OwnLoop",
    "Positive",
    "Range",
    "Split",
    "Step",
    "Tap",
    "Task",
    "TensorSplit",
    "Weight",
    "__version__",
    "common_positions",
    "full_precision",
    "hookimpl",
    "share",
    "soft_loss",
    "stage_taps",
]
# The version of the hooks, and each hook with its parameters.
HOOKS = {1: {"kdbench_methods": [], "kdbench_tasks": [], "kdbench_architectures": []}}


def test_the_public_names() -> None:
    assert kdbench.__all__ == PUBLIC


def test_every_public_name_leads_somewhere() -> None:
    for name in PUBLIC:
        assert getattr(kdbench, name) is not None, name


def test_the_hooks_and_their_version() -> None:
    marked = vars(hookspecs).values()
    specs = [found for found in marked if hasattr(found, f"{hookspecs.PROJECT}_spec")]
    found = {spec.__name__: list(inspect.signature(spec).parameters) for spec in specs}
    assert {hookspecs.API_VERSION: found} == HOOKS
    assert all(spec.__doc__ for spec in specs)
