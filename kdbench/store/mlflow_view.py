"""MLflow as a view of the records: written by one process, as often as one likes, with the same result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time_ns
from typing import TYPE_CHECKING, TypeVar

from kdbench.measuring.record import Record
from kdbench.store.mlflow_bulk import AT_ONCE, NewRun, database_of, insert, new_id
from kdbench.store.mlflow_client import artifact_root, connected, default_tracking_uri
from kdbench.store.mlflow_entries import Entry, MethodRun, Point, entries, in_markdown, milliseconds
from kdbench.store.mlflow_layout import VIEW_LIMIT, View, run_path, saved_views, view_key
from kdbench.store.run_folder import Manifest, check_name

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["MethodRun", "SyncResult", "default_tracking_uri", "find_view", "sync"]

_KEY, _SYNCED = "kdbench.key", "kdbench.synced"
_METRICS, _PARAMS, _TAGS = 800, 100, 100  # a call holds at most 1000 items in all
_PAGE = 1000

T = TypeVar("T")


@dataclass(frozen=True)
class SyncResult:
    """What a sync did to MLflow's runs, and where to look: paths from the server's root."""

    experiment_id: str
    created: int
    updated: int
    unchanged: int
    deleted: int
    view_url_path: str
    charts_url_path: str
    report_url_path: str


def sync(
    tracking_uri: str,
    run_name: str,
    manifest: Manifest,
    records: Sequence[Record],
    method_runs: Sequence[MethodRun],
    artifacts: Mapping[str, str | bytes],
    table: pd.DataFrame | None = None,
    out: Path = Path(),
) -> SyncResult:
    """Makes MLflow show exactly these records: what stands there is left alone, what no longer holds is deleted.

    `artifacts`: files of the report run by name; links lead to "report.html", or else to "leaderboard.md". `out`: the
    folder of all runs, where those of a database that is no file go.
    Killed at any moment and called again, it ends the same: an MLflow run's digest is its last tag.

    Raises:
        BadInput: the run's name is none that MLflow's filters can hold.
        StoreError: MLflow cannot be reached or written; nothing on disk depends on it.
    """
    check_name(run_name)
    wanted = entries(run_name, manifest, records, method_runs, artifacts, table)
    views = saved_views(run_name, method_runs, records)
    with connected(tracking_uri) as client:
        experiment_id = _experiment(client, manifest.suite, artifact_root(tracking_uri, out))
        writer = _Writer(client, experiment_id, run_name)
        for entry in wanted:
            writer.write(entry)
        writer.insert_new()
        writer.delete_others()
        page = next((f"/artifacts/{name}" for name in ("report.html", "leaderboard.md") if name in artifacts), "")
        report_path = run_path(experiment_id, writer.ids["report"], page)
        _describe(client, experiment_id, manifest, views, report_path)
    leaderboard, charts, *_ = views
    return SyncResult(
        experiment_id=experiment_id,
        created=writer.created,
        updated=writer.updated,
        unchanged=writer.unchanged,
        deleted=writer.deleted,
        view_url_path=leaderboard.path(experiment_id),
        charts_url_path=charts.path(experiment_id),
        report_url_path=report_path,
    )


def find_view(tracking_uri: str, suite: str, run_name: str) -> str | None:
    """The path of a run's saved leaderboard from the server's root, or None where it was never synced.

    Raises:
        StoreError: MLflow cannot be reached.
    """
    with connected(tracking_uri) as client:
        experiment = client.get_experiment_by_name(_experiment_name(suite))
    view = View(view_key("leaderboard", run_name), "", {})
    if experiment is None or view.tag(0)[0] not in experiment.tags:
        return None
    return view.path(experiment.experiment_id)


class _Writer:
    """Brings MLflow's runs of one kdbench run into line, one entry at a time."""

    def __init__(self, client: MlflowClient, experiment_id: str, run_name: str) -> None:
        self.client, self.experiment_id, self.run_name = client, experiment_id, run_name
        self.ids: dict[str, str] = {}
        self.created = self.updated = self.unchanged = self.deleted = 0
        self._database = database_of(client)
        self._new: list[NewRun] = []
        self._standing: dict[str, Run] = {}
        self._surplus: list[Run] = []
        for run in self._search():
            key = run.data.tags.get(_KEY, "")
            if key in self._standing:
                self._surplus.append(run)
            else:
                self._standing[key] = run

    def write(self, entry: Entry) -> None:
        """Creates, updates or leaves alone; parents must come before their children."""
        run = self._standing.pop(entry.key, None)
        if run is not None and run.data.tags.get(_SYNCED) == entry.digest:
            self.unchanged += 1
            self._adopt(run, entry)
        elif run is not None and _can_become(run, entry):
            self.updated += 1
            self._update(run, entry)
        else:
            if run is not None:
                self.client.delete_run(run.info.run_id)
            self.updated += run is not None
            self.created += run is None
            self._create(entry)

    def insert_new(self) -> None:
        """Writes the runs that wait to be written together."""
        if self._database is not None and self._new:
            insert(self._database, self.experiment_id, self._new)
        self._new = []

    def delete_others(self) -> None:
        """Deletes what this kdbench run no longer consists of."""
        for run in (*self._standing.values(), *self._surplus):
            self.client.delete_run(run.info.run_id)
            self.deleted += 1

    def _search(self) -> Iterator[Run]:
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], f"tags.suite_run = '{self.run_name}'", max_results=_PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _tags(self, entry: Entry) -> dict[str, str]:
        parent = {"mlflow.parentRunId": self.ids[entry.parent]} if entry.parent else {}
        return {**entry.tags, **parent, "role": entry.role, _KEY: entry.key, "suite_run": self.run_name}

    def _adopt(self, run: Run, entry: Entry) -> None:
        self.ids[entry.key] = run.info.run_id
        parent = self.ids[entry.parent] if entry.parent else None
        if parent and run.data.tags.get("mlflow.parentRunId") != parent:
            self.client.set_tag(run.info.run_id, "mlflow.parentRunId", parent)

    def _create(self, entry: Entry) -> None:
        tags = self._tags(entry)
        if self._database is not None and not entry.artifacts:
            self._new.append(NewRun(new_id(), entry, {**tags, _SYNCED: entry.digest}))
            self.ids[entry.key] = self._new[-1].run_id
            if len(self._new) == AT_ONCE:
                self.insert_new()
            return
        # The tags come with the creation: by them, a run that is cut short here is found again.
        run = self.client.create_run(self.experiment_id, start_time=entry.start, tags=tags, run_name=entry.name)
        self._fill(run.info.run_id, entry, {}, entry.points, entry.params)

    def _update(self, run: Run, entry: Entry) -> None:
        tags = self._tags(entry)
        run_id, now = run.info.run_id, time_ns() // 1_000_000
        # MLflow shows a metric's latest value by time: of two with the same time, the larger.
        changed = [
            point._replace(time=now) for point in entry.points if run.data.metrics.get(point.name) != point.value
        ]
        self.client.set_tag(run_id, _SYNCED, "no")
        for stale in run.data.tags.keys() - tags.keys() - {_SYNCED}:
            if not stale.startswith("mlflow."):
                self.client.delete_tag(run_id, stale)
        self._fill(run_id, entry, tags, changed, {})

    def _fill(
        self, run_id: str, entry: Entry, tags: Mapping[str, str], points: Sequence[Point], params: Mapping[str, str]
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics = _batches([Metric(*point) for point in points], _METRICS)
        parameters = _batches([Param(*item) for item in params.items()], _PARAMS)
        labels = _batches([RunTag(*item) for item in tags.items()], _TAGS)
        for batch in zip_longest(metrics, parameters, labels, fillvalue=()):
            self.client.log_batch(run_id, *batch)
        _upload(self.client, run_id, entry.artifacts)
        if entry.status in ("SCHEDULED", "RUNNING"):
            self.client.update_run(run_id, status=entry.status)
        else:
            self.client.set_terminated(run_id, entry.status, entry.end)
        self.client.set_tag(run_id, _SYNCED, entry.digest)
        self.ids[entry.key] = run_id


def _can_become(run: Run, entry: Entry) -> bool:
    """Whether updating is enough. Parameters never change, metrics cannot be taken back, and curves would pile up."""
    metrics = {point.name for point in entry.points}
    return entry.role != "trial" and run.data.params == entry.params and run.data.metrics.keys() <= metrics


def _upload(client: MlflowClient, run_id: str, artifacts: Mapping[str, bytes]) -> None:
    if not artifacts:
        return
    with TemporaryDirectory() as folder:
        for name, content in artifacts.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        client.log_artifacts(run_id, folder)


def _experiment_name(suite: str) -> str:
    return f"kdbench/{suite}"


def _experiment(client: MlflowClient, suite: str, artifacts: Path | None) -> str:
    name = _experiment_name(suite)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return client.create_experiment(name, artifact_location=artifacts.as_uri() if artifacts else None)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return experiment.experiment_id


def _describe(
    client: MlflowClient, experiment_id: str, manifest: Manifest, views: Sequence[View], report_path: str
) -> None:
    """Writes the experiment's tags, last of all: a saved view never shows runs that are not there yet."""
    links = [*((view.title, view.path(experiment_id)) for view in views[:3]), ("Report", report_path)]
    title, question = in_markdown(manifest.title or manifest.suite), in_markdown(manifest.question)
    heading = f"**{title}** {question}".rstrip()
    note = (
        f"{heading} — "
        + " · ".join(f"[{title}]({path.removeprefix('/')})" for title, path in links)
        + "\n\nOne row = one method in one `kdbench run`, mean over its seeds; the seeds are its child runs."
    )
    tags = {"mlflow.experimentKind": "custom_model_development", "mlflow.note.content": note[:VIEW_LIMIT]}
    tags |= dict(view.tag(milliseconds(manifest.created)) for view in views)
    standing = client.get_experiment(experiment_id).tags
    for key, value in tags.items():
        if standing.get(key) != value and len(value) <= VIEW_LIMIT:
            client.set_experiment_tag(experiment_id, key, value)


def _batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
