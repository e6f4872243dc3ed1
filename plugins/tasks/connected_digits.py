"""ConnectedDigits: recordings of single digits joined to strings, to be written down as words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from kdbench import BadInput, Count, Data, DataFile, DataFolders

from ._ctc import SpeechToText, Utterance
from .spoken_digits import FSDD, Recording, list_recordings

if TYPE_CHECKING:
    from torch import Tensor

_SAMPLE_RATE = 8000
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_PAUSES = 0.05, 0.25  # seconds, between two digits and at both ends
_NOISE = 1e-3  # of full scale: so that a pause is no digital silence, which would give the joins away
_SEED = 0

Samples = NDArray[np.float32]  # between -1 and 1, at 8 kHz


@dataclass(frozen=True)
class ConnectedDigits(SpeechToText):
    """Strings of digits by one speaker each, joined from the Free Spoken Digit Dataset with a fixed seed.

    Each speaker's 500 recordings are shuffled and cut into strings, with pauses of 50 to 250 ms and faint noise. No
    speaker is in two splits, so a network must understand a voice that it never heard; there are four to learn from.

    Attributes:
        held_out: the speaker of the test strings: george, jackson, lucas, nicolas, theo or yweweler.
        validation_speaker: another one, of the validation strings.
        shortest, longest: digits of a string; what is left at the end may be shorter.
        passes: how often each training recording is used, each time in another string.
    """

    alphabet: ClassVar[str] = "".join(sorted(set(" ".join(_WORDS))))
    data_files: ClassVar[tuple[DataFile, ...]] = (FSDD,)

    held_out: str = "theo"
    validation_speaker: str = "lucas"
    shortest: Count = 3
    longest: Count = 7
    passes: Count = 2

    def __post_init__(self) -> None:
        if self.shortest > self.longest:
            raise ValueError(f"shortest ({self.shortest}) must not be above longest ({self.longest})")
        if self.held_out == self.validation_speaker:
            raise ValueError(f"'{self.held_out}' cannot be the speaker of both the test and the validation strings")

    def load(self, folders: DataFolders) -> Data:
        """float16 inputs [N, 40 mel bands, frames of 10 ms] (see `_audio.LogMel`), zero-padded.

        Raises:
            MissingData: the data set is not on this machine.
            BadInput: its table or a recording cannot be used (says which and why), or there is no such speaker.
        """
        root = folders.provide(FSDD)
        recordings = list_recordings(root)
        speakers = sorted({recording.speaker for recording in recordings})
        for wanted in (self.held_out, self.validation_speaker):
            if wanted not in speakers:
                raise BadInput(f"there is no speaker '{wanted}'", hint=f"choices: {', '.join(speakers)}")
        splits: dict[str, list[Utterance]] = {"train": [], "validation": [], "test": []}
        parts = {self.held_out: "test", self.validation_speaker: "validation"}
        for number, speaker in enumerate(speakers):
            own = [recording for recording in recordings if recording.speaker == speaker]
            part = parts.get(speaker, "train")
            random = np.random.default_rng((_SEED, number))
            splits[part] += self._utterances(root, own, self.passes if part == "train" else 1, random)
        if not splits["train"]:
            raise BadInput(f"there are two speakers under {root}, so none is left for training")
        return self.assemble(**splits)

    def _utterances(
        self, root: Path, recordings: Sequence[Recording], passes: int, random: np.random.Generator
    ) -> Iterator[Utterance]:
        from ._audio import read_mono

        waveforms = [read_mono(root / recording.file, _SAMPLE_RATE).numpy() for recording in recordings]
        for _ in range(passes):
            for string in self._strings(len(recordings), random):
                transcript = " ".join(_WORDS[recordings[each].digit] for each in string)
                joined = joined_waveform([waveforms[each] for each in string], random)
                yield Utterance(_features(joined), transcript)

    def _strings(self, recordings: int, random: np.random.Generator) -> Iterator[list[int]]:
        """All recordings, each once, in strings of random length."""
        order = random.permutation(recordings).tolist()
        while order:
            digits = int(random.integers(self.shortest, self.longest + 1))
            yield order[:digits]
            del order[:digits]


def joined_waveform(waveforms: Sequence[Samples], random: np.random.Generator) -> Samples:
    """Waveforms one after another, with pauses before, between and after them, and faint noise over all of it."""
    pauses = (random.uniform(*_PAUSES, size=len(waveforms) + 1) * _SAMPLE_RATE).astype(int)
    parts = [np.zeros(pauses[0], np.float32)]
    for waveform, pause in zip(waveforms, pauses[1:], strict=True):
        parts += [waveform, np.zeros(pause, np.float32)]
    joined = np.concatenate(parts)
    return joined + _NOISE * random.standard_normal(len(joined), dtype=np.float32)


def _features(waveform: Samples) -> Tensor:
    import torch

    from ._audio import LogMel

    front_end = LogMel(_SAMPLE_RATE, len(waveform) / _SAMPLE_RATE)
    return front_end(torch.from_numpy(waveform).unsqueeze(0))[0].half()
