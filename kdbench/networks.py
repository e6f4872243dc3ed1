"""What a plan must know of networks before anything runs: whether they fit a task, their taps, size and cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdbench.architecture import Architecture
from kdbench.errors import BadInput
from kdbench.task import DataSpec

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Misfit:
    """Why an architecture cannot be built for a task: a value, not an error."""

    reason: str


class Networks:
    """Networks by task and architecture, each built once and not kept."""

    def __init__(self, architectures: Mapping[str, Architecture], specs: Mapping[str, DataSpec]) -> None:
        self.architectures, self.specs = architectures, specs
        self._taps: dict[tuple[str, str], frozenset[str] | Misfit] = {}
        self._parameters: dict[tuple[str, str], int] = {}
        self._flops: dict[tuple[str, str, bool], int] = {}

    def taps(self, task: str, architecture: str) -> frozenset[str] | Misfit:
        """The taps that the architecture offers on the task, the gradients at its stages among them; "stages" stands
        for every stage."""
        self._study(task, architecture)
        return self._taps[task, architecture]

    def parameters(self, task: str, architecture: str) -> int:
        """How many parameters it has; 0 where it does not fit."""
        self._study(task, architecture)
        return self._parameters.get((task, architecture), 0)

    def distillation_cost(self, task: str, teacher: str, student: str) -> float:
        """The FLOPs of a step of plain distillation, relative to those of training the student alone."""
        alone = self._step_flops(task, student, training=True)
        return 1 + self._step_flops(task, teacher, training=False) / alone if alone else 1.0

    def _study(self, task: str, architecture: str) -> None:
        if (task, architecture) in self._taps:
            return
        plugin = self.architectures[architecture]
        try:
            network = self._build(task, architecture)
            taps = set(plugin.taps(network))
        except (BadInput, ValueError) as error:
            self._taps[task, architecture] = Misfit(f"{architecture} does not fit {task}: {error}")
            return
        gradients = {tap.replace("stage", "gradient") for tap in taps if tap.startswith("stage")}
        stages = {"stages"} if "stage1" in taps else set()
        self._taps[task, architecture] = frozenset({"logits", *taps, *gradients, *stages})
        self._parameters[task, architecture] = sum(parameter.numel() for parameter in network.parameters())

    def _build(self, task: str, architecture: str) -> nn.Module:
        import torch

        with torch.random.fork_rng(devices=[]):
            return self.architectures[architecture].build(self.specs[task])

    def _step_flops(self, task: str, architecture: str, training: bool) -> int:
        """FLOPs of a student's training step, or of a teacher's forward pass, on two examples; 0 of a misfit."""
        import torch

        from kdbench.flops import count_flops

        if isinstance(self.taps(task, architecture), Misfit):
            return 0
        if (task, architecture, training) not in self._flops:
            spec, network = self.specs[task], self._build(task, architecture).train(training)
            inputs = torch.zeros(2, *spec.input_shape, dtype=torch.float32 if spec.vocabulary is None else torch.long)

            def step() -> None:
                with torch.set_grad_enabled(training), torch.random.fork_rng(devices=[]):
                    output = network(inputs)
                    if training:
                        output.float().logsumexp(dim=1).mean().backward()

            self._flops[task, architecture, training] = count_flops(step)
        return self._flops[task, architecture, training]
