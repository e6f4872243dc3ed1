"""The truth on disk: one folder per run, one file set per trial, nothing pickled."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_json

from kdbench.errors import BadInput, StoreError, UnknownName
from kdbench.files import write_atomic
from kdbench.measuring.record import SCHEMA_VERSION, Record

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

MANIFEST_VERSION = 1

_NAME = re.compile(r"[\w@+](?:[\w.@+\- ]{0,98}[\w@+\-])?")
_FINGERPRINT = re.compile(r"[\w-]{1,128}")
# Beside the runs' folders in the same --out; "latest" is how a run is asked for.
_RESERVED = frozenset({"latest", "teachers", "mlartifacts"})
_ORPHAN_AGE = 3600.0  # seconds; a younger temporary file may belong to a process that is still writing it


@dataclass(frozen=True)
class TrialFiles:
    """The files of one trial or teacher. The record is written last: a record that exists has all its files."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """Where the training state lives while the trial is under way."""
        return self.folder / "checkpoint.safetensors"

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
        """Replaces all three files; floats keep every bit, NaN and infinity included.

        `predictions`: by convention "logits", float32 [N, classes], and "targets", int64 [N].

        Raises:
            StoreError: the disk is full or the folder cannot be written; no record is left then.
        """
        self._clear()
        for path, tensors in ((self._weights, weights), (self._predictions, predictions)):
            if tensors is not None:
                write_atomic(path, _tensor_bytes(tensors))
        write_atomic(self._record, to_json(record.model_dump(), inf_nan_mode="strings", indent=1))

    def record(self) -> Record | None:
        """The stored record, or None where the trial has not ended.

        Raises:
            StoreError: the file is damaged, or another version of kdbench wrote it in another schema.
        """
        try:
            data = json.loads(self._record.read_bytes())
            if isinstance(data, dict) and data.get("schema_version") != SCHEMA_VERSION:
                raise StoreError(
                    f"{self._record} has schema {data.get('schema_version')}; this kdbench reads {SCHEMA_VERSION}",
                    hint="read it with the kdbench that wrote it, or run under another --name",
                )
            return Record.model_validate(data)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise _damaged(self._record, error) from error

    def weights(self) -> dict[str, Tensor] | None:
        """The deployed student's state dict on the CPU, or None where the trial ended without one.

        Raises:
            StoreError: the file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(self._weights.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise _damaged(self._weights, error) from error

    def predictions(self) -> dict[str, np.ndarray[Any, Any]] | None:
        """Per-example predictions as arrays, so that analysis reads them without torch; None where there are none.

        Raises:
            StoreError: the file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            return load(self._predictions.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise _damaged(self._predictions, error) from error

    def discard_checkpoint(self) -> None:
        """Frees what only a resumed training would need."""
        self.checkpoint.unlink(missing_ok=True)

    def _clear(self) -> None:
        """Removes an earlier attempt's files, the record first, and what a killed process left half-written."""
        try:
            for path in (self._record, self._weights, self._predictions):
                path.unlink(missing_ok=True)
            for path in self.folder.glob(".*.safetensors.*"):
                if time.time() - path.stat().st_mtime > _ORPHAN_AGE:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write in {self.folder}: {error.strerror or error}") from error


class Manifest(BaseModel):
    """What a run consists of.

    Attributes:
        suite, suite_digest, suite_source: `name@major.minor`, SHA-256 of the resolved suite, and the YAML as written.
        equivalence_margin, departures: as the suite states them; the analysis and the report need them.
        created, updated: UTC, ISO 8601; `RunFolder.update` sets the latter.
        trials: from "task|pair|method[params]|seed" to the trial's fingerprint, in the suite's order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = MANIFEST_VERSION
    name: str
    suite: str
    suite_digest: str
    suite_source: str
    title: str = ""
    question: str = ""
    equivalence_margin: float
    departures: tuple[str, ...] = ()
    created: str
    updated: str
    trials: dict[str, str] = {}


class RunFolder:
    """One run's folder: `manifest.json` and `trials/<fingerprint>/`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @classmethod
    def create(cls, out: Path, name: str) -> RunFolder:
        """The folder of run `name`, made where it does not exist yet; what an earlier run left in it is kept.

        Raises:
            BadInput: the name could not be a folder's name everywhere, or is one that kdbench uses itself.
            StoreError: the folder cannot be made or written.
        """
        check_name(name)
        path = out / name
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise StoreError(
                f"cannot write in {path}: {error.strerror or error}", hint="choose another folder with --out"
            ) from error
        return cls(path)

    @classmethod
    def open(cls, reference: str, out: Path) -> RunFolder:
        """The run that `reference` means: "latest" (the last one updated), a run's name under `out`, or a path.

        Raises:
            UnknownName: no such run; suggests the nearest names.
        """
        runs = {path.parent.name: cls(path.parent) for path in sorted(out.glob("*/manifest.json"))}
        if reference == "latest" and runs:
            return max(runs.values(), key=RunFolder._updated)
        if reference in runs:
            return runs[reference]
        if reference and (Path(reference) / "manifest.json").is_file():
            return cls(Path(reference).resolve())  # "." has a name too
        raise UnknownName("run", reference, runs, hint=None if runs else f"there are no runs in {out} yet")

    def has_manifest(self) -> bool:
        """Whether a run was ever begun here."""
        return (self.path / "manifest.json").is_file()

    def manifest(self) -> Manifest:
        """What the run consists of.

        Raises:
            StoreError: it is missing, damaged, or of another schema.
        """
        path = self.path / "manifest.json"
        try:
            data = json.loads(path.read_bytes())
            if isinstance(data, dict) and data.get("schema_version") != MANIFEST_VERSION:
                raise StoreError(
                    f"{path} has schema {data.get('schema_version')}; this kdbench reads {MANIFEST_VERSION}"
                )
            return Manifest.model_validate(data)
        except FileNotFoundError:
            raise StoreError(f"{self.path} holds no run", hint="it has no manifest.json") from None
        except (OSError, ValueError, RecursionError) as error:
            raise _damaged(path, error, "run again under the same --name: finished trials are kept") from error

    def update(self, manifest: Manifest) -> None:
        """Writes the manifest, stamped with the present time."""
        stamped = manifest.model_copy(update={"updated": now()})
        write_atomic(self.path / "manifest.json", stamped.model_dump_json(indent=1))

    def trial(self, fingerprint: str) -> TrialFiles:
        """The files of one trial, whether they exist yet or not."""
        return TrialFiles(self.path / "trials" / _checked(fingerprint))

    def records(self) -> list[Record]:
        """The records of all trials of the manifest that have ended, in its order."""
        found = (self.trial(fingerprint).record() for fingerprint in self.manifest().trials.values())
        return [record for record in found if record is not None]

    def _updated(self) -> str:
        try:
            return self.manifest().updated
        except StoreError:
            return ""  # the oldest of all: it is opened, and its damage reported, only where nothing else is there


def teacher_files(out: Path, fingerprint: str) -> TrialFiles:
    """The files of a teacher, which all runs under `out` share."""
    return TrialFiles(out / "teachers" / _checked(fingerprint))


def check_name(name: str) -> None:
    """Refuses names that are no plain folder name, so that a run never lands outside of its `--out`.

    Raises:
        BadInput: with the rule.
    """
    if not _NAME.fullmatch(name) or name.casefold() in _RESERVED or name.casefold().startswith("mlflow.db"):
        raise BadInput(
            f"a run cannot be named {name!r}",
            hint="at most 100 letters, digits, spaces and . _ @ + -, neither beginning nor ending with a dot or space; "
            f"not {', '.join(sorted(_RESERVED))} or mlflow.db",
        )


def now() -> str:
    """The present time in UTC, ISO 8601, always with microseconds, so that such strings sort by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _checked(fingerprint: str) -> str:
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise StoreError(f"{fingerprint!r} is no fingerprint")
    return fingerprint


def _tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    import torch
    from safetensors.torch import save

    # Cloned, because safetensors refuses tensors that share memory, as tied weights do.
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    return save(plain)


def _damaged(path: Path, error: Exception, hint: str | None = None) -> StoreError:
    what = f"{error.error_count()} fields are wrong" if isinstance(error, ValidationError) else str(error)
    hint = hint or f"delete {path.parent} and run again: only what was in it is repeated"
    return StoreError(f"{path} is damaged: {what}", hint=hint)
