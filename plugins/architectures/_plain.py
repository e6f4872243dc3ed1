"""Plain convolutional networks, alike for images and sequences."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import nn

from kdbench import Tap

_Convolution = type[nn.Conv1d] | type[nn.Conv2d]
_LAYERS: Mapping[int, tuple[_Convolution, type[nn.Module], type[nn.Module], type[nn.Module]]] = {
    1: (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AdaptiveAvgPool1d),
    2: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d),
}


def plain_network(
    dimensions: Literal[1, 2], channels: int, side: int, widths: Sequence[int], classes: int
) -> nn.Module:
    """Per stage a convolution over 3 (x 3) positions, batch norm and ReLU; then average pooling and a linear layer.

    `side` is the shorter one of the inputs. Each stage begins with a max pool over 2 (x 2) positions, but the first and
    those that would be left with less than 2. `widths`: the channels of each stage.
    """
    _, _, _, average = _LAYERS[dimensions]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for stage, width in enumerate(widths):
        pooled = stage > 0 and side >= 4
        layers[f"stage{stage + 1}"] = _stage(dimensions, channels, width, pooled)
        channels, side = width, side // 2 if pooled else side
    layers |= {"pool": average(1), "flatten": nn.Flatten(), "classifier": nn.Linear(channels, classes)}
    return nn.Sequential(layers)


def plain_taps(stages: int) -> Mapping[str, Tap]:
    """Stages after their ReLU; the embedding is the pooled last stage."""
    return {**{f"stage{i}": Tap(f"stage{i}") for i in range(1, stages + 1)}, "embedding": Tap("classifier", at="input")}


def _stage(dimensions: int, inputs: int, outputs: int, pooled: bool) -> nn.Sequential:
    convolve, normalise, pool, _ = _LAYERS[dimensions]
    convolution = convolve(inputs, outputs, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    block = (convolution, normalise(outputs), nn.ReLU())
    return nn.Sequential(pool(2), *block) if pooled else nn.Sequential(*block)
