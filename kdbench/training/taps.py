"""Reading a network's named taps during its forward pass, and the gradients at its stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdbench.architecture import Tap
from kdbench.task import Batch, Task
from kdbench.training.compiled import CompiledForward, Compiling
from kdbench.training.ranks import ALONE, Ranks
from kdbench.training.shares import Share


def expand(names: Iterable[str], offered: Iterable[str]) -> tuple[str, ...]:
    """Tap names with "stages" replaced by every stage tap that is offered."""
    stages = [name for name in offered if name.startswith("stage")]
    expanded = (found for name in names for found in (stages if name == "stages" else [name]))
    return tuple(dict.fromkeys(expanded))


def always_compiled(name: str) -> bool:
    """Whether a tap is part of a compiled network's code even where nobody asks for it, so that one code serves all
    who ask for no others, and answers the same bits to each."""
    return name.startswith("stage") or name == "embedding"


class Tapped(NamedTuple):
    """What a network answered to a batch: its whole output, and its taps, in float32."""

    output: Tensor
    taps: dict[str, Tensor]


class TappedNetwork:
    """A network that answers with its taps: only the wanted ones are kept, each as [batch, channels, *positions].

    "gradient<n>" is the gradient at stage<n> of the logits of the examples' labels, or, where answers have no label, of
    the largest ones, summed over the batch: the same shape as the stage. It can be differentiated again where the call
    itself is (in a student), and is a mere number where it is not (in a teacher under `no_grad`). Of a compiled network
    there is none.
    """

    def __init__(
        self,
        network: nn.Module,
        taps: Mapping[str, Tap],
        wanted: Iterable[str],
        task: Task,
        compiled: CompiledForward | None = None,
    ) -> None:
        """`compiled`: what is called in place of the network."""
        self.network, self.task = network, task
        self._compiled, self._forward = compiled, compiled or network
        self.wanted = expand(wanted, taps)
        self._gradients = {name: _stage(name) for name in self.wanted if name.startswith("gradient")}
        hooked = dict.fromkeys(filter(always_compiled, taps if compiled else ()))
        hooked |= dict.fromkeys(self._gradients.get(name, name) for name in self.wanted if name != "logits")
        self._layouts = {name: taps[name].layout for name in hooked}
        self._seen: dict[str, Tensor] = {}
        self._handles = [self._attach(name, taps[name]) for name in hooked]

    def _attach(self, name: str, tap: Tap) -> torch.utils.hooks.RemovableHandle:
        module = self.network.get_submodule(tap.module)
        if name not in self._gradients.values():
            if tap.at == "input":
                return module.register_forward_pre_hook(lambda _, inputs: self._keep(name, inputs[0]))
            return module.register_forward_hook(lambda _, __, output: self._keep(name, output))
        if tap.at == "input":
            return module.register_forward_pre_hook(lambda _, inputs: (self._rooted(name, inputs[0]), *inputs[1:]))
        return module.register_forward_hook(lambda _, __, output: self._rooted(name, output))

    def _keep(self, name: str, value: Any) -> None:
        self._seen[name] = value

    def _rooted(self, name: str, value: Tensor) -> Tensor:
        """A value that gradients can be asked for, from which the network goes on; frozen layers give none."""
        self._seen[name] = value if value.requires_grad else value.detach().requires_grad_()
        return self._seen[name]

    def __call__(self, batch: Batch, ranks: Ranks = ALONE) -> Tapped:
        """The output and the wanted taps for a prepared batch; "logits", as the task's rows, is always among them.
        Of several `ranks` the network answers its share only, and gets the others' answers."""
        differentiable, share = torch.is_grad_enabled(), Share(batch, ranks)
        self._seen.clear()
        with torch.enable_grad() if self._gradients else nullcontext(), share.computing(self.network):
            output = self._forward(share.batch.inputs).float()
            found = self._gradients_of(output, share.batch, differentiable)
        found |= {name: self._laid_out(name, self._seen[name]) for name in self.wanted if name in self._seen}
        self._seen.clear()
        output, found = share.gathered(output, found)
        found["logits"] = self.task.logits(output, batch)
        if self._gradients and not differentiable:
            output, found = output.detach(), {name: tensor.detach() for name, tensor in found.items()}
        return Tapped(output, {name: found[name] for name in dict.fromkeys(("logits", *self.wanted))})

    def _gradients_of(self, output: Tensor, batch: Batch, differentiable: bool) -> dict[str, Tensor]:
        if not self._gradients:
            return {}
        logits, labels = self.task.logits(output, batch), self.task.labels(batch)
        largest = logits.detach().argmax(dim=1)
        chosen = largest if labels is None else torch.where(labels < 0, largest, labels)
        score = logits.gather(1, chosen[:, None]).sum()
        stages = [self._seen[stage] for stage in self._gradients.values()]
        gradients = torch.autograd.grad(score, stages, create_graph=differentiable, retain_graph=True)
        named = zip(self._gradients.items(), gradients, strict=True)
        return {name: self._laid_out(stage, gradient) for (name, stage), gradient in named}

    def _laid_out(self, name: str, value: Tensor) -> Tensor:
        return (value.movedim(-1, 1) if self._layouts[name] == "channels_last" else value).float()

    @property
    def is_compiled(self) -> bool:
        """Whether another thing than the network itself is called."""
        return self._compiled is not None

    @property
    def compiling(self) -> Compiling:
        """What compiling it took, so far."""
        return self._compiled.compiling if self._compiled is not None else Compiling()

    def detach_hooks(self) -> None:
        """Leaves the network as it was before it was tapped."""
        for handle in self._handles:
            handle.remove()


def _stage(gradient: str) -> str:
    """The stage that a gradient is taken at."""
    return gradient.replace("gradient", "stage", 1)
