"""The network as it would be deployed: what every cost of it is measured on."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kdbench.task import DataSpec
from kdbench.training.randomness import generator, seeded


@contextmanager
def deployed(network: nn.Module, device: str | torch.device = "cpu") -> Iterator[nn.Module]:
    """A private copy of `network` on `device`: in eval mode, without gradients, under a seed of its own.

    What is done to the copy (hooks, counters, modes) cannot reach the original, nor the global generators.
    `network` itself should bear no tap hooks: a copy would keep them, and what they keep alive.
    """
    private = copy.deepcopy(network).to(device).eval().requires_grad_(False)
    with seeded(0, "measuring"), torch.no_grad():
        yield private


def example_inputs(spec: DataSpec, batch: int, device: str | torch.device = "cpu") -> Tensor:
    """A batch of prepared inputs [batch, *spec.input_shape], the same each time: normal noise, or random tokens.

    Noise rather than zeros, because accelerators draw less power on zeros and so run faster than they would.
    """
    shape = (batch, *spec.input_shape)
    if spec.vocabulary is not None:
        return torch.randint(1, spec.vocabulary, shape, generator=generator(0, "example inputs")).to(device)
    return torch.randn(shape, generator=generator(0, "example inputs")).to(device)
