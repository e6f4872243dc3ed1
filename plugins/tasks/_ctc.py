"""Speech to text with CTC: what the tasks share that write down what was said, character by character."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from kdbench import (
    IGNORED,
    Answers,
    BadInput,
    Batch,
    Count,
    Data,
    DataSpec,
    Metric,
    MissingExtra,
    Split,
    Task,
    TensorSplit,
    full_precision,
    share,
)

from ._ctc_search import BLANK, beam_search, collapsed

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_BATCH = 32
_SAMPLES = 5


@dataclass(frozen=True)
class Utterance:
    """Features [channels, frames] of what was said, and its transcript."""

    features: Tensor
    transcript: str


@dataclass(frozen=True)
class SpeechToText(Task):
    """Transcripts by connectionist temporal classification (Graves et al. 2006): a network answers at every frame, and
    the loss sums over all ways of laying the characters out in time.

    Class 0 is the blank, class i + 1 the i-th character of `alphabet`. Rows of logits are the valid output frames, so
    methods distil frame by frame; they have no labels of their own. Targets are classes, padded with `IGNORED`.

    Attributes:
        subsampling: input frames per output frame, which networks read off the spec.
        beams: prefixes that the beam search follows.
    """

    modality: ClassVar[str] = "speech"
    alphabet: ClassVar[str] = ""

    subsampling: Count = 4
    beams: Count = 16

    def assemble(self, train: Sequence[Utterance], validation: Sequence[Utterance], test: Sequence[Utterance]) -> Data:
        """The splits, all padded to the longest utterance; each is normalised by itself, whatever its company.

        Raises:
            BadInput: a training transcript has more characters than its utterance has output frames.
            MissingExtra: the library that counts errors is not installed.
        """
        from ._frames import NormaliseUtterances, padded

        _jiwer()
        self._check_room(train)
        whole = (*train, *validation, *test)
        positions = max(self._positions(utterance) for utterance in whole)
        frames, width = positions * self.subsampling, max(len(utterance.transcript) for utterance in whole)
        splits = [
            TensorSplit(
                padded([utterance.features for utterance in split], frames),
                self._encoded([utterance.transcript for utterance in split], width),
            )
            for split in (train, validation, test)
        ]
        names = ("<blank>", *("<space>" if character == " " else character for character in self.alphabet))
        return Data(
            spec=DataSpec((len(whole[0].features), frames), len(names), "speech", positions=(positions,)),
            train=splits[0],
            validation=splits[1],
            test=splits[2],
            class_names=names,
            prepare=NormaliseUtterances(),
            assets={"alphabet.json": json.dumps(names, ensure_ascii=False).encode()},
        )

    def _positions(self, utterance: Utterance) -> int:
        return -(-utterance.features.shape[1] // self.subsampling)

    def _check_room(self, utterances: Sequence[Utterance]) -> None:
        """A path needs a frame per character, and a blank between equal ones: without, its loss would be infinite."""
        cramped = [each for each in utterances if self._positions(each) < frames_needed(each.transcript)]
        if cramped:
            first = min(cramped, key=lambda each: each.features.shape[1])
            raise BadInput(
                f"{len(cramped)} of {len(utterances)} training transcripts have more characters than output frames: "
                f"'{first.transcript}' in {first.features.shape[1]} frames, subsampling {self.subsampling}",
                hint="choose a smaller subsampling",
            )

    def _encoded(self, transcripts: Sequence[str], width: int = 1) -> Tensor:
        import torch

        classes = {character: number for number, character in enumerate(self.alphabet, start=1)}
        targets = torch.full((len(transcripts), max(width, *map(len, transcripts))), IGNORED)
        for row, transcript in zip(targets, transcripts, strict=True):
            row[: len(transcript)] = torch.tensor([classes[character] for character in transcript])
        return targets

    def text(self, classes: Iterable[int]) -> str:
        """What a labelling reads, or a row of targets."""
        return "".join(self.alphabet[number - 1] for number in classes if number != IGNORED)

    def frames(self, batch: Batch) -> Tensor:
        """Valid output frames of each utterance, [batch]: by the zero padding of its inputs."""
        from ._frames import lengths, shortened

        return shortened(lengths(batch.inputs), self.subsampling)

    def valid(self, batch: Batch) -> Tensor:
        from ._frames import within

        return within(self.frames(batch), batch.inputs.shape[2] // self.subsampling)

    def labels(self, batch: Batch) -> None:
        """None: CTC leaves open which frame holds which character."""

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """CTC, nats per character, mean over utterances; one whose transcript has no room counts 0.

        On the CPU wherever the network is: torch's CUDA kernel adds gradients in an order that varies.
        """
        from torch.nn.functional import ctc_loss, log_softmax
        from torch.nn.utils.rnn import pad_sequence

        frames, targets = self.frames(batch).cpu(), batch.targets.cpu()
        scores = log_softmax(full_precision(logits).cpu(), dim=1).split(frames.tolist())
        known = targets != IGNORED
        loss = ctc_loss(pad_sequence(scores), targets[known], frames, known.sum(dim=1), blank=BLANK, zero_infinity=True)
        return loss.to(logits.device)

    def answers(self, output: Tensor, batch: Batch) -> Answers:
        """Of the best path of each utterance: "word_errors" and "character_errors" against the transcript, and its
        "words" and "characters", float64 [batch]."""
        references = self._references(batch)
        return {**_errors(references, self._best_paths(output, batch)), **_sizes(references)}

    def decode(self, network: nn.Module, batch: Batch) -> Answers:
        """Of the beam search: "beam_word_errors" and "beam_character_errors", float64 [batch]."""
        found = _errors(self._references(batch), self._beams(network, batch))
        return {f"beam_{name}": counts for name, counts in found.items()}

    def metrics(self, spec: DataSpec) -> tuple[Metric, ...]:
        """Word error rate (the primary one) and character error rate: of the best path, and of the beam search."""
        return tuple(
            Metric(
                f"{prefix}{name}",
                share,
                higher_is_better=False,
                reads=(f"{prefix}{unit}_errors", f"{unit}s"),
                additive=True,
                decoded=bool(prefix),
                unit="share",
            )
            for prefix in ("", "beam_")
            for name, unit in (("wer", "word"), ("cer", "character"))
        )

    def samples(self, network: nn.Module, data: Data, device: torch.device) -> tuple[str, ...]:
        """The first test utterances, as they were said and as the best path reads."""
        import torch

        with torch.no_grad():
            batch = next(_prepared(data.test, torch.arange(min(_SAMPLES, len(data.test))), data, device))
            hypotheses = self._best_paths(network(batch.inputs), batch)
        pairs = zip(self._references(batch), hypotheses, strict=True)
        return tuple(f"reference: {reference} | hypothesis: {hypothesis}" for reference, hypothesis in pairs)

    def relabelled(self, split: Split, data: Data, network: nn.Module, device: torch.device) -> Split:
        """The split with the transcripts that the beam search finds; an utterance in which it finds none is silence.

        Source: Gao, Parcollet & Lane 2020 (arXiv:2005.09310), who take the n best; here the best one.
        """
        import torch

        assert isinstance(split, TensorSplit)
        with torch.no_grad():
            batches = _prepared(split, torch.arange(len(split)), data, device)
            found = [text for batch in batches for text in self._beams(network, batch)]
        return TensorSplit(split.inputs, self._encoded(found))

    def _references(self, batch: Batch) -> list[str]:
        return [self.text(row) for row in batch.targets.tolist()]

    def _best_paths(self, output: Tensor, batch: Batch) -> list[str]:
        paths = self.logits(output, batch).argmax(dim=1).split(self.frames(batch).tolist())
        return [self.text(collapsed(path.tolist())) for path in paths]

    def _beams(self, network: nn.Module, batch: Batch) -> list[str]:
        rows = self.logits(network(batch.inputs).float(), batch).log_softmax(dim=1)
        frames = rows.split(self.frames(batch).tolist())
        return [self.text(beam_search(scores.tolist(), self.beams)) for scores in frames]


def frames_needed(transcript: str) -> int:
    """Output frames without which CTC cannot write it: one per character, and a blank between equal ones."""
    return len(transcript) + sum(first == second for first, second in pairwise(transcript))


def written_with(alphabet: str, transcript: str, where: str) -> str:
    """The transcript, if CTC can write it.

    Raises:
        BadInput: it is empty, or has characters that are not of the alphabet; `where` begins the message.
    """
    strange = sorted(set(transcript) - set(alphabet))
    if strange or not transcript:
        problem = f"has the character {strange[0]!r}" if strange else "is empty"
        raise BadInput(f"{where}: the transcript {problem}", hint=f"the alphabet is '{alphabet}'")
    return transcript


def _prepared(split: Split, order: Tensor, data: Data, device: torch.device) -> Iterator[Batch]:
    for batch in split.batches(order.split(_BATCH)):
        yield Batch(data.prepare(batch.inputs.to(device)), batch.targets, batch.indices)


def _errors(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, Tensor]:
    """Substituted, left out and inserted words and characters of each hypothesis."""
    jiwer = _jiwer()
    pairs = list(zip(references, hypotheses, strict=True))
    return {
        "word_errors": _counts(_edits(jiwer.process_words(*pair)) for pair in pairs),
        "character_errors": _counts(_edits(jiwer.process_characters(*pair)) for pair in pairs),
    }


def _edits(compared: Any) -> int:
    return int(compared.substitutions + compared.deletions + compared.insertions)


def _sizes(references: Sequence[str]) -> dict[str, Tensor]:
    return {"words": _counts(len(text.split()) for text in references), "characters": _counts(map(len, references))}


def _counts(numbers: Iterable[int]) -> Tensor:
    import torch

    return torch.tensor(list(numbers), dtype=torch.float64)


def _jiwer() -> Any:
    try:
        import jiwer
    except ImportError as error:
        raise MissingExtra("word error rates", "speech") from error
    return jiwer
