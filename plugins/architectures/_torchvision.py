"""What torchvision's networks of every kind need: published weights, other channels, taps that keep their values."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torchvision import models

from kdbench import MissingData


def check_variant(variant: str, weights: str | None, choices: Sequence[str], kind: str, example: str) -> None:
    """That `variant` is one of torchvision's networks of a kind, and has the published `weights`, if any.

    Raises:
        ValueError: it is not, with the nearest `choices`; or it has no such weights, with those that it has.
    """
    if not variant:
        raise ValueError(f"say which {kind}, e.g. {example}")
    if variant not in choices:
        fault = f"is no {kind}" if variant in models.list_models() else "is not known to torchvision"
        near = difflib.get_close_matches(variant, choices, n=3, cutoff=0.3)
        raise ValueError(f"'{variant}' {fault}; the nearest: {', '.join(near or choices)}")
    published = models.get_model_weights(variant).__members__
    if weights is not None and weights not in published:
        raise ValueError(f"{variant} has no weights '{weights}'; choices: {', '.join(published)}")


def download(published: Any) -> dict[str, Any]:
    """The state dict of published weights (a member of torchvision's enumerations), with its hash checked.

    Raises:
        MissingData: it is neither cached nor downloadable.
    """
    try:
        # Weights only: a file of tensors needs no pickle that could run code.
        return published.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except OSError as error:
        file = f"{torch.hub.get_dir()}/checkpoints/{published.url.rsplit('/', 1)[-1]}"
        raise MissingData(f"cannot download {published.url}: {error}", hint=f"put it at {file}") from error


def load(network: nn.Module, state: dict[str, Any]) -> None:
    """Loads published weights; those of auxiliary classifiers are left over. Changes `state`.

    Raises:
        ValueError: some are missing.
    """
    for key in list(state):
        # DenseNet's were published before module names lost their dots (torchvision renames them, too).
        state[re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", key)] = state.pop(key)
    missing = network.load_state_dict(state, strict=False).missing_keys
    if missing:
        raise ValueError(f"the published weights lack {', '.join(missing)}")
    if isinstance(network, (models.GoogLeNet, models.Inception3)):  # their weights want another normalisation
        network.transform_input = True


def fit_channels(network: nn.Module, channels: int) -> None:
    """Makes the first convolution take `channels`, its weights repeated and scaled to keep the size of its output."""
    first = first_convolution(network)
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


def first_convolution(network: nn.Module) -> nn.Conv2d:
    """The one that reads the images."""
    return next(module for module in network.modules() if isinstance(module, nn.Conv2d))


def work_out_of_place(network: nn.Module) -> None:
    """Keeps every module from overwriting its input, which may be tapped."""
    for module in network.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010 (typed as a submodule otherwise)


def trace(network: nn.Module, paths: Iterable[str], shape: tuple[int, ...]) -> list[tuple[str, torch.Size]]:
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
        ghost(torch.empty(1, *shape, dtype=first_convolution(network).weight.dtype, device="meta"))
    return seen
