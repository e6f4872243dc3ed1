"""Methods that own their loop, as every check sees the others: asked for modules and losses by a `Step`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from kdbench.method import Method, Step
from kdbench.own_loop import Loop, Network, OwnLoop
from kdbench.task import Batch, DataSpec

_INPUT = (3, 4, 4)
_STEPS = 7  # of a whole training: methods that do something at some steps only, do it at one of those that are tried


class Asked(Protocol):
    """What checks ask of a method."""

    def build_auxiliary(self, example: Step) -> nn.Module | None:
        """Its modules."""
        ...

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Its terms."""
        ...


def asked(method: Method) -> Asked:
    """The method itself, or, if it owns its loop, a view of it whose networks answer with the taps of the step."""
    return _AskedByStep(method) if isinstance(method, OwnLoop) else method


@dataclass(frozen=True)
class _AskedByStep:
    method: OwnLoop

    def build_auxiliary(self, example: Step) -> nn.Module | None:
        return self.method.build(self._loop(example))

    def losses(self, step: Step) -> dict[str, Tensor]:
        return self.method.loop_losses(self._loop(step))

    def _loop(self, step: Step) -> Loop:
        size = len(step.indices)
        example = next(iter((*step.students[0].values(), *(tap for taps in step.teachers for tap in taps.values()))))
        drawn = torch.Generator().manual_seed(0)
        every = torch.randn(int(step.indices.max()) + 1, *_INPUT, generator=drawn).to(example.dtype)
        inputs = every[step.indices]  # an example has the same input in any batch
        labels = step.indices if step.labels is None else step.labels
        rows, classes = step.students[0]["logits"].shape
        batch = Batch(inputs, labels, step.indices)
        return Loop(
            students=[_answering(taps) for taps in step.students],
            teachers=[_answering(taps) for taps in step.teachers],
            batch=batch if self.method.needs.data == "train" else None,
            task_loss=lambda logits, _: step.task_loss(logits),
            rationales=lambda given: given,
            spec=DataSpec(_INPUT, classes, positions=() if rows == size else (rows // size,)),
            size=size,
            index=round(step.progress * _STEPS),
            progress=step.progress,
            auxiliary=step.auxiliary,
        )


def _answering(taps: Mapping[str, Tensor]) -> Network:
    """A network that answers with `taps`, a little larger or smaller by its inputs, so that gradients reach these."""
    drawn = torch.Generator().manual_seed(1)
    weights = torch.randn(_INPUT, generator=drawn)

    def network(batch: Batch) -> Mapping[str, Tensor]:
        moved = (batch.inputs * weights.to(batch.inputs.dtype)).flatten(1).mean(dim=1)
        return {name: tap * (1 + _along(moved, tap)) for name, tap in taps.items()}

    return network


def _along(moved: Tensor, tap: Tensor) -> Tensor:
    """One number per example [batch], for each of its rows of a tap [batch * answers, ...]."""
    rows = moved.repeat_interleave(len(tap) // len(moved))
    return rows.reshape(-1, *[1] * (tap.ndim - 1)).to(tap.dtype)
