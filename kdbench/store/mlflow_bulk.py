"""New runs written into MLflow's own database many at a time.

By its client each run takes four calls and a dozen transactions, which is minutes for thousands of them; here each
takes a few rows of one transaction, and stands in the database whole or not at all. Only a database that the client
writes by itself is written so: a server is asked, run by run.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdbench.store.mlflow_entries import Entry, Point

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

AT_ONCE = 200


@dataclass(frozen=True)
class NewRun:
    """An entry under the id that it is to have, with all its tags."""

    run_id: str
    entry: Entry
    tags: Mapping[str, str]


def new_id() -> str:
    """An id for a run, as MLflow makes them."""
    return uuid.uuid4().hex


def database_of(client: MlflowClient) -> SqlAlchemyStore | None:
    """The database that the client writes by itself; None where it asks a server."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = client._tracking_client.store
    return store if isinstance(store, SqlAlchemyStore) else None


def insert(store: SqlAlchemyStore, experiment_id: str, runs: Sequence[NewRun]) -> None:
    """Writes runs that are over, with what MLflow's client would have written for them, in one transaction.

    Raises:
        MlflowException: the database cannot be written; none of the runs is there then.
    """
    from mlflow.store.tracking.dbmodels import models

    location = store.get_experiment(experiment_id).artifact_location
    rows: dict[Any, list[dict[str, Any]]] = {
        models.SqlRun: [_run(new, experiment_id, location) for new in runs],
        models.SqlTag: [_item(new, key, value) for new in runs for key, value in _tags(new).items()],
        models.SqlParam: [_item(new, key, value) for new in runs for key, value in new.entry.params.items()],
        models.SqlMetric: [_metric(store, new, point) for new in runs for point in dict.fromkeys(new.entry.points)],
        models.SqlLatestMetric: [_metric(store, new, point) for new in runs for point in _latest(new.entry.points)],
    }
    with store.ManagedSessionMaker(read_only=False) as session:
        for model, values in rows.items():
            if values:
                session.execute(model.__table__.insert(), values)


def _run(new: NewRun, experiment_id: str, location: str) -> dict[str, Any]:
    entry = new.entry
    return {
        "run_uuid": new.run_id,
        "name": entry.name,
        "source_type": "UNKNOWN",
        "source_name": "",
        "entry_point_name": "",
        "user_id": "unknown",
        "status": entry.status,
        "start_time": entry.start,
        "end_time": None if entry.status in ("SCHEDULED", "RUNNING") else entry.end,
        "source_version": "",
        "lifecycle_stage": "active",
        "artifact_uri": f"{location.rstrip('/')}/{new.run_id}/artifacts",
        "experiment_id": int(experiment_id),
    }


def _tags(new: NewRun) -> dict[str, str]:
    return {**new.tags, "mlflow.runName": new.entry.name}


def _item(new: NewRun, key: str, value: str) -> dict[str, Any]:
    return {"run_uuid": new.run_id, "key": key, "value": value}


def _metric(store: SqlAlchemyStore, new: NewRun, point: Point) -> dict[str, Any]:
    is_nan, value = store.sanitize_metric_value(point.value)
    return {
        "run_uuid": new.run_id,
        "key": point.name,
        "value": value,
        "timestamp": point.time,
        "step": point.step,
        "is_nan": is_nan,
    }


def _latest(points: Sequence[Point]) -> list[Point]:
    """Of every name the point that MLflow shows: of the last step, of these the latest, of these the largest."""
    latest: dict[str, Point] = {}
    for point in points:
        before = latest.get(point.name)
        if before is None or (point.step, point.time, point.value) > (before.step, before.time, before.value):
            latest[point.name] = point
    return list(latest.values())
