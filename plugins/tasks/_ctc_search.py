"""What a CTC network has written: the best path, and the best transcript that a beam finds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

BLANK = 0
_Prefixes = dict[tuple[int, ...], tuple[float, float]]
_NEVER = -math.inf
_UNLIKELY = math.log(1e-4)  # most frames of a trained network have one or two likely symbols


def collapsed(path: Iterable[int]) -> tuple[int, ...]:
    """The labelling of a path (a class per frame): repetitions are one, and blanks nothing (Graves et al. 2006)."""
    return tuple(symbol for symbol, _ in groupby(path) if symbol != BLANK)


def beam_search(frames: Sequence[Sequence[float]], beams: int, least: float = _UNLIKELY) -> tuple[int, ...]:
    """The labelling of the highest probability, summed over its paths, as far as `beams` prefixes a frame find it.

    Prefix search without a language model (Hannun et al. 2014, arXiv:1408.2873, algorithm 1). With enough beams, and
    `least` at minus infinity, it is exact.

    Args:
        frames: natural logarithms of the classes' probabilities, [frames][classes].
        least: logarithm of the probability below which a symbol is not tried in a frame.
    """
    # By prefix: log-probabilities of its paths that end in a blank, and of those that do not.
    found: _Prefixes = {(): (0.0, _NEVER)}
    for frame in frames:
        symbols = [symbol for symbol, score in enumerate(frame) if symbol != BLANK and score >= least]
        longer: _Prefixes = {}
        for prefix, (blank, spoken) in found.items():
            either = _added(blank, spoken)
            again = spoken + frame[prefix[-1]] if prefix else _NEVER
            _book(longer, prefix, either + frame[BLANK], again)
            for symbol in symbols:
                # Only a blank between them makes two of one symbol.
                before = blank if prefix and symbol == prefix[-1] else either
                _book(longer, (*prefix, symbol), _NEVER, before + frame[symbol])
        ranked = sorted(longer.items(), key=lambda item: (-_added(*item[1]), item[0]))
        found = dict(ranked[:beams])
    return next(iter(found))


def _book(found: _Prefixes, prefix: tuple[int, ...], blank: float, spoken: float) -> None:
    before = found.get(prefix, (_NEVER, _NEVER))
    found[prefix] = _added(before[0], blank), _added(before[1], spoken)


def _added(first: float, second: float) -> float:
    """log(exp(first) + exp(second))."""
    low, high = (first, second) if first < second else (second, first)
    return high if low == _NEVER else high + math.log1p(math.exp(low - high))
