"""Any torchvision classifier, as `torchvision:NAME[weights=...]`, with taps found by watching a forward pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torchvision import models

from kdbench import Architecture, BadInput, DataSpec, Tap

from ._images import PooledBeside, image_shape
from ._torchvision import check_variant, download, first_convolution, fit_channels, load, trace, work_out_of_place


@dataclass(frozen=True)
class TorchvisionClassifier(Architecture):
    """Any torchvision classifier, written `torchvision:resnet18[weights=DEFAULT]`; random initial weights by default.

    It differs from torchvision's in four ways. The last layer fits the task's classes. The first convolution fits the
    task's channels: for grey images its weights are summed over red, green and blue, the same function as repeating
    the grey channel. Auxiliary classifiers are left out. Nothing works in place, so that taps keep their values.

    Attributes:
        variant: torchvision's name of the classifier; in suites, what follows `torchvision:`.
        weights: torchvision's name of published weights, e.g. DEFAULT or IMAGENET1K_V1; None: random ones.
    """

    variant: str = ""
    weights: str | None = None

    def __post_init__(self) -> None:
        classifiers = models.list_models(module=models)
        check_variant(self.variant, self.weights, classifiers, "image classifier", "torchvision:resnet18")

    def build(self, spec: DataSpec) -> nn.Module:
        """See `Architecture.build`.

        Raises:
            BadInput: the network, or its published weights, cannot take images of this size.
            MissingData: the published weights are neither cached nor downloadable.
        """
        channels, height, width = image_shape(spec)
        published = models.get_model_weights(self.variant)[self.weights] if self.weights else None
        classes = len(published.meta["categories"]) if published else spec.classes
        state = download(published) if published else None
        try:
            network = models.get_model(self.variant, num_classes=classes, **self._options(height, width))
            if state is not None:
                load(network, state)
            fit_channels(network, channels)
            _fit_classes(network, spec.classes)
            if isinstance(network, models.SqueezeNet):
                network.features.append(PooledBeside())
            work_out_of_place(network)
            trace(network, (), (channels, height, width))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise BadInput(
                f"torchvision:{self.variant} cannot take images of {height}x{width}: {error}",
                hint="take another architecture, or larger images",
            ) from error
        return network

    def _options(self, height: int, width: int) -> dict[str, Any]:
        if self.variant in ("googlenet", "inception_v3"):
            return {"aux_logits": False, "init_weights": True}
        if self.variant.startswith("vit_"):
            return {"image_size": height}
        if self.variant.startswith("maxvit_"):
            return {"input_size": (height, width)}
        return {}

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """Stages are the last block at each resolution, and every encoder block of a vision transformer.

        A block holds two weighted layers or more; networks of none (VGG, AlexNet) have their last ReLU at each
        resolution instead. Which they are does not depend on the size of the images. The embedding is the input
        of the last linear layer (after its dropout), and SqueezeNet's globally pooled features.
        """
        if isinstance(network, models.VisionTransformer):
            paths = [f"encoder.layers.{name}" for name, _ in network.encoder.layers.named_children()]
        else:
            paths = _last_at_each_resolution(network)
        layout: Literal["channels_first", "channels_last"] = "channels_first"
        if isinstance(network, (models.VisionTransformer, models.SwinTransformer)):
            layout = "channels_last"
        stages = {f"stage{i}": Tap(path, layout=layout) for i, path in enumerate(paths, start=1)}
        return {**stages, "embedding": _embedding(network)}


def _fit_classes(network: nn.Module, classes: int) -> None:
    """Replaces the last layer, freshly initialised, where it has another number of classes."""
    path, head = _head(network)
    if isinstance(head, nn.Conv2d):
        if head.out_channels != classes:
            network.set_submodule(path, nn.Conv2d(head.in_channels, classes, kernel_size=1))
    elif head.out_features != classes:
        network.set_submodule(path, nn.Linear(head.in_features, classes))


def _head(network: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The layer that makes the logits: the last linear one, or SqueezeNet's last convolution."""
    kind = nn.Conv2d if isinstance(network, models.SqueezeNet) else nn.Linear
    return [(path, module) for path, module in network.named_modules() if isinstance(module, kind)][-1]


def _embedding(network: nn.Module) -> Tap:
    for path, module in network.named_modules():
        if isinstance(module, PooledBeside):
            return Tap(f"{path}.pool")
    return Tap(_head(network)[0], at="input")


def _last_at_each_resolution(network: nn.Module) -> list[str]:
    pieces = dict(_pieces(network))
    blocks = [path for path, piece in pieces.items() if _weighted_layers(piece) >= 2]
    if isinstance(network, models.MaxVit):  # takes images of one size only, which it does not tell; each block halves
        return blocks
    watched = blocks or [path for path, piece in pieces.items() if isinstance(piece, nn.ReLU)]
    channels, side = first_convolution(network).in_channels, 224
    last: dict[int, str] = {}
    for path, shape in trace(network, watched, (channels, side, side)):
        if len(shape) == 4:
            height = shape[1] if isinstance(network, models.SwinTransformer) else shape[2]
            last[round(math.log2(side / height))] = path  # rounded: unpadded convolutions shave a little off
    return list(last.values())


def _pieces(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """What a network chains, by path: its children, those of plain containers in the containers' place."""
    for name, child in module.named_children():
        if type(child) in (nn.Sequential, nn.ModuleList):
            yield from _pieces(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _weighted_layers(piece: nn.Module) -> int:
    return sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in piece.modules())
