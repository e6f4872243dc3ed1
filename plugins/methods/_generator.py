"""A network that makes inputs up from noise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod

from torch import Tensor, nn
from torch.nn.functional import interpolate

_CHANNELS = 64
_NEGATIVE_SLOPE = 0.2


class Generator(nn.Module):
    """Makes so many inputs [examples, *shape] from `noise` normal numbers each, normalised per channel; their positions
    grow from a quarter to a half to the whole, a convolution after each.

    Source: the generator of Fang et al. 2019, arXiv:1912.11006, for any number of position axes.
    """

    def __init__(self, noise: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        channels, *positions = shape
        self.sizes = [tuple(max(1, -(-size // part)) for size in positions) for part in (4, 2, 1)]
        self.start = nn.Linear(noise, _CHANNELS * prod(self.sizes[0]))
        kinds = (nn.Linear, partial(nn.Conv1d, kernel_size=3, padding=1), partial(nn.Conv2d, kernel_size=3, padding=1))
        convolution: Callable[[int, int], nn.Module] = kinds[len(positions)]
        self.norms = nn.ModuleList(nn.BatchNorm1d(_CHANNELS) for _ in range(3))
        self.convolutions = nn.ModuleList(convolution(_CHANNELS, _CHANNELS) for _ in range(2))
        self.last = convolution(_CHANNELS, channels)
        self.normalised = nn.BatchNorm1d(channels, affine=False)

    def forward(self, examples: int) -> Tensor:
        smallest, *larger = self.sizes
        noise = self.start.weight.new_empty(examples, self.start.in_features).normal_()
        features = _flat(self.norms[0], self.start(noise).unflatten(1, (_CHANNELS, *smallest)))
        for size, convolution, norm in zip(larger, self.convolutions, self.norms[1:], strict=True):
            grown = interpolate(features, size) if size else features
            features = nn.functional.leaky_relu(_flat(norm, convolution(grown)), _NEGATIVE_SLOPE)
        return _flat(self.normalised, self.last(features).tanh())


def _flat(norm: nn.Module, features: Tensor) -> Tensor:
    """Batch normalisation of [batch, channels, *positions], whatever the number of axes."""
    normalised: Tensor = norm(features.flatten(2) if features.ndim > 2 else features)
    return normalised.reshape(features.shape)
