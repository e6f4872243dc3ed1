"""The conformance kit that authors of methods run: `check_method(MyMethod())` in a test of their own."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from math import prod
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.errors import NotApplicable
from kdbench.method import ALL, Family, Method, Step

_STAGES = 3
_HEADS = 4  # queries, keys and values can be cut into so many
_TAPS = "logits, embedding, stage1, stage2, ..., stages, or query1, key1, value1, attention1, query2, ..."
_PROGRESS = (0.0, 0.5, 1.0)
# Families that promise to reach every student tap they ask for; of the others only the logits must be reached.
_REACHES_ALL_TAPS = ("feature", "relation")


@dataclass(frozen=True)
class _Network:
    """The shapes of one network's taps: stage n has n * `channels`, and positions `wider` than the student's.

    Queries, keys and values have 4 * `channels` at every layer, attention maps 4 heads and rows that sum to 1; of both
    the positions are the same in teacher and student.
    """

    channels: int
    features: int
    wider: int = 0

    def shape(self, tap: str, batch: int, logits: tuple[int, int], positions: tuple[int, ...]) -> tuple[int, ...]:
        if tap in ("logits", "embedding"):
            return logits if tap == "logits" else (batch, self.features)
        if re.fullmatch(r"(query|key|value)[1-9]\d*", tap):
            return batch, _HEADS * self.channels, *positions
        if re.fullmatch(r"attention[1-9]\d*", tap):
            return batch, _HEADS, prod(positions), prod(positions)
        stage = re.fullmatch(r"stage([1-9]\d*)", tap)
        assert stage, f"needs asks for '{tap}', which no network has: {_TAPS}"
        depth = int(stage[1])
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
) -> Step:
    """A step of random numbers with every tap that `method` asks for, and its auxiliary modules built.

    Student taps are leaves that require a gradient; teacher tensors are not. `positions` are those of the student's
    stage 1; they shrink by one a stage, "stages" stands for 3, and ALL teachers are 3. Teachers have other channels
    and positions than students (of queries, keys and values: other channels). `channels_last` gives features that
    memory layout; `answers` is the rows of logits per example (more than one where tokens are labelled). Global random
    state is untouched.
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
    step = Step(students, teachers, partial(cross_entropy, target=targets), indices=torch.arange(batch), labels=targets)
    with _seeded(seed):
        auxiliary = method.build_auxiliary(step)
    assert auxiliary is None or isinstance(auxiliary, nn.Module), "build_auxiliary must return an nn.Module or None"
    return replace(step, auxiliary=None if auxiliary is None else auxiliary.to(dtype))


@dataclass(frozen=True)
class _Situation:
    """Circumstances that a run may bring; `refusable`: a method may answer that it has no meaning there, as
    `NotApplicable`."""

    name: str
    settings: Mapping[str, Any]
    autocast: bool = False
    refusable: bool = False

    def step(self, method: Method, progress: float) -> Step:
        step = example_step(method, **self.settings)
        if self.autocast and step.auxiliary is not None:
            step.auxiliary.float()
        return replace(step, progress=progress)

    def refused_by(self, method: Method) -> bool:
        try:
            self.step(method, progress=0.0)
        except NotApplicable:
            return self.refusable
        return False

    def precision(self) -> AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16) if self.autocast else nullcontext()


_ORDINARY = _Situation("an ordinary batch", {"dtype": torch.float64})
_SITUATIONS = (
    _ORDINARY,
    _Situation("float32", {"dtype": torch.float32}),
    _Situation("bfloat16", {"dtype": torch.bfloat16}),
    _Situation("bfloat16 autocast", {"dtype": torch.bfloat16}, autocast=True),
    _Situation("a batch of one", {"batch": 1}),
    _Situation("a last partial batch of two", {"batch": 2}),
    _Situation("several answers per example", {"answers": 3}, refusable=True),
    _Situation("one position axis", {"positions": (6,)}),
    _Situation("channels_last", {"channels_last": True}),
    _Situation("channels_last with one position axis", {"positions": (6,), "channels_last": True}),
)


def check_method(method: Method) -> None:
    """Runs `method` through what the engine may do to it.

    Raises:
        AssertionError: it breaks the contract of `kdbench.method`; the message says in which situation and how.
    """
    with _named(type(method).__name__), _seeded(0):
        _check_declaration(method)
        for situation in _SITUATIONS:
            with _named(situation.name):
                _check_situation(method, situation)
        _check_training_reaches(method)


def _check_declaration(method: Method) -> None:
    assert isinstance(method, Method), "it must derive from kdbench.Method"
    parameters = vars(type(method)).get("__dataclass_params__")
    assert getattr(parameters, "frozen", False), "it must be decorated with @dataclass(frozen=True)"
    assert method.family in get_args(Family), f"its family '{method.family}' is none of {', '.join(get_args(Family))}"
    needs = method.needs
    assert needs.targets == "data" or needs.teachers, "it trains on its teacher's targets, and has no teacher"
    assert method.paper or method.family == "control", "it must name its paper"
    known = {field.name for field in fields(method)}
    strange = sorted(method.search_space.keys() - known)
    assert not strange, f"its search_space has '{strange[0]}', which is no parameter of it"


def _check_situation(method: Method, situation: _Situation) -> None:
    if situation.refused_by(method):
        return
    for progress in _PROGRESS:
        with _named(f"progress {progress:g}"):
            _check_losses(method, situation, progress)
            _check_repeats(method, situation, progress)


def _check_losses(method: Method, situation: _Situation, progress: float) -> None:
    step = situation.step(method, progress)
    with _teachers_untouched(step):
        with _globals_untouched():
            losses = _losses(method, step, situation)
        assert losses, "losses returned no term"
        for term, loss in losses.items():
            assert isinstance(loss, Tensor), f"the term '{term}' must be a tensor"
            assert loss.ndim == 0, f"the term '{term}' must be a scalar, not of shape {tuple(loss.shape)}"
            assert loss.isfinite(), f"the term '{term}' must be finite, and is {loss.item()}"
        _total(losses).backward()
    for origin, leaf in _trained(step).items():
        assert leaf.grad is None or leaf.grad.isfinite().all(), f"the gradient of {origin} must be finite"


def _check_repeats(method: Method, situation: _Situation, progress: float) -> None:
    def run(seed: int) -> tuple[dict[str, Tensor], Tensor]:
        step = situation.step(method, progress)
        with _seeded(seed):
            return _losses(method, step, situation), torch.get_rng_state()

    (first, state), (second, _), (_, other_state) = run(seed=0), run(seed=0), run(seed=1)
    for term, loss in first.items():
        assert loss.equal(second[term]), f"the term '{term}' must be the same under the same seed"
    assert not state.equal(other_state), "losses must not seed torch's generator: it may draw from it"


def _check_training_reaches(method: Method) -> None:
    everything = method.family in _REACHES_ALL_TAPS
    reached: set[str] = set()
    expected: set[str] = set()
    for progress in _PROGRESS:
        step = _ORDINARY.step(method, progress)
        total = _total(_losses(method, step, _ORDINARY))
        trained = _trained(step)
        registered = {id(leaf) for leaf in trained.values()}
        strangers = [leaf for leaf in _leaves(total) if id(leaf) not in registered]
        assert not strangers, "a parameter in use is not registered in the auxiliary module, so it is never trained"
        total.backward()
        reached |= {origin for origin, leaf in trained.items() if leaf.grad is not None and leaf.grad.any()}
        expected |= {origin for origin in trained if everything or "logits" in origin or "auxiliary" in origin}
    assert expected <= reached, f"no gradient ever reaches {', '.join(sorted(expected - reached))}"


def _losses(method: Method, step: Step, situation: _Situation) -> dict[str, Tensor]:
    with situation.precision():
        return method.losses(step)


def _total(losses: Mapping[str, Tensor]) -> Tensor:
    total = torch.stack([loss.double() for loss in losses.values()]).sum()
    assert total.requires_grad, "no term depends on the student"
    return total


def _trained(step: Step) -> dict[str, Tensor]:
    """What a step trains, by the name that messages give it."""
    taps = {f"student {i} {tap}": leaf for i, student in enumerate(step.students) for tap, leaf in student.items()}
    if step.auxiliary is None:
        return taps
    parameters = {f"auxiliary {name}": leaf for name, leaf in step.auxiliary.named_parameters() if leaf.requires_grad}
    return {**taps, **parameters}


def _leaves(loss: Tensor) -> Iterator[Tensor]:
    """The leaves of the graph behind a loss: all that its gradient would reach."""
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting += [following for following, _ in node.next_functions]


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Says, in every error, where it happened."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{where}: {error}") from error
    except Exception as error:
        raise AssertionError(f"{where}: raised {type(error).__name__}: {error}") from error


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def _teachers_untouched(step: Step) -> Iterator[None]:
    tensors = [(tap, tensor, tensor._version, tensor.clone()) for taps in step.teachers for tap, tensor in taps.items()]
    yield
    for tap, tensor, version, before in tensors:
        # The version misses writes through .data; the values miss writes of what was there already.
        assert tensor._version == version, f"the teacher's {tap} must not be modified"
        assert tensor.equal(before), f"the teacher's {tap} must not be modified"
        assert not tensor.requires_grad, f"the teacher's {tap} must not be given a gradient"


@contextmanager
def _globals_untouched() -> Iterator[None]:
    """Only torch's generator is kept apart for each trial, so only from it may a method draw."""
    before = {name: read() for name, read in _GLOBALS.items()}
    yield
    for name, read in _GLOBALS.items():
        assert read() == before[name], f"{name} must not be changed"


def _numpy_state() -> str:
    state = np.random.get_state(legacy=False)
    return repr({**state, "state": {key: np.asarray(value).tolist() for key, value in state["state"].items()}})


_GLOBALS: dict[str, Callable[[], Any]] = {
    "grad mode": torch.is_grad_enabled,
    "the default dtype": torch.get_default_dtype,
    "the number of threads": torch.get_num_threads,
    "deterministic mode": torch.are_deterministic_algorithms_enabled,
    "Python's random state": random.getstate,
    "NumPy's random state": _numpy_state,
}


def _expanded(taps: Iterable[str]) -> list[str]:
    every = [f"stage{depth}" for depth in range(1, _STAGES + 1)]
    return list(dict.fromkeys(name for tap in taps for name in (every if tap == "stages" else [tap])))


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
