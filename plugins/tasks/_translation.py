"""TranslationTask: pairs of sentences as token ids, searched translations, and their scores."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from kdbench import (
    IGNORED,
    Answers,
    BadInput,
    Batch,
    Count,
    Data,
    DataFolders,
    DataSpec,
    Metric,
    Split,
    Task,
    TensorSplit,
    Weight,
)

from ._byte_pairs import END, PADDING, SMALLEST, START, learnt_byte_pairs, text_of, tokens_of
from ._corpus_scores import bleu, chrf, require_sacrebleu, sentence_statistics
from ._subset import nested_subset

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from torch import Tensor, nn

Sentences = Sequence[tuple[str, str]]  # source and target

_SAMPLES = 5
_SEARCH_BATCH = 128  # sentences, alike in length, that a teacher translates at once

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TranslationTask(Task):
    """Translation by networks that read a sentence and write another one, token by token.

    Inputs are [2, positions]: the source's tokens with END, and START with the target's tokens, from which the network
    tells at each position the target's next one (teacher forcing). Both languages share a vocabulary of byte pairs,
    learnt from the training sentences in use, those later cut off for validation among them, never from test sentences.
    There are as many positions as the longest sentence takes. Perplexity and accuracy are those of the next token;
    BLEU and chrF those of the searched translations, by sacrebleu with its defaults.

    Attributes:
        max_length: training pairs in which a sentence takes more tokens than this, END included, are left out. To
            leave out others would change the scores, so their being longer is an error.
        vocab_size: how many tokens are learnt at most, of both languages together.
        train_examples: how many training pairs are used; fewer are a part of more. None: all.
        beam: beam of the search that is scored; 1 is greedy.
        length_penalty: translations are ranked by log P / length^length_penalty.
        teacher_beam: beam of the teacher that translates the training sentences for sequence-level distillation.
    """

    modality: ClassVar[str] = "nlp"

    max_length: Annotated[int, Ge(2)] = 100
    vocab_size: Annotated[int, Ge(SMALLEST)] = 8000
    train_examples: Count | None = None
    beam: Count = 5
    length_penalty: Weight = 1.0
    teacher_beam: Count = 5

    def corpus(self, folders: DataFolders) -> Mapping[str, Sentences]:
        """The sentences of "train", "test" and maybe "validation", before any choice."""
        raise NotImplementedError

    @cached_property
    def _learnt(self) -> dict[str, Tokenizer]:
        """The tokenizer of the data that were loaded: `decode` is not told which these are."""
        return {}

    def load(self, folders: DataFolders) -> Data:
        """
        Raises:
            MissingData: the sentences are neither here nor downloadable.
            MissingExtra: a library that is needed for texts, or for their scores, is not installed.
            BadInput: the sentences cannot be used (says why), or more are asked for than there are.
        """
        import torch

        require_sacrebleu()
        corpus = dict(self.corpus(folders))
        everything = torch.arange(len(corpus["train"]))
        used = nested_subset(
            TensorSplit(everything, torch.zeros_like(everything)), self.train_examples, type(self).__name__
        )
        corpus["train"] = [corpus["train"][position] for position in used.inputs.tolist()]
        texts = [text for pair in corpus["train"] for text in pair]
        tokenizer = learnt_byte_pairs(texts, self.vocab_size, folders.cache / "tokenizers")
        self._learnt["tokenizer"] = tokenizer
        tokens = {split: list(_tokenised(tokenizer, pairs)) for split, pairs in corpus.items()}
        tokens = {split: self._short_enough(split, pairs) for split, pairs in tokens.items()}
        positions = max(_length(pair) for pairs in tokens.values() for pair in pairs)
        splits = {split: _split(pairs, positions) for split, pairs in tokens.items()}
        vocabulary = tokenizer.get_vocab_size()
        return Data(
            spec=DataSpec((2, positions), vocabulary, "nlp", vocabulary=vocabulary, positions=(positions,)),
            train=splits["train"],
            test=splits["test"],
            validation=splits.get("validation"),
            assets={"tokenizer.json": tokenizer.to_str(pretty=True).encode()},
        )

    def _short_enough(self, split: str, pairs: list[TokenPair]) -> list[TokenPair]:
        kept = [pair for pair in pairs if _length(pair) <= self.max_length]
        longest = max(map(_length, pairs))
        if split != "train" and longest > self.max_length:
            raise BadInput(
                f"a sentence of the {split} split takes {longest} tokens, more than max_length={self.max_length}",
                hint=f"set max_length={longest} or more; a larger vocab_size makes fewer tokens",
            )
        if not kept:
            raise BadInput(f"every training pair takes more than max_length={self.max_length} tokens")
        if len(kept) < len(pairs):
            logger.info("%d of %d training pairs are longer than max_length", len(pairs) - len(kept), len(pairs))
        return kept

    def metrics(self, spec: DataSpec) -> tuple[Metric, ...]:
        searched = (
            Metric("bleu", bleu, reads=("bleu_statistics",), decoded=True, unit=""),
            Metric("chrf", chrf, reads=("chrf_statistics",), decoded=True, unit=""),
        )
        return (*searched, *super().metrics(spec))

    def decode(self, network: nn.Module, batch: Batch) -> Answers:
        """BLEU's and chrF's statistics of each sentence.

        Raises:
            BadInput: the network cannot be searched.
        """
        tokenizer = self._learnt["tokenizer"]
        translations = self._translated(network, batch.inputs[:, 0], batch.targets.shape[1], self.beam)
        return sentence_statistics(_texts(tokenizer, translations), _texts(tokenizer, batch.targets))

    def _translated(self, network: nn.Module, source: Tensor, positions: int, beam: int) -> Tensor:
        """Translations [batch, at most `positions`], END and then 0 after each, of source tokens [batch, positions]."""
        from ._search import BeamSearch, searchable

        lengths = (source != PADDING).sum(dim=1)
        # An untrained network might never end.
        limits = (2 * lengths + 10).clamp(max=positions)
        search = BeamSearch(beam, self.length_penalty)
        return search(searchable(network), source[:, : int(lengths.max())], limits).tokens

    def samples(self, network: nn.Module, data: Data, device: torch.device) -> tuple[str, ...]:
        """Source, reference and translation of the first test sentences."""
        import torch

        tokenizer = self._learnt["tokenizer"]
        (batch,) = data.test.batches([torch.arange(min(_SAMPLES, len(data.test)))])
        sources = batch.inputs[:, 0]
        translations = self._translated(network, sources.to(device), data.spec.positions[0], self.beam)
        texts = zip(*(_texts(tokenizer, ids) for ids in (sources, batch.targets, translations)), strict=True)
        return tuple(f"source: {of}\nreference: {by_people}\ntranslation: {own}" for of, by_people, own in texts)

    def relabelled(self, split: Split, data: Data, network: nn.Module, device: torch.device) -> Split:
        """The same source sentences with the network's translations as targets.

        Raises:
            BadInput: the network cannot be searched.
        """
        import torch

        sources = torch.cat([batch.inputs[:, 0] for batch in split.batches([torch.arange(len(split))])])
        positions = sources.shape[1]
        targets = torch.full_like(sources, PADDING)
        # Sentences of one length together: the search takes as long as the longest.
        order = (sources != PADDING).sum(dim=1).argsort(stable=True)
        for chosen in order.split(_SEARCH_BATCH):
            found = self._translated(network, sources[chosen].to(device), positions, self.teacher_beam).cpu()
            targets[chosen, : found.shape[1]] = found
        shifted = torch.cat([torch.full_like(targets[:, :1], START), targets[:, :-1]], dim=1)
        shifted[shifted == END] = PADDING
        return TensorSplit(torch.stack([sources, shifted], dim=1), targets.masked_fill(targets == PADDING, IGNORED))


TokenPair = tuple[list[int], list[int]]


def _tokenised(tokenizer: Tokenizer, pairs: Sentences) -> Iterator[TokenPair]:
    sources, targets = (tokens_of(tokenizer, texts) for texts in zip(*pairs, strict=True))
    return zip(sources, targets, strict=True)


def _length(pair: TokenPair) -> int:
    """Positions that a pair takes, with END."""
    return max(map(len, pair)) + 1


def _split(pairs: Sequence[TokenPair], positions: int) -> TensorSplit:
    """Inputs [pairs, 2, positions], targets [pairs, positions]."""
    import torch

    inputs = torch.full((len(pairs), 2, positions), PADDING)
    targets = torch.full((len(pairs), positions), IGNORED)
    for row, (source, target) in enumerate(pairs):
        inputs[row, 0, : len(source) + 1] = torch.tensor([*source, END])
        inputs[row, 1, : len(target) + 1] = torch.tensor([START, *target])
        targets[row, : len(target) + 1] = torch.tensor([*target, END])
    return TensorSplit(inputs, targets)


def _texts(tokenizer: Tokenizer, ids: Tensor) -> list[str]:
    return [text_of(tokenizer, row) for row in ids.tolist()]
