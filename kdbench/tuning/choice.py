"""Choice: the configuration that a method or control came out of its tuning with, as `choices.json` keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json

from kdbench.files import write_atomic


class Choice(BaseModel):
    """What was tried of one method on one board, and what it is run with.

    Attributes:
        params, learning_rate, score: of the configuration chosen; score: of the last epoch on the validation split by
            `metric`; None where no configuration has one.
        own_params, own_learning_rate, own_score: of the suite's own configuration, which was tried first.
        trials, failed: how many configurations were tried; how many of them failed, diverged or could not be.
        flops, seconds: of training them all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    pair: str
    method: str
    params: dict[str, Any]
    learning_rate: float
    score: float | None
    own_params: dict[str, Any]
    own_learning_rate: float
    own_score: float | None
    metric: str
    higher_is_better: bool
    trials: int
    failed: int
    flops: float
    seconds: float


def save_choices(path: Path, choices: Sequence[Choice]) -> None:
    """Writes them as a JSON list.

    Raises:
        StoreError: the folder cannot be written.
    """
    write_atomic(path, to_json([choice.model_dump() for choice in choices], indent=1))
