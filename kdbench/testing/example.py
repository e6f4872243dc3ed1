"""A step of random numbers: what the engine would hand to a method, without a network or data."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.method import ALL, Method, Needs, Step
from kdbench.testing.loops import asked
from kdbench.testing.state import seeded

_STAGES = 3
_HEADS = 4  # queries, keys and values can be cut into so many
_NUMBERED = re.compile(r"(stage|gradient|query|key|value|attention)([1-9]\d*)")
_TAPS = "logits, embedding, stage1, stage2, ..., stages, or gradient1, query1, key1, value1, attention1, query2, ..."


@dataclass(frozen=True)
class _Network:
    """The shapes of one network's taps: stage n has n * `channels`, and positions `wider` than the student's.

    The gradient of a stage has the stage's shape. Queries, keys and values have 4 * `channels` at every layer,
    attention maps 4 heads and rows that sum to 1; of both the positions are the same in teacher and student.
    """

    channels: int
    features: int
    wider: int = 0

    def shape(self, tap: str, batch: int, logits: tuple[int, int], positions: tuple[int, ...]) -> tuple[int, ...]:
        if tap in ("logits", "embedding"):
            return logits if tap == "logits" else (batch, self.features)
        numbered = _NUMBERED.fullmatch(tap)
        assert numbered, f"needs asks for '{tap}', which no network has: {_TAPS}"
        kind, depth = numbered[1], int(numbered[2])
        if kind in ("query", "key", "value"):
            return batch, _HEADS * self.channels, *positions
        if kind == "attention":
            return batch, _HEADS, prod(positions), prod(positions)
        return batch, self.channels * depth, *(max(1, size + self.wider - depth + 1) for size in positions)


_STUDENT = _Network(channels=4, features=10)
_TEACHER = _Network(channels=6, features=14, wider=1)


def example_step(
    method: Method,
    *,
    batch: int = 8,
    classes: int = 5,
    positions: tuple[int, ...] = (4, 4),
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    channels_last: bool = False,
    answers: int = 1,
    labelled: bool = True,
) -> Step:
    """A step of random numbers with every tap that `method` asks for, and its auxiliary modules built.

    Student taps are leaves that require a gradient; teacher tensors are not. `positions` are those of the student's
    stage 1; they shrink by one a stage, "stages" stands for 3, and ALL teachers are 3. Teachers have other channels
    and positions than students (of queries, keys and values: other channels). `channels_last` gives features that
    memory layout; `answers` is the rows of logits per example (more than one where tokens are labelled), and rows that
    are not `labelled` have no class each (frames of speech). Global random state is untouched.

    Raises:
        AssertionError: no network has a tap that it asks for, or what it builds is no module.
        NotApplicable: the method refuses such answers.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(network: _Network, taps: Iterable[str]) -> dict[str, Tensor]:
        shapes = {tap: network.shape(tap, batch, (batch * answers, classes), positions) for tap in _expanded(taps)}
        drawn = {tap: torch.randn(shape, generator=generator) for tap, shape in shapes.items()}
        tensors = {
            tap: (noise.softmax(-1) if tap.startswith("attention") else noise).to(dtype) for tap, noise in drawn.items()
        }
        return {tap: _channels_last(tensor) for tap, tensor in tensors.items()} if channels_last else tensors

    needs = method.needs
    students = [draw(_STUDENT, needs.student) for _ in range(needs.students)]
    teachers = [draw(_TEACHER, needs.teacher) for _ in range(3 if needs.teachers == ALL else needs.teachers)]
    for tensor in (tensor for student in students for tensor in student.values()):
        tensor.requires_grad_()
    targets = torch.randint(classes, (batch * answers,), generator=generator)
    labels = targets if labelled else None
    step = Step(students, teachers, partial(cross_entropy, target=targets), torch.arange(batch), labels)
    with seeded(seed):
        auxiliary = asked(method).build_auxiliary(step)
    assert auxiliary is None or isinstance(auxiliary, nn.Module), "build_auxiliary must return an nn.Module or None"
    return replace(step, auxiliary=None if auxiliary is None else auxiliary.to(dtype))


def check_taps(needs: Needs) -> None:
    """Raises AssertionError where `needs` asks for a tap that no network has."""
    for tap in _expanded((*needs.student, *needs.teacher)):
        _STUDENT.shape(tap, batch=1, logits=(1, 1), positions=(1,))


def _expanded(taps: Iterable[str]) -> list[str]:
    every = [f"stage{depth}" for depth in range(1, _STAGES + 1)]
    return list(dict.fromkeys(name for tap in taps for name in (every if tap == "stages" else [tap])))


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
