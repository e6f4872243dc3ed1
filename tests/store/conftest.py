"""A made-up run: three methods, two seeds, one trial that diverged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import pytest

from kdbench.measuring.record import Record
from kdbench.store.mlflow_view import MethodRun
from kdbench.store.run_folder import Manifest

SUITE = "quickstart@1.0"
PAIR = "resnet20 -> resnet8"
ACCURACY = {"kd": (0.7412, 0.7482), "fitnets": (0.7233, 0.7249), "scratch": (0.7007, 0.7001)}


@dataclass(frozen=True)
class Story:
    """The arguments of a sync, ready to be changed by a test."""

    manifest: Manifest
    records: tuple[Record, ...]
    method_runs: tuple[MethodRun, ...]
    artifacts: dict[str, str | bytes]
    table: pd.DataFrame

    def arguments(self) -> tuple[Any, ...]:
        return (self.manifest.name, self.manifest, self.records, self.method_runs, self.artifacts, self.table)

    def with_records(self, *records: Record) -> Story:
        return replace(self, records=records)


def make_record(method: str, seed: int, **changes: Any) -> Record:
    accuracy = ACCURACY[method][seed % 2]
    values: dict[str, Any] = {
        "fingerprint": f"{method}-{seed}",
        "status": "done",
        "suite": SUITE,
        "task": "digits",
        "pair": PAIR,
        "teachers": ("resnet20",),
        "student": "resnet8",
        "method": method,
        "params": {"temperature": 4.0, "taps": ["stage1", "stage2"]},
        "family": "control" if method == "scratch" else "response",
        "seed": seed,
        "primary": "accuracy",
        "metrics": {"accuracy": accuracy, "ece": 0.0512, "macs": 12.3e6, "agreement": 0.81},
        "measurements": {"training_seconds": 142.7, "latency_ms_p50": 3.14},
        "curves": {
            "loss": [2.1 - 0.02 * epoch for epoch in range(20)],
            "loss/kd": [1.1 - 0.01 * epoch for epoch in range(20)],
            "validation_accuracy": [accuracy - 0.2 * 0.8**epoch for epoch in range(20)],
        },
        "provenance": {"started": "2026-11-20T10:00:00+00:00", "finished": f"2026-11-20T10:0{1 + seed}:30+00:00"},
    }
    return Record(**{**values, **changes})


def make_method_run(method: str, rank: int, verdict: str) -> MethodRun:
    mean = sum(ACCURACY[method]) / 2
    gain = mean - sum(ACCURACY["scratch"]) / 2
    return MethodRun(
        label=method,
        method=method,
        task="digits",
        pair=PAIR,
        params={"temperature": 4.0, "taps": ["stage1", "stage2"]},
        family="control" if method == "scratch" else "response",
        metrics={
            "rank": rank,
            "acc_pct": round(100 * mean, 2),
            "gain_pp": round(100 * gain, 2),
            "ece": 0.0512,
            "macs_M": 12.3,
            "cpu_ms": 3.14,
            "train_s": 142.7,
            "seeds": 2,
        },
        tags={"acc": f"{100 * mean:.2f} ± 0.50", "verdict": verdict},
        fingerprints=(f"{method}-0", f"{method}-1"),
    )


@pytest.fixture(scope="session")
def story() -> Story:
    diverged = {"status": "diverged", "reason": "the loss is nan at step 7", "error": "Traceback\n  Diverged: nan"}
    records = [make_record(method, seed) for method in ACCURACY for seed in (0, 1)]
    records[3] = make_record("fitnets", 1, **diverged, metrics={}, curves={"loss": [2.0, float("nan")]})
    table = pd.DataFrame(
        {"method": ["kd", "fitnets", "scratch"], "accuracy": ["74.47 ± 0.50", "72.41 ± 0.50", "70.04 ± 0.50"]}
    )
    manifest = Manifest(
        name="first run",
        suite=SUITE,
        suite_digest="9f2c01ab",
        suite_source="name: quickstart\n",
        title="Quickstart",
        question="Does distillation help a small network on digits?",
        equivalence_margin=0.01,
        created="2026-11-20T09:59:00.000000+00:00",
        updated="2026-11-20T10:05:00.000000+00:00",
        trials={f"digits|{record.pair}|{record.method}|{record.seed}": record.fingerprint for record in records},
    )
    markdown = "# quickstart@1.0\n\n| method | accuracy |\n|---|---|\n" + "".join(
        f"| {row.method} | {row.accuracy} |\n" for row in table.itertuples()
    )
    return Story(
        manifest,
        tuple(records),
        (
            make_method_run("kd", 1, "works"),
            make_method_run("fitnets", 2, "inconclusive"),
            make_method_run("scratch", 3, "baseline"),
        ),
        {"leaderboard.md": markdown, "leaderboard.csv": table.to_csv(index=False)},
        table,
    )
