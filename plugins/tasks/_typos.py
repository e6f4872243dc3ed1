"""Typos: test texts with mistyped characters, as tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._wordpiece import encode

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from torch import Tensor

_RATES = (0.02, 0.05, 0.1, 0.15, 0.2)  # the share of characters mistyped, from mild to severe: our choice


@dataclass(frozen=True)
class Typos:
    """Token ids of texts in which characters are mistyped, each with the same probability; blanks stay.

    Such noise is what Belinkov & Bisk 2018 (arXiv:1711.02173) and Pruthi et al. 2019 (arXiv:1905.11268) break networks
    with.

    Attributes:
        kind: "swap" (with the character after it), "delete", "insert" (another before it), "replace". The other is
            drawn from the same text, so that it is of its script.
        length: as in `encode`.
    """

    kind: str
    texts: Sequence[str]
    tokenizer: Tokenizer
    length: int

    def __call__(self, positions: Tensor, severity: int, random: torch.Generator) -> Tensor:
        """int64 [positions, length]."""
        rate = _RATES[severity - 1]
        mistyped = [self._mistyped(self.texts[position], rate, random) for position in positions.tolist()]
        return encode(self.tokenizer, mistyped, self.length)

    def _mistyped(self, text: str, rate: float, random: torch.Generator) -> str:
        import torch

        hits, others = torch.rand(2, len(text), generator=random).tolist()
        letters = [character for character in text if not character.isspace()]
        characters = list(text)
        for place in reversed(range(len(text))):  # from the end, so that places before it stay
            if hits[place] < rate and not text[place].isspace():
                _MISTYPE[self.kind](characters, place, letters[int(others[place] * len(letters))])
        return "".join(characters)


def typos(texts: Sequence[str], tokenizer: Tokenizer, length: int) -> Mapping[str, Typos]:
    """Every kind of them."""
    return {kind: Typos(kind, texts, tokenizer, length) for kind in _MISTYPE}


def _swap(characters: list[str], place: int, _: str) -> None:
    if not "".join(characters[place + 1 : place + 2]).isspace():
        characters[place : place + 2] = reversed(characters[place : place + 2])


def _delete(characters: list[str], place: int, _: str) -> None:
    del characters[place]


def _insert(characters: list[str], place: int, other: str) -> None:
    characters.insert(place, other)


def _replace(characters: list[str], place: int, other: str) -> None:
    characters[place] = other


_MISTYPE: dict[str, Callable[[list[str], int, str], Any]] = {
    "swap": _swap,
    "delete": _delete,
    "insert": _insert,
    "replace": _replace,
}
