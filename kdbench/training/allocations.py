"""Which tensors live when: followed in a few operations, and told of the same operations on more examples."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Course:
    """Which storages lived when.

    Attributes:
        sizes: of each storage in order of birth, bytes, float64.
        events: the birth of storage k as k, its death as -1 - k, in order.
    """

    sizes: NDArray[np.float64]
    events: NDArray[np.int64]

    def _alive(self) -> NDArray[np.float64]:
        """Bytes after each event."""
        return np.cumsum(np.where(self.events >= 0, 1, -1) * self.sizes[np.maximum(self.events, -1 - self.events)])

    @property
    def peak(self) -> int:
        """The most bytes at once."""
        return round(max(self._alive(), default=0))

    @property
    def left(self) -> int:
        """The bytes at the end."""
        return round(self._alive()[-1]) if len(self.events) else 0

    def _coarse(self) -> Course:
        """The same peak and end, of two storages."""
        return Course(np.array([self.left, self.peak - self.left], np.float64), np.array([0, 1, -2]))

    def grown(self, smaller: Course, ratio: float, factor: float) -> Course:
        """The course with `factor` times the examples, where `smaller` had `ratio` times fewer.

        Each storage grows by the power of the examples by which it grew until here; or, where operations came and went
        (kernels choose by size), the peak and the end do.
        """
        if len(self.sizes) != len(smaller.sizes):
            return self._coarse().grown(smaller._coarse(), ratio, factor)
        growth = np.divide(self.sizes, smaller.sizes, out=np.ones_like(self.sizes), where=smaller.sizes > 0)
        return Course(self.sizes * growth ** (np.log(factor) / np.log(ratio)), self.events)


class Allocations(TorchDispatchMode):
    """Follows the storages on `device` that operations return, from birth to death.

    Views and results in place add nothing, nor does what was there before; the workspace of kernels is not seen.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device.type
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self._sizes: list[int] = []
        self._events: list[int] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self._known.update(self._storages((args, kwargs)))
        outputs = func(*args, **(kwargs or {}))
        for storage in self._storages(outputs):
            if storage not in self._known:
                self._follow(storage)
        return outputs

    def _storages(self, values: object) -> Iterator[torch.UntypedStorage]:
        for leaf in tree_leaves(values):
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided and leaf.device.type == self._device:
                yield leaf.untyped_storage()

    def _follow(self, storage: torch.UntypedStorage) -> None:
        number = len(self._sizes)
        self._known.add(storage)
        self._sizes.append(storage.nbytes())
        self._events.append(number)
        weakref.finalize(storage, self._events.append, -1 - number).atexit = False

    def course(self) -> Course:
        """What it saw so far."""
        return Course(np.array(self._sizes, np.float64), np.array(self._events, np.int64))


@contextmanager
def traced(device: torch.device) -> Iterator[Allocations]:
    """Follows a block's storages. Cycles of garbage are not looked for in it, which would come at any moment."""
    collects = gc.isenabled()
    gc.disable()
    try:
        with Allocations(device) as seen:
            yield seen
    finally:
        if collects:
            gc.enable()
