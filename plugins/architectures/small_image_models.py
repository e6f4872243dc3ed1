"""torchvision's ResNet-50, MobileNetV2 and ShuffleNetV2 with stems for small images, as in the CRD benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn
from torchvision import models
from torchvision.ops import Conv2dNormActivation

from kdbench import Architecture, DataSpec, Positive, Tap

from ._images import image_shape
from ._torchvision import work_out_of_place


@dataclass(frozen=True)
class BottleneckResNet(Architecture):
    """ResNet-50 (He et al. 2016) for small images: a 3x3 convolution at full size in the place of the 7x7 one that
    halves, and no pooling after it, so its four stages lie at 1, 1/2, 1/4 and 1/8 of the input's side."""

    def build(self, spec: DataSpec) -> nn.Module:
        channels, _, _ = image_shape(spec)
        network = models.resnet50(num_classes=spec.classes)
        network.conv1 = nn.Conv2d(channels, 64, kernel_size=3, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
        work_out_of_place(network)
        return network

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """Stages after their last ReLU; the embedding is the globally pooled last stage."""
        return {**{f"stage{i}": Tap(f"layer{i}") for i in (1, 2, 3, 4)}, "embedding": Tap("fc", at="input")}


@dataclass(frozen=True)
class MobileNetV2(Architecture):
    """MobileNetV2 (Sandler et al. 2018) for small images: its stages lie at 1/2, 1/4, 1/8 and 1/16 of the input's side
    (the published one's at 1/4 to 1/32), and there is no dropout.

    Attributes:
        width: multiplies all channels but the last 1280; the benchmark's "MV2" has 0.5, without the paper's rounding of
            channels to multiples of eight.
    """

    width: Positive = 0.5

    def build(self, spec: DataSpec) -> nn.Module:
        channels, _, _ = image_shape(spec)
        # expansion, channels, blocks, stride
        settings = [[1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2]]
        settings += [[6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]]
        network = models.MobileNetV2(
            num_classes=spec.classes,
            width_mult=self.width,
            inverted_residual_setting=settings,
            round_nearest=1,
            dropout=0.0,
        )
        stem = network.features[0][0]
        network.features[0][0] = nn.Conv2d(channels, stem.out_channels, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(network.features[0][0].weight, mode="fan_out")
        narrow = stem.out_channels
        # The benchmark's first block expands too, if only by a factor of one.
        expansion = Conv2dNormActivation(narrow, narrow, kernel_size=1, activation_layer=nn.ReLU6)
        network.features[1].conv.insert(0, expansion)
        work_out_of_place(network)
        return network

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """The last block at each resolution; the embedding is the globally pooled last layer of 1280 channels."""
        stages = {f"stage{i}": Tap(f"features.{block}") for i, block in enumerate((3, 6, 13, 17), start=1)}
        return {**stages, "embedding": Tap("classifier.1", at="input")}


@dataclass(frozen=True)
class ShuffleNetV2(Architecture):
    """ShuffleNetV2 x1 (Ma et al. 2018) for small images: a 1x1 convolution at full size in the place of the 3x3 one
    that halves, and no pooling after it, so its stages lie at 1/2, 1/4 and 1/8 of the input's side."""

    def build(self, spec: DataSpec) -> nn.Module:
        channels, _, _ = image_shape(spec)
        network = models.ShuffleNetV2([4, 8, 4], [24, 116, 232, 464, 1024], num_classes=spec.classes)
        network.conv1[0] = nn.Conv2d(channels, 24, kernel_size=1, bias=False)
        network.maxpool = nn.Identity()
        work_out_of_place(network)
        return network

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """Stages after their last block; the embedding is the globally pooled last layer of 1024 channels."""
        return {**{f"stage{i}": Tap(f"stage{i + 1}") for i in (1, 2, 3)}, "embedding": Tap("fc", at="input")}
