"""What a report says beside its figures, as tables: leaderboard, evidence, costs, failures, provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kdbench.analysis.board import Board, Leaderboard, Row
from kdbench.analysis.columns import MISSING, columns, detectable, magnitude, ratio, teacher_score
from kdbench.measuring.record import Record
from kdbench.report.figures.roles import role
from kdbench.report.table import Line, Table
from kdbench.store.run_folder import Manifest

_TEACHER = "teacher"


def leaderboard_table(board: Board) -> Table:
    """All columns, as in a terminal that is wide enough; the teacher first."""
    shown = columns(board)
    lines = [Line(tuple(column.cell(row) for column in shown), kind(row)) for row in board.rows]
    if board.teacher is not None:
        empty = ("",) * (len(shown) - 3)
        lines.insert(0, Line(("", _TEACHER, teacher_score(board), *empty), _TEACHER))
    return Table(tuple(column.title for column in shown), tuple(lines))


def legend(board: Board) -> list[tuple[str, str]]:
    """The headers that need a word of explanation, each with it."""
    return [(column.title, column.meaning) for column in columns(board) if column.meaning]


def kind(row: Row) -> str:
    """What a row is, where it is no distillation method."""
    return role(row).name if row.control or row.family == "compression" else ""


def evidence_table(board: Board) -> Table:
    """Every row's verdict with the sentence behind it, and what the run could have found; methods first."""
    rows = sorted(board.rows, key=lambda row: row.control)
    lines = [
        Line((row.label, row.verdict.label, row.verdict.evidence, _unbroken(detectable(row, board))), kind(row))
        for row in rows
    ]
    return Table(("method", "verdict", "evidence", "could find"), tuple(lines))


def _unbroken(text: str) -> str:
    """The same with spaces that no line ends at."""
    return text.replace(" ", "\u00a0")


def cost_table(board: Board) -> Table:
    """What training each row took, per seed; without what no row has."""
    said = {
        "training_flops": "FLOPs",
        "teacher_flops": "of them the teacher's",
        "tuning_flops": "of them for tuning",
        "training_seconds": "seconds, if alone",
        "teacher_seconds": "of them the teacher's",
        "shared_seconds": "seconds, as run",
        "tuning_seconds": "tuning seconds",
    }
    known = [name for name in said if any(name in row.means for row in board.rows)]
    lines = [
        Line(
            (
                row.label,
                *(magnitude(row.means.get(name)) for name in known),
                ratio(row.flops_ratio),
                ratio(row.seconds_ratio),
                _points_per_cost(row, board),
            ),
            kind(row),
        )
        for row in board.rows
        if row.done
    ]
    over = f"{board.baseline}'s"
    gained = "gain per 1× extra FLOPs"
    return Table(
        ("method", *(said[name] for name in known), f"FLOPs / {over}", f"seconds / {over}", gained), tuple(lines)
    )


def _points_per_cost(row: Row, board: Board) -> str:
    """The gain for each time the baseline's training FLOPs that were spent beyond it."""
    if row.difference is None or row.flops_ratio is None or row.flops_ratio < 1.005:
        return MISSING
    return f"{row.difference.estimate * board.scale.factor / (row.flops_ratio - 1):+.2g}"


def unfinished(records: Sequence[Record]) -> list[Record]:
    """The trials that were skipped, failed or diverged, one for each reason of a method on a task and pair."""
    found = {
        (record.task, record.pair, record.method, str(record.params), record.status, record.reason): record
        for record in reversed(records)
        if record.status != "done"
    }
    return list(found.values())[::-1]


def environment_tables(records: Sequence[Record]) -> list[Table]:
    """Each machine and set of versions that trials ran on; more than one is worth knowing."""
    seen: dict[str, Mapping[str, Any]] = {}
    for record in records:
        found = record.provenance.get("environment")
        if found:
            seen.setdefault(json.dumps(found, sort_keys=True), {**found, "machine": record.provenance.get("machine")})
    return [
        Table.of(("", ""), ((name.replace("_", " "), str(value)) for name, value in each.items() if value is not None))
        for each in seen.values()
    ]


def digest_table(manifest: Manifest, records: Sequence[Record]) -> Table:
    """SHA-256 of everything that determines the results; of plugins, with the distribution they came in."""
    lines = {("suite", manifest.suite, manifest.suite_digest): None}
    for record in records:
        source = record.provenance
        if "data" in source:
            lines["data of", record.task, str(source["data"])] = None
        if "engine" in source:
            lines["engine", "kdbench", str(source["engine"])] = None
        plugin = source.get("plugin") or {}
        if "source" in plugin:
            known = f"{record.method} ({plugin.get('distribution')} {plugin.get('version')})"
            lines["method", known, str(plugin["source"])] = None
    order = ("suite", "data of", "engine", "method")
    return Table.of(("", "name", "SHA-256"), sorted(lines, key=lambda line: (order.index(line[0]), line[1])))


def session_table(manifest: Manifest) -> Table:
    """The commands that worked on the run."""
    return Table.of(
        ("began (UTC)", "minutes", "peak memory"),
        (
            (
                session.started[:19].replace("T", " "),
                f"{session.seconds / 60:.1f}",
                f"{session.peak_memory_bytes / 2**20:.0f} MiB" if session.peak_memory_bytes else MISSING,
            )
            for session in manifest.sessions
        ),
    )


def counted(leaderboard: Leaderboard, records: Sequence[Record]) -> str:
    """`54 trials: 9 methods and controls, 3 seeds, 2 tasks`."""
    done = sum(record.status == "done" for record in records)
    methods = len({row.label for board in leaderboard.boards for row in board.rows})
    seeds = len({record.seed for record in records})
    boards = len(leaderboard.boards)
    finished = f"{len(records)} trials" if done == len(records) else f"{done} of {len(records)} trials finished"
    where = f", {boards} leaderboards" if boards > 1 else ""
    return f"{finished}: {methods} methods and controls, {seeds} seed{'s' if seeds != 1 else ''}{where}"
