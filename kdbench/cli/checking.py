"""`kdbench check`: whether installed methods keep the contract."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from kdbench.cli.console import out
from kdbench.plugins import Registry, discover
from kdbench.spec import Spec


def check(names: Sequence[str]) -> int:
    """Runs the conformance kit over methods as suites write them (all, where none is named); 1 where one fails.

    Raises:
        BadInput, UnknownName, BrokenPlugin: a name or a parameter is wrong, or the plugin does not load.
    """
    registry = discover()
    asked = list(names) or list(registry.plugins["method"])
    problems = {name: _problem(registry, Spec.parse(name)) for name in asked}
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, problem in problems.items():
        word = Text("FAIL", style="bold dark_orange") if problem else Text("ok")
        table.add_row(word, Text(name), Text(problem))
    out.print(table)
    failed = sum(map(bool, problems.values()))
    out.print(f"{len(asked) - failed} of {len(asked)} methods keep the contract", soft_wrap=True)
    return 1 if failed else 0


def _problem(registry: Registry, spec: Spec) -> str:
    """What is wrong with a method, in one line; empty where nothing is."""
    from kdbench.testing import check_method

    method = registry.create("method", spec)
    try:
        check_method(method)
    except Exception as error:  # whatever a stranger's code raises is its own failure
        return f"{type(error).__name__}: {error}".removeprefix("AssertionError: ").splitlines()[0]
    return ""
