"""MLflow as a view: what stands there after a sync, after a second one, and after one that was cut short."""

from __future__ import annotations

import errno
import json
import math
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from sqlalchemy import event
from sqlalchemy.engine import Engine

from kdbench.errors import BadInput, StoreError
from kdbench.store import mlflow_view
from kdbench.store.mlflow_client import artifact_root, connected, default_tracking_uri, masked
from kdbench.store.mlflow_layout import VIEW_LIMIT, VIEW_TAG, saved_views
from kdbench.store.mlflow_view import SyncResult, find_view, sync


@pytest.fixture(autouse=True, scope="module")
def _databases_that_do_not_wait_for_the_disk() -> Iterator[None]:
    """A sync is some dozens of transactions; that each reaches the disk is SQLite's business, not these tests'."""

    def hurry(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", hurry)
    yield
    event.remove(Engine, "connect", hurry)


@pytest.fixture(scope="module")
def fresh_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An empty MLflow database, made once: its schema takes a second or two."""
    folder = tmp_path_factory.mktemp("fresh")
    with connected(default_tracking_uri(folder)) as client:
        client.search_experiments(max_results=1)
    return (folder / "mlflow.db").read_bytes()


@pytest.fixture
def uri(tmp_path: Path, fresh_database: bytes) -> str:
    (tmp_path / "mlflow.db").write_bytes(fresh_database)
    return default_tracking_uri(tmp_path)


def standing(uri: str, result: SyncResult, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    with connected(uri) as client:
        return list(client.search_runs([result.experiment_id], run_view_type=view, max_results=1000))


def by_name(uri: str, result: SyncResult) -> dict[str, Run]:
    runs = standing(uri, result)
    found = {run.info.run_name: run for run in runs}
    assert len(found) == len(runs), "every run has a name of its own here"
    return found


def counts(result: SyncResult) -> tuple[int, int, int, int]:
    return result.created, result.updated, result.unchanged, result.deleted


def snapshot(uri: str, result: SyncResult) -> dict[str, Any]:
    """Everything that a reader can see, without the ids that MLflow draws."""
    runs = standing(uri, result)
    names = {run.info.run_id: run.info.run_name for run in runs}
    seen = {}
    for run in runs:
        tags = {key: names.get(value, value) for key, value in run.data.tags.items()}
        metrics = {key: "nan" if math.isnan(value) else value for key, value in run.data.metrics.items()}
        seen[run.info.run_name] = (run.info.status, run.info.start_time, tags, run.data.params, metrics)
    return seen


def test_a_run_is_laid_out_as_methods_trials_and_report(uri: str, story: Any) -> None:
    result = sync(uri, *story.arguments())

    assert counts(result) == (10, 0, 0, 0)
    runs = by_name(uri, result)
    roles = {name: run.data.tags["role"] for name, run in runs.items()}
    assert roles == {
        **{f"{method} | first run": "method" for method in ("kd", "fitnets", "scratch")},
        **{f"{method} | seed {seed}": "trial" for method in ("kd", "fitnets", "scratch") for seed in (0, 1)},
        "[report] first run": "report",
    }
    for name, run in runs.items():
        assert run.data.tags["suite_run"] == "first run"
        parent = run.data.tags.get("mlflow.parentRunId")
        if roles[name] == "trial":
            assert parent == runs[f"{name.partition(' | ')[0]} | first run"].info.run_id
        else:
            assert parent is None
    with connected(uri) as client:
        experiment = client.get_experiment(result.experiment_id)
    assert experiment.name == "kdbench/quickstart@1.0"
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert "Does distillation help a small network on digits?" in experiment.tags["mlflow.note.content"]


def test_a_method_holds_its_rounded_aggregates(uri: str, story: Any) -> None:
    runs = by_name(uri, sync(uri, *story.arguments()))
    kd = runs["kd | first run"]

    assert kd.data.metrics == {
        "rank": 1, "acc_pct": 74.47, "gain_pp": 4.43, "ece": 0.0512, "macs_M": 12.3, "cpu_ms": 3.14, "train_s": 142.7,
        "seeds": 2,
    }  # fmt: skip
    assert kd.data.tags["acc"] == "74.47 ± 0.50"
    assert kd.data.tags["verdict"] == "works"
    assert kd.data.params == {
        "task": "digits", "pair": "resnet20 -> resnet8", "method": "kd", "temperature": "4.0",
        "taps": '["stage1", "stage2"]',
    }  # fmt: skip
    colours = {runs[f"{method} | first run"].data.tags["mlflow.runColor"] for method in ("kd", "fitnets", "scratch")}
    assert len(colours) == 3
    assert kd.data.tags["mlflow.runColor"] == runs["kd | seed 1"].data.tags["mlflow.runColor"]


def test_a_trial_holds_its_exact_numbers_curves_and_times(uri: str, story: Any) -> None:
    result = sync(uri, *story.arguments())
    trial, record = by_name(uri, result)["kd | seed 1"], story.records[1]

    assert trial.data.metrics["accuracy"] == record.metrics["accuracy"]
    assert trial.data.metrics["machine/training_seconds"] == 142.7
    assert trial.data.params["seed"] == "1"
    identity = {key: trial.data.tags[key] for key in ("suite", "task", "pair", "method", "seed", "status")}
    assert identity == {
        "suite": "quickstart@1.0", "task": "digits", "pair": "resnet20 -> resnet8", "method": "kd", "seed": "1",
        "status": "done",
    }  # fmt: skip
    assert trial.data.tags["kdbench.fingerprint"] == "kd-1"
    ten_o_clock = 1_795_168_800_000  # 2026-11-20T10:00:00Z
    assert (trial.info.start_time, trial.info.end_time) == (ten_o_clock, ten_o_clock + 150_000)
    with connected(uri) as client:
        curve = client.get_metric_history(trial.info.run_id, "epoch/loss")
    assert [point.value for point in curve] == record.curves["loss"]
    assert [point.step for point in curve] == list(range(1, 21))
    assert curve[-1].timestamp == trial.info.end_time


def test_a_trial_that_has_samples_shows_them(uri: str, story: Any, tmp_path: Path) -> None:
    told = story.records[0].model_copy(update={"samples": ("ein Hund", "zwei\nHunde [und mehr]")})
    result = sync(uri, *story.with_records(told, *story.records[1:]).arguments())
    with connected(uri) as client:
        runs = client.search_runs([result.experiment_id], "tags.role = 'trial'")
        holding = [run for run in runs if client.list_artifacts(run.info.run_id)]
        assert [run.data.tags["kdbench.fingerprint"] for run in holding] == [told.fingerprint]
        path = client.download_artifacts(holding[0].info.run_id, "samples.txt", str(tmp_path))
    assert Path(path).read_text(encoding="utf-8") == "ein Hund\n\nzwei\nHunde [und mehr]"


def test_a_diverged_trial_is_shown_as_failed_with_its_reason(uri: str, story: Any) -> None:
    runs = by_name(uri, sync(uri, *story.arguments()))
    trial = runs["fitnets | seed 1"]

    assert trial.info.status == "FAILED"
    assert trial.data.tags["status"] == "diverged"
    assert trial.data.tags["reason"] == "the loss is nan at step 7"
    assert "Diverged: nan" in trial.data.tags["mlflow.note.content"]
    assert math.isnan(trial.data.metrics["epoch/loss"])
    assert runs["fitnets | first run"].info.status == "FAILED"
    assert runs["kd | first run"].info.status == "FINISHED"


def test_a_skipped_trial_and_one_still_to_run_have_their_own_states(uri: str, story: Any) -> None:
    skipped = story.records[0].model_copy(update={"status": "skipped", "reason": "no tap 'stage4'", "provenance": {}})
    runs = by_name(uri, sync(uri, *story.with_records(skipped, *story.records[1:4]).arguments()))

    assert runs["kd | seed 0"].info.status == "KILLED"
    assert runs["kd | first run"].info.status == "KILLED"
    assert runs["scratch | first run"].info.status == "SCHEDULED"


def test_the_report_holds_table_page_and_suite(uri: str, story: Any, tmp_path: Path) -> None:
    result = sync(uri, *story.arguments())
    report = by_name(uri, result)["[report] first run"]
    assert report.info.run_id in result.report_url_path
    with connected(uri) as client:
        names = {file.path for file in client.list_artifacts(report.info.run_id)}
        folder = Path(client.download_artifacts(report.info.run_id, "", str(tmp_path)))
    assert names == {"leaderboard.md", "leaderboard.csv", "leaderboard-table.json", "suite.yaml"}
    assert (folder / "leaderboard.md").read_text() == story.artifacts["leaderboard.md"]
    assert (folder / "suite.yaml").read_text() == "name: quickstart\n"
    table = json.loads((folder / "leaderboard-table.json").read_text())
    assert table["columns"] == ["method", "accuracy"]
    assert table["data"][0] == ["kd", "74.47 ± 0.50"]
    assert json.loads(report.data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "leaderboard-table.json", "type": "table"}
    ]


def test_what_is_missing_in_the_table_is_a_dash(uri: str, story: Any, tmp_path: Path) -> None:
    table = pd.DataFrame({"method": ["kd", "fitnets"], "rank": pd.array([1, None], dtype="Int64"), "gain": [4.4, None]})
    result = sync(uri, *replace(story, table=table).arguments())
    report = by_name(uri, result)["[report] first run"]
    with connected(uri) as client:
        path = client.download_artifacts(report.info.run_id, "leaderboard-table.json", str(tmp_path))
    assert json.loads(Path(path).read_text())["data"] == [["kd", 1, 4.4], ["fitnets", "—", "—"]]


def test_the_saved_view_sorts_and_orders_the_table(uri: str, story: Any) -> None:
    result = sync(uri, *story.arguments())
    with connected(uri) as client:
        tags = client.get_experiment(result.experiment_id).tags
    key = result.view_url_path.partition("viewStateShareKey=")[2]
    view = json.loads(tags[VIEW_TAG + key])
    state = json.loads(view["state"])

    assert view["name"] == "Leaderboard: first run"
    assert state["searchFilter"] == "tags.role = 'method' and tags.suite_run = 'first run'"
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`acc_pct`", False)
    assert state["selectedColumns"][:4] == ["tags.`acc`", "tags.`verdict`", "metrics.`rank`", "metrics.`acc_pct`"]
    assert find_view(uri, "quickstart@1.0", "first run") == result.view_url_path
    assert find_view(uri, "quickstart@1.0", "another") is None
    assert find_view(uri, "unknown@1.0", "first run") is None


def test_a_second_sync_changes_nothing(uri: str, story: Any) -> None:
    first = sync(uri, *story.arguments())
    before = (snapshot(uri, first), {run.info.run_id for run in standing(uri, first, ViewType.ALL)})
    second = sync(uri, *story.arguments())

    assert counts(second) == (0, 0, 10, 0)
    assert (snapshot(uri, second), {run.info.run_id for run in standing(uri, second, ViewType.ALL)}) == before
    assert (second.view_url_path, second.report_url_path) == (first.view_url_path, first.report_url_path)


def test_another_seed_is_added_and_its_method_updated_in_place(uri: str, story: Any) -> None:
    first = sync(uri, *story.arguments())
    ids = {name: run.info.run_id for name, run in by_name(uri, first).items()}
    kd = story.method_runs[0]
    lower = {**kd.metrics, "acc_pct": 74.01, "seeds": 3}
    grown = replace(kd, metrics=lower, tags={"acc": "74.01 ± 0.40"}, fingerprints=(*kd.fingerprints, "kd-2"))
    more = replace(
        story.with_records(*story.records, story.records[0].model_copy(update={"fingerprint": "kd-2", "seed": 2})),
        method_runs=(grown, *story.method_runs[1:]),
    )
    second = sync(uri, *more.arguments())

    assert counts(second) == (1, 1, 9, 0)
    runs = by_name(uri, second)
    assert runs["kd | first run"].info.run_id == ids["kd | first run"]
    assert runs["kd | first run"].data.metrics == lower, "the latest value counts, not the largest"
    assert "verdict" not in runs["kd | first run"].data.tags
    assert runs["kd | seed 2"].data.tags["mlflow.parentRunId"] == ids["kd | first run"]


def test_an_aggregate_that_no_longer_holds_does_not_stay(uri: str, story: Any) -> None:
    """MLflow cannot take a metric back: the run is replaced, and its trials move to the new one."""
    sync(uri, *story.arguments())
    kd = story.method_runs[0]
    unranked = replace(kd, metrics={name: value for name, value in kd.metrics.items() if name != "rank"})
    result = sync(uri, *replace(story, method_runs=(unranked, *story.method_runs[1:])).arguments())

    assert counts(result) == (0, 1, 9, 0)
    runs = by_name(uri, result)
    assert "rank" not in runs["kd | first run"].data.metrics
    assert runs["kd | seed 0"].data.tags["mlflow.parentRunId"] == runs["kd | first run"].info.run_id


def test_a_trial_that_was_repeated_replaces_the_old_one(uri: str, story: Any) -> None:
    sync(uri, *story.arguments())
    repeated = story.records[3].model_copy(
        update={
            "status": "done",
            "reason": None,
            "error": None,
            "metrics": {"accuracy": 0.7},
            "curves": {"loss": [1.0]},
        }
    )
    records = [*story.records[:3], repeated, *story.records[4:]]
    result = sync(uri, *story.with_records(*records).arguments())

    assert counts(result) == (0, 2, 8, 0)  # the trial, and the state of its method
    runs = by_name(uri, result)
    assert runs["fitnets | seed 1"].data.metrics["epoch/loss"] == 1.0
    assert runs["fitnets | seed 1"].info.status == runs["fitnets | first run"].info.status == "FINISHED"


def test_what_no_longer_belongs_to_the_run_is_deleted_and_other_runs_are_not(uri: str, story: Any) -> None:
    other = replace(story, manifest=story.manifest.model_copy(update={"name": "other"}))
    sync(uri, *other.arguments())
    sync(uri, *story.arguments())
    fewer = replace(story.with_records(*story.records[:4]), method_runs=story.method_runs[:2])
    result = sync(uri, *fewer.arguments())

    assert result.deleted == 3
    runs = standing(uri, result)
    assert len(runs) == 7 + 10
    assert {run.data.tags["suite_run"] for run in runs if "scratch" in run.info.run_name} == {"other"}


@pytest.fixture(scope="module")
def undisturbed(story: Any, fresh_database: bytes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What stands in MLflow after a sync that nothing interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "mlflow.db").write_bytes(fresh_database)
    uri = default_tracking_uri(folder)
    return snapshot(uri, sync(uri, *story.arguments()))


@pytest.mark.parametrize(
    ("method", "successes"),
    [
        *(("create_run", 0), ("create_run", 4), ("log_batch", 0), ("log_batch", 8), ("set_terminated", 5)),
        *(("log_artifacts", 0), ("set_tag", 0), ("set_tag", 9), ("set_experiment_tag", 0), ("set_experiment_tag", 3)),
    ],
)
def test_a_sync_cut_short_is_made_whole_by_the_next(
    uri: str, story: Any, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, method: str, successes: int
) -> None:
    """As if killed just before one of the calls that a server is asked by."""
    original, calls = getattr(MlflowClient, method), 0

    def cut(self: MlflowClient, *arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > successes:
            raise KeyboardInterrupt
        return original(self, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(mlflow_view, "database_of", lambda client: None)
        patch.setattr(MlflowClient, method, cut)
        with pytest.raises(KeyboardInterrupt):
            sync(uri, *story.arguments())

    assert snapshot(uri, sync(uri, *story.arguments())) == undisturbed
    assert counts(sync(uri, *story.arguments())) == (0, 0, 10, 0)


@pytest.mark.parametrize("successes", [0, 1, 3])
def test_runs_written_together_are_there_whole_or_not_at_all(
    uri: str, story: Any, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, successes: int
) -> None:
    """As if killed while rows are written, two runs at a time."""
    calls = 0

    def cut(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal calls
        calls += statement.startswith("INSERT INTO latest_metrics")
        if calls > successes:
            raise KeyboardInterrupt

    monkeypatch.setattr(mlflow_view, "AT_ONCE", 2)
    event.listen(Engine, "before_cursor_execute", cut)
    try:
        with pytest.raises(KeyboardInterrupt):
            sync(uri, *story.arguments())
    finally:
        event.remove(Engine, "before_cursor_execute", cut)
    with connected(uri) as client:
        (experiment,) = (each for each in client.search_experiments() if each.name != "Default")
        assert len(client.search_runs([experiment.experiment_id])) == 2 * successes
    assert snapshot(uri, sync(uri, *story.arguments())) == undisturbed


def test_a_database_and_a_server_come_to_hold_the_same(
    story: Any, fresh_database: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are written together are those that MLflow's own calls write, to the last column that is read."""
    seen = []
    for name, way in (("database", mlflow_view.database_of), ("server", lambda client: None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mlflow.db").write_bytes(fresh_database)
        monkeypatch.setattr(mlflow_view, "database_of", way)
        seen.append(everything(default_tracking_uri(tmp_path / name), story))
    assert seen[0] == seen[1]


def everything(uri: str, story: Any) -> dict[str, Any]:
    result = sync(uri, *story.arguments())
    found = {}
    for name, run in by_name(uri, result).items():
        info = {key: value for key, value in dict(run.info).items() if key not in ("run_id", "run_uuid")}
        info["artifact_uri"] = info["artifact_uri"].replace(run.info.run_id, "ID").rpartition("mlartifacts")[2]
        with connected(uri) as client:
            curves = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
        points = {key: [(each.value, each.timestamp, each.step) for each in curve] for key, curve in curves.items()}
        found[name] = info, repr(points)
    return {"runs": found, "seen": snapshot(uri, result)}


def test_an_update_cut_short_is_made_whole_by_the_next(
    uri: str, story: Any, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the records are again what they were before the update."""
    sync(uri, *story.arguments())
    kd = story.method_runs[0]
    worse = replace(kd, metrics={**kd.metrics, "acc_pct": 12.0})

    def cut(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", cut)
        with pytest.raises(KeyboardInterrupt):
            sync(uri, *replace(story, method_runs=(worse, *story.method_runs[1:])).arguments())

    assert snapshot(uri, sync(uri, *story.arguments())) == undisturbed


def test_a_duplicate_of_a_run_is_removed(uri: str, story: Any) -> None:
    result = sync(uri, *story.arguments())
    original = by_name(uri, result)["kd | seed 0"]
    with connected(uri) as client:
        tags = {key: original.data.tags[key] for key in ("kdbench.key", "suite_run", "role")}
        client.create_run(result.experiment_id, tags=tags, run_name="copy", start_time=1)
    again = sync(uri, *story.arguments())

    assert again.deleted == 1
    assert len(by_name(uri, again)) == 10


def test_a_database_whose_creation_is_cut_short_never_appears(
    story: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow cannot finish a schema migration that a full disk ended, so no half-made file may be left in its way."""
    uri = default_tracking_uri(tmp_path / "fresh")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("kdbench.store.mlflow_client.os.replace", full)
        with pytest.raises(StoreError, match="No space left"):
            sync(uri, *story.arguments())
    assert [path.name for path in (tmp_path / "fresh").iterdir()] == ["mlflow.db.lock"]
    assert sync(uri, *story.arguments()).created > 0


def test_an_experiment_that_somebody_deleted_comes_back(uri: str, story: Any) -> None:
    first = sync(uri, *story.arguments())
    with connected(uri) as client:
        client.delete_experiment(first.experiment_id)
    second = sync(uri, *story.arguments())

    assert second.experiment_id == first.experiment_id
    assert len(by_name(uri, second)) == 10


def test_limits_are_respected(uri: str, story: Any) -> None:
    """More metrics and parameters than one call may hold, texts longer than a field, names that MLflow refuses."""
    record = story.records[0].model_copy(
        update={
            "curves": {"loss/kd[t=4]": [0.5] * 2500, "loss": [0.25] * 1200},
            "params": {**{f"p{i}": i for i in range(250)}, "seed": 9, "prompt": "x" * 7000, "../odd//name": 1},
            "error": "start " + "e" * 9000 + " end",
            "reason": "r" * 9000,
        }
    )
    result = sync(uri, *story.with_records(record, *story.records[1:]).arguments())
    trial = by_name(uri, result)["kd | seed 0"]

    with connected(uri) as client:
        assert len(client.get_metric_history(trial.info.run_id, "epoch/loss/kd_t_4_")) == 2500
        assert len(client.get_metric_history(trial.info.run_id, "epoch/loss")) == 1200
    assert trial.data.params["p249"] == "249"
    assert (trial.data.params["seed"], trial.data.params["method.seed"]) == ("0", "9")
    assert trial.data.params["prompt"].endswith("… (7000 characters; the record has all)")
    assert len(trial.data.params["prompt"]) == 6000
    assert trial.data.tags["mlflow.note.content"].endswith("e end\n```"), "a traceback's end matters"
    assert "9000 characters" in trial.data.tags["reason"]
    assert counts(sync(uri, *story.with_records(record, *story.records[1:]).arguments())) == (0, 0, 10, 0)


def test_several_boards_get_a_view_each(story: Any) -> None:
    on_digits = story.method_runs[0]
    on_words = replace(on_digits, task='words[path="it\'s"]', pair="big -> small", metrics={"wer_pct": 3.0})
    on_words_2 = replace(on_words, task="words", tags={"evidence": "a long sentence " * 5})
    record = story.records[0].model_copy(update={"task": "words", "higher_is_better": False})
    views = saved_views("run", [on_digits, on_words, on_words_2], [*story.records, record])

    titles = [view.title for view in views]
    assert titles == [
        "Leaderboard: run", "Charts: run", "Learning curves: run", "run: digits, resnet20 -> resnet8",
        "run: words, big -> small",
    ], "a name with both kinds of quotes cannot be filtered for"  # fmt: skip
    whole, *_, words = [view.state for view in views]
    assert whole["selectedColumns"][:2] == ["tags.`task`", "tags.`pair`"]
    assert (words["orderByKey"], words["orderByAsc"]) == ("metrics.`wer_pct`", True)
    assert words["searchFilter"].endswith("and tags.task = 'words' and tags.pair = 'big -> small'")
    assert words["selectedColumns"] == ["metrics.`wer_pct`"], "sentences are no columns"


def test_a_view_never_outgrows_its_tag(story: Any) -> None:
    many = {f"a_rather_long_metric_name_{index:03}": float(index) for index in range(200)}
    views = saved_views("x" * 100, [replace(story.method_runs[0], metrics=many)], story.records)

    assert all(len(view.tag(1_763_632_800_000)[1]) <= VIEW_LIMIT for view in views)
    assert len(views[0].state["selectedColumns"]) > 10


@pytest.mark.parametrize("name", ["it's", "a/b", ""])
def test_a_name_that_would_break_the_filters_is_refused(uri: str, story: Any, name: str) -> None:
    with pytest.raises(BadInput, match="cannot be named"):
        sync(uri, name, *story.arguments()[1:])


def test_mlflow_says_nothing_and_leaves_the_environment_alone(
    uri: str, story: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    before = dict(os.environ)
    sync(uri, *story.arguments())

    assert capfd.readouterr() == ("", "")
    assert dict(os.environ) == before


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nothing listens on: bound, so that nobody else takes it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def test_an_unreachable_server_is_told_soon_and_without_its_password(story: Any, closed_port: int) -> None:
    started = time.monotonic()
    with pytest.raises(StoreError) as caught:
        sync(f"http://ann:s3cret@127.0.0.1:{closed_port}", *story.arguments())

    assert time.monotonic() - started < 60, "MLflow by itself tries for minutes"
    text = str(caught.value)
    assert "MLflow at http://***@127.0.0.1" in text
    assert "s3cret" not in text
    assert "kdbench sync" in text
    assert text.count("\n") <= 2


@pytest.mark.parametrize("content", [b"this is no database" * 100])
def test_a_damaged_database_is_told_at_once(tmp_path: Path, story: Any, content: bytes) -> None:
    (tmp_path / "mlflow.db").write_bytes(content)

    with pytest.raises(StoreError, match=r"MLflow at sqlite:.*cannot be used: .*not a database"):
        sync(default_tracking_uri(tmp_path), *story.arguments())


@pytest.mark.parametrize("uri_text", ["foo://x", "file:///nowhere", "postgresql+nodriver://u:s3cret@h/db"])
def test_an_impossible_uri_is_told(story: Any, uri_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="cannot be used") as caught:
        sync(uri_text, *story.arguments())
    assert "s3cret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ann:p%40ss@host:5000/x", "https://***@host:5000/x"),
        ("postgresql+psycopg2://u:a/b@c@db/mlflow", "postgresql+psycopg2://***@db/mlflow"),
        ("http://host/?token=abc&x=1", "http://host/?token=***&x=1"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////home/me/suite@1.0/mlflow.db", "sqlite:////home/me/suite@1.0/mlflow.db"),
    ],
)
def test_credentials_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_a_password_is_masked_wherever_it_shows_up() -> None:
    assert masked("login hunter2 / p@ss failed", "http://u:hunter2@h") == "login *** / p@ss failed"
    assert masked("login p@ss failed", "http://u:p%40ss@h") == "login *** failed"


def test_everything_lies_beside_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    uri = default_tracking_uri(Path("results"))

    assert uri == f"sqlite:///{tmp_path}/results/mlflow.db"
    assert artifact_root(uri) == tmp_path / "results" / "mlartifacts"
    assert artifact_root("http://host:5000") is None
