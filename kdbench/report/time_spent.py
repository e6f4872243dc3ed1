"""Where a run's time went, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from kdbench.profiling import Profile

# How a trial's own time divides, in the order of a step; in loops of their own, methods ask the networks themselves.
_OF_STUDENTS = {
    "student": "forward",
    "own loop": "forward",
    "losses": "losses",
    "backward": "backward",
    "optimiser": "update",
    "evaluation": "evaluation",
    "measuring": "measuring",
}


def phases_table(profile: Profile) -> Table:
    """Seconds, share and number of entries of every phase, the longest first, and the rest of the run."""
    seconds: dict[str, float] = {}
    entered: dict[str, int] = {}
    for (phase, _), spent in profile.spent.items():
        seconds[phase] = seconds.get(phase, 0.0) + spent.seconds
        entered[phase] = entered.get(phase, 0) + spent.entered
    table = _table("Where the time went")
    for name, side in (("phase", "left"), ("seconds", "right"), ("%", "right"), ("times", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    whole = profile.seconds
    for phase in sorted(seconds, key=seconds.__getitem__, reverse=True):
        table.add_row(phase, f"{seconds[phase]:.2f}", _percent(seconds[phase], whole), f"{entered[phase]:,}")
    rest = max(0.0, whole - sum(seconds.values()))
    table.add_row("everything else", f"{rest:.2f}", _percent(rest, whole), "")
    table.add_section()
    table.add_row("the whole run", f"{whole:.2f}", "100.0", "")
    return table


def methods_table(profile: Profile) -> Table:
    """Seconds of every method's networks, teachers in training as "teacher", the longest first."""
    rows: dict[str, dict[str, float]] = {}
    for (phase, of), spent in profile.spent.items():
        if phase in _OF_STUDENTS:
            row, column = rows.setdefault(of, {}), _OF_STUDENTS[phase]
            row[column] = row.get(column, 0.0) + spent.seconds
    phases = list(dict.fromkeys(_OF_STUDENTS.values()))
    table = _table("Seconds by method")
    table.add_column("method")
    for phase in (*phases, "in all"):
        table.add_column(phase, justify="right")
    for method in sorted(rows, key=lambda name: _total(rows[name]), reverse=True):
        cells = (f"{rows[method].get(phase, 0.0):.2f}" for phase in phases)
        table.add_row(method, *cells, f"{_total(rows[method]):.2f}")
    return table


def _table(title: str) -> Table:
    justified = {"title_justify": "left", "title_style": "bold"}
    return Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), title=title, **justified)  # type: ignore[arg-type]


def _total(row: Mapping[str, float]) -> float:
    return sum(row.values())


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}"
