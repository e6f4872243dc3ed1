"""The loss and its terms, added up over an epoch without waiting for the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_STEPS = 64  # added up at a time: doing it at every step takes 1 % of a small network's step


class LossSums:
    """Sums over examples, in float64, of a total and its terms. One that is not finite stays so."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._recent: dict[tuple[tuple[str, ...], int], list[Tensor]] = {}

    def add(self, total: Tensor, terms: Mapping[str, Tensor], examples: int) -> None:
        """Counts a step's losses, each a scalar and a mean over so many examples."""
        recent = self._recent.setdefault((tuple(terms), examples), [])
        recent += [total.detach(), *(term.detach() for term in terms.values())]
        if len(recent) >= _STEPS * (1 + len(terms)):
            self._add_up()

    def _add_up(self) -> None:
        for (terms, examples), values in self._recent.items():
            steps = torch.stack(values).view(-1, 1 + len(terms))
            wide = torch.float32 if steps.device.type == "mps" else torch.float64  # MPS has no double
            own = steps.to(wide).sum(dim=0) * examples
            self._sums[terms] = self._sums[terms] + own if terms in self._sums else own
        self._recent = {}

    def means(self, examples: int) -> dict[str, float]:
        """By name ("loss", and "loss/TERM" of each term), over all `examples` since the last time; asks the device."""
        self._add_up()
        means: dict[str, float] = {}
        for terms, sums in self._sums.items():  # one entry, unless the method's terms change as it goes
            for name, total in zip(("loss", *(f"loss/{term}" for term in terms)), sums.tolist(), strict=True):
                means[name] = means.get(name, 0.0) + total / examples
        self._sums = {}
        return means
