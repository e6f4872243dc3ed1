"""A small U-Net, for suites that must finish in minutes on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from kdbench import Architecture, BadInput, Count, DataSpec, Tap

from ._images import PooledBeside, scene_shape


@dataclass(frozen=True)
class UNet(Architecture):
    """Halves images and restores them, with a bridge at each resolution (Ronneberger et al. 2015, arXiv:1505.04597).

    Images of any size; at width 16 and depth 3, 0.45 million parameters. Unlike the paper's: convolutions are padded
    and have batch norm, and features are brought up by a 1x1 convolution and repetition of the nearest pixel, whose
    gradient, unlike that of bilinear interpolation, is deterministic on every device.

    Attributes:
        width: channels at full resolution; they double with each halving.
        depth: how often images are halved.
    """

    width: Count = 16
    depth: Count = 3

    def build(self, spec: DataSpec) -> nn.Module:
        """See `Architecture.build`.

        Raises:
            BadInput: the task does not ask for a class at every pixel, or its images cannot be halved so often.
        """
        channels, *sides = scene_shape(spec)
        if min(sides) < 2**self.depth:
            raise BadInput(
                f"images of {sides[0]}x{sides[1]} cannot be halved {self.depth} times", hint="lower the depth"
            )
        return UNetwork(channels, [self.width * 2**level for level in range(self.depth + 1)], spec.classes)

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """Stages 1 to depth + 1 go down to the lowest resolution, as many as depth up again; the embedding is the mean
        at the lowest one."""
        down = [f"down.{level}" for level in range(self.depth + 1)]
        up = [f"up.{level}" for level in range(self.depth)]
        stages = {f"stage{i}": Tap(path) for i, path in enumerate([*down, *up], start=1)}
        return {**stages, "embedding": Tap("beside.pool")}


class UNetwork(nn.Module):
    """Images [batch, channels, height, width] to logits [batch, classes, height, width].

    `widths`: channels at each resolution, the full one first.
    """

    def __init__(self, channels: int, widths: list[int], classes: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        pairs = list(zip([channels, *widths], widths, strict=False))
        self.down = nn.ModuleList(_block(inputs, outputs) for inputs, outputs in pairs)
        self.beside = PooledBeside()
        self.up = nn.ModuleList(Up(below, outputs) for outputs, below in reversed(pairs[1:]))
        self.classifier = nn.Conv2d(widths[0], classes, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        features, bridges = self.down[0](images), []
        for block in self.down[1:]:
            bridges.append(features)
            features = block(self.pool(features))
        features = self.beside(features)
        for block, bridge in zip(self.up, reversed(bridges), strict=True):
            features = block(features, bridge)
        return self.classifier(features)


class Up(nn.Module):
    """Features [batch, below, height, width] to the size of a bridge [batch, outputs, ...], joined with it."""

    def __init__(self, below: int, outputs: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(below, outputs, kernel_size=1)
        self.block = _block(2 * outputs, outputs)

    def forward(self, features: Tensor, bridge: Tensor) -> Tensor:
        raised = interpolate(self.narrow(features), size=bridge.shape[-2:], mode="nearest")
        return self.block(torch.cat([raised, bridge], dim=1))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    first = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
    second = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
    for convolution in (first, second):
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(first, nn.BatchNorm2d(outputs), nn.ReLU(), second, nn.BatchNorm2d(outputs), nn.ReLU())
