"""SpokenDigits: the Free Spoken Digit Dataset, split as published or by speaker."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from kdbench import BadInput, Data, DataFile, DataFolders, DataSpec, Positive, Task, TensorSplit

from ._text_table import read_text

FSDD = DataFile(
    name="speech/fsdd.zip",
    sha256="16cfefbc5553c63b4149ee3a7de88372a1b84fa3c2488af5df8df87f2d256a79",
    folder="fsdd",
    source=(
        "https://github.com/Jakobovski/free-spoken-digit-dataset at 26eb9aaf76e81b692f806f9140c2d2777410d7a1"
        " (a clone of it named 'fsdd' does as well)"
    ),
)
_SAMPLE_RATE = 8000
_CLASSES = tuple("0123456789")
_OFFICIAL_TEST = {str(index) for index in range(5)}
_COLUMNS = ("file", "digit", "speaker", "index")


@dataclass(frozen=True)
class SpokenDigits(Task):
    """3000 recordings of spoken English digits by six speakers (FSDD, Zohar Jackson and contributors).

    Attributes:
        split: "official": of each digit and speaker, recordings 0 to 4 are for testing (300; every speaker is in both
            parts). "speaker": all recordings of `held_out` are for testing (500), none for training. The validation
            split, which the core cuts from the training part, shares its speakers.
        held_out: george, jackson, lucas, nicolas, theo or yweweler; used by the speaker split only.
        seconds: length that recordings are brought to, around their middle; they last 0.14 to 2.28 s, 1 % over 0.92 s.
        features: "log_mel", or "waveform" for the samples themselves.
    """

    modality: ClassVar[str] = "speech"
    data_files: ClassVar[tuple[DataFile, ...]] = (FSDD,)

    split: Literal["official", "speaker"] = "official"
    held_out: str = "theo"
    seconds: Positive = 1.0
    features: Literal["log_mel", "waveform"] = "log_mel"

    def load(self, folders: DataFolders) -> Data:
        """float16 inputs [N, 40 mel bands, frames of 10 ms] (see `_audio.LogMel`), of recordings at 8 kHz; waveforms:
        int16 [N, 1, samples].

        Raises:
            MissingData: the data set is not on this machine.
            BadInput: its table or a recording cannot be used (says which and why), or there is no such speaker.
        """
        import torch

        from ._audio import FRONT_ENDS
        from ._signals import NormaliseChannels
        from ._white_noise import WhiteNoise

        root = folders.provide(FSDD)
        recordings = list_recordings(root)
        test = torch.tensor(self._held_out(recordings))
        if test.all() or not test.any():
            raise BadInput(f"the recordings under {root} are all for {'testing' if test.all() else 'training'}")
        front_end = FRONT_ENDS[self.features](_SAMPLE_RATE, self.seconds)
        files = [root / recording.file for recording in recordings]
        features = front_end.features_of(files)
        targets = torch.tensor([recording.digit for recording in recordings])
        train = TensorSplit(features[~test], targets[~test])
        return Data(
            spec=DataSpec(input_shape=front_end.shape, classes=len(_CLASSES), modality="speech"),
            train=train,
            test=TensorSplit(features[test], targets[test]),
            class_names=_CLASSES,
            prepare=NormaliseChannels.to(train.inputs),
            corruptions={
                "white_noise": WhiteNoise(front_end, [file for file, held in zip(files, test, strict=True) if held])
            },
        )

    def _held_out(self, recordings: Iterable[Recording]) -> list[bool]:
        if self.split == "official":
            return [recording.index in _OFFICIAL_TEST for recording in recordings]
        speakers = sorted({recording.speaker for recording in recordings})
        if self.held_out not in speakers:
            raise BadInput(f"there is no speaker '{self.held_out}'", hint=f"choices: {', '.join(speakers)}")
        return [recording.speaker == self.held_out for recording in recordings]


@dataclass(frozen=True, order=True)
class Recording:
    """One recording: its file below the data set's folder, and which digit, whose voice, which take."""

    file: str
    digit: int
    speaker: str
    index: str


def list_recordings(root: Path) -> list[Recording]:
    """All recordings, sorted by file: as metadata.tsv lists them, or by their names where there is none.

    Raises:
        BadInput: there are none, the table is damaged, or a digit is not one of 0 to 9; names file and line.
    """
    table = root / "metadata.tsv"
    recordings = sorted(_listed(table) if table.exists() else _named(root))
    if not recordings:
        raise BadInput(f"there are no recordings under {root}", hint=f"get them anew: {FSDD.source}")
    return recordings


def _listed(table: Path) -> Iterator[Recording]:
    rows = csv.DictReader(io.StringIO(read_text(table), newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    for line, row in enumerate(rows, start=2):
        lacking = [column for column in _COLUMNS if row.get(column) is None]
        if lacking:
            raise BadInput(f"{table}, line {line}: there is no '{lacking[0]}'", hint="unpack the data set anew")
        yield _recording(row, f"{table}, line {line}")


def _named(root: Path) -> Iterator[Recording]:
    for file in (root / "recordings").glob("*.wav"):
        digit, speaker, index = [*file.stem.split("_"), "", ""][:3]
        row = {"file": f"recordings/{file.name}", "digit": digit, "speaker": speaker, "index": index}
        yield _recording(row, str(file))


def _recording(row: Mapping[str, str], where: str) -> Recording:
    if row["digit"] not in _CLASSES:
        raise BadInput(f"{where}: digit '{row['digit']}' is not one of {_CLASSES[0]} to {_CLASSES[-1]}")
    return Recording(row["file"], int(row["digit"]), row["speaker"], row["index"])
