"""CIFAR-style residual networks (He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from kdbench import Architecture, Count, DataSpec, Positive, Tap

from ._images import image_shape


@dataclass(frozen=True)
class CifarResNet(Architecture):
    """ResNet for small images: 6n+2 layers in three stages of n blocks, as in the CRD benchmark (Tian et al. 2020).

    Shortcuts that change shape are projections (the paper's option B: 1x1 convolution and batch norm, 272,474
    parameters for ResNet-20 on CIFAR-10); the paper's CIFAR networks had parameter-free ones (option A, 0.27 M).
    The stages lie at 1, 1/2 and 1/4 of the input's side, so images from 8x8 up make sense.

    Attributes:
        depth: 6n + 2, e.g. 8, 14, 20, 32, 56.
        width: multiplies the 16, 32 and 64 channels of the stages.
        stem: channels of the first convolution; None: as the first stage. The benchmark's resnet8x4 and
            resnet32x4 are `resnet8[width=4,stem=32]` and `resnet32[width=4,stem=32]`.
    """

    depth: int = 20
    width: Positive = 1.0
    stem: Count | None = None

    def __post_init__(self) -> None:
        if self.depth < 8 or (self.depth - 2) % 6:
            raise ValueError(f"depth must be 6n + 2 (8, 14, 20, 26, 32, ...), not {self.depth}")

    def build(self, spec: DataSpec) -> nn.Module:
        channels, _, _ = image_shape(spec)
        widths = [max(1, round(base * self.width)) for base in (16, 32, 64)]
        stem, blocks = self.stem or widths[0], (self.depth - 2) // 6
        network = nn.Sequential(
            OrderedDict(
                stem=nn.Sequential(_convolution(channels, stem), nn.BatchNorm2d(stem), nn.ReLU()),
                stage1=_stage(stem, widths[0], blocks, stride=1),
                stage2=_stage(widths[0], widths[1], blocks, stride=2),
                stage3=_stage(widths[1], widths[2], blocks, stride=2),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                classifier=nn.Linear(widths[2], spec.classes),
            )
        )
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        return network

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """Stages after their last ReLU; the embedding is the globally pooled last stage."""
        return {**{f"stage{i}": Tap(f"stage{i}") for i in (1, 2, 3)}, "embedding": Tap("classifier", at="input")}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, ReLU after the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, outputs, stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = _convolution(outputs, outputs)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(inputs)))))
        return functional.relu(residual + self.shortcut(inputs))


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    rest = (BasicBlock(outputs, outputs, stride=1) for _ in range(blocks - 1))
    return nn.Sequential(BasicBlock(inputs, outputs, stride), *rest)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
