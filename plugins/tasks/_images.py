"""Normalise: uint8 images to what networks take."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 1024


@dataclass(frozen=True)
class Normalise:
    """uint8 [batch, channels, height, width] to float32: (x - mean) / std per channel, both in raw units (0..255)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def to(cls, images: Tensor) -> Normalise:
        """To mean 0 and variance 1 over `images` (uint8, the training split only); constant channels are not scaled."""
        channels = images.shape[1]
        total = torch.zeros(channels, dtype=torch.int64)
        squares = torch.zeros(channels, dtype=torch.int64)
        for chunk in images.split(_CHUNK):  # in whole numbers, so that no order of summation shows
            values = chunk.int()
            total += values.sum(dim=(0, 2, 3))
            squares += (values * values).sum(dim=(0, 2, 3))
        pixels = images.numel() // channels
        mean = total.double() / pixels
        variance = (squares.double() / pixels - mean**2).clamp_min(0)
        std = torch.where(variance > 0, variance.sqrt(), torch.ones_like(variance))
        return cls(tuple(mean.tolist()), tuple(std.tolist()))

    def __call__(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(each, device=images.device).view(-1, 1, 1) for each in (self.mean, self.std))
        return (images.float() - mean) / std
