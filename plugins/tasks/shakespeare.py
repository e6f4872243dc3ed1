"""Shakespeare, TextLM: language modelling by characters, of Tiny Shakespeare or of the user's own text."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from kdbench import (
    IGNORED,
    BadInput,
    Count,
    Data,
    DataFile,
    DataFolders,
    DataSpec,
    Metric,
    Positive,
    Task,
    TensorSplit,
)

from ._text_table import find_file, read_text

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

PADDING, UNKNOWN = 0, 1
_RESERVED = ("[PAD]", "[UNK]")
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class CharacterTask(Task):
    """Which character comes next, at each position of a window of text, from those of the window before it.

    By position the first 90 % of the text are for training, the next 5 % for validation and the last 5 % for testing.
    The vocabulary is that of the training part, with 0 for padding and 1 for characters that only the others have;
    these count as they are: as mistakes. Characters early in a window have little before them, so scores of different
    contexts do not compare. Windows for validation and testing do not overlap, and score every character but the first.

    Attributes:
        context: characters of a window.
        stride: from the start of one training window to that of the next; None: `context`, so that they do not overlap.
        train_examples: how many training windows are used, from the beginning of the text; None: all.
        prompt, sample_length, temperature: what texts that students write begin with, how many characters these add,
            and what logits are divided by before each is drawn.
    """

    modality: ClassVar[str] = "nlp"

    context: Annotated[int, Ge(2)] = 128
    stride: Count | None = None
    train_examples: Count | None = None
    prompt: str = "\n"
    sample_length: Count = 300
    temperature: Positive = 0.8

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("prompt must hold a character at least")
        if self.stride is not None and self.stride > self.context:
            raise ValueError(f"a stride of {self.stride} leaves out characters between windows of {self.context}")

    def text(self, folders: DataFolders) -> tuple[str, str]:
        """What messages call it, and the whole text."""
        raise NotImplementedError

    def load(self, folders: DataFolders) -> Data:
        """int64 inputs [windows, context] and as targets the characters that follow; a last window is filled up.

        Raises:
            MissingData: the text is neither here nor downloadable.
            BadInput: it is no UTF-8, too short, or gives fewer training windows than are asked for.
        """
        title, text = self.text(folders)
        codes = _codes(text)
        ends = (len(codes) * 90 // 100, len(codes) * 95 // 100)
        if min(ends[0], ends[1] - ends[0], len(codes) - ends[1]) < 2:
            raise BadInput(f"{title} has {len(codes)} characters: too few to train, validate and test on")
        characters, ids = _numbered(codes, ends[0])
        tokens = (*_RESERVED, *characters)
        train = _windows(ids[: ends[0]], self.context, self.stride or self.context)
        if self.train_examples is not None:
            if self.train_examples > len(train):
                raise BadInput(f"{title} has {len(train)} training windows, not {self.train_examples}")
            train = TensorSplit(train.inputs[: self.train_examples], train.targets[: self.train_examples])
        return Data(
            spec=DataSpec(
                (self.context,), len(tokens), modality="nlp", vocabulary=len(tokens), positions=(self.context,)
            ),
            train=train,
            validation=_windows(ids[ends[0] : ends[1]], self.context, self.context),
            test=_windows(ids[ends[1] :], self.context, self.context),
            class_names=tokens,
            assets={"characters.json": _table(tokens)},
        )

    def metrics(self, spec: DataSpec) -> tuple[Metric, ...]:
        """Bits per character (the primary one), perplexity per character, and accuracy."""
        bits = Metric(
            "bits_per_character",
            bits_per_character,
            higher_is_better=False,
            reads=("nll", "positions"),
            unit="bits",
            additive=True,
        )
        return (bits, *super().metrics(spec))

    def samples(self, network: nn.Module, data: Data, device: torch.device) -> tuple[str, ...]:
        """One text that the network writes: `prompt`, and characters drawn one by one."""
        number = {name: number for number, name in enumerate(data.class_names)}
        ids = [number.get(character, UNKNOWN) for character in self.prompt]
        written = _continued(network, ids, self.sample_length, self.context, self.temperature, device)
        return (self.prompt + "".join(data.class_names[each] for each in written[len(ids) :]),)


@dataclass(frozen=True, kw_only=True)
class Shakespeare(CharacterTask):
    """Tiny Shakespeare (Karpathy 2015): 1.1 million characters of the plays, 65 distinct, the next to be told at each.

    The usual split ends at 90 %, where scores of the rest are called validation; here that rest is halved, by position.
    """

    data_files = (
        DataFile(
            name="nlp/tinyshakespeare.txt",
            sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            url="https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/"
            "tinyshakespeare/input.txt",
        ),
    )

    prompt: str = "ROMEO:\n"

    def text(self, folders: DataFolders) -> tuple[str, str]:
        (file,) = self.data_files
        return file.name, read_text(folders.provide(file))


@dataclass(frozen=True, kw_only=True)
class TextLM(CharacterTask):
    """Your own text, in one UTF-8 file, maybe with .gz: which character comes next.

    Attributes:
        path: the file, absolute, or below a search folder or the current one.
    """

    path: str

    def text(self, folders: DataFolders) -> tuple[str, str]:
        return self.path, read_text(find_file(self.path, folders))


def bits_per_character(nll: Tensor, positions: Tensor) -> float:
    """The mean negative log-likelihood of a character in bits, from sums per example (nats)."""
    return (nll.sum() / positions.sum()).item() / math.log(2)


def _codes(text: str) -> NDArray[np.uint32]:
    import numpy as np

    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def _numbered(codes: NDArray[np.uint32], end: int) -> tuple[list[str], NDArray[np.int64]]:
    """The characters that occur before `end`, sorted, and all of `codes` as their numbers."""
    import numpy as np

    known = np.unique(codes[:end])
    places = np.searchsorted(known, codes).clip(max=len(known) - 1)
    ids = np.where(known[places] == codes, places + len(_RESERVED), UNKNOWN)
    return [chr(code) for code in known.tolist()], ids.astype(np.int64)


def _windows(ids: NDArray[np.int64], context: int, stride: int) -> TensorSplit:
    """All windows of `context` ids that begin at multiples of `stride` (no longer), up to the one at the end.

    They are views of one tensor: overlapping windows take no memory of their own.
    """
    import torch
    from torch.nn.functional import pad

    whole = torch.from_numpy(ids)
    pairs = len(whole) - 1
    missing = -(-max(pairs - context, 0) // stride) * stride + context - pairs
    inputs, targets = pad(whole[:-1], (0, missing), value=PADDING), pad(whole[1:], (0, missing), value=IGNORED)
    return TensorSplit(inputs.unfold(0, context, stride), targets.unfold(0, context, stride))


def _table(tokens: Sequence[str]) -> bytes:
    return json.dumps({token: number for number, token in enumerate(tokens)}, ensure_ascii=False, indent=1).encode()


def _continued(
    network: nn.Module, ids: Sequence[int], length: int, context: int, temperature: float, device: torch.device
) -> list[int]:
    """`ids` and `length` more, each drawn from what the network answers to the last `context` before it."""
    import torch

    generator, written = torch.Generator().manual_seed(_SEED), list(ids)
    with torch.no_grad():
        for _ in range(length):
            seen = written[-context:]
            inputs = torch.tensor([seen + [PADDING] * (context - len(seen))], device=device)
            logits = network(inputs)[0, :, len(seen) - 1].cpu().double()
            logits[: len(_RESERVED)] = -math.inf
            chances = (logits / temperature).softmax(dim=0)
            written.append(int(torch.multinomial(chances, 1, generator=generator)))
    return written
