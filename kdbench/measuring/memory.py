"""How much memory a deployed network needs to answer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from kdbench.measuring.deployed import deployed, example_inputs
from kdbench.task import DataSpec
from kdbench.training.allocations import Allocations


def peak_memory_bytes(network: nn.Module, spec: DataSpec, device: str | torch.device, batch: int = 1) -> int:
    """Bytes of parameters, buffers and inputs, plus the peak of what one forward pass in eval mode adds.

    On CUDA the second part is the allocator's peak, so it includes the kernels' own workspace. Elsewhere it is
    counted from the tensors that operations return: the same on every machine, but without such workspace.
    """
    with deployed(network, device) as model:
        inputs = example_inputs(spec, batch, device)
        held = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers(), inputs))
        added = _allocator_peak if inputs.is_cuda else _tensor_peak
        return held + added(lambda: model(inputs), inputs.device)


def _allocator_peak(forward: Callable[[], object], device: torch.device) -> int:
    forward()  # the first one also allocates what the libraries keep for good
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    forward()
    return torch.cuda.max_memory_allocated() - before


def _tensor_peak(forward: Callable[[], object], device: torch.device) -> int:
    with Allocations(device) as seen:
        forward()
    return seen.course().peak
