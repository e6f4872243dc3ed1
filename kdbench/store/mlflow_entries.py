"""What should stand in MLflow for a run of kdbench: plain values, computed from records, without mlflow."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from kdbench.measuring.record import Record
from kdbench.store.run_folder import Manifest

if TYPE_CHECKING:
    import pandas as pd

PARAM_LIMIT, TAG_LIMIT, NAME_LIMIT = 6000, 8000, 250
TABLE_FILE = "leaderboard-table.json"

_STATUS = {"done": "FINISHED", "failed": "FAILED", "diverged": "FAILED", "skipped": "KILLED"}
# Tableau's ten, without its grey: that one is the controls'.
_COLOURS = ("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f")
_CONTROL_COLOURS = ("#7f7f7f", "#a6a6a6", "#595959", "#c4c4c4")


@dataclass(frozen=True)
class MethodRun:
    """One method on one task and pair, as a row of the run table.

    Attributes:
        label: what tells it from the others in its row's name, e.g. "kd" or "kd[temperature=2]".
        metrics: aggregates rounded for people, in the order of the columns. The table is sorted by the first one
            that is not "rank"; "gain_pp" is the one charted. Aggregates that are unknown are left out.
        tags: short texts, in the order of the columns, e.g. acc="74.47 ± 0.50", verdict="works".
        fingerprints: of its trials, those not yet run included.
    """

    label: str
    method: str
    task: str
    pair: str
    params: Mapping[str, Any]
    family: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    fingerprints: tuple[str, ...]

    @property
    def key(self) -> str:
        """What it is recognised by from one sync to the next."""
        return f"method|{self.task}|{self.pair}|{self.label}"


class Point(NamedTuple):
    """One logged value; `time` in milliseconds since 1970."""

    name: str
    value: float
    time: int
    step: int = 0


@dataclass(frozen=True)
class Entry:
    """One MLflow run as it should be. `key` and the run's name identify it; `parent` is the key of another entry."""

    key: str
    name: str
    role: str
    status: str
    start: int
    end: int
    parent: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    artifacts: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of everything that is written, so that what has not changed is left alone."""
        artifacts = {name: hashlib.sha256(content).hexdigest() for name, content in self.artifacts.items()}
        whole = [
            self.name,
            self.status,
            self.start,
            self.end,
            dict(self.tags),
            dict(self.params),
            self.points,
            artifacts,
        ]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]


def entries(
    run_name: str,
    manifest: Manifest,
    records: Sequence[Record],
    method_runs: Sequence[MethodRun],
    artifacts: Mapping[str, str | bytes],
    table: pd.DataFrame | None,
) -> list[Entry]:
    """All MLflow runs of one kdbench run, parents before children, the report last."""
    by_fingerprint = {record.fingerprint: record for record in records}
    parents = {fingerprint: run for run in method_runs for fingerprint in run.fingerprints}
    colours = _colours(method_runs)
    fallback = milliseconds(manifest.created)
    common = {"suite": manifest.suite, "suite_run": run_name}
    found = []
    for run in method_runs:
        own = [by_fingerprint[fingerprint] for fingerprint in run.fingerprints if fingerprint in by_fingerprint]
        found.append(_method_entry(run, own, common, colours[run.key], run_name, fallback))
    for record in records:
        parent = parents.get(record.fingerprint)
        colour = colours[parent.key] if parent else _CONTROL_COLOURS[0]
        found.append(_trial_entry(record, parent, common, colour, fallback))
    ends = [entry.end for entry in found] or [fallback]
    found.append(_report_entry(run_name, manifest, common, artifacts, table, fallback, max(ends)))
    return found


def _method_entry(
    run: MethodRun, own: Sequence[Record], common: Mapping[str, str], colour: str, run_name: str, fallback: int
) -> Entry:
    times = [_times(record, fallback) for record in own] or [(fallback, fallback)]
    end = max(end for _, end in times)
    params = {"task": run.task, "pair": run.pair, "method": run.method}
    return Entry(
        key=run.key,
        name=f"{run.label} | {run_name}",
        role="method",
        status=_method_status(run, own),
        start=min(start for start, _ in times),
        end=end,
        tags={
            **common,
            "task": run.task,
            "pair": run.pair,
            "method": run.label,
            "family": run.family,
            "mlflow.runColor": colour,
            **{mlflow_name(key): _cut(value, TAG_LIMIT) for key, value in run.tags.items()},
            "mlflow.note.content": _cut(
                " · ".join(f"{in_markdown(key)} **{in_markdown(value)}**" for key, value in run.tags.items()), TAG_LIMIT
            ),
        },
        params=_params(params, run.params),
        points=tuple(Point(mlflow_name(key), float(value), end) for key, value in run.metrics.items()),
    )


def _trial_entry(
    record: Record, parent: MethodRun | None, common: Mapping[str, str], colour: str, fallback: int
) -> Entry:
    label = parent.label if parent else record.method
    start, end = _times(record, fallback)
    seed = str(record.seed)
    tags = {
        **common,
        "task": record.task,
        "pair": record.pair,
        "method": label,
        "family": record.family,
        "seed": seed,
        "status": record.status,
        "kdbench.fingerprint": record.fingerprint,
        "mlflow.runColor": colour,
    }
    if record.reason:
        tags["reason"] = _cut(record.reason, TAG_LIMIT)
    if record.error:
        error = _tail(record.error.replace("```", "'''"), TAG_LIMIT - 10)
        tags["mlflow.note.content"] = f"```\n{error}\n```"
    params = {"task": record.task, "pair": record.pair, "method": record.method, "seed": seed}
    return Entry(
        key=f"trial|{record.fingerprint}",
        name=f"{label} | seed {seed}",
        role="trial",
        status=_STATUS[record.status],
        start=start,
        end=end,
        parent=parent.key if parent else None,
        tags=tags,
        params=_params(params, record.params),
        points=tuple(_points(record, start, end)),
        artifacts={"samples.txt": "\n\n".join(record.samples).encode()} if record.samples else {},
    )


def _report_entry(
    run_name: str,
    manifest: Manifest,
    common: Mapping[str, str],
    artifacts: Mapping[str, str | bytes],
    table: pd.DataFrame | None,
    start: int,
    end: int,
) -> Entry:
    files = {name: value.encode() if isinstance(value, str) else value for name, value in artifacts.items()}
    files["suite.yaml"] = manifest.suite_source.encode()
    tags = {**common, "suite_digest": manifest.suite_digest}
    page = files.get("leaderboard.md")
    if page is not None:
        tags["mlflow.note.content"] = _whole_lines(page.decode().replace("<", "&lt;"), TAG_LIMIT)
    if table is not None:
        files[TABLE_FILE] = _table_json(table).encode()
        # What makes the UI draw the JSON file as a table.
        tags["mlflow.loggedArtifacts"] = json.dumps([{"path": TABLE_FILE, "type": "table"}])
    return Entry(
        "report", f"[report] {run_name}", "report", "FINISHED", start, max(start, end), tags=tags, artifacts=files
    )


def _table_json(table: pd.DataFrame) -> str:
    return table.astype(object).where(table.notna(), "—").to_json(orient="split", index=False, force_ascii=False)


def _method_status(run: MethodRun, own: Sequence[Record]) -> str:
    if len(own) < len(run.fingerprints):
        return "SCHEDULED"  # true of a run under way and of an interrupted one alike
    statuses = {_STATUS[record.status] for record in own}
    return next((status for status in ("FAILED", "KILLED") if status in statuses), "FINISHED")


def _points(record: Record, start: int, end: int) -> Iterator[Point]:
    for name, value in record.metrics.items():
        yield Point(mlflow_name(name), float(value), end)
    for name, value in record.measurements.items():
        yield Point(mlflow_name(f"machine/{name}"), float(value), end)
    for name, curve in record.curves.items():
        for epoch, value in enumerate(curve, start=1):
            # Records keep epochs, not the clock: the times in between are interpolated.
            yield Point(mlflow_name(f"epoch/{name}"), float(value), start + (end - start) * epoch // len(curve), epoch)


def _params(identity: Mapping[str, str], own: Mapping[str, Any]) -> dict[str, str]:
    found = dict(identity)
    for key, value in own.items():
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
        found[mlflow_name(f"method.{key}" if key in identity else key)] = _cut(text, PARAM_LIMIT)
    return found


def _times(record: Record, fallback: int) -> tuple[int, int]:
    started = milliseconds(record.provenance.get("started"), fallback)
    seconds = record.measurements.get("training_seconds", 0.0)
    ended = started + int(1000 * seconds) if math.isfinite(seconds) else started
    return started, max(started, milliseconds(record.provenance.get("finished"), ended))


def milliseconds(text: Any, fallback: int = 0) -> int:
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return fallback
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def _colours(method_runs: Iterable[MethodRun]) -> dict[str, str]:
    """One colour a label, the same on every task, greys for controls; by key."""
    runs = list(method_runs)
    labels = sorted({run.label for run in runs if run.family != "control"})
    controls = sorted({run.label for run in runs} - set(labels))
    of_label = {label: _COLOURS[i % len(_COLOURS)] for i, label in enumerate(labels)}
    of_label |= {label: _CONTROL_COLOURS[i % len(_CONTROL_COLOURS)] for i, label in enumerate(controls)}
    return {run.key: of_label[run.label] for run in runs}


def mlflow_name(text: str) -> str:
    """MLflow names hold letters, digits, `_ - . / : space` and are no odd paths."""
    return re.sub(r"/+", "/", re.sub(r"[^A-Za-z0-9_\-. :/]", "_", text)).strip("/. ")[:NAME_LIMIT] or "_"


def in_markdown(text: str) -> str:
    """The text as Markdown shows it letter by letter: no markup, no links, no HTML."""
    return re.sub(r"([\\`*_\[\]~|])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))


def _cut(text: str, limit: int) -> str:
    mark = f" … ({len(text)} characters; the record has all)"
    return text if len(text) <= limit else text[: limit - len(mark)] + mark


def _tail(text: str, limit: int) -> str:
    """A traceback's end says what happened."""
    return text if len(text) <= limit else "…" + text[len(text) - limit + 1 :]


def _whole_lines(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return text[: limit - 2].rpartition("\n")[0] + "\n…"
