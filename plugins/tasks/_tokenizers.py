"""Tokenizers that are learnt from texts: once, on one thread, and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench import MissingExtra

from ._cache import write_whole

if TYPE_CHECKING:
    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)


def kept_tokenizer(learn: Callable[[], Tokenizer], origin: Sequence[object], cache: Path) -> Tokenizer:
    """What `learn` makes, kept in the folder `cache` under everything that it depends on, and found there again.

    `origin` says that, in JSON's types: the kind of tokenizer, its settings, its texts. The library's version is added.

    Raises:
        MissingExtra: the library `tokenizers` is not installed.
    """
    tokenizers = library()
    described = json.dumps([tokenizers.__version__, *origin])
    cached = cache / f"{hashlib.sha256(described.encode()).hexdigest()}.json"
    if cached.exists():
        try:
            return tokenizers.Tokenizer.from_file(str(cached))
        except Exception as error:  # the library raises nothing narrower
            logger.warning("%s cannot be read and is made anew: %s", cached, error)
    with one_thread():
        tokenizer = learn()
    try:
        write_whole(cached, lambda temporary: temporary.write_text(tokenizer.to_str(), encoding="utf-8"))
    except OSError as error:
        logger.warning("%s cannot be kept, so each load trains the tokenizer again: %s", cached, error)
    return tokenizer


@contextmanager
def one_thread() -> Iterator[None]:
    """Once it has used threads, the library warns on stderr at each later fork (a DataLoader's workers)."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def library() -> Any:
    """The module `tokenizers`.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtra("splitting text into tokens", "nlp") from error
    return tokenizers
