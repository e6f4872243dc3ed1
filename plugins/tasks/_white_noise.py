"""WhiteNoise: test recordings with noise added before they become features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ._audio import LogMel, Waveform

_RATIOS_DB = (20.0, 15.0, 10.0, 5.0, 0.0)  # those of Aurora-2 (Hirsch & Pearce 2000), from mild to severe


@dataclass(frozen=True)
class WhiteNoise:
    """What `front_end` makes of sound files with white noise in them, 20, 15, 10, 5 or 0 dB below the recording.

    The noise is as long as the recording: silence that the front end puts around a short one stays silent.
    """

    front_end: LogMel | Waveform
    files: Sequence[Path]

    def __call__(self, positions: Tensor, severity: int, random: torch.Generator) -> Tensor:
        """Features of the files at `positions`, as the front end gives them.

        Raises:
            BadInput: a file can no longer be read; names it.
        """
        relative = 10 ** (-_RATIOS_DB[severity - 1] / 20)

        def noisy(waveform: Tensor) -> Tensor:
            loudness = waveform.double().square().mean().sqrt()
            noise = torch.randn(waveform.shape, generator=random, dtype=torch.float64)
            return (waveform + relative * loudness * noise).clamp(-1, 1).float()

        return self.front_end.features_of([self.files[position] for position in positions.tolist()], noisy)
