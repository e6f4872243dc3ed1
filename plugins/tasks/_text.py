"""TextTask: texts with a class each, brought to token ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from kdbench import BadInput, Count, Data, DataFolders, DataSpec, Task, TensorSplit

from ._subset import nested_subset
from ._typos import typos
from ._wordpiece import encode, given_tokenizer, learnt_tokenizer

if TYPE_CHECKING:
    pass

Labelled = Sequence[tuple[str, str]]  # text and class name


@dataclass(frozen=True)
class Corpus:
    """The texts of a data set by split, "train", "test" and maybe "validation", each with the name of its class."""

    title: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Labelled]

    @classmethod
    def of(cls, splits: Mapping[str, Labelled], title: str, order: Sequence[str] | None = None) -> Corpus:
        """The classes are those of the training split: in the `order` given, else sorted (whole numbers by value).

        Raises:
            BadInput: a split is empty, there is one class only, or a class occurs in another split alone; begins
                with `title`.
        """
        for split in ("train", "test", *splits):
            if not splits.get(split):
                raise BadInput(f"{title}: the {split} split is empty")
        present = {name for _, name in splits["train"]}
        names = [name for name in order if name in present] if order else _sorted(present)
        if len(names) < 2:
            raise BadInput(f"{title}: all training examples are of one class, '{names[0]}'; it takes two to classify")
        for split, examples in splits.items():
            for _, name in examples:
                if name not in present:
                    raise BadInput(
                        f"{title}: class '{name}' is in the {split} split, but not in the training split",
                        hint=f"classes: {', '.join(names)}",
                    )
        return cls(title, tuple(names), splits)


@dataclass(frozen=True, kw_only=True)
class TextTask(Task):
    """Classification of texts: they become token ids [max_length]: [CLS] ... [SEP], cut or filled up with 0.

    The WordPiece vocabulary is learnt from the training texts that are used, those later cut off for validation
    among them, and never from test texts.

    Attributes:
        max_length: tokens kept of each text, [CLS] and [SEP] among them.
        vocab_size: how many tokens are learnt at most.
        train_examples: how many training examples are used, with equal class shares; a smaller number gives a subset
            of what a larger one gives. None: all.
        tokenizer: for pretrained networks, which need the vocabulary that they were trained with: a tokenizer.json, a
            folder that holds one, or a model on the Hugging Face hub. None: one is learnt.
    """

    modality: ClassVar[str] = "nlp"

    max_length: Annotated[int, Ge(3)] = 48
    vocab_size: Count = 8000
    train_examples: Count | None = None
    tokenizer: str | None = None

    def corpus(self, folders: DataFolders) -> Corpus:
        """All texts, before any choice."""
        raise NotImplementedError

    def load(self, folders: DataFolders) -> Data:
        """int64 inputs [N, max_length], 0 for padding.

        Raises:
            MissingData: the texts, or the tokenizer that was asked for, are neither here nor downloadable.
            MissingExtra: a library that is needed for texts is not installed.
            BadInput: the texts cannot be used (says why), or more training examples are asked for than there are.
        """
        import torch

        corpus = self.corpus(folders)
        number = {name: number for number, name in enumerate(corpus.class_names)}
        targets = {
            split: torch.tensor([number[name] for _, name in examples]) for split, examples in corpus.splits.items()
        }
        positions = TensorSplit(torch.arange(len(targets["train"])), targets["train"])
        used = nested_subset(positions, self.train_examples, corpus.title)
        texts = {split: [text for text, _ in examples] for split, examples in corpus.splits.items()}
        texts["train"] = [texts["train"][position] for position in used.inputs.tolist()]
        targets["train"] = used.targets
        if self.tokenizer is None:
            tokenizer = learnt_tokenizer(texts["train"], self.vocab_size, folders.cache / "tokenizers")
        else:
            tokenizer = given_tokenizer(self.tokenizer, folders)
        splits = {
            split: TensorSplit(encode(tokenizer, texts[split], self.max_length), targets[split]) for split in texts
        }
        return Data(
            spec=DataSpec((self.max_length,), len(number), modality="nlp", vocabulary=tokenizer.get_vocab_size()),
            train=splits["train"],
            test=splits["test"],
            validation=splits.get("validation"),
            class_names=corpus.class_names,
            assets={"tokenizer.json": tokenizer.to_str(pretty=True).encode()},
            corruptions=typos(texts["test"], tokenizer, self.max_length),
        )


def _sorted(names: Iterable[str]) -> list[str]:
    try:
        return sorted(names, key=lambda name: (int(name), name))
    except ValueError:
        return sorted(names)
