"""A teacher's answers to the training examples, computed once: for later epochs, other cohorts and other runs."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from kdbench.errors import StoreError
from kdbench.files import sha256_of, stated_sums, write_atomic, write_sums
from kdbench.plan import LoadedTask
from kdbench.provenance import digest
from kdbench.task import Batch
from kdbench.training.prediction import EVALUATION_BATCH, prepared

BUDGET = 4 << 30  # bytes of a teacher's answers; one that takes more is asked at every step, as without

Answer = Callable[[Batch], Mapping[str, Tensor]]


@dataclass(frozen=True)
class StoredAnswers:
    """Arrays [examples, ...] by tap, mapped from disk; `seconds` that computing them once took. `resident`: the same
    on the batches' device, where they are there."""

    arrays: Mapping[str, np.ndarray[Any, Any]]
    seconds: float
    resident: Mapping[str, Tensor] = field(default_factory=dict)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """The answers to a batch of training examples, on its device."""
        if self.resident:
            return {tap: held.index_select(0, batch.indices) for tap, held in self.resident.items()}
        rows = (batch.indices.cpu() if batch.host_indices is None else batch.host_indices).numpy()
        answers = {tap: torch.from_numpy(array[rows]) for tap, array in self.arrays.items()}
        return {tap: answer.to(batch.inputs.device, non_blocking=True) for tap, answer in answers.items()}

    def held_on(self, device: torch.device, fits: Callable[[int], bool]) -> StoredAnswers:
        """The same, moved to `device` at once if `fits` says that there is room for their bytes."""
        if not fits(sum(array.nbytes for array in self.arrays.values())):
            return self
        held = {tap: torch.from_numpy(np.array(array)).to(device) for tap, array in self.arrays.items()}
        return replace(self, resident=held)


def stored_answers(
    ask: Answer,
    loaded: LoadedTask,
    device: torch.device,
    folder: Path,
    identity: object,
    say: Callable[[str], None] = lambda said: None,
) -> StoredAnswers | None:
    """The answers of a teacher to every training example, computed in order if `folder` does not hold them yet; what
    they come to depends on teacher and data alone, never on who asks.

    None where they cannot be stored: where a tap has another number of rows than examples, or they exceed `BUDGET`.
    `identity`: what they depend on besides the data; `say`: is told of damaged ones, which are computed again.

    Raises:
        StoreError: they cannot be written.
    """
    train = loaded.data.train
    (first,) = prepared(train, [torch.arange(min(2, len(train)))], loaded.data, device)
    example = ask(first)
    if any(len(tensor) != len(first) for tensor in example.values()):
        return None
    numbers = sum(prod(tensor.shape[1:]) for tensor in example.values())
    if 4 * numbers * len(train) > BUDGET:
        return None
    place = folder / digest([identity, train.digest(), sorted(example)])[:32]
    with _alone(place):  # others wait, and find what this process has computed
        if (place / "seconds.json").exists():
            try:
                return _opened(place, example)
            except (OSError, EOFError, ValueError) as error:
                say(f"the answers in {place} are damaged: {error}; they are computed again")
        _compute(ask, loaded, device, place, example)
        return _opened(place, example)


def _alone(place: Path) -> AbstractContextManager[Any]:
    """A lock that is held already."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        return FileLock(place / ".lock").acquire()
    except OSError as error:
        raise StoreError(f"cannot lock {place}: {error.strerror or error}") from error


def _opened(place: Path, taps: Iterable[str]) -> StoredAnswers:
    """What `_compute` wrote; ValueError where it is anything else."""
    for name, sha256 in stated_sums(place).items():
        if sha256_of(place / name) != sha256:
            raise ValueError(f"the SHA-256 of {name} is another")
    arrays = {tap: np.load(place / f"{tap}.npy", mmap_mode="r", allow_pickle=False) for tap in taps}
    return StoredAnswers(arrays, float(json.loads((place / "seconds.json").read_bytes())))


def _compute(ask: Answer, loaded: LoadedTask, device: torch.device, place: Path, example: Mapping[str, Tensor]) -> None:
    """Writes one array per tap, and last how long that took: a folder that has it is whole."""
    train, started = loaded.data.train, time.perf_counter()
    try:
        with ExitStack() as files:
            arrays = {tap: files.enter_context(_array(place / f"{tap}.npy")) for tap in example}
            for tap, file in arrays.items():
                shape = (len(train), *example[tap].shape[1:])
                np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            # written in order, not mapped: a full disk is then an error, and not the end of the process
            for batch in prepared(train, torch.arange(len(train)).split(EVALUATION_BATCH), loaded.data, device):
                for tap, tensor in ask(batch).items():
                    arrays[tap].write(tensor.float().cpu().contiguous().numpy().astype("<f4", copy=False).tobytes())
    except OSError as error:
        hint = "free some space, or leave stored_answers out of the recipe's speedups"
        raise StoreError(f"cannot write {place}: {error.strerror or error}", hint=hint) from error
    seconds = json.dumps(time.perf_counter() - started).encode()
    sums = {f"{tap}.npy": sha256_of(place / f"{tap}.npy") for tap in example}
    write_sums(place, {**sums, "seconds.json": sha256_of(seconds)})
    write_atomic(place / "seconds.json", seconds)


@contextmanager
def _array(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its place only when it is whole and on the disk."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
