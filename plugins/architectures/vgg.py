"""VGG networks for small images (Simonyan & Zisserman 2015, arXiv:1409.1556), as in the CRD benchmark."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from kdbench import Architecture, DataSpec, Tap

from ._images import image_shape

_WIDTHS = (64, 128, 256, 512, 512)
_CONVOLUTIONS = {8: 1, 13: 2}  # per stage


@dataclass(frozen=True)
class VGG(Architecture):
    """Five stages of 3x3 convolutions with batch norm, the mean over positions, and a single linear layer.

    The benchmark's (Tian et al. 2020): halved after each of the first three stages, so the stages lie at 1, 1/2, 1/4,
    1/8 and 1/8 of the input's side, and images from 8x8 up make sense.

    Attributes:
        depth: 8 or 13: the paper's configuration B has 13 layers, of which the three dense ones became one here.
    """

    depth: int = 8

    def __post_init__(self) -> None:
        if self.depth not in _CONVOLUTIONS:
            raise ValueError(f"depth must be {' or '.join(map(str, _CONVOLUTIONS))}, not {self.depth}")

    def build(self, spec: DataSpec) -> nn.Module:
        channels, _, _ = image_shape(spec)
        stages = OrderedDict[str, nn.Module]()
        for number, (inputs, outputs) in enumerate(pairwise((channels, *_WIDTHS)), start=1):
            stages[f"stage{number}"] = _stage(inputs, outputs, _CONVOLUTIONS[self.depth])
            if number <= 3:
                stages[f"pool{number}"] = nn.MaxPool2d(2)
        classifier = nn.Linear(_WIDTHS[-1], spec.classes)
        stages.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), classifier=classifier)
        network = nn.Sequential(stages)
        nn.init.normal_(classifier.weight, std=0.01)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        return network

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """Stages after their last ReLU, before they are halved; the embedding is the globally pooled last stage."""
        return {**{f"stage{i}": Tap(f"stage{i}") for i in range(1, 6)}, "embedding": Tap("classifier", at="input")}


def _stage(inputs: int, outputs: int, convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(convolutions):
        layers += [nn.Conv2d(inputs, outputs, kernel_size=3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers)
