"""SSD: a one-stage detector on a small residual network (Liu et al. 2016, arXiv:1512.02325)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torchvision.models.detection.ssd import SSDHead

from kdbench import Architecture, BadInput, DataSpec, Positive, Tap

from ._images import PooledBeside, image_shape
from .cifar_resnet import CifarResNet

_STRIDES = (8, 16, 32)
_BOX = 4


@dataclass(frozen=True)
class SSD(Architecture):
    """SSD with the three stages of a CIFAR ResNet as backbone: it detects on grids of 8, 16 and 32 pixels.

    Two convolutions of stride 2 go before the stages, so that these lie at 1/4, 1/8 and 1/16 of the input's side; a
    further stage at 1/32 is the paper's extra layer (1x1 to half the channels, 3x3 of stride 2), with batch norm as
    everywhere here. The head is torchvision's: a 3x3 convolution each for classes and boxes on each of the last three
    stages, which all have as many anchors per cell as the task's number of anchors comes to. The paper's L2 norm of the
    first map is left out: batch norm keeps the maps at one scale.

    Answers are [batch, classes + 4, anchors], in the order of SSD: grid by grid from the finest, row by row, cell by
    cell. The embedding is the mean over the last stage's positions, which the answer does not pass through.

    Attributes:
        backbone: resnet8, resnet14, resnet20, ... (6n + 2 layers), for its blocks.
        width: multiplies the 16, 32, 64 and 64 channels of the stages.
    """

    backbone: str = "resnet20"
    width: Positive = 1.0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"resnet\d{1,4}", self.backbone):
            raise ValueError(f"backbone must be resnet8, resnet14, resnet20, ..., not {self.backbone!r:.80}")
        self._residual()

    def _residual(self) -> CifarResNet:
        return CifarResNet(depth=int(self.backbone.removeprefix("resnet")), width=self.width)

    def build(self, spec: DataSpec) -> nn.Module:
        """See `Architecture.build`.

        Raises:
            BadInput: the inputs are no images, or the task does not ask for boxes at anchors on these grids.
        """
        channels, height, width = image_shape(replace(spec, positions=()))
        anchors = _anchors_per_cell(spec, height, width)
        return SSDNetwork(self._residual(), channels, spec.classes, anchors)

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """Stages after their last ReLU; heads see 2 to 4."""
        return {**{f"stage{i}": Tap(f"stage{i}") for i in range(1, 5)}, "embedding": Tap("beside.pool")}


class SSDNetwork(nn.Module):
    """Images [batch, channels, height, width] to [batch, classes + 4, anchors]."""

    def __init__(self, residual: CifarResNet, channels: int, classes: int, anchors: int) -> None:
        super().__init__()
        stages = residual.build(DataSpec((channels, 32, 32), classes))
        stem, narrow, wide = (_outputs(stages.get_submodule(name)) for name in ("stage1", "stage2", "stage3"))
        self.stem = nn.Sequential(_block(channels, stem, 3, stride=2), _block(stem, stem, 3, stride=2))
        self.stage1 = stages.get_submodule("stage1")
        self.stage2 = stages.get_submodule("stage2")
        self.stage3 = stages.get_submodule("stage3")
        middle = max(1, wide // 2)
        self.stage4 = nn.Sequential(_block(wide, middle, 1), _block(middle, wide, 3, stride=2))
        self.head = SSDHead([narrow, wide, wide], [anchors] * 3, classes)
        self.beside = PooledBeside()

    def forward(self, images: Tensor) -> Tensor:
        fine = self.stage2(self.stage1(self.stem(images)))
        middle = self.stage3(fine)
        coarse = self.beside(self.stage4(middle))
        answers = self.head([fine, middle, coarse])
        return torch.cat([answers["cls_logits"], answers["bbox_regression"]], dim=2).transpose(1, 2)


def _anchors_per_cell(spec: DataSpec, height: int, width: int) -> int:
    cells = sum(-(-height // stride) * -(-width // stride) for stride in _STRIDES)
    if len(spec.positions) != 1 or spec.extras != _BOX:
        raise BadInput("ssd answers with boxes at anchors, which this task does not ask for", hint="use it for bccd")
    (anchors,) = spec.positions
    if anchors % cells:
        raise BadInput(
            f"ssd has {cells} cells on images of {height}x{width}, with grids of {_STRIDES} pixels: the task's"
            f" {anchors} anchors cannot be spread evenly over them"
        )
    return anchors // cells


def _outputs(stage: nn.Module) -> int:
    return [module.out_channels for module in stage.modules() if isinstance(module, nn.Conv2d)][-1]


def _block(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())
