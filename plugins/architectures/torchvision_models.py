"""Any torchvision classifier, as `torchvision:NAME[weights=...]`, with taps found by watching a forward pass."""

from __future__ import annotations

import copy
import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision import models

from kdbench import Architecture, BadInput, DataSpec, MissingData, Tap

from ._images import image_shape


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
        if not self.variant:
            raise ValueError("say which classifier, e.g. torchvision:resnet18")
        if self.variant not in classifiers:
            fault = "is no image classifier" if self.variant in models.list_models() else "is not known to torchvision"
            near = difflib.get_close_matches(self.variant, classifiers, n=3, cutoff=0.3)
            raise ValueError(f"'{self.variant}' {fault}; the nearest: {', '.join(near or classifiers)}")
        published = models.get_model_weights(self.variant).__members__
        if self.weights is not None and self.weights not in published:
            raise ValueError(f"{self.variant} has no weights '{self.weights}'; choices: {', '.join(published)}")

    def build(self, spec: DataSpec) -> nn.Module:
        """See `Architecture.build`.

        Raises:
            BadInput: the network, or its published weights, cannot take images of this size.
            MissingData: the published weights are neither cached nor downloadable.
        """
        channels, height, width = image_shape(spec)
        published = models.get_model_weights(self.variant)[self.weights] if self.weights else None
        classes = len(published.meta["categories"]) if published else spec.classes
        state = _download(published) if published else None
        try:
            network = models.get_model(self.variant, num_classes=classes, **self._options(height, width))
            if state is not None:
                _load(network, state)
            _fit_channels(network, channels)
            _fit_classes(network, spec.classes)
            if isinstance(network, models.SqueezeNet):
                network.features.append(PooledBeside())
            _work_out_of_place(network)
            _trace(network, (), (channels, height, width))
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


def _download(published: Any) -> dict[str, Any]:
    try:
        # Weights only: a file of tensors needs no pickle that could run code.
        return published.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except OSError as error:
        file = f"{torch.hub.get_dir()}/checkpoints/{published.url.rsplit('/', 1)[-1]}"
        raise MissingData(f"cannot download {published.url}: {error}", hint=f"put it at {file}") from error


def _load(network: nn.Module, state: dict[str, Any]) -> None:
    """Loads published weights; those of auxiliary classifiers are left over. Changes `state`."""
    for key in list(state):
        # DenseNet's were published before module names lost their dots (torchvision renames them, too).
        state[re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", key)] = state.pop(key)
    missing = network.load_state_dict(state, strict=False).missing_keys
    if missing:
        raise ValueError(f"the published weights lack {', '.join(missing)}")
    if isinstance(network, (models.GoogLeNet, models.Inception3)):  # their weights want another normalisation
        network.transform_input = True


def _fit_channels(network: nn.Module, channels: int) -> None:
    """Makes the first convolution take `channels`, its weights repeated and scaled to keep the size of its output."""
    first = _first_convolution(network)
    colours = first.in_channels
    if channels == colours:
        return
    with torch.no_grad():
        weight = first.weight[:, [channel % colours for channel in range(channels)]] * (colours / channels)
        if channels == 1:
            weight = first.weight.sum(dim=1, keepdim=True)
    first.weight, first.in_channels = nn.Parameter(weight), channels
    if isinstance(network, (models.GoogLeNet, models.Inception3)):
        network.transform_input = False  # it looks for three channels


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


class PooledBeside(nn.Module):
    """Passes features on and pools them beside: an embedding for networks that pool only after their last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, features: Tensor) -> Tensor:
        self.pool(features)
        return features


def _embedding(network: nn.Module) -> Tap:
    for path, module in network.named_modules():
        if isinstance(module, PooledBeside):
            return Tap(f"{path}.pool")
    return Tap(_head(network)[0], at="input")


def _work_out_of_place(network: nn.Module) -> None:
    for module in network.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010 (typed as a submodule otherwise)


def _last_at_each_resolution(network: nn.Module) -> list[str]:
    pieces = dict(_pieces(network))
    blocks = [path for path, piece in pieces.items() if _weighted_layers(piece) >= 2]
    if isinstance(network, models.MaxVit):  # takes images of one size only, which it does not tell; each block halves
        return blocks
    watched = blocks or [path for path, piece in pieces.items() if isinstance(piece, nn.ReLU)]
    channels, side = _first_convolution(network).in_channels, 224
    last: dict[int, str] = {}
    for path, shape in _trace(network, watched, (channels, side, side)):
        if len(shape) == 4:
            height = shape[1] if isinstance(network, models.SwinTransformer) else shape[2]
            last[round(math.log2(side / height))] = path  # rounded: unpadded convolutions shave a little off
    return list(last.values())


def _first_convolution(network: nn.Module) -> nn.Conv2d:
    return next(module for module in network.modules() if isinstance(module, nn.Conv2d))


def _pieces(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """What a network chains, by path: its children, those of plain containers in the containers' place."""
    for name, child in module.named_children():
        if type(child) in (nn.Sequential, nn.ModuleList):
            yield from _pieces(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _weighted_layers(piece: nn.Module) -> int:
    return sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in piece.modules())


def _trace(network: nn.Module, paths: Iterable[str], shape: tuple[int, ...]) -> list[tuple[str, torch.Size]]:
    """The modules at `paths` in the order they finish on one input of `shape`, with the shapes of their outputs.

    Runs a copy of the network that has shapes but no numbers, so it costs milliseconds and changes nothing.
    """
    tensors = [*network.parameters(), *network.buffers()]
    ghost = copy.deepcopy(network, memo={id(tensor): tensor.detach().to("meta") for tensor in tensors}).eval()
    seen: list[tuple[str, torch.Size]] = []

    def watch(path: str) -> None:
        module = ghost.get_submodule(path)
        module.register_forward_hook(lambda module, inputs, output: seen.append((path, output.shape)))

    for path in paths:
        watch(path)
    with torch.no_grad():
        ghost(torch.empty(1, *shape, dtype=_first_convolution(network).weight.dtype, device="meta"))
    return seen
