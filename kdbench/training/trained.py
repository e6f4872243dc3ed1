"""Trained: what came of a trial in training."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from kdbench.errors import NotApplicable
from kdbench.plan import Trial
from kdbench.training.checkpoints import Snapshot
from kdbench.training.learner import Diverged, Learner


@dataclass(frozen=True)
class Trained:
    """A trial after training. Seconds: as if alone; the teacher's part of them; and what it really cost in company.
    `snapshots`: the weights after some earlier epochs, counted from 1.

    `started`: when this attempt began, seconds since 1970. `student` is the measured network, in eval mode; None unless
    the status is "done". `out_of_memory`: it failed because the device was full, which it may not be in less company.
    """

    trial: Trial
    status: Literal["done", "failed", "diverged", "skipped"]
    started: float
    student: nn.Module | None
    curves: Mapping[str, list[float]]
    examples: int
    seconds: float
    teacher_seconds: float
    shared_seconds: float
    snapshots: Mapping[int, Snapshot] = field(default_factory=dict)
    reason: str | None = None
    error: str | None = None
    out_of_memory: bool = False


def ended_early(trial: Trial, learner: Learner | None, error: Exception) -> Trained:
    """That of a trial that raised; without a learner before it began."""
    foreseen: dict[type[Exception], Literal["diverged", "skipped"]] = {Diverged: "diverged", NotApplicable: "skipped"}
    status = next((status for kind, status in foreseen.items() if isinstance(error, kind)), None)
    return Trained(
        trial=trial,
        status=status or "failed",
        started=learner.started if learner else time.time(),
        student=None,
        curves=learner.curves if learner else {},
        examples=learner.examples if learner else 0,
        seconds=learner.seconds if learner else 0.0,
        teacher_seconds=learner.teacher_seconds if learner else 0.0,
        shared_seconds=learner.shared_seconds if learner else 0.0,
        reason=str(error) if status else f"{type(error).__name__}: {error}",
        error=None if status else "".join(traceback.format_exception(error)),
        out_of_memory=isinstance(error, torch.OutOfMemoryError),
    )
