"""Random streams: what a seed fixes, and how each trial keeps its own generator state in company."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from torch import Tensor

_Read = Callable[[], Tensor]
_Write = Callable[[Tensor], object]


def derive(seed: int, *purpose: str | int) -> int:
    """An independent 63-bit seed for one purpose. A method's name never enters, so methods are paired."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose: batch order and augmentation are drawn alike on every device."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


def forked() -> AbstractContextManager[None]:
    """Runs a block and puts the global generators back as they were, those of every accelerator too."""
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()))


@contextmanager
def seeded(seed: int, *purpose: str | int) -> Iterator[None]:
    """Runs a block under a derived seed and leaves the global generators as they were."""
    with forked():
        torch.manual_seed(derive(seed, *purpose))
        yield


def _generators(device: torch.device) -> dict[str, tuple[_Read, _Write]]:
    """How the states of the CPU's and the device's global generators are read and written, by the device's kind."""
    found: dict[str, tuple[_Read, _Write]] = {
        "cpu": (torch.default_generator.get_state, torch.default_generator.set_state)
    }
    if device.type == "cuda":
        found["cuda"] = (partial(torch.cuda.get_rng_state, device), partial(torch.cuda.set_rng_state, device=device))
    elif device.type == "mps":
        found["mps"] = (torch.mps.get_rng_state, torch.mps.set_rng_state)
    return found


class RandomState:
    """The global generators' state as one trial knows it. `with` it, a block runs as if this trial were alone with the
    generators: the state is put in place before, and kept after."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._generators = _generators(device)
        with forked():
            torch.manual_seed(seed)
            self.state = self._read()
        self._outside = self.state

    def _read(self) -> dict[str, Tensor]:
        return {name: read() for name, (read, _) in self._generators.items()}

    def _write(self, state: dict[str, Tensor]) -> None:
        for name, (_, write) in self._generators.items():
            if name in state:  # not in a checkpoint of another device
                write(state[name])

    def __enter__(self) -> None:
        self._outside = self._read()
        self._write(self.state)

    def __exit__(self, *_: object) -> None:
        self.state = self._read()
        self._write(self._outside)
