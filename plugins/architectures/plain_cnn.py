"""A small plain convolutional network, for suites that must finish in minutes on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from kdbench import Architecture, Count, DataSpec, Positive, Tap

from ._images import image_shape
from ._plain import plain_network, plain_taps


@dataclass(frozen=True)
class PlainCNN(Architecture):
    """Small plain CNN: a 3x3 convolution, batch norm and ReLU per stage, channels doubling, then average pooling.

    About 6,000 parameters at width 1 (8, 16 and 32 channels), 1,700 at 0.5, 95,000 at 4. It has no paper:
    it is VGG (Simonyan & Zisserman 2015) with batch norm, shrunk as far as still learns.

    Attributes:
        width: multiplies the channels: 8, 16, 32, ... over the stages.
        stages: each begins with a 2x2 max pool, but the first and those whose images would fall below 2x2.
    """

    width: Positive = 1.0
    stages: Count = 3

    def build(self, spec: DataSpec) -> nn.Module:
        channels, height, width = image_shape(spec)
        widths = [max(1, round(8 * self.width * 2**stage)) for stage in range(self.stages)]
        return plain_network(2, channels, min(height, width), widths, spec.classes)

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        return plain_taps(self.stages)
