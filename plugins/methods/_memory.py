"""What contrastive methods remember of a network: a vector of every training example, and how to compare with it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from kdbench import full_precision


class Memory(nn.Module):
    """A network's projection to unit vectors, and a bank [examples, features] of those it gave.

    The bank grows, by random directions, to the largest index seen: with batches in random order, nearly all at once.
    `level` is the log of the mean score of the first batch.
    """

    bank: Tensor
    level: Tensor

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        self.projection = nn.Linear(inputs, features)
        self.register_buffer("bank", torch.empty(0, features))
        self.register_buffer("level", torch.tensor(torch.nan))
        self.register_load_state_dict_pre_hook(_make_room)

    def forward(self, embedding: Tensor) -> Tensor:
        return normalize(full_precision(self.projection(embedding)), dim=1)

    def reach(self, examples: int) -> None:
        if (missing := examples - len(self.bank)) > 0:
            fresh = self.bank.new_empty(missing, self.bank.shape[1]).normal_()
            self.bank = torch.cat([self.bank, normalize(fresh, dim=1)])

    def contrast(self, anchors: Tensor, indices: Tensor, drawn: Tensor, temperature: float) -> Tensor:
        """The loss of the other network's vectors [batch, features] against entries of the same and drawn examples."""
        own, others = (full_precision(self.bank[rows]) for rows in (indices, drawn))
        positive, negative = (anchors * own).sum(1, keepdim=True), full_precision(anchors @ others.T)
        scores = torch.cat([positive, negative], dim=1) / temperature
        now = scores.detach().flatten().logsumexp(0) - math.log(scores.numel())
        self.level = torch.where(self.level.isnan(), now.to(self.level.dtype), self.level)
        # log h and log(1 - h) of h = e / (e + N c) without e, which overflows at low temperatures
        excess = scores - (full_precision(self.level) + math.log(len(drawn)))
        return (softplus(-excess[:, 0]) + softplus(excess[:, 1:]).sum(1)).mean()

    @torch.no_grad()
    def remember(self, vectors: Tensor, indices: Tensor, momentum: float) -> None:
        """Moves the entries of a batch towards its vectors."""
        moved = normalize(momentum * self.bank[indices] + (1 - momentum) * vectors, dim=1)
        self.bank[indices] = moved.to(self.bank.dtype)


def _make_room(memory: Any, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    memory.bank = memory.bank.new_empty(state[f"{prefix}bank"].shape)
