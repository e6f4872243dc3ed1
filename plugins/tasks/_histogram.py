"""Histogram: a number as a distribution over bins, so that a regression answers logits like a classification."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PADDING = 3.0  # standard deviations: what a Gaussian has beyond them (0.3 %) moves no mean


@dataclass(frozen=True)
class Histogram:
    """Numbers from `low` to `high` over `bins` bins of equal width: HL-Gauss.

    The target of a number is the part of a Gaussian around it in each bin, its loss the cross-entropy to that, and what
    a network predicts is the expected middle of a bin (Imani & White 2018, arXiv:1806.04613; with a standard deviation
    in bin widths: Farebrother et al. 2024, arXiv:2403.03950). The bins reach beyond `low` and `high` by 3 standard
    deviations, because a Gaussian that is cut off at an end has another mean than the number.

    Attributes:
        smoothing: the Gaussian's standard deviation, in bin widths.
    """

    low: float
    high: float
    bins: int
    smoothing: float

    def __post_init__(self) -> None:
        least = math.floor(2 * PADDING * self.smoothing) + 1
        if self.bins < least:
            raise ValueError(f"bins must be at least {least} where smoothing is {self.smoothing:g}, not {self.bins}")

    @property
    def width(self) -> float:
        """Of a bin, in the unit of the numbers."""
        return (self.high - self.low) / (self.bins - 2 * PADDING * self.smoothing)

    @property
    def edges(self) -> Tensor:
        """Float64 [bins + 1]."""
        import torch

        beyond = PADDING * self.smoothing * self.width
        return torch.linspace(self.low - beyond, self.high + beyond, self.bins + 1, dtype=torch.float64)

    @property
    def middles(self) -> Tensor:
        """Float64 [bins]."""
        return (self.edges[:-1] + self.edges[1:]) / 2

    def bin_of(self, numbers: Tensor) -> Tensor:
        """The bin that each number lies in, int64 [N]; the outer bins take all beyond."""
        import torch

        inner = self.edges[1:-1].to(numbers.device, numbers.dtype)
        return torch.bucketize(numbers, inner, right=True)

    def distribution(self, numbers: Tensor) -> Tensor:
        """The target of each of `numbers` [N]: probabilities [N, bins]."""
        edges = self.edges.to(numbers.device, numbers.dtype)
        below = ((edges - numbers.unsqueeze(1)) / (math.sqrt(2) * self.smoothing * self.width)).erf()
        inside = below.diff(dim=1)
        return inside / inside.sum(dim=1, keepdim=True)

    def expected(self, logits: Tensor) -> Tensor:
        """The number that each row of logits [N, bins] predicts, float64 [N] on the CPU."""
        return logits.cpu().double().softmax(dim=1) @ self.middles
