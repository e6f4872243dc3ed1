"""Reading a network's named taps during its forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdbench.architecture import Tap
from kdbench.task import Batch, Task


def expand(names: Iterable[str], offered: Iterable[str]) -> tuple[str, ...]:
    """Tap names with "stages" replaced by every stage tap that is offered."""
    stages = [name for name in offered if name.startswith("stage")]
    expanded = (found for name in names for found in (stages if name == "stages" else [name]))
    return tuple(dict.fromkeys(expanded))


class Tapped(NamedTuple):
    """What a network answered to a batch: its whole output, and its taps, in float32."""

    output: Tensor
    taps: dict[str, Tensor]


class TappedNetwork:
    """A network that answers with its taps: only the wanted ones are kept, each as [batch, channels, *positions]."""

    def __init__(self, network: nn.Module, taps: Mapping[str, Tap], wanted: Iterable[str], task: Task) -> None:
        self.network, self.task = network, task
        self.wanted = expand(wanted, taps)
        self._seen: dict[str, Tensor] = {}
        self._handles = [self._attach(name, taps[name]) for name in self.wanted if name != "logits"]

    def _attach(self, name: str, tap: Tap) -> torch.utils.hooks.RemovableHandle:
        module = self.network.get_submodule(tap.module)

        def keep(value: Any) -> None:
            self._seen[name] = value.movedim(-1, 1) if tap.layout == "channels_last" else value

        if tap.at == "input":
            return module.register_forward_pre_hook(lambda _, inputs: keep(inputs[0]))
        return module.register_forward_hook(lambda _, __, output: keep(output))

    def __call__(self, batch: Batch) -> Tapped:
        """The output and the wanted taps for a prepared batch; "logits", as the task's rows, is always among them."""
        self._seen.clear()
        output = self.network(batch.inputs).float()
        taps = {name: self._seen[name].float() for name in self.wanted if name != "logits"}
        self._seen.clear()
        return Tapped(output, {"logits": self.task.logits(output, batch), **taps})

    def detach_hooks(self) -> None:
        """Leaves the network as it was before it was tapped."""
        for handle in self._handles:
            handle.remove()
