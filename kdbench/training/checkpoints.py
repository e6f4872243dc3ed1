"""A trial's training state on disk, one safetensors file per trial, replaced atomically at each epoch's end."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from kdbench.files import write_atomic
from kdbench.training.learner import Learner

_COUNTERS = ("epoch", "examples", "seconds", "teacher_seconds", "shared_seconds", "curves")


def save_checkpoint(learner: Learner, path: Path) -> None:
    """Writes the learner's whole state. JSON keeps every float of the curves exactly."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in learner.tensors().items()}
    counters = {name: getattr(learner, name) for name in _COUNTERS}
    write_atomic(path, save(tensors, metadata={"counters": json.dumps(counters)}))


def load_checkpoint(learner: Learner, path: Path) -> bool:
    """Puts the learner where the checkpoint left it; False where there is none that can be read."""
    if not path.exists():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            counters = json.loads(file.metadata()["counters"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return False  # damaged: the trial starts over, which gives the same result
    learner.restore(tensors)
    for name in _COUNTERS:
        setattr(learner, name, counters[name])
    return True
