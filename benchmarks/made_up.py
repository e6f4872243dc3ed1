"""Records of trials that never ran, as full as real ones: what the store and the analysis are timed on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kdbench.analysis.leaderboard import BASELINE
from kdbench.measuring.record import Record
from kdbench.provenance import digest
from kdbench.store.run_folder import Manifest, RunFolder, now

CONTROLS = tuple(f"control{number}" for number in range(6))

# So many numbers a real record holds beside those that the analysis asks for.
_OTHER_METRICS = tuple(f"metric{number}" for number in range(34))
_MEASUREMENTS = ("training_seconds", "teacher_seconds", "shared_seconds", "latency_ms_p50", "peak_memory_bytes")
_CURVES = ("loss", "loss/task", "loss/soft", "validation_accuracy", "learning_rate")


@dataclass(frozen=True)
class MadeUpRun:
    """`methods` methods, six controls and the baseline, on `boards` tasks under `seeds` seeds; `examples` in each test
    split, `epochs` points on each curve."""

    methods: int = 20
    seeds: int = 5
    boards: int = 1
    examples: int = 10_000
    epochs: int = 30

    @classmethod
    def of(cls, records: int, examples: int = 500) -> MadeUpRun:
        """About so many records in all, of 20 methods and five seeds (135 on every board); few: of one seed."""
        few = records < cls().size
        return cls(seeds=1 if few else cls.seeds, boards=max(1, round(records / cls().size)), examples=examples)

    @property
    def size(self) -> int:
        """How many records there are."""
        return self.boards * self.seeds * (self.methods + len(CONTROLS) + 1)

    @cached_property
    def _hardness(self) -> NDArray[np.float64]:
        return np.random.default_rng(0).normal(1.0, 1.5, self.examples)

    def trials(self) -> Iterator[tuple[Record, NDArray[np.float32]]]:
        """Every record, and how much each test example moves its score."""
        random = np.random.default_rng(1)
        for board in range(self.boards):
            for method in (BASELINE, *CONTROLS, *(f"method{number}" for number in range(self.methods))):
                for seed in range(self.seeds):
                    gain = 0.1 * method.startswith("method")
                    right = (self._hardness + random.normal(gain, 1.0, self.examples) > 0).astype(np.float32)
                    record = self._record(f"task{board}", method, seed, float(right.mean()))
                    yield record, right - right.mean()

    def _record(self, task: str, method: str, seed: int, accuracy: float) -> Record:
        distils = method.startswith("method")
        metrics = {"accuracy": accuracy, "teacher_accuracy": 0.9, "ece": 0.05, "agreement": 0.9}
        return Record(
            fingerprint=digest([task, method, seed])[:32],
            status="done",
            suite="made-up@1.0",
            task=task,
            pair="teacher -> student",
            teachers=("teacher",),
            student="student",
            method=method,
            params={"temperature": 4.0} if distils else {},
            family="response" if distils else "control",
            controls=CONTROLS if distils else (),
            seed=seed,
            primary="accuracy",
            metrics={**metrics, **dict.fromkeys(_OTHER_METRICS, accuracy)},
            measurements=dict.fromkeys(_MEASUREMENTS, 1.0),
            curves={name: [accuracy] * self.epochs for name in _CURVES},
            provenance={"started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:01:00+00:00"},
        )

    def write(self, folder: Path) -> RunFolder:
        """All of it as a run's folder."""
        run = RunFolder.create(folder, "made-up")
        trials = {}
        for record, influences in self.trials():
            run.trial(record.fingerprint).save(record, None, {"influences": torch.from_numpy(influences)})
            trials[f"{record.task}|{record.pair}|{record.method}|{record.seed}"] = record.fingerprint
        run.update(
            Manifest(
                name="made-up",
                suite="made-up@1.0",
                suite_digest="0" * 64,
                suite_source="suite: made-up@1.0\n",
                created=now(),
                updated=now(),
                trials=trials,
            )
        )
        return run
