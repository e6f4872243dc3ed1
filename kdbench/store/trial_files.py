"""The files of one trial: its record, the deployed student's weights, its predictions. Nothing is pickled, and every
file is read only as it was written: SHA256SUMS stands beside them, in the form that `sha256sum -c` takes."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from kdbench.errors import StoreError
from kdbench.files import SUMS, sha256_of, stated_sums, write_atomic, write_sums
from kdbench.measuring.record import SCHEMA_VERSION, Record

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_FINGERPRINT = re.compile(r"[\w-]{1,128}")
_ORPHAN_AGE = 3600.0  # seconds; a younger temporary file may belong to a process that is still writing it


class Damaged(StoreError):
    """A file is not as it was written; whatever was in it can be computed again."""


@dataclass(frozen=True)
class TrialFiles:
    """The files of one trial or teacher. The record is written last: a record that exists has all its files."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """Where the training state lives while the trial is under way."""
        return self.folder / "checkpoint.safetensors"

    @property
    def answers(self) -> Path:
        """Where a teacher's answers to training examples lie, if a recipe stores them."""
        return self.folder / "answers"

    @property
    def _record(self) -> Path:
        return self.folder / "record.json"

    @property
    def _weights(self) -> Path:
        return self.folder / "student.safetensors"

    @property
    def _predictions(self) -> Path:
        return self.folder / "predictions.safetensors"

    def save(
        self,
        record: Record,
        weights: Mapping[str, Tensor] | None = None,
        predictions: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Replaces all files; floats keep every bit, NaN and infinity included.

        `predictions`: by name, as `training.prediction.Predictions.tensors` gives them.

        Raises:
            StoreError: the disk is full or the folder cannot be written; no record is left then.
        """
        self._clear()
        sums = {}
        for path, tensors in ((self._weights, weights), (self._predictions, predictions)):
            if tensors is not None:
                content = _tensor_bytes(tensors)
                sums[path.name] = sha256_of(content)
                write_atomic(path, content)
        content = to_json(record.model_dump(), inf_nan_mode="strings", indent=1)
        sums[self._record.name] = sha256_of(content)
        write_sums(self.folder, sums)
        write_atomic(self._record, content)

    def record(self) -> Record | None:
        """The stored record, or None where the trial has not ended.

        Raises:
            Damaged: the file is not as it was written.
            StoreError: another version of kdbench wrote it in another schema.
        """
        try:
            data = from_json(self._read(self._record))
            if isinstance(data, dict) and data.get("schema_version") != SCHEMA_VERSION:
                raise StoreError(
                    f"{self._record} has schema {data.get('schema_version')}; this kdbench reads {SCHEMA_VERSION}",
                    hint="read it with the kdbench that wrote it, or run under another --name",
                )
            return Record.model_validate(data)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise damaged(self._record, error) from error

    def weights(self) -> dict[str, Tensor] | None:
        """The deployed student's state dict on the CPU, or None where the trial ended without one.

        Raises:
            Damaged: the file is not as it was written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(self._read(self._weights))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise damaged(self._weights, error) from error

    def predictions(self) -> dict[str, np.ndarray[Any, Any]] | None:
        """Per-example predictions as arrays, so that analysis reads them without torch; None where there are none.

        Raises:
            Damaged: the file is not as it was written.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            return load(self._read(self._predictions))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise damaged(self._predictions, error) from error

    def influences(self) -> np.ndarray[Any, Any] | None:
        """How much each test example moves the primary score, float32 [units]; None where nothing was measured.

        Raises:
            Damaged: the file is not as it was written.
        """
        found = self.predictions()
        return None if found is None else found.get("influences")

    def damage(self) -> Damaged | None:
        """What is wrong with the files of a trial that has ended; None where all are as they were written.

        Raises:
            StoreError: another version of kdbench wrote them.
        """
        try:
            if self.record() is None:
                return None
        except Damaged as error:
            return error
        for name in stated_sums(self.folder):
            try:
                self._read(self.folder / name)
            except (OSError, ValueError) as error:
                return damaged(self.folder / name, error)
        return None

    def set_aside(self) -> None:
        """Takes the record out of the way, so that the trial counts as not yet run.

        Raises:
            StoreError: the folder cannot be written.
        """
        try:
            self._record.replace(self._record.with_suffix(".json.damaged"))
        except OSError as error:
            raise StoreError(f"cannot write in {self.folder}: {error.strerror or error}") from error

    def discard_checkpoint(self) -> None:
        """Frees what only training and measuring need: the checkpoint, and the weights of earlier epochs."""
        for path in (self.checkpoint, *self.folder.glob("checkpoint-*.safetensors")):
            path.unlink(missing_ok=True)

    def _read(self, path: Path) -> bytes:
        """The content of one of the files, which must be what `save` wrote; ValueError says that it is not."""
        content, stated = path.read_bytes(), stated_sums(self.folder)
        if stated and stated.get(path.name) != sha256_of(content):
            raise ValueError(f"its SHA-256 is not the one in {SUMS}")
        return content

    def _clear(self) -> None:
        """Removes an earlier attempt's files, the record first, and what a killed process left half-written."""
        try:
            for path in (self._record, self.folder / SUMS, self._weights, self._predictions):
                path.unlink(missing_ok=True)
            for path in self.folder.glob(".*.*"):
                if time.time() - path.stat().st_mtime > _ORPHAN_AGE:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write in {self.folder}: {error.strerror or error}") from error


def teacher_files(out: Path, fingerprint: str) -> TrialFiles:
    """The files of a teacher, which all runs under `out` share."""
    return TrialFiles(out / "teachers" / checked(fingerprint))


def checked(fingerprint: str) -> str:
    """`fingerprint`, which becomes a folder's name.

    Raises:
        StoreError: it could lead elsewhere.
    """
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise StoreError(f"{fingerprint!r} is no fingerprint")
    return fingerprint


def damaged(path: Path, error: Exception, hint: str | None = None) -> Damaged:
    """The error of a file that cannot be read back, with what to do."""
    what = f"{error.error_count()} fields are wrong" if isinstance(error, ValidationError) else str(error)
    hint = hint or f"delete {path.parent} and run again: only what was in it is repeated"
    return Damaged(f"{path} is damaged: {what}", hint=hint)


def _tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    import torch
    from safetensors.torch import save

    # Cloned, because safetensors refuses tensors that share memory, as tied weights do.
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    return save(plain)
