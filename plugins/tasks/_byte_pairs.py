"""Byte pairs: text to token ids and back to the same text, by a vocabulary that is learnt from texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ._tokenizers import kept_tokenizer, one_thread

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.models import Model

# No text can forge these: the characters that stand for bytes have no such brackets among them.
_SPECIAL = ("⟨pad⟩", "⟨start⟩", "⟨end⟩")
PADDING, START, END = range(len(_SPECIAL))
SMALLEST = len(_SPECIAL) + 256  # tokens, when no two bytes are ever merged
_FORMAT = 1  # part of the cache key: raise it when the same texts shall give another vocabulary


def learnt_byte_pairs(texts: Sequence[str], vocab_size: int, cache: Path) -> Tokenizer:
    """A byte-level BPE tokenizer (Sennrich et al. 2016, on bytes as in GPT-2) of at most `vocab_size` tokens.

    Every text has tokens, and they decode to exactly this text: nothing is normalised, nothing is unknown. It is kept
    in the folder `cache`; the same texts give the same vocabulary in any case.

    Raises:
        MissingExtra: the library `tokenizers` is not installed.
    """
    return kept_tokenizer(lambda: _train(texts, vocab_size), ["byte pairs", _FORMAT, vocab_size, list(texts)], cache)


def tokens_of(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each text, with none of the three special ones."""
    with one_thread():
        return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]


def text_of(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text that ids stand for; special ones and negative ones (ignored positions) say nothing."""
    return str(tokenizer.decode([number for number in ids if number >= len(_SPECIAL)]))


def _train(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    from tokenizers import models, pre_tokenizers, trainers

    learner = _untrained(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer, length=len(texts))
    learnt = json.loads(learner.to_str())["model"]
    vocabulary = {token: number + len(_SPECIAL) for token, number in learnt["vocab"].items()}
    vocabulary |= {token: number for number, token in enumerate(_SPECIAL)}
    return _untrained(models.BPE(vocab=vocabulary, merges=[(first, second) for first, second in learnt["merges"]]))


def _untrained(model: Model) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
