"""BLEU and chrF of a corpus from sums over its sentences, so that any resampling of sentences can be scored."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from kdbench import MissingExtra

if TYPE_CHECKING:
    from torch import Tensor


def require_sacrebleu() -> None:
    """
    Raises:
        MissingExtra: the library sacrebleu is not installed: better said before training than after.
    """
    _metric("bleu")


def sentence_statistics(translations: Sequence[str], references: Sequence[str]) -> dict[str, Tensor]:
    """What the scores of a corpus need to know of each sentence, int64.

    Returns:
        "bleu_statistics": [sentences, 10]: lengths of translation and reference in words, matching n-grams of 1 to 4
        words, and n-grams of the translation. "chrf_statistics": [sentences, 18]: for n-grams of 1 to 6 characters
        each, how many there are in the translation, in the reference, and in both.

    Raises:
        MissingExtra: the library sacrebleu is not installed.
    """
    import torch

    found = {}
    for name in ("bleu", "chrf"):
        # Not `corpus_score`, which is the same and sums up at once.
        statistics = _metric(name)._extract_corpus_statistics(list(translations), [list(references)])
        found[f"{name}_statistics"] = torch.tensor(statistics, dtype=torch.int64)
    return found


def bleu(statistics: Tensor) -> float:
    """BLEU of a corpus, 0 to 100: sacrebleu's `corpus_bleu` with its defaults, from `sentence_statistics`.

    Signature: nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp (Papineni et al. 2002; Post 2018).
    """
    return _score("bleu", statistics)


def chrf(statistics: Tensor) -> float:
    """chrF of a corpus, 0 to 100: sacrebleu's `corpus_chrf` with its defaults, from `sentence_statistics`.

    Signature: nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no (Popović 2015).
    """
    return _score("chrf", statistics)


def _score(name: str, statistics: Tensor) -> float:
    return float(_metric(name)._aggregate_and_compute([statistics.sum(0).tolist()]).score)


@cache
def _metric(name: str) -> Any:
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise MissingExtra("scoring translations", "nlp") from error
    return BLEU(force=True) if name == "bleu" else CHRF()  # force: no advice on texts that look tokenised
