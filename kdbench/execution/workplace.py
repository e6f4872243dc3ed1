"""The folder through which the driver and the workers of one run talk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kdbench.errors import StoreError
from kdbench.store.run_folder import RunFolder


class StopSign(Protocol):
    """What tells workers to stop at the end of an epoch: a file, where they see the same ones."""

    def touch(self) -> None:
        """Tells them; again, where it was told already."""


@dataclass(frozen=True)
class Workplace:
    """Exists as long as the block that uses it; only the holder of the run's lock may make it."""

    folder: Path

    @classmethod
    def of(cls, run: RunFolder) -> Workplace:
        """That of a run."""
        return cls(run.path.absolute() / "workers")

    @property
    def job(self) -> Path:
        """What workers plan from, as JSON."""
        return self.folder / "job.json"

    @property
    def stop(self) -> Path:
        """A file whose existence tells workers to stop at the end of an epoch."""
        return self.folder / "stop"

    def __enter__(self) -> Workplace:
        shutil.rmtree(self.folder, ignore_errors=True)  # of a driver that was killed
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise StoreError(f"cannot write in {self.folder}: {error.strerror or error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
