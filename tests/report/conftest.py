"""A made-up run with everything in it that a report can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from kdbench.analysis.board import Board, Leaderboard
from kdbench.analysis.claims import claims
from kdbench.analysis.leaderboard import leaderboard
from kdbench.analysis.ranks import ranking
from kdbench.measuring.record import Record
from kdbench.report.html import html_report
from kdbench.store.run_folder import Manifest, Session

SCORES = {
    "scratch": (0.7240, 0.7290, 0.7210),
    "label_smoothing": (0.7262, 0.7291, 0.7243),
    "kd": (0.7421, 0.7484, 0.7398),
    "rkd": (0.7250, 0.7400, 0.7210),
    "<script>alert('$x^2$')</script>": (0.7341, 0.7402, 0.7288),
    "shuffled": (0.1010, 0.0990, 0.1020),
    "pruned": (0.7100, 0.7140, 0.7050),
}
FAMILIES = {"scratch": "control", "label_smoothing": "control", "shuffled": "control", "pruned": "compression"}


def make_record(method: str, seed: int, score: float | None, **changes: Any) -> Record:
    place = list(SCORES).index(method) if method in SCORES else 0
    taught = FAMILIES.get(method) != "control"
    metrics: dict[str, float] = {
        "agreement": 0.75 + 0.01 * place + 0.001 * seed,
        "ece": 0.05,
        "parameters": 78e3,
        "macs": 20e6 if method == "pruned" else 12e6,
        "teacher_macs": 80e6,
        "teacher_accuracy": 0.7942 + 0.001 * seed,
        "training_flops": (1 + taught) * 1e12 + place * 1e10,
        "teacher_flops": taught * 8e11,
        "corrupted_accuracy/jpeg": (score or 0) - 0.1,
        "corrupted_accuracy/gaussian_noise": (score or 0) - 0.2,
    }
    values: dict[str, Any] = {
        "fingerprint": f"{method}-{seed}-{changes.get('task', '')}",
        "status": "done",
        "suite": "quick@1.0",
        "task": "cifar100",
        "pair": "resnet32x4 -> resnet8x4",
        "teachers": ("resnet32x4",),
        "student": "resnet8x4",
        "method": method,
        "params": {},
        "family": FAMILIES.get(method, "response"),
        "controls": ("label_smoothing", "shuffled") if method not in FAMILIES else (),
        "seed": seed,
        "primary": "accuracy",
        "unit": "share",
        "metrics": {} if score is None else {"accuracy": score, **metrics},
        "measurements": {"latency_ms_p50": 0.4, "teacher_latency_ms_p50": 2.1, "training_seconds": 61.5 + seed},
        "curves": {"validation_accuracy": [(score or 0) * (1 - 0.5**epoch) for epoch in range(1, 100)], "loss": [1.0]},
        "calibration_curve": {"confidence": [0.52, 0.97], "accuracy": [0.4, 0.9], "share": [0.3, 0.7]},
        "provenance": {
            "started": "2026-11-20T10:00:00+00:00",
            "environment": {"python": "3.11.7", "os": "Linux", "processor": "Imaginary 9000", "accelerator": None},
            "machine": "abcdef012345",
            "data": "d" * 64,
            "engine": "e" * 64,
            "plugin": {"distribution": "kdbench", "version": "0.1.0", "source": "f" * 64},
        },
    }
    return Record(**{**values, **changes})


@dataclass(frozen=True)
class Run:
    """What a report is made from."""

    manifest: Manifest
    records: tuple[Record, ...]

    @property
    def leaderboard(self) -> Leaderboard:
        return leaderboard(self.records)

    @property
    def board(self) -> Board:
        return self.leaderboard.boards[0]

    def html(self) -> str:
        board = self.leaderboard
        return html_report(self.manifest, board, self.records, claims(board), ranking(board))

    def with_records(self, records: Sequence[Record]) -> Run:
        return replace(self, records=tuple(records))

    def on_another_task(self) -> Run:
        """The same run with a second task, on which every method is worse."""
        copies = [
            make_record(record.method, record.seed, record.metrics["accuracy"] - 0.02 * record.seed, task="svhn")
            for record in self.records
            if record.status == "done"
        ]
        return self.with_records([*self.records, *copies])


@pytest.fixture(scope="session")
def run() -> Run:
    records = [make_record(method, seed, score) for method, own in SCORES.items() for seed, score in enumerate(own)]
    records += [
        make_record(
            "broken", 0, None, status="failed", reason="ValueError: 3 < 4", error="Traceback\n  ValueError: 3 < 4"
        ),
        *(make_record("picky", seed, None, status="skipped", reason="no tap 'stage4'") for seed in range(3)),
    ]
    manifest = Manifest(
        name="first run",
        suite="quick@1.0",
        suite_digest="9f2c" * 16,
        suite_source="suite: quick@1.0  # <b>bold</b>\n",
        title="Quick & <i>small</i>",
        question="Does it help a small network?",
        departures=("two seeds only",),
        created="2026-11-20T09:59:00.000000+00:00",
        updated="2026-11-20T10:05:00.000000+00:00",
        sessions=(Session(started="2026-11-20T09:59:00+00:00", seconds=366, peak_memory_bytes=512 * 2**20),),
    )
    return Run(manifest, tuple(records))
