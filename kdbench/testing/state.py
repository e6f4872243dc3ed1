"""The state that all trials of a process share, as checks read it and put it back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Shared:
    """One piece of global state; `read` gives what `write` takes, and can be compared."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


def _numpy_state() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    return kind, tuple(np.asarray(keys).tolist()), *rest


def _determinism() -> tuple[bool, bool, bool, bool]:
    cudnn, warning = torch.backends.cudnn, torch.is_deterministic_algorithms_warn_only_enabled()
    return torch.are_deterministic_algorithms_enabled(), warning, cudnn.deterministic, cudnn.benchmark


def _set_determinism(flags: tuple[bool, bool, bool, bool]) -> None:
    torch.use_deterministic_algorithms(flags[0], warn_only=flags[1])
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = flags[2:]


GRAD_MODE = Shared("the grad mode", torch.is_grad_enabled, torch.set_grad_enabled)
DEFAULT_DTYPE = Shared("the default dtype", torch.get_default_dtype, torch.set_default_dtype)
THREADS = Shared("the number of threads", torch.get_num_threads, torch.set_num_threads)
DETERMINISM = Shared("deterministic mode", _determinism, _set_determinism)
PYTHON_RANDOM = Shared("Python's random state", random.getstate, random.setstate)
NUMPY_RANDOM = Shared("NumPy's random state", _numpy_state, np.random.set_state)
ALL_SHARED = (GRAD_MODE, DEFAULT_DTYPE, THREADS, DETERMINISM, PYTHON_RANDOM, NUMPY_RANDOM)


@contextmanager
def restored() -> Iterator[None]:
    """Puts the shared state back afterwards, so that a method that changes it fails in one check only."""
    before = [(shared, shared.read()) for shared in ALL_SHARED]
    try:
        yield
    finally:
        for shared, value in before:
            if shared.read() != value:
                shared.write(value)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Runs a block under a seed of torch's generator, and puts that back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
