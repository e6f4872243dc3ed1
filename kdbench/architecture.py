"""Architecture, Tap: how a network is built, and where it can be looked into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

    from kdbench.task import DataSpec


@dataclass(frozen=True)
class Tap:
    """One place of a network: the `output` or the (first) `input` of the submodule at path `module`.

    `layout` says how the tensor lies, so that methods always receive [batch, channels, *positions]:
    "channels_first" as it is; "channels_last" moves the last axis (tokens [batch, positions, channels], or
    [batch, height, width, channels]) to the second place.
    """

    module: str
    at: Literal["output", "input"] = "output"
    layout: Literal["channels_first", "channels_last"] = "channels_first"


@dataclass(frozen=True)
class Architecture:
    """Builds networks. Subclasses are frozen dataclasses: their fields are its parameters (width, depth, weights)."""

    def build(self, spec: DataSpec) -> nn.Module:
        """A fresh network whose forward maps prepared inputs [batch, *spec.input_shape] to logits [batch, classes], or
        to [batch, classes + extras, *positions] where `spec` has positions.

        Initial weights come from torch's global generator, which the engine seeds.
        """
        raise NotImplementedError

    def digest(self) -> str:
        """What the initial weights depend on besides parameters, source and seed: a checksum of pretrained ones that
        are named by a path or an address, whose content may change; "" for none. It is part of every fingerprint."""
        return ""

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """The named taps of a network that `build` returned: `stage1`..`stageN` in depth order, and `embedding`.

        `logits` is always there: the network's output. A tapped tensor must not be overwritten in place later.
        """
        raise NotImplementedError
