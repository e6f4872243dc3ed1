"""AN4: English letters, numbers and commands, by 84 speakers, to be written down."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from kdbench import BadInput, Count, Data, DataFile, DataFolders

from ._ctc import SpeechToText, Utterance, written_with

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COLUMNS = ("split", "speaker", "start_frame", "n_frames", "transcript")
_ANEW = "unpack the data set anew"
_SEED = 0


@dataclass(frozen=True)
class AN4(SpeechToText):
    """The census data base of Carnegie Mellon University, 1991: spelled names, numbers, dates and a few commands.

    948 utterances by 74 speakers for training, 130 by 10 others for testing; 48 minutes in all, of which there are
    features: 13 MFCC at 100 frames a second, as CMU distributes them. 101 words, letter by letter: 26 and the space.

    Attributes:
        validation_speakers: held out of the 74, chosen by a fixed seed: about 13 utterances each.
    """

    alphabet: ClassVar[str] = " ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    data_files: ClassVar[tuple[DataFile, ...]] = (
        DataFile(
            "speech/an4.zip",
            "ce7376d65b2cd255d470f169d4ee9415b33b06141c555b034da102504144f607",
            folder="an4",
            source="the AN4 data base of the CMU Robust Speech Group: features and transcripts in one table",
        ),
    )

    validation_speakers: Count = 8

    def load(self, folders: DataFolders) -> Data:
        """float16 inputs [N, 13 MFCC, frames of 10 ms], zero-padded.

        Raises:
            MissingData: the data set is not on this machine.
            BadInput: its table or its features are damaged (says which line or why), or too few speakers are left.
        """
        root = folders.provide(self.data_files[0])
        table = root / "utterances.tsv"
        rows, cepstra = _rows(table), _cepstra(root / "mfcc.npy")
        held_out = self._held_out(sorted({row["speaker"] for row in rows if row["split"] == "train"}))
        splits: dict[str, list[Utterance]] = {"train": [], "validation": [], "test": []}
        for line, row in enumerate(rows, start=2):
            part = "validation" if row["split"] == "train" and row["speaker"] in held_out else row["split"]
            if part not in splits:
                raise BadInput(f"{table}, line {line}: there is no split '{part}'", hint=_ANEW)
            splits[part].append(self._utterance(row, cepstra, f"{table}, line {line}"))
        if not splits["test"]:
            raise BadInput(f"{table} has no test utterances", hint=_ANEW)
        return self.assemble(**splits)

    def _held_out(self, speakers: list[str]) -> set[str]:
        if self.validation_speakers >= len(speakers):
            raise BadInput(f"cannot hold out {self.validation_speakers} of {len(speakers)} training speakers")
        return set(np.random.default_rng(_SEED).permutation(speakers)[: self.validation_speakers].tolist())

    def _utterance(self, row: Mapping[str, str], cepstra: NDArray[np.float32], where: str) -> Utterance:
        import torch

        try:
            start, frames = int(row["start_frame"]), int(row["n_frames"])
        except ValueError as error:
            raise BadInput(f"{where}: {error}", hint=_ANEW) from error
        if start < 0 or frames < 1 or start + frames > len(cepstra):
            raise BadInput(f"{where}: of {len(cepstra)} frames, {frames} from {start} on are not there", hint=_ANEW)
        features = torch.from_numpy(cepstra[start : start + frames].T.astype(np.float16))
        return Utterance(features, written_with(self.alphabet, row["transcript"], where))


def _rows(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(encoding="utf-8", newline="") as opened:
            rows = list(csv.DictReader(opened, delimiter="\t", quoting=csv.QUOTE_NONE))
    except UnicodeDecodeError as error:
        raise BadInput(f"{table} is not UTF-8: {error}", hint=_ANEW) from error
    except OSError as error:
        raise BadInput(f"cannot read {table}: {error.strerror or error}", hint=_ANEW) from error
    for line, row in enumerate(rows, start=2):
        for column in _lacking(row):
            raise BadInput(f"{table}, line {line}: there is no '{column}'", hint=_ANEW)
    return rows


def _lacking(row: Mapping[str, str | None]) -> Iterator[str]:
    return (column for column in _COLUMNS if row.get(column) is None)


def _cepstra(path: Path) -> NDArray[np.float32]:
    try:
        cepstra = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path}: {error}", hint=_ANEW) from error
    if cepstra.ndim != 2 or cepstra.dtype.kind != "f" or not np.isfinite(cepstra).all():
        raise BadInput(f"{path} is no table of finite numbers", hint=_ANEW)
    return cepstra
