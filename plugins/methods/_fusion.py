"""Attention-based fusion (ABF): the deeper levels of a network joined to a shallower one (Chen et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from kdbench import Step, stage_taps


class Fusion(nn.Module):
    """A level of the student, and what the deeper ones passed on, to the shape of a teacher's level.

    Both are brought to `middle` channels and added, each position of each weighed by a learnt attention in [0, 1]; a
    convolution of width 3 makes the answer. Each example is normalised by itself, so that it works at any batch size.
    """

    def __init__(self, student: Tensor, teacher: Tensor, middle: int, *, first: bool) -> None:
        super().__init__()
        inputs, outputs = student.shape[1], teacher.shape[1]
        convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[teacher.ndim - 2]
        self.reduce = nn.Sequential(nn.Conv1d(inputs, middle, 1, bias=False), nn.GroupNorm(1, middle))
        self.attention = None if first else nn.Sequential(nn.Conv1d(2 * middle, 2, 1), nn.Sigmoid())
        self.answer = nn.Sequential(convolution(middle, outputs, 3, padding=1, bias=False), nn.GroupNorm(1, outputs))

    def forward(self, level: Tensor, passed: Tensor | None, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The answer [batch, teacher's channels, *positions], and what is passed on [batch, middle, *positions]."""
        fused = self.reduce(level.flatten(2))
        if self.attention is not None and passed is not None:
            deeper = spread(passed, level.shape[2:]).flatten(2)
            shares = self.attention(torch.cat([fused, deeper], dim=1))
            fused = shares[:, :1] * fused + shares[:, 1:] * deeper
        fused = spread(fused.unflatten(2, level.shape[2:]), positions)
        return self.answer(fused), fused


def spread(feature: Tensor, positions: Sequence[int]) -> Tensor:
    """A feature at other positions, by the nearest; along one axis first, where the numbers of axes differ."""
    if feature.ndim - 2 != len(positions):
        return interpolate(feature.flatten(2), prod(positions)).unflatten(2, tuple(positions))
    return interpolate(feature, tuple(positions))


def levels(step: Step) -> list[tuple[Tensor, Tensor]]:
    """The levels [batch, channels, *positions] of student and teacher, from the deepest: embeddings, then stages."""

    def upwards(taps: Mapping[str, Tensor]) -> list[Tensor]:
        return [taps["embedding"][..., None], *reversed(stage_taps(taps))]

    return list(zip(upwards(step.student), upwards(step.teacher), strict=False))
