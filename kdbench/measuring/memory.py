"""How much memory a deployed network needs to answer."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kdbench.measuring.deployed import deployed, example_inputs
from kdbench.task import DataSpec


def peak_memory_bytes(network: nn.Module, spec: DataSpec, device: str | torch.device, batch: int = 1) -> int:
    """Bytes of parameters, buffers and inputs, plus the peak of what one forward pass in eval mode adds.

    On CUDA the second part is the allocator's peak, so it includes the kernels' own workspace. Elsewhere it is
    counted from the tensors that operations return: the same on every machine, but without such workspace.
    """
    with deployed(network, device) as model:
        inputs = example_inputs(spec, batch, device)
        held = [*model.parameters(), *model.buffers(), inputs]
        added = _allocator_peak if inputs.is_cuda else _tensor_peak
        return sum(tensor.nbytes for tensor in held) + added(lambda: model(inputs), held)


def _allocator_peak(forward: Callable[[], object], held: Iterable[Tensor]) -> int:
    forward()  # the first one also allocates what the libraries keep for good
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    forward()
    return torch.cuda.max_memory_allocated() - before


def _tensor_peak(forward: Callable[[], object], held: Iterable[Tensor]) -> int:
    with _LiveTensors(held) as tensors:
        forward()
    return tensors.peak


class _LiveTensors(TorchDispatchMode):
    """Sums the storages that operations return, from birth to death; views and in-place results add nothing."""

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()
        self._known = weakref.WeakSet(tensor.untyped_storage() for tensor in held)
        self._live = 0
        self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(outputs):
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage())
        return outputs

    def _follow(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        self._live += storage.nbytes()
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, size: int) -> None:
        self._live -= size
