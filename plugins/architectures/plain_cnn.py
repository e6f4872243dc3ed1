"""A small plain convolutional network, for suites that must finish in minutes on a CPU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from kdbench import Architecture, Count, DataSpec, Positive, Tap

from ._images import image_shape


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
        side = min(height, width)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for stage in range(self.stages):
            outputs = max(1, round(8 * self.width * 2**stage))
            pooled = stage > 0 and side >= 4
            layers[f"stage{stage + 1}"] = _stage(channels, outputs, pooled)
            channels, side = outputs, side // 2 if pooled else side
        layers |= {
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "classifier": nn.Linear(channels, spec.classes),
        }
        return nn.Sequential(layers)

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """Stages after their ReLU; the embedding is the globally pooled last stage."""
        stages = {f"stage{i}": Tap(f"stage{i}") for i in range(1, self.stages + 1)}
        return {**stages, "embedding": Tap("classifier", at="input")}


def _stage(inputs: int, outputs: int, pooled: bool) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    block = (convolution, nn.BatchNorm2d(outputs), nn.ReLU())
    return nn.Sequential(nn.MaxPool2d(2), *block) if pooled else nn.Sequential(*block)
