"""Batches as networks take them, and predictions over a whole split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdbench.task import Data, Split

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class PreparedBatch:
    """A batch on its device: inputs [batch, *input_shape], targets, and positions in the split [batch]."""

    inputs: Tensor
    targets: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)


@torch.no_grad()
def predict(network: nn.Module, split: Split, data: Data, device: torch.device) -> Tensor:
    """Logits [examples, classes] of every example of `split`, in order, float32 on the CPU.

    The network answers in eval mode and is left in the mode it was in.
    """
    was_training = network.training
    network.eval()
    try:
        return torch.cat([network(inputs).float().cpu() for inputs in _inputs(split, data, device)])
    finally:
        network.train(was_training)


def _inputs(split: Split, data: Data, device: torch.device) -> Iterator[Tensor]:
    order = torch.arange(len(split)).split(EVALUATION_BATCH)
    for batch in split.batches(order):
        yield data.prepare(batch.inputs.to(device, non_blocking=True))
