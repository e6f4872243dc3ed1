"""ShuffleNet (Zhang et al. 2018, "ShuffleNet: An Extremely Efficient CNN for Mobile Devices") for small images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdbench import Architecture, DataSpec, Tap

from ._images import image_shape

_GROUPS = 3
_STEM = 24


@dataclass(frozen=True)
class ShuffleNetV1(Architecture):
    """ShuffleNet x1 with three groups, as in the CRD benchmark ("ShV1"): a 1x1 convolution at full size first.

    Its stages lie at 1/2, 1/4 and 1/8 of the input's side, with 240, 480 and 960 channels.
    """

    def build(self, spec: DataSpec) -> nn.Module:
        channels, _, _ = image_shape(spec)
        return nn.Sequential(
            OrderedDict(
                stem=nn.Sequential(nn.Conv2d(channels, _STEM, 1, bias=False), nn.BatchNorm2d(_STEM), nn.ReLU()),
                stage1=_stage(_STEM, 240, blocks=4),
                stage2=_stage(240, 480, blocks=8),
                stage3=_stage(480, 960, blocks=4),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                classifier=nn.Linear(960, spec.classes),
            )
        )

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """Stages after their last ReLU; the embedding is the globally pooled last stage."""
        return {**{f"stage{i}": Tap(f"stage{i}") for i in (1, 2, 3)}, "embedding": Tap("classifier", at="input")}


class ShuffleUnit(nn.Module):
    """Grouped 1x1 convolution, channel shuffle, depthwise 3x3, grouped 1x1, beside a shortcut (the paper's figure 2).

    At stride 2 the shortcut is average pooling, and its channels are appended rather than added.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        added = outputs - inputs if stride == 2 else outputs
        narrow = added // 4  # as the benchmark's code; the paper's table takes a quarter of all outputs
        self.groups = 1 if inputs == _STEM else _GROUPS  # the first unit has too few channels for groups
        self.conv1 = nn.Conv2d(inputs, narrow, 1, groups=self.groups, bias=False)
        self.norm1 = nn.BatchNorm2d(narrow)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, stride, padding=1, groups=narrow, bias=False)
        self.norm2 = nn.BatchNorm2d(narrow)
        self.conv3 = nn.Conv2d(narrow, added, 1, groups=_GROUPS, bias=False)
        self.norm3 = nn.BatchNorm2d(added)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = functional.relu(self.norm1(self.conv1(inputs)))
        hidden = functional.channel_shuffle(hidden, self.groups)
        # The benchmark's code, which this follows, has a ReLU here; the paper's figure has none.
        hidden = functional.relu(self.norm2(self.conv2(hidden)))
        residual = self.norm3(self.conv3(hidden))
        if self.stride == 1:
            return functional.relu(residual + inputs)
        pooled = functional.avg_pool2d(inputs, 3, stride=2, padding=1)
        return functional.relu(torch.cat([residual, pooled], dim=1))


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    rest = (ShuffleUnit(outputs, outputs, stride=1) for _ in range(blocks - 1))
    return nn.Sequential(ShuffleUnit(inputs, outputs, stride=2), *rest)
