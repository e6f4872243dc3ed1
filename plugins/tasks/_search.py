"""Beam search: the sequence that an encoder-decoder network finds most likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kdbench import BadInput

from ._byte_pairs import END, PADDING, START

_NEVER = -torch.inf


@runtime_checkable
class EncoderDecoder(Protocol):
    """What a search asks of a network beside its forward pass, in eval mode. Tokens are int64, 0 pads at the end."""

    def encode(self, source: Tensor) -> Tensor:
        """What is to be known of source tokens [batch, length]: [batch, length, features]."""
        ...

    def decode(self, prefix: Tensor, memory: Tensor, source: Tensor) -> Tensor:
        """Logits [batch, vocabulary] of the token after prefix [batch, tokens], which has no padding.

        `memory`: what `encode` answered to `source`.
        """
        ...


def searchable(network: nn.Module) -> EncoderDecoder:
    """The network, if it can be searched.

    Raises:
        BadInput: it has no `encode` and `decode`.
    """
    if isinstance(network, EncoderDecoder):
        return network
    raise BadInput(
        f"{type(network).__name__} cannot translate: its network lacks the methods encode and decode",
        hint="take the architecture 'transformer', or see EncoderDecoder in plugins/tasks/_search.py",
    )


@dataclass(frozen=True)
class Found:
    """The best sequence of each source: tokens [batch, length] with END and then 0, and log P / length^penalty [batch],
    where the length counts END."""

    tokens: Tensor
    scores: Tensor


@dataclass(frozen=True)
class BeamSearch:
    """Keeps the `beam` best beginnings at each length, by log P / length^penalty; a beam of 1 is the greedy search.

    Sequences that have ended stay in the beam and compete with those that go on, until all in it have ended; the best
    of them is the answer. What is found for a source does not depend on the others of its batch (but for rounding).
    """

    beam: int = 1
    penalty: float = 1.0

    @torch.no_grad()
    def __call__(self, network: EncoderDecoder, source: Tensor, limits: Tensor) -> Found:
        """The translations of source tokens [batch, length]; each ends after at most `limits` [batch] tokens, END among
        them."""
        memory = network.encode(source)
        state = _Beams.start(len(source), self.beam, int(limits.max()), source.device)
        for step in range(state.tokens.shape[2]):
            rows = (~state.ended).any(dim=1).nonzero()[:, 0]  # sentences that are found cost nothing any more
            if not len(rows):
                break
            prefix = state.prefixes(rows, step)
            repeated = rows.repeat_interleave(self.beam)
            logits = network.decode(prefix, memory[repeated], source[repeated])
            state.extend(rows, step, _gains(logits.float(), len(rows)), limits[rows] == step + 1, self.penalty)
        return state.best(self.penalty)


def _gains(logits: Tensor, sentences: int) -> Tensor:
    """Log-probabilities [sentences, beam, vocabulary]; what cannot follow is never chosen."""
    gains = logits.log_softmax(dim=-1).unflatten(0, (sentences, -1))
    gains[..., [PADDING, START]] = _NEVER
    return gains


@dataclass
class _Beams:
    """`tokens` [batch, beam, length] without START; log P, length and end of each [batch, beam]."""

    tokens: Tensor
    totals: Tensor
    lengths: Tensor
    ended: Tensor

    @classmethod
    def start(cls, batch: int, beam: int, length: int, device: torch.device) -> _Beams:
        totals = torch.full((batch, beam), _NEVER, device=device)
        totals[:, 0] = 0.0  # the others would be copies of the first
        lengths = torch.zeros(batch, beam, dtype=torch.int64, device=device)
        tokens = torch.full((batch, beam, length), PADDING, device=device)
        return cls(tokens, totals, lengths, lengths.bool())

    def prefixes(self, rows: Tensor, step: int) -> Tensor:
        """The beginnings [rows * beam, 1 + step], START first; behind the end of a sequence anything may stand."""
        begun = self.tokens[rows, :, :step].flatten(0, 1)
        return torch.cat([begun.new_full((len(begun), 1), START), begun], dim=1)

    def extend(self, rows: Tensor, step: int, gains: Tensor, last: Tensor, penalty: float) -> None:
        """Puts the best continuations of `rows` into place; where it is the `last` token, it is END."""
        others = torch.arange(gains.shape[2], device=gains.device) != END
        gains = gains.masked_fill(last[:, None, None] & others, _NEVER)
        ended = self.ended[rows]
        gains[ended] = _NEVER
        gains[..., PADDING][ended] = 0.0
        totals = self.totals[rows, :, None] + gains
        lengths = self.lengths[rows] + ~ended
        ranked = (totals / lengths[:, :, None] ** penalty).flatten(1)
        chosen = ranked.topk(self.tokens.shape[1]).indices
        beams, following = chosen // gains.shape[2], chosen % gains.shape[2]
        kept = self.tokens[rows[:, None], beams]
        kept[:, :, step] = following
        self.tokens[rows] = kept
        self.totals[rows] = totals.flatten(1).gather(1, chosen)
        self.lengths[rows] = lengths.gather(1, beams)
        self.ended[rows] = ended.gather(1, beams) | (following == END)

    def best(self, penalty: float) -> Found:
        scores, first = (self.totals / self.lengths**penalty).max(dim=1)
        return Found(self.tokens[torch.arange(len(first), device=first.device), first], scores)
