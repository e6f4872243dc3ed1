"""torchvision's segmentation networks, as `torchvision_segmentation:NAME[weights=...]`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torchvision import models

from kdbench import Architecture, DataSpec, Tap

from ._images import PooledBeside, scene_shape
from ._torchvision import check_variant, download, first_convolution, fit_channels, load, trace, work_out_of_place


@dataclass(frozen=True)
class TorchvisionSegmentation(Architecture):
    """LRASPP, DeepLabV3 and FCN, written `torchvision_segmentation:lraspp_mobilenet_v3_large[weights=DEFAULT]`.

    Random initial weights by default, of the backbone too. They differ from torchvision's as its classifiers do here
    (classes, channels, no auxiliary classifier, nothing in place) and answer with the logits alone. Logits are brought
    to the images' size bilinearly, whose gradient is not deterministic on CUDA. DeepLabV3 normalises an image's pooled
    features over the batch alone, so that small batches train it badly.

    Attributes:
        variant: torchvision's name of the network; in suites, what follows `torchvision_segmentation:`.
        weights: torchvision's name of published weights, e.g. DEFAULT; None: random ones.
    """

    variant: str = ""
    weights: str | None = None

    def __post_init__(self) -> None:
        known = models.list_models(module=models.segmentation)
        example = "torchvision_segmentation:lraspp_mobilenet_v3_large"
        check_variant(self.variant, self.weights, known, "segmentation network", example)

    def build(self, spec: DataSpec) -> nn.Module:
        """See `Architecture.build`.

        Raises:
            BadInput: the task does not ask for a class at every pixel.
            MissingData: the published weights are neither cached nor downloadable.
        """
        channels, _, _ = scene_shape(spec)
        published = models.get_model_weights(self.variant)[self.weights] if self.weights else None
        classes = len(published.meta["categories"]) if published else spec.classes
        network = models.get_model(self.variant, weights_backbone=None, aux_loss=False, num_classes=classes)
        if published:
            load(network, download(published))
        fit_channels(network, channels)
        for path in _last_layers(network):
            layer = network.get_submodule(path)
            if layer.out_channels != spec.classes:
                network.set_submodule(path, nn.Conv2d(layer.in_channels, spec.classes, kernel_size=1))
        head = network.classifier
        (head if isinstance(head, nn.Sequential) else head.cbr).insert(0, PooledBeside())
        work_out_of_place(network)
        return Segmenter(network)

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """Stages are the backbone's, and what the last layer reads (in LRASPP, of its two the one that reads the deeper
        features). The backbone's are a ResNet's four, a MobileNet's last block at each resolution; the embedding is the
        mean of its last features."""
        assert isinstance(network, Segmenter)
        paths = _backbone_stages(network)
        stages = {f"stage{i}": Tap(path) for i, path in enumerate(paths, start=1)}
        last = Tap(f"network.{_last_layers(network.network)[-1]}", at="input")
        (beside,) = (path for path, module in network.named_modules() if isinstance(module, PooledBeside))
        return {**stages, f"stage{len(paths) + 1}": last, "embedding": Tap(f"{beside}.pool")}


class Segmenter(nn.Module):
    """A network of torchvision's that answers with its logits alone, [batch, classes, height, width]."""

    network: Any  # torchvision's are untyped

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)["out"]


def _last_layers(network: Any) -> list[str]:
    """The convolutions that make the logits; LRASPP adds up those of two."""
    head = network.classifier
    if isinstance(head, nn.Sequential):
        return [f"classifier.{len(head) - 1}"]
    return ["classifier.low_classifier", "classifier.high_classifier"]


def _backbone_stages(network: Segmenter) -> list[str]:
    prefix, backbone = "network.backbone", network.network.backbone
    if "layer4" in backbone:
        return [f"{prefix}.layer{i}" for i in range(1, 5)]
    blocks = [f"{prefix}.{name}" for name, piece in backbone.items() if _convolutions(piece) >= 2]
    side = 224
    shapes = trace(network, blocks, (first_convolution(network).in_channels, side, side))
    return list({round(math.log2(side / shape[2])): path for path, shape in shapes}.values())


def _convolutions(piece: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in piece.modules())
