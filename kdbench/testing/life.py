"""A method's whole life in a run, from initial weights to the deployed student, among names of tasks and networks."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.errors import NotApplicable
from kdbench.method import Method
from kdbench.plugins import Plugin, discover
from kdbench.testing.loops import asked
from kdbench.testing.situations import ORDINARY, PROGRESS
from kdbench.testing.state import seeded


@dataclass(frozen=True)
class Called:
    """What a plugin is called: its name, and the class and module that it is written in."""

    name: str = "plugin"
    module: str = "plugin"
    class_name: str = "Plugin"

    @classmethod
    def of(cls, plugin: Plugin) -> Called:
        target = plugin.target
        name = target.__name__ if isinstance(target, type) else target.partition(":")[2].partition("[")[0]
        return cls(plugin.name, plugin.module, name)

    def make(self, base: type, *arguments: Any) -> Any:
        """An instance of a class of that name, derived from `base`."""
        return type(self.class_name, (base,), {"__module__": self.module})(*arguments)


@dataclass(frozen=True)
class Guise:
    """What a task and a network are called in one run."""

    task: Called = Called()
    architecture: Called = Called()


def guises() -> Iterator[Guise]:
    """One for each task and each architecture that is installed."""
    plugins = discover().plugins
    tasks, networks = ([Called.of(plugin) for plugin in plugins[kind].values()] for kind in ("task", "architecture"))
    if not (tasks and networks):
        return
    pairs = zip(tasks, cycle(networks)) if len(tasks) > len(networks) else zip(cycle(tasks), networks)
    yield from (Guise(*pair) for pair in pairs)


def live(method: Method, guise: Guise = Guise(), at: Sequence[float] = PROGRESS) -> dict[str, Tensor]:
    """Asks all of a method that the engine asks, in its order, at some progress; what it answered and did, by name.

    The names of the guise are where the engine has them: on the command line, in local variables of callers, behind the
    loss of the task, on the classes of the networks. Shared state is what the method leaves.
    """
    task = guise.task.make(_Task, guise.task.name)
    architecture = guise.architecture.make(_Architecture, guise.architecture)
    with _command_line("kdbench", "run", task.name, architecture.name), seeded(0):
        student, teacher = architecture.build(), architecture.build()
        fresh = student.state_dict()
        with suppress(NotApplicable):  # then a trial is skipped; the rest can still be asked
            student.load_state_dict({**fresh, **method.initial_weights(fresh, [teacher.state_dict()])})
        method.prepare(student, sum(parameter.numel() for parameter in student.parameters()))
        found = {f"prepared {name}": value.clone() for name, value in student.state_dict().items()}
        for progress in at:
            step = ORDINARY.step(method, progress)
            losses = asked(method).losses(replace(step, task_loss=task.loss_of(step.labels)))
            found |= {f"'{term}' at progress {progress:g}": torch.as_tensor(loss) for term, loss in losses.items()}
        method.deploy(student)
        return {**found, **{f"deployed {name}": value for name, value in student.state_dict().items()}}


class _Task:
    def __init__(self, name: str) -> None:
        self.name = name

    def loss_of(self, labels: Tensor) -> Any:
        task = self
        return lambda logits: task.loss(logits, labels)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels)


class _Architecture:
    def __init__(self, called: Called) -> None:
        self.name, self._called = called.name, called

    def build(self) -> nn.Module:
        layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))
        network: nn.Module = self._called.make(nn.Sequential, *layers)
        return network


@contextmanager
def _command_line(*words: str) -> Iterator[None]:
    before = sys.argv
    sys.argv = list(words)
    try:
        yield
    finally:
        sys.argv = before
