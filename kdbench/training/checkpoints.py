"""A trial's training state on disk, one safetensors file per trial, replaced atomically at each epoch's end; and the
weights of the epochs that are looked at again once it is trained."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from kdbench.files import write_atomic
from kdbench.training.learner import Learner

_COUNTERS = ("epoch", "examples", "seconds", "teacher_seconds", "shared_seconds", "curves")


@dataclass(frozen=True)
class Snapshot:
    """A student's weights after an epoch; the file lies beside its checkpoint, and goes with it."""

    path: Path

    @classmethod
    def of(cls, checkpoint: Path, epoch: int) -> Snapshot:
        """Where the snapshot of an epoch lies."""
        return cls(checkpoint.with_name(f"{checkpoint.stem}-{epoch}.safetensors"))

    def save(self, learner: Learner) -> None:
        """Writes the weights of the first student."""
        state = learner.networks[0].state_dict()
        write_atomic(self.path, save({name: tensor.cpu().contiguous().clone() for name, tensor in state.items()}))

    def weights(self) -> dict[str, Tensor]:
        """The state dict, on the CPU."""
        return load_file(self.path)


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
