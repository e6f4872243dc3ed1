"""HubSpeech: speech to text from the Hugging Face hub, LibriSpeech among it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kdbench import BadInput, Count, Data, DataFolders, Positive

from ._ctc import SpeechToText, Utterance
from ._hub import check_names, load_from_hub

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class HubSpeech(SpeechToText):
    """Speech to text from the Hugging Face hub, e.g. `hf_speech[path=openslr/librispeech_asr,subset=clean]`.

    Transcripts are brought to the 26 capital letters, the apostrophe and single blanks, as LibriSpeech has them. All
    log-mel features are held in memory, half a megabyte for each minute of padded audio: limit `examples` or `longest`
    where that is too much. `path` may also be a folder with a data set's own parquet files.

    Attributes:
        path, subset, revision: as the hub names the data set, its configuration and its version.
        audio, transcript: the columns of recordings and transcripts.
        train, validation, test: the splits.
        sample_rate: of all recordings, per second.
        longest: seconds; longer training utterances are left out.
        examples: of the training split, the first so many are used. None: all.
    """

    alphabet: ClassVar[str] = " 'ABCDEFGHIJKLMNOPQRSTUVWXYZ"

    path: str
    subset: str | None = None
    revision: str | None = None
    audio: str = "audio"
    transcript: str = "text"
    train: str = "train.100"
    validation: str = "validation"
    test: str = "test"
    sample_rate: Count = 16000
    longest: Positive = 17.0
    examples: Count | None = None

    def load(self, folders: DataFolders) -> Data:
        """float16 inputs [N, 40 mel bands, frames of 10 ms], zero-padded.

        Raises:
            MissingData: the hub does not give the data set.
            MissingExtra: a library that is needed is not installed.
            BadInput: it has no such split or column, or a recording cannot be read; names it.
        """
        instead = "name a folder that holds its parquet files"
        feature = f"hf_speech[path={self.path}]"
        loaded = load_from_hub(feature, folders, instead, self.path, self.subset, self.revision)
        check_names(self.path, "split", (self.train, self.validation, self.test), loaded)
        rows = loaded[self.train]
        if self.examples is not None:
            rows = rows.select(range(min(self.examples, len(rows))))
        fitting = self.longest * self.sample_rate
        return self.assemble(
            train=[utterance for utterance, samples in self._utterances(rows, self.train) if samples <= fitting],
            validation=[utterance for utterance, _ in self._utterances(loaded[self.validation], self.validation)],
            test=[utterance for utterance, _ in self._utterances(loaded[self.test], self.test)],
        )

    def _utterances(self, rows: Any, split: str) -> Iterator[tuple[Utterance, int]]:
        """Every utterance of a split, with the number of its samples."""
        import datasets

        check_names(f"split '{split}' of {self.path}", "column", (self.audio, self.transcript), rows.column_names)
        # soundfile decodes: the library's own decoder is another dependency
        for number, row in enumerate(rows.cast_column(self.audio, datasets.Audio(decode=False))):
            where = f"{self.path}, row {number} of split '{split}'"
            waveform = self._waveform(row[self.audio], where)
            transcript = self._transcript(row[self.transcript])
            if not transcript:
                raise BadInput(f"{where} has no transcript")
            yield Utterance(self._features(waveform), transcript), len(waveform)

    def _waveform(self, sound: dict[str, Any], where: str) -> Tensor:
        from ._audio import read_mono

        if sound["bytes"] is not None:
            return read_mono(io.BytesIO(sound["bytes"]), self.sample_rate, where)
        return read_mono(Path(sound["path"]), self.sample_rate, where)

    def _transcript(self, text: str) -> str:
        letters = (character if character in self.alphabet else " " for character in str(text).upper())
        return " ".join("".join(letters).split())

    def _features(self, waveform: Tensor) -> Tensor:
        from ._audio import LogMel

        return LogMel(self.sample_rate, len(waveform) / self.sample_rate)(waveform.unsqueeze(0))[0].half()
