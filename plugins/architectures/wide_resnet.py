"""Wide residual networks (Zagoruyko & Komodakis 2016, arXiv:1605.07146)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from kdbench import Architecture, Count, DataSpec, Fraction, Tap

from ._images import image_shape


@dataclass(frozen=True)
class WideResNet(Architecture):
    """Wide ResNet for small images: 6n+4 layers in three stages of n pre-activation blocks, as in the CRD benchmark.

    The stages lie at 1, 1/2 and 1/4 of the input's side, so images from 8x8 up make sense.

    Attributes:
        depth: 6n + 4, e.g. 10, 16, 28, 40.
        widen: multiplies the 16, 32 and 64 channels of the stages; the first convolution keeps 16.
        dropout: between the two convolutions of a block.
    """

    depth: int = 16
    widen: Count = 1
    dropout: Fraction = 0.0

    def __post_init__(self) -> None:
        if self.depth < 10 or (self.depth - 4) % 6:
            raise ValueError(f"depth must be 6n + 4 (10, 16, 22, 28, 34, 40, ...), not {self.depth}")

    def build(self, spec: DataSpec) -> nn.Module:
        channels, _, _ = image_shape(spec)
        widths = [base * self.widen for base in (16, 32, 64)]
        network = nn.Sequential(
            OrderedDict(
                stem=_convolution(channels, 16),
                stage1=self._stage(16, widths[0], stride=1),
                stage2=self._stage(widths[0], widths[1], stride=2),
                stage3=self._stage(widths[1], widths[2], stride=2),
                norm=nn.BatchNorm2d(widths[2]),
                relu=nn.ReLU(),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                classifier=nn.Linear(widths[2], spec.classes),
            )
        )
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        return network

    def _stage(self, inputs: int, outputs: int, stride: int) -> nn.Sequential:
        rest = (PreActivationBlock(outputs, outputs, 1, self.dropout) for _ in range((self.depth - 4) // 6 - 1))
        return nn.Sequential(PreActivationBlock(inputs, outputs, stride, self.dropout), *rest)

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """Stages are the residual sums, before any norm or ReLU; the embedding is the pooled, activated last stage."""
        return {**{f"stage{i}": Tap(f"stage{i}") for i in (1, 2, 3)}, "embedding": Tap("classifier", at="input")}


class PreActivationBlock(nn.Module):
    """Norm, ReLU, convolution, twice, beside a shortcut: a 1x1 convolution of the first ReLU if the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = _convolution(inputs, outputs, stride)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = _convolution(outputs, outputs)
        self.shortcut: nn.Conv2d | None = None
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        activated = functional.relu(self.norm1(inputs))
        residual = self.conv2(self.dropout(functional.relu(self.norm2(self.conv1(activated)))))
        return residual + (inputs if self.shortcut is None else self.shortcut(activated))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
