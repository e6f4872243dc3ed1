"""WordPiece: text to token ids, by a vocabulary that is learnt from the training texts alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench import BadInput, DataFolders, MissingData

from ._tokenizers import kept_tokenizer, library, one_thread

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.models import Model
    from torch import Tensor

PADDING, UNKNOWN, START, END = _SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")  # their ids are 0, 1, 2, 3
_CONTINUING = "##"
_MOST_CHARACTERS = 1000  # rarer ones are [UNK]; scripts with an alphabet stay far below
_FORMAT = 1  # part of the cache key: raise it when the same texts shall give another vocabulary


def learnt_tokenizer(texts: Sequence[str], vocab_size: int, cache: Path) -> Tokenizer:
    """A lower-case WordPiece tokenizer of at most `vocab_size` tokens (more if the characters alone are more).

    It is kept in the folder `cache` and found there again; the same texts give the same vocabulary in any case.

    Raises:
        MissingExtra: the library `tokenizers` is not installed.
    """
    origin = ["wordpiece", _FORMAT, vocab_size, list(texts)]
    return kept_tokenizer(lambda: _train(texts, vocab_size), origin, cache)


def given_tokenizer(name: str, folders: DataFolders) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`, of a folder that holds one, or of a model on the Hugging Face hub.

    Paths are absolute, or below a search folder or the current one.

    Raises:
        MissingExtra: the library `tokenizers` is not installed.
        MissingData: there is neither such a file nor such a model within reach.
        BadInput: it cannot be read, or does not pad with id 0.
    """
    tokenizers = library()
    places = [folder / Path(name).expanduser() for folder in (*folders.search, Path.cwd())]
    files = [file for place in places for file in (place / "tokenizer.json", place) if file.is_file()]
    try:
        tokenizer = (
            tokenizers.Tokenizer.from_file(str(files[0])) if files else tokenizers.Tokenizer.from_pretrained(name)
        )
    except Exception as error:  # the library raises nothing narrower
        if files:
            raise BadInput(f"cannot read the tokenizer {files[0]}: {error}") from error
        raise MissingData(
            f"there is no tokenizer '{name}' on this machine, and the hub did not give it: {error}",
            hint="name a tokenizer.json, a folder that holds one, or a model on the Hugging Face hub",
        ) from error
    if tokenizer.token_to_id(PADDING) != 0:
        raise BadInput(
            f"the tokenizer '{name}' has no {PADDING} with id 0", hint="choose that of a BERT model, or leave it out"
        )
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> Tensor:
    """Token ids [texts, length], int64: [CLS] ... [SEP], cut at `length`, then filled up with 0."""
    import numpy as np
    import torch

    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=0, pad_token=PADDING, length=length)
    with one_thread():
        encodings = tokenizer.encode_batch_fast(list(texts))
    ids = np.array([encoding.ids for encoding in encodings], dtype=np.int64).reshape(len(texts), length)
    return torch.from_numpy(ids)


def _train(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    from tokenizers import models, trainers

    learner = _untrained(models.WordPiece(unk_token=UNKNOWN))
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        # The trainer numbers the characters in the order of a hash map, different in each process, and breaks ties
        # by these numbers. Listed as special tokens they have fixed ones.
        special_tokens=[*_SPECIAL, *_characters(learner, texts)],
        limit_alphabet=0,
        continuing_subword_prefix=_CONTINUING,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer, length=len(texts))
    # A tokenizer of its own, in which none is special: a text may well say "##s", or "[PAD]".
    return _untrained(models.WordPiece(learner.get_vocab(), unk_token=UNKNOWN))


def _untrained(model: Model) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=_CONTINUING)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(token, _SPECIAL.index(token)) for token in (START, END)]
    )
    return tokenizer


def _characters(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """The commonest characters, sorted, and then their continuing forms that occur: the trainer wants both."""
    counts: Counter[str] = Counter()
    continuing: set[str] = set()
    for text in texts:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
            counts.update(word)
            continuing.update(word[1:])
    kept = sorted(sorted(counts, key=lambda character: (-counts[character], character))[:_MOST_CHARACTERS])
    return [*kept, *(_CONTINUING + character for character in kept if character in continuing)]
