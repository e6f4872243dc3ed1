"""Signals over time, [channels, positions], as networks take them: normalised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 256  # examples at a time: memory in float64 does not grow with the data set


@dataclass(frozen=True)
class NormaliseChannels:
    """Signals [batch, channels, positions] to float32: (x - mean) / std per channel (a sensor, a band of sound)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def to(cls, signals: Tensor) -> NormaliseChannels:
        """To mean 0 and variance 1 over `signals` (the training split only); constant channels are not scaled."""
        count = signals.shape[0] * signals.shape[2]
        chunks = signals.split(_CHUNK)
        mean = sum((chunk.double().sum(dim=(0, 2)) for chunk in chunks), torch.zeros(())) / count
        squares = ((chunk.double() - mean.unsqueeze(1)).square().sum(dim=(0, 2)) for chunk in chunks)
        std = (sum(squares, torch.zeros(())) / count).sqrt()
        return cls(tuple(mean.tolist()), tuple(torch.where(std > 0, std, 1.0).tolist()))

    def __call__(self, signals: Tensor) -> Tensor:
        mean, std = (torch.tensor(each, device=signals.device).unsqueeze(1) for each in (self.mean, self.std))
        return (signals.float() - mean) / std
