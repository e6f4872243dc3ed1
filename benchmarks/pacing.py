"""The engine timed from outside, step by step, in turns with rivals that get the very same batches.

The engine asks its training split for batches. A split that answers slowly can time everything: what passes between two
questions is the engine's step, whole, and between two laps of answers the rivals do theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from kdbench import Batch, Split, TensorSplit
from kdbench.training.device import resolve_device

from .harness import Setting
from .timing import CLOCKS, Rounds, rotated
from .workloads import Bench, Workload, bench

ENGINE = "engine"

_BATCHES = 4

Step = Callable[[Batch], object]


@dataclass(frozen=True)
class Paced(Setting):
    """`rounds` laps of `steps` batches each (0: as many as the workload says), after `warmup` that do not count."""

    batch_size: int = 64
    rounds: int = 40
    warmup: int = 3
    steps: int = 0
    device: str = "cpu"
    clock: str = "wall"

    def bench(self, workload: Workload, methods: Sequence[str]) -> Bench:
        """The workload planned, on a few batches of examples, which come round again."""
        return bench(workload, methods, _BATCHES * self.batch_size, self.batch_size, resolve_device(self.device))


class PacedSplit:
    """A split whose batches come in laps of `steps`; engine and rivals are timed over each, in an order that changes.

    Handing out a batch is charged to nobody.
    """

    def __init__(self, inner: TensorSplit, rivals: Mapping[str, Step], steps: int, pace: Paced) -> None:
        self.inner, self.rivals, self.steps, self.pace = inner, rivals, steps, pace
        self.device = resolve_device(pace.device)
        self.rounds = Rounds()
        self._laps = 0

    @property
    def targets(self) -> Tensor:
        """The targets of all examples."""
        return self.inner.targets[torch.arange(len(self)) % len(self.inner)]

    def __len__(self) -> int:
        return self.pace.batch_size * self.steps * (self.pace.warmup + self.pace.rounds)

    def batches(self, order: Sequence[Tensor]) -> Iterator[Batch]:
        """The batches of `order`; the engine is timed from each first batch of a lap until it asks for the next lap."""
        batches = (self._moved(batch) for batch in self.inner.batches([each % len(self.inner) for each in order]))
        while lap := list(islice(batches, self.steps)):
            taken = {}
            for name in rotated([*self.rivals, ENGINE], self._laps):
                started = self._now()
                if name == ENGINE:
                    yield from lap
                else:
                    for batch in lap:
                        self.rivals[name](batch)
                taken[name] = self._now() - started
            self._laps += 1
            if self._laps > self.pace.warmup:
                self.rounds.add({name: seconds / self.steps for name, seconds in taken.items()})

    def subset(self, indices: Tensor) -> Split:
        """Plain examples: only training is timed."""
        return self.inner.subset(indices % len(self.inner))

    def digest(self) -> str:
        """That of the examples."""
        return self.inner.digest()

    def _moved(self, batch: Batch) -> Batch:
        return Batch(*(tensor.to(self.device) for tensor in (batch.inputs, batch.targets, batch.indices)))

    def _now(self) -> float:
        """An accelerator is waited for, so that its work is charged to whoever asked for it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
        return CLOCKS[self.pace.clock]()


def paced(bench: Bench, methods: Sequence[str], rivals: Mapping[str, Step], pace: Paced) -> Rounds:
    """The seconds per step of the engine, which trains `methods` in lockstep, and of each rival, lap by lap."""
    inner = bench.loaded.data.train
    assert isinstance(inner, TensorSplit)
    split = PacedSplit(inner, rivals, pace.steps or bench.workload.steps, pace)
    bench.train(methods, split)
    return split.rounds
