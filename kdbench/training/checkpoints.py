"""A trial's training state on disk, one safetensors file per trial, replaced atomically at each epoch's end; and the
weights of the epochs that are looked at again once it is trained. Each holds its own SHA-256, so that none is read
otherwise than it was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from kdbench.errors import StoreError
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
        _write(self.path, learner.networks[0].state_dict(), {})

    def weights(self) -> dict[str, Tensor]:
        """The state dict, on the CPU.

        Raises:
            StoreError: the file is not as it was written.
        """
        return _read(self.path)[0]


def save_checkpoint(learner: Learner, path: Path) -> None:
    """Writes the learner's whole state. JSON keeps every float of the curves exactly."""
    _write(path, learner.tensors(), {name: getattr(learner, name) for name in _COUNTERS})


def load_checkpoint(learner: Learner, path: Path, say: Callable[[str], None]) -> None:
    """Puts the learner where the checkpoint left it, if there is one; `say` gets what is wrong with it.

    A damaged one, or one whose snapshots are, lets the trial start over, which gives the same result.
    """
    if not path.exists():
        return
    try:
        tensors, counters = _read(path)
        for epoch in learner.trial.kept_epochs:
            if epoch <= counters["epoch"]:
                Snapshot.of(path, epoch).weights()
    except StoreError as error:
        say(f"{error.message}; the trial starts over")
        return
    learner.restore(tensors)
    for name in _COUNTERS:
        setattr(learner, name, counters[name])


def _write(path: Path, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    written = json.dumps(counters)
    write_atomic(path, save(plain, metadata={"counters": written, "sha256": _sha256(plain, written)}))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `_write` wrote; StoreError where it is anything else."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = file.metadata()
        if metadata["sha256"] != _sha256(tensors, metadata["counters"]):
            raise ValueError("its content does not have the SHA-256 that it states")
        return tensors, json.loads(metadata["counters"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} is damaged: {error}") from error


def _sha256(tensors: Mapping[str, Tensor], counters: str) -> str:
    digest = hashlib.sha256(counters.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
