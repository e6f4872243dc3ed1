"""Signals of different lengths, [channels, frames]: padded with zeros at their end, and where they end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def lengths(signals: Tensor) -> Tensor:
    """Frames of each of `signals` [batch, channels, frames] without its padding, int64 [batch]; at least 1.

    Padding are the last frames, as far as they are zero in all channels; zeros before them count.
    """
    frames = torch.arange(1, signals.shape[2] + 1, device=signals.device)
    return ((signals != 0).any(dim=1) * frames).amax(dim=1).clamp(min=1)


def shortened(frames: Tensor, factor: int) -> Tensor:
    """What is left of so many frames when each `factor` of them become one, the last ones too."""
    return (frames + factor - 1) // factor


def within(frames: Tensor, positions: int) -> Tensor:
    """Which of `positions` lie within each of the lengths `frames` [batch], bool [batch, positions]."""
    return torch.arange(positions, device=frames.device) < frames.unsqueeze(1)


def padded(signals: Sequence[Tensor], frames: int) -> Tensor:
    """Signals [channels, own frames], all of one dtype, as one tensor [signals, channels, frames]."""
    whole = signals[0].new_zeros(len(signals), len(signals[0]), frames)
    for row, signal in zip(whole, signals, strict=True):
        row[:, : signal.shape[1]] = signal
    return whole


@dataclass(frozen=True)
class NormaliseUtterances:
    """Padded signals [batch, channels, frames] to float32: mean 0 and variance 1 in each channel of each by itself.

    What a microphone, a room and a voice add to all of an utterance goes away; padding stays zero, and a channel that
    does not change becomes zero.
    """

    def __call__(self, signals: Tensor) -> Tensor:
        frames = lengths(signals)
        valid, count = within(frames, signals.shape[2]).unsqueeze(1), frames.view(-1, 1, 1)
        centred = signals.float() - signals.float().sum(dim=2, keepdim=True) / count
        centred = torch.where(valid, centred, 0.0)
        std = (centred.square().sum(dim=2, keepdim=True) / count).sqrt()
        return centred / torch.where(std > 0, std, 1.0)
