"""From sound files to log-mel features: the front end that all speech tasks share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor
from torch.nn.functional import pad

from kdbench import BadInput, MissingExtra

_WINDOW_SECONDS, _HOP_SECONDS = 0.025, 0.010
_LOWEST_HZ = 20.0
_FLOOR = 1e-6  # above what rounding to 16 bits leaves in a band, so that digital silence is no feature
_CHUNK = 256  # recordings at a time: memory for waveforms does not grow with the data set
Change = Callable[[Tensor], Tensor]  # of one waveform [samples], before it is brought to length
_STREAMED = (0, 0xFFFFFFFF)  # sizes that programs write into a wav header when they cannot know better


def unchanged(waveform: Tensor) -> Tensor:
    """The recording as it is."""
    return waveform


@dataclass(frozen=True)
class LogMel:
    """Recordings of one sampling rate, brought to one length, to logarithms of the power in mel bands.

    Power spectra over Hann windows of 25 ms, every 10 ms (frames are centred on their times; beyond the ends there is
    silence), zero-padded to the power of two at or above two windows, so that low bands are wider than a bin; then
    `transformers`' mel filter bank (HTK scale, triangles of height 1) from 20 Hz to half the sampling rate, and
    log(power + 1e-6). It computes in float64 and rounds to float16, so that features, and their digest, do not depend
    on the number of threads.

    Attributes:
        sample_rate: Hz, of all recordings: nothing is resampled.
        seconds: length; longer recordings lose both ends alike, shorter ones get silence at both.
    """

    sample_rate: int
    seconds: float = 1.0
    bands: int = 40

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise BadInput(f"{self.seconds:g} seconds are shorter than one frame of {_HOP_SECONDS:g}")

    @property
    def samples(self) -> int:
        """The length that waveforms are brought to."""
        return round(self.seconds * self.sample_rate)

    @property
    def frames(self) -> int:
        """The length of the features."""
        return self.samples // self._hop

    @property
    def shape(self) -> tuple[int, int]:
        """(bands, frames) of the features of one recording."""
        return self.bands, self.frames

    @property
    def _hop(self) -> int:
        return round(_HOP_SECONDS * self.sample_rate)

    def features_of(self, files: Sequence[Path], change: Change = unchanged) -> Tensor:
        """Features of sound files, float16 [files, bands, frames]; of their waveforms as `change` returns them.

        Raises:
            BadInput: a file cannot be read whole, is empty, or has another sampling rate; names it.
            MissingExtra: the libraries that read sound are not installed.
        """
        features = torch.empty((len(files), *self.shape), dtype=torch.float16)
        for start in range(0, len(files), _CHUNK):
            waveforms = [
                centred(change(read_mono(file, self.sample_rate)), self.samples) for file in files[start:][:_CHUNK]
            ]
            features[start : start + _CHUNK] = self(torch.stack(waveforms)).half()
        return features

    def __call__(self, waveforms: Tensor) -> Tensor:
        """Features, float64 [batch, bands, frames], of `waveforms` [batch, samples] between -1 and 1."""
        window, size = round(_WINDOW_SECONDS * self.sample_rate), self._transform_size
        spectra = torch.stft(
            waveforms.double(),
            n_fft=size,
            hop_length=self._hop,
            win_length=window,
            window=torch.hann_window(window, dtype=torch.float64),
            pad_mode="constant",
            return_complex=True,
        )[..., : self.frames]  # the frame centred on the very end is left out, as Whisper does
        power = spectra.real.square() + spectra.imag.square()
        return (self._filters.T @ power + _FLOOR).log()

    @property
    def _transform_size(self) -> int:
        return 2 ** math.ceil(math.log2(2 * _WINDOW_SECONDS * self.sample_rate))

    @property
    def _filters(self) -> Tensor:
        """Float64 [frequency bins, bands]."""
        try:
            from transformers.audio_utils import mel_filter_bank
        except ImportError as error:
            raise MissingExtra("the mel filter bank", "speech") from error
        bins = self._transform_size // 2 + 1
        return torch.from_numpy(mel_filter_bank(bins, self.bands, _LOWEST_HZ, self.sample_rate / 2, self.sample_rate))


@dataclass(frozen=True)
class Waveform:
    """Recordings of one sampling rate, brought to one length, as their samples of 16 bits.

    Attributes:
        sample_rate, seconds: as in `LogMel`.
    """

    sample_rate: int
    seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise BadInput(f"{self.seconds:g} seconds are shorter than one sample")

    @property
    def samples(self) -> int:
        """The length that waveforms are brought to."""
        return round(self.seconds * self.sample_rate)

    @property
    def shape(self) -> tuple[int, int]:
        """(1, samples): one channel."""
        return 1, self.samples

    def features_of(self, files: Sequence[Path], change: Change = unchanged) -> Tensor:
        """Samples of sound files, int16 [files, 1, samples]; changed, and raises, as in `LogMel.features_of`."""
        samples = torch.empty((len(files), *self.shape), dtype=torch.int16)
        for row, file in zip(samples, files, strict=True):
            waveform = centred(change(read_mono(file, self.sample_rate)), self.samples)
            row[0] = (waveform * 2**15).round().clamp(-(2**15), 2**15 - 1).short()
        return samples


FRONT_ENDS: dict[str, type[LogMel] | type[Waveform]] = {"log_mel": LogMel, "waveform": Waveform}


def read_mono(file: Path | BinaryIO, sample_rate: int, name: str = "") -> Tensor:
    """The samples of a sound file, float32 [samples] between -1 and 1: the mean of its channels.

    `name` is what errors call it, where it is no file of its own.

    Raises:
        BadInput: it cannot be read whole, is empty, or has another sampling rate; names the file.
        MissingExtra: `soundfile` is not installed.
    """
    name = name or str(file)
    try:
        import soundfile
    except ImportError as error:
        raise MissingExtra("reading sound files", "speech") from error
    try:
        if isinstance(file, Path):
            _refuse_truncated(file)
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise BadInput(f"cannot read the recording {name}: {error}", hint="replace it or remove it") from error
    if rate != sample_rate:
        raise BadInput(
            f"the recording {name} has {rate} samples a second, not {sample_rate}",
            hint="kdbench does not resample: bring all recordings to one rate, and say which",
        )
    if not len(samples):
        raise BadInput(f"the recording {name} is empty", hint="replace it or remove it")
    return torch.from_numpy(samples).mean(dim=1)


def _refuse_truncated(file: Path) -> None:
    """libsndfile reads what is there of a wav file that was cut short, and says nothing."""
    with file.open("rb") as opened:
        head = opened.read(12)
    announced = int.from_bytes(head[4:8], "little")
    if head[:4] == b"RIFF" and head[8:] == b"WAVE" and announced not in _STREAMED:
        missing = announced + 8 - file.stat().st_size
        if missing > 1:  # one byte is padding, which some programs announce and leave out
            raise BadInput(f"the recording {file} is cut short by {missing} bytes", hint="replace it or remove it")


def centred(waveform: Tensor, samples: int) -> Tensor:
    """The middle `samples` of a waveform [any length], or the waveform in the middle of that much silence."""
    before = (samples - len(waveform)) // 2
    return pad(waveform, (before, samples - len(waveform) - before))
