"""The truth on disk: one folder per run, with its manifest, its tasks' assets and its trials."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from kdbench.errors import BadInput, StoreError, UnknownName
from kdbench.files import write_atomic
from kdbench.measuring.record import Record
from kdbench.store.trial_files import TrialFiles, checked, damaged

MANIFEST_VERSION = 1

_NAME = re.compile(r"[\w@+](?:[\w.@+\- ]{0,98}[\w@+\-])?")
# Beside the runs' folders in the same --out; "latest" is how a run is asked for.
_RESERVED = frozenset({"latest", "teachers", "mlartifacts", "published"})


class Session(BaseModel):
    """One `kdbench run` on the run: when it began (UTC, ISO 8601), the seconds it took, and the most memory that its
    process held (bytes; None where the system does not tell)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    started: str
    seconds: float
    peak_memory_bytes: int | None = None


class Manifest(BaseModel):
    """What a run consists of.

    Attributes:
        suite, suite_digest, suite_source: `name@major.minor`, SHA-256 of the resolved suite, and the YAML as written.
        equivalence_margin, departures: as the suite states them; the analysis and the report need them.
        created, updated: UTC, ISO 8601; `RunFolder.update` sets the latter.
        trials: from "task|pair|method[params]|seed" to the trial's fingerprint, in the suite's order.
        sessions: the commands that worked on it to their end.
        tuning_trials: how many configurations of every method and control were tried in the tuned track; 0: the fixed
            track, which runs the suite's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = MANIFEST_VERSION
    name: str
    suite: str
    suite_digest: str
    suite_source: str
    title: str = ""
    question: str = ""
    equivalence_margin: float | dict[str, float] | None = None
    departures: tuple[str, ...] = ()
    created: str
    updated: str
    trials: dict[str, str] = {}
    sessions: tuple[Session, ...] = ()
    tuning_trials: int = 0

    @property
    def track(self) -> str:
        """How configurations were chosen, for people."""
        if not self.tuning_trials:
            return "fixed track: the configurations of the suite"
        return f"tuned track: {self.tuning_trials} trials for every method and control, on validation"


class RunFolder:
    """One run's folder: `manifest.json`, `trials/<fingerprint>/` and `assets/<task>/`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @classmethod
    def create(cls, out: Path, name: str) -> RunFolder:
        """The folder of run `name`, made where it does not exist yet; what an earlier run left in it is kept.

        Raises:
            BadInput: the name could not be a folder's name everywhere, or is one that kdbench uses itself; or the
                locale cannot tell the letters of `out`, which MLflow's database and the report must.
            StoreError: the folder cannot be made or written.
        """
        check_name(name)
        path = out / name
        try:
            str(path.resolve()).encode()
        except UnicodeEncodeError as error:
            hint = "set PYTHONUTF8=1, or LC_ALL to a locale of UTF-8"
            raise BadInput(f"the locale cannot tell the letters of {str(path)!a}", hint=hint) from error
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
            raise damaged(path, error, "run again under the same --name: finished trials are kept") from error

    def update(self, manifest: Manifest) -> None:
        """Writes the manifest, stamped with the present time."""
        stamped = manifest.model_copy(update={"updated": now()})
        write_atomic(self.path / "manifest.json", stamped.model_dump_json(indent=1))

    def save_assets(self, task: str, assets: Mapping[str, bytes]) -> None:
        """Keeps, by name, what the students of `task` need beside their weights (a tokenizer).

        Raises:
            StoreError: the folder cannot be written.
        """
        folder = re.sub(r"[^\w.@=+-]+", "_", task)[:60] + "-" + hashlib.sha256(task.encode()).hexdigest()[:8]
        for name, content in assets.items():
            if not _NAME.fullmatch(name):
                raise StoreError(f"{name!r} cannot be the name of a file")
            write_atomic(self.path / "assets" / folder / name, content)

    def trial(self, fingerprint: str) -> TrialFiles:
        """The files of one trial, whether they exist yet or not."""
        return TrialFiles(self.path / "trials" / checked(fingerprint))

    def records(self) -> list[Record]:
        """The records of all trials of the manifest that have ended, in its order."""
        found = (self.trial(fingerprint).record() for fingerprint in self.manifest().trials.values())
        return [record for record in found if record is not None]

    def _updated(self) -> str:
        try:
            return self.manifest().updated
        except StoreError:
            return ""  # the oldest of all: it is opened, and its damage reported, only where nothing else is there


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
