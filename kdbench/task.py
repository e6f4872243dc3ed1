"""Task, Data, Split, Metric: what is learnt, from which examples, and how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from kdbench.data import DataFile, DataFolders

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

IGNORED = -100  # the label of a position that counts for nothing, as in torch's cross_entropy


@dataclass(frozen=True)
class DataSpec:
    """What a network must fit: the shapes of one prepared input and of one answer (no batch axis).

    Inputs are float32, or, where there is a `vocabulary`, int64 token ids in [0, vocabulary). Inputs of different
    lengths are padded at their end with zeros: tokens 0, or frames (the last axis) that are zero in all channels.
    A network answers [batch, classes], or, where an answer has `positions` (pixels, tokens, frames, anchors),
    [batch, classes + extras, *positions]; `extras` are outputs that are no logits, after them (a detector's boxes).
    """

    input_shape: tuple[int, ...]
    classes: int
    modality: Literal["vision", "speech", "nlp", "sensor"] = "vision"
    vocabulary: int | None = None
    positions: tuple[int, ...] = ()
    extras: int = 0


@dataclass(frozen=True)
class Batch:
    """Inputs [batch, ...] (raw, or prepared as networks take them), targets [batch, ...], and the examples' positions
    in their split [batch]; `host_indices` are these on the host, where they are known without asking the device."""

    inputs: Tensor
    targets: Tensor
    indices: Tensor
    host_indices: Tensor | None = None

    def __len__(self) -> int:
        return len(self.indices)


class Split(Protocol):
    """One part of a data set. In memory it is a `TensorSplit`; too large for that, a `LoadedSplit`."""

    @property
    def targets(self) -> Tensor:
        """The targets of all examples, [examples, ...]."""
        ...

    def __len__(self) -> int: ...

    def batches(self, order: Sequence[Tensor]) -> Iterator[Batch]:
        """The batches whose examples `order` lists by position, each a LongTensor [batch]."""
        ...

    def subset(self, indices: Tensor) -> Split:
        """The same examples, restricted to `indices` in that order."""
        ...

    def digest(self) -> str:
        """SHA-256 over the content (inputs and targets), as hex."""
        ...


def unchanged(inputs: Tensor) -> Tensor:
    """The preparation of inputs that need none."""
    return inputs


# Raw inputs of the test examples at such positions [n], made worse by a severity of 1 to 5; the same for the same state
# of the generator.
Corruption = Callable[["Tensor", int, "torch.Generator"], "Tensor"]


@dataclass(frozen=True)
class Data:
    """The splits of a task as loaded. `validation=None`: the core cuts it from `train`, stratified.

    `prepare` turns a raw batch of inputs into what networks take, on their device (uint8 images to normalised
    floats); it is deterministic, and comes after augmentation. `assets` are files by name, kept with the results:
    what a user of the trained student needs beside its weights (a tokenizer). `corruptions`, by kind, tell how scores
    fall when test inputs get worse, where these are no longer the signal that gets worse (tokens of a misspelt text);
    uint8 images [channels, height, width] need none, and without any nothing is told.
    """

    spec: DataSpec
    train: Split
    test: Split
    validation: Split | None = None
    class_names: tuple[str, ...] = ()
    prepare: Callable[[Tensor], Tensor] = unchanged
    assets: Mapping[str, bytes] = field(default_factory=dict)
    corruptions: Mapping[str, Corruption] = field(default_factory=dict)


Answers = Mapping[str, "Tensor"]  # what a score needs to know of each example: tensors [examples, ...] by name


@dataclass(frozen=True)
class Metric:
    """A score of a whole split, or of any resampling of its examples.

    Attributes:
        compute: takes the answers that `reads` names, in that order, each [examples, ...].
        per_example: where the score is a mean over examples, the values that it is the mean of, [examples], from what
            `reads` names. It and `additive` tell quickly how much each example moves the score.
        additive: `compute` sees its answers through their sums over examples only, so that their sums [1, ...] will do.
        decoded: it reads what `Task.decode` adds, which is made for the test split alone.
        unit: what its values are counted in: "share" is a part of a whole, read in percent and points (accuracy; word
            error rate, though it may pass 1); a word ("cycles"); or "" for a number of its own kind (perplexity, BLEU
            from 0 to 100). None: told by the values, a share where higher is better and all lie in [0, 1].
    """

    name: str
    compute: Callable[..., float]
    higher_is_better: bool = True
    reads: tuple[str, ...] = ("logits", "targets")
    per_example: Callable[..., Tensor] | None = None
    additive: bool = False
    decoded: bool = False
    unit: str | None = None

    def score(self, answers: Answers) -> float:
        """The score of all examples in `answers`."""
        return float(self.compute(*(answers[name] for name in self.reads)))


@dataclass(frozen=True)
class Task:
    """What is learnt and how it is scored. Subclasses are frozen dataclasses: their fields are their parameters.

    The base class is a classification: of each example, or, where `DataSpec.positions` is set, of each position, with
    targets [batch, *positions] and `IGNORED` where nothing counts. In the methods below, `batch` is prepared and on the
    network's device, and `output` is what the network answered to `batch.inputs`, in float32.
    """

    modality: ClassVar[str] = "vision"
    files: ClassVar[tuple[str, ...]] = ()  # below a data folder; any of them means that the data set is there
    data_files: ClassVar[tuple[DataFile, ...]] = ()  # what `load` asks `folders.provide` for; listings tell their state

    def load(self, folders: DataFolders) -> Data:
        """Reads the data set, downloading it once if it may.

        Raises:
            MissingData: it is neither here nor downloadable; the message says what to put where.
        """
        raise NotImplementedError

    def logits(self, output: Tensor, batch: Batch) -> Tensor:
        """The answers that count as rows [N, classes]: one per example, or one per valid position in order.

        Which rows there are depends on the batch alone, so that those of teacher and student belong together. A task
        with `DataSpec.extras` takes them off here.
        """
        if output.ndim == 2:
            return output
        from kdbench.errors import BrokenPlugin

        valid = self.valid(batch)
        if output.shape[2:] != valid.shape[1:]:
            raise BrokenPlugin(
                f"the network answers at {list(output.shape[2:])} positions, not {list(valid.shape[1:])}"
            )
        return output.movedim(1, -1)[valid]

    def valid(self, batch: Batch) -> Tensor:
        """Which positions count, bool [batch, *positions]; asked only where answers have positions."""
        return batch.targets != IGNORED

    def labels(self, batch: Batch) -> Tensor | None:
        """The class of each row of `logits`, [N]; None where rows have no label of their own (frames of speech)."""
        return batch.targets[self.valid(batch)] if batch.targets.ndim > 1 else batch.targets

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The hard-label loss of logits [N, classes], a scalar: cross-entropy, mean over the rows."""
        from torch.nn.functional import cross_entropy

        labels = self.labels(batch)
        assert labels is not None, "a task whose rows have no labels brings a loss of its own"
        return cross_entropy(logits, labels)

    def output_losses(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Losses of what is no logit (a detector's boxes), each a scalar: added to every student's, whatever the
        method."""
        return {}

    def answers(self, output: Tensor, batch: Batch) -> Answers:
        """What the metrics read of each example, [batch, ...] each, little enough to keep of a whole split.

        The shapes after the first axis are the same in all batches; a number that is not finite counts as divergence.
        By default "logits" and "targets", or, where answers have positions, the sums over an example's positions:
        "nll" (nats), "correct" and "positions".
        """
        if output.ndim == 2:
            return {"logits": output, "targets": batch.targets}
        from kdbench.metrics import position_answers

        return position_answers(output, batch.targets)

    def metrics(self, spec: DataSpec) -> tuple[Metric, ...]:
        """How predictions are scored; the first is the primary one, by which methods are ranked."""
        from kdbench.metrics import classification_metrics, position_metrics

        return position_metrics() if spec.positions else classification_metrics(spec.classes)

    def decode(self, network: nn.Module, batch: Batch) -> Answers:
        """Further answers that take a search (beams, sampling) with a network in eval mode; for the test split only.

        Torch's global generator is seeded for it, as for `samples` and `relabelled`, and gradients are off.
        """
        return {}

    def samples(self, network: nn.Module, data: Data, device: torch.device) -> tuple[str, ...]:
        """A few answers of a trained network as people read them (a translation, a text), the same each time."""
        return ()

    def rationales(self, batch: Batch) -> Batch:
        """The same prepared examples with the reasons for their answers as targets, for networks that write.

        Raises:
            NotApplicable: the data have no rationales.
        """
        from kdbench.errors import NotApplicable

        raise NotApplicable(f"{type(self).__name__} has no rationales to learn from")

    def relabelled(self, split: Split, data: Data, network: nn.Module, device: torch.device) -> Split:
        """The same examples with the targets that `network`, a teacher in eval mode, decodes for their inputs.

        Raises:
            NotApplicable: answers of this task are not decoded.
        """
        from kdbench.errors import NotApplicable

        raise NotApplicable(f"{type(self).__name__} has no decoded answers to learn from")
