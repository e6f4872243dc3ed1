"""`kdbench check`: whether installed methods keep the contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from kdbench.cli.console import err, out, print_raw
from kdbench.plugins import Registry, discover
from kdbench.spec import Spec

if TYPE_CHECKING:
    from kdbench.testing import Outcome

_WORDS = {"ok": "ok", "failed": "FAIL", "skipped": "skipped", "expected": "expected"}
_SIGNS = {"ok": "·", "failed": "**✗**", "skipped": "–", "expected": "(✗)"}
_FAILED = "bold dark_orange"


@dataclass(frozen=True)
class _Checked:
    """One method's outcomes; where there are none, `problem` says why."""

    outcomes: Sequence[Outcome]
    problem: str = ""

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    @property
    def passed(self) -> bool:
        return not (self.failed or self.problem)


def check(names: Sequence[str], markdown: bool) -> int:
    """Runs the conformance kit over methods as suites write them (all, where none is named); 1 where one fails.

    Raises:
        BadInput, UnknownName, BrokenPlugin: a name or a parameter is wrong, or the plugin does not load.
    """
    registry = discover()
    checked = {name: _checked(registry, name) for name in names or registry.plugins["method"]}
    if markdown:
        _print_matrix(checked)
    elif len(checked) == 1 and not (only := next(iter(checked.values()))).problem:
        _print_outcomes(only)
    else:
        _print_methods(checked)
    passed = sum(each.passed for each in checked.values())
    out.print(f"{passed} of {len(checked)} methods keep the contract", soft_wrap=True)
    return 0 if passed == len(checked) else 1


def list_checks() -> None:
    """Prints every check with its reason, and where they are explained."""
    from kdbench.testing import CHECKS

    table = _table()
    for each in CHECKS:
        table.add_row(each.name, Text(each.reason))
    out.print(table)
    print_raw(f"explained in {CHECKS[0].link.partition('#')[0]}\n")


def _checked(registry: Registry, name: str) -> _Checked:
    from kdbench.testing import run_checks

    method = registry.create("method", Spec.parse(name))
    with err.status(f"checking {name}"):
        try:
            return _Checked(run_checks(method))
        except AssertionError as error:
            return _Checked([], str(error))


def _print_outcomes(checked: _Checked) -> None:
    table = _table()
    for outcome in checked.outcomes:
        table.add_row(_word(outcome.status), outcome.check.name, Text(_line(outcome.message)))
    out.print(table)
    for outcome in checked.failed:
        print_raw(f"{outcome.check.name}: {outcome.check.link}\n")


def _print_methods(checked: Mapping[str, _Checked]) -> None:
    table = _table()
    for name, each in checked.items():
        table.add_row(_word("ok" if each.passed else "failed"), Text(name), Text(_summary(each)))
    out.print(table)


def _summary(checked: _Checked) -> str:
    """How many checks ended how; of those that failed the first, and the names of the others."""
    if checked.problem:
        return _line(checked.problem)
    if not checked.failed:
        counts = Counter(outcome.status for outcome in checked.outcomes)
        return ", ".join(
            f"{counts[status]} {_WORDS[status]}" for status in ("ok", "expected", "skipped") if counts[status]
        )
    first, *others = checked.failed
    more = f"; also {', '.join(outcome.check.name for outcome in others)}" if others else ""
    return f"{first.check.name}: {_line(first.message)}{more}"


def _print_matrix(checked: Mapping[str, _Checked]) -> None:
    """A markdown table of checks (rows) by methods (columns, numbered), and which method is which."""
    from kdbench.testing import CHECKS

    columns = [{outcome.check.name: _SIGNS[outcome.status] for outcome in each.outcomes} for each in checked.values()]
    rows = [["check", *map(str, range(1, len(columns) + 1))], ["---", *[":-:"] * len(columns)]]
    rows += [[each.name, *(column.get(each.name, "?") for column in columns)] for each in CHECKS]
    print_raw("".join(f"| {' | '.join(row)} |\n" for row in rows))
    methods = ", ".join(f"{number} {name}" for number, name in enumerate(checked, start=1))
    print_raw(
        f"\n{_SIGNS['failed']} fails, {_SIGNS['expected']} fails as declared, – has no meaning there. {methods}\n\n"
    )


def _table() -> Table:
    return Table(box=None, show_header=False, pad_edge=False)


def _word(status: str) -> Text:
    return Text(_WORDS[status], style=_FAILED if status == "failed" else "")


def _line(message: str) -> str:
    return " ".join(message.split())
