"""The page of a published leaderboard: what was asked, what came out, where it was run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdbench.analysis.board import Board, Leaderboard
from kdbench.analysis.claims import Claim
from kdbench.analysis.columns import detectable
from kdbench.analysis.headline import headline
from kdbench.analysis.tables import pipes, to_markdown
from kdbench.measuring.record import Record
from kdbench.store.run_folder import Manifest


def publication(
    manifest: Manifest, leaderboard: Leaderboard, records: Sequence[Record], claims: Sequence[Claim]
) -> str:
    """A run as a Markdown page: answer, leaderboards, evidence, claims, what could not run, samples, the machine."""
    sections = [
        f"# {manifest.title or manifest.suite}",
        f"Suite `{manifest.suite}` (`suite.yaml` and the whole report, `report.html`, beside this page), "
        f"{_counted(records)}; {manifest.track}. Written by `kdbench publish`.",
        f"**{headline(leaderboard)}**".replace("\n", "**\n\n**"),
        "## Leaderboard",
        to_markdown(leaderboard),
        "## Evidence",
        *(_evidence(board, len(leaderboard.boards) > 1) for board in leaderboard.boards),
    ]
    table = pipes(["claim", "answer", "evidence"], [[each.claim, each.answer, each.evidence[0]] for each in claims])
    sections += ["## What is claimed of distillation", table]
    if manifest.departures:
        sections += ["## Departures from the protocol", _bullets(manifest.departures)]
    if missing := _without_result(records):
        sections += ["## Without a result", _bullets(missing)]
    if samples := _samples(records):
        sections += ["## Samples", *samples]
    sections += ["## Where and how long", _bullets(_circumstances(manifest, records))]
    return "\n\n".join(sections) + "\n"


def _evidence(board: Board, named: bool) -> str:
    lines = [[row.label, row.verdict.label, row.verdict.evidence, detectable(row, board)] for row in board.rows]
    table = pipes(["method", "verdict", "evidence", "could find (80 % power)"], lines)
    return f"**{board.task}: {board.pair}**\n\n{table}" if named else table


def _counted(records: Sequence[Record]) -> str:
    seeds = sorted({record.seed for record in records})
    methods = {(record.method, str(record.params)) for record in records}
    return f"{len(records)} trials: {len(methods)} methods and controls, seeds {', '.join(map(str, seeds))}"


def _without_result(records: Sequence[Record]) -> list[str]:
    """Methods that were skipped, failed or diverged on a task, each with its reason, once."""
    return list(
        dict.fromkeys(
            f"{record.method} on {record.task}, {record.pair}: {record.status}, {record.reason}"
            for record in records
            if record.status != "done"
        )
    )


def _samples(records: Sequence[Record]) -> list[str]:
    """What the first two methods of each task that gave samples answered, on the first seed of each."""
    found: dict[str, list[Record]] = {}
    for record in records:
        chosen = found.setdefault(record.task, [])
        if record.samples and len(chosen) < 2 and record.method not in {each.method for each in chosen}:
            chosen.append(record)
    return [
        f"{record.task}, {record.method}, seed {record.seed}:\n\n" + "\n\n".join(map(_quoted, record.samples))
        for chosen in found.values()
        for record in chosen
    ]


def _quoted(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _circumstances(manifest: Manifest, records: Sequence[Record]) -> list[str]:
    environments: list[Mapping[str, Any]] = []
    for record in records:
        seen = record.provenance.get("environment", {})
        if seen and seen not in environments:
            environments.append(seen)
    lines = [", ".join(f"{name} {value}" for name, value in each.items() if value is not None) for each in environments]
    if manifest.sessions:
        seconds = sum(session.seconds for session in manifest.sessions)
        commands = f"{len(manifest.sessions)} commands" if len(manifest.sessions) > 1 else "one command"
        lines.append(f"{seconds / 60:.1f} minutes in {commands}, teachers that had to be trained included")
        if peaks := [session.peak_memory_bytes for session in manifest.sessions if session.peak_memory_bytes]:
            lines.append(f"peak memory of the process: {max(peaks) / 2**20:.0f} MiB")
    finished = [record.provenance["finished"] for record in records if "finished" in record.provenance]
    return [*lines, *([f"finished {max(finished)[:10]}"] if finished else [])]


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"* {line}" for line in lines)
