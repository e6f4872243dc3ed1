"""CoS-E: common-sense questions with three choices, and people's reasons for the right one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Ge

from kdbench import (
    IGNORED,
    Answers,
    BadInput,
    Batch,
    Count,
    Data,
    DataFile,
    DataFolders,
    DataSpec,
    Metric,
    Task,
    TensorSplit,
)

from ._byte_pairs import END, PADDING, SMALLEST, START, learnt_byte_pairs, text_of, tokens_of
from ._subset import nested_subset
from ._text_table import Row, read_rows

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from torch import Tensor, nn

_LETTERS = "ABC"
_SAMPLES = 5


@dataclass(frozen=True)
class Question:
    """A question with its choices, the position of the right one, and why it is right."""

    text: str
    label: int
    rationale: str

    def asking(self, prefix: str) -> str:
        """What the network reads: the prefix says what is asked for, as in Hsieh et al. 2023, section 3.2."""
        return f"[{prefix}] {self.text}"


@dataclass(frozen=True, kw_only=True)
class CosE(Task):
    """Common-sense questions with three choices, answered by networks that write (Rajani et al. 2019, v1.0).

    7610 questions for training, the source's 950 of development for testing (its test labels are not public). A network
    reads "[label] question A) ... B) ... C) ..." and writes the letter; the score is the accuracy among the three. For
    `step_by_step` it can also be asked "[rationale] ..." and write a reason: those of training examples were written by
    people on the internet, and are noisy. Inputs are [2, positions]: the tokens that are read, and START with those
    written. Tokens are byte pairs, learnt from the training questions and reasons.

    Attributes:
        max_length: a reason that takes more tokens than this is cut.
        vocab_size: how many tokens are learnt at most.
        train_examples: how many training questions are used; fewer are a part of more. None: all.
    """

    modality: ClassVar[str] = "nlp"
    data_files = (
        DataFile(
            name="nlp/cose_v1.0.jsonl.gz",
            sha256="f6c84ea104194fd672f2966749190225ca0cbe44a0779e711f9739ace779d92c",
            source="a packed copy of data/v1.0 of https://github.com/salesforce/cos-e",
        ),
    )

    max_length: Annotated[int, Ge(4)] = 48
    vocab_size: Annotated[int, Ge(SMALLEST)] = 4000
    train_examples: Count | None = None

    @cached_property
    def _learnt(self) -> dict[str, Any]:
        """The tokenizer of the data that were loaded, and its tokens of the three letters: `answers` is not told."""
        return {}

    def load(self, folders: DataFolders) -> Data:
        """
        Raises:
            MissingData: the file is not here.
            MissingExtra: the library for byte pairs is not installed.
            BadInput: a row of it cannot be used (says which), or more are asked for than there are.
        """
        import torch

        questions: dict[str, list[Question]] = {"train": [], "dev": []}
        for row in read_rows(folders.provide(self.data_files[0])):
            questions.setdefault(row.name("split"), []).append(_question(row))
        labels = torch.tensor([question.label for question in questions["train"]])
        used = nested_subset(TensorSplit(torch.arange(len(labels)), labels), self.train_examples, "cose")
        train = [questions["train"][position] for position in used.inputs.tolist()]
        texts = [text for each in train for text in (each.asking("label"), each.asking("rationale"), each.rationale)]
        tokenizer = learnt_byte_pairs([*texts, *_LETTERS], self.vocab_size, folders.cache / "tokenizers")
        self._learnt["tokenizer"] = tokenizer
        self._learnt["letters"] = [ids[0] for ids in tokens_of(tokenizer, list(_LETTERS))]
        forms = [_Tokens.of(tokenizer, each) for each in (train, questions["dev"])]
        positions = max(self.max_length, *(len(ids) + 1 for form in forms for ids in (*form.label, *form.rationale)))
        splits = [form.split(positions, self.max_length, self._learnt["letters"]) for form in forms]
        vocabulary = tokenizer.get_vocab_size()
        return Data(
            spec=DataSpec((2, positions), vocabulary, "nlp", vocabulary=vocabulary, positions=(positions,)),
            train=splits[0],
            test=splits[1],
            assets={"tokenizer.json": tokenizer.to_str(pretty=True).encode()},
        )

    def valid(self, batch: Batch) -> Tensor:
        """Where something is to be written; targets are [batch, 3, positions], see `_Tokens.split`."""
        return batch.targets[:, 0] != IGNORED

    def labels(self, batch: Batch) -> Tensor:
        """The tokens to be written, one per row of the logits: the letter, or those of the reason."""
        return batch.targets[:, 0][self.valid(batch)]

    def rationales(self, batch: Batch) -> Batch:
        """The same questions, asked for reasons."""
        import torch

        _, asked, reason = batch.targets.unbind(dim=1)
        written = torch.cat([torch.full_like(reason[:, :1], START), reason[:, :-1]], dim=1)
        inputs = torch.stack([asked, written.masked_fill((written == IGNORED) | (written == END), PADDING)], dim=1)
        return Batch(inputs, torch.stack([reason, asked, reason], dim=1), batch.indices)

    def answers(self, output: Tensor, batch: Batch) -> Answers:
        """The logits of the three letters [batch, 3], and which is right."""
        import torch

        letters = torch.tensor(self._learnt["letters"], device=output.device)
        right = (batch.targets[:, 0, :1] == letters).int().argmax(dim=1)
        return {"logits": output[:, letters, 0], "targets": right}

    def metrics(self, spec: DataSpec) -> tuple[Metric, ...]:
        return super().metrics(DataSpec(spec.input_shape, len(_LETTERS), spec.modality))

    def samples(self, network: nn.Module, data: Data, device: torch.device) -> tuple[str, ...]:
        """The first test questions with a person's reason, and the network's own, right or wrong."""
        import torch

        from ._search import BeamSearch, searchable

        (batch,) = data.test.batches([torch.arange(min(_SAMPLES, len(data.test)))])
        asked = self.rationales(batch)
        limits = torch.full((len(batch),), self.max_length, device=device)
        found = BeamSearch()(searchable(network), asked.inputs[:, 0].to(device), limits).tokens
        tokenizer = self._learnt["tokenizer"]
        texts = zip(asked.inputs[:, 0].tolist(), asked.targets[:, 0].tolist(), found.tolist(), strict=True)
        return tuple(
            "\n".join(
                f"{name}: {text_of(tokenizer, ids)}"
                for name, ids in zip(("asked", "people", "network"), row, strict=True)
            )
            for row in texts
        )


def _question(row: Row) -> Question:
    choices, label = row.cells.get("choices"), row.name("label")
    if not (isinstance(choices, list) and len(choices) == len(_LETTERS)):
        raise row.mistake(f"'choices' must be a list of {len(_LETTERS)} texts")
    if label not in map(str, range(len(_LETTERS))):
        raise row.mistake(f"label {label} is not one of 0 to {len(_LETTERS) - 1}")
    offered = " ".join(f"{letter}) {choice}" for letter, choice in zip(_LETTERS, choices, strict=True))
    return Question(f"{row.text('question')} {offered}", int(label), row.text("rationale"))


@dataclass(frozen=True)
class _Tokens:
    """What is read and written of each question of a split, as token ids without the special ones."""

    label: Sequence[list[int]]
    rationale: Sequence[list[int]]
    reason: Sequence[list[int]]
    right: Sequence[int]

    @classmethod
    def of(cls, tokenizer: Tokenizer, questions: Sequence[Question]) -> _Tokens:
        if not questions:
            raise BadInput("cose: a split has no questions")
        return cls(
            label=tokens_of(tokenizer, [question.asking("label") for question in questions]),
            rationale=tokens_of(tokenizer, [question.asking("rationale") for question in questions]),
            reason=tokens_of(tokenizer, [question.rationale for question in questions]),
            right=[question.label for question in questions],
        )

    def split(self, positions: int, longest: int, letters: Sequence[int]) -> TensorSplit:
        """Inputs [questions, 2, positions]: the question, and START. Targets [questions, 3, positions]: what is to be
        written, the letter alone; the same question asked for its reason; and the reason."""
        import torch

        count = len(self.label)
        inputs = torch.full((count, 2, positions), PADDING)
        targets = torch.full((count, 3, positions), IGNORED)
        inputs[:, 1, 0] = START
        targets[:, 1] = PADDING
        for row, (label, rationale, reason) in enumerate(zip(self.label, self.rationale, self.reason, strict=True)):
            inputs[row, 0, : len(label) + 1] = torch.tensor([*label, END])
            targets[row, 0, 0] = letters[self.right[row]]
            targets[row, 1, : len(rationale) + 1] = torch.tensor([*rationale, END])
            kept = [*reason[: longest - 1], END]
            targets[row, 2, : len(kept)] = torch.tensor(kept)
        return TensorSplit(inputs, targets)
