"""Task, Data, Split, Metric: what is learnt, from which examples, and how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from kdbench.data import DataFile, DataFolders

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DataSpec:
    """What a network must fit: the shape of one prepared input (no batch axis), and the number of classes.

    Inputs are float32, or, where there is a `vocabulary`, int64 token ids in [0, vocabulary), with 0 for padding.
    """

    input_shape: tuple[int, ...]
    classes: int
    modality: Literal["vision", "speech", "nlp", "sensor"] = "vision"
    vocabulary: int | None = None


@dataclass(frozen=True)
class Batch:
    """Raw inputs [batch, ...], targets [batch, ...], and the examples' positions in their split [batch]."""

    inputs: Tensor
    targets: Tensor
    indices: Tensor


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


@dataclass(frozen=True)
class Data:
    """The splits of a task as loaded. `validation=None`: the core cuts it from `train`, stratified.

    `prepare` turns a raw batch of inputs into what networks take, on their device (uint8 images to normalised
    floats); it is deterministic, and comes after augmentation.
    """

    spec: DataSpec
    train: Split
    test: Split
    validation: Split | None = None
    class_names: tuple[str, ...] = ()
    prepare: Callable[[Tensor], Tensor] = field(default=lambda inputs: inputs)


@dataclass(frozen=True)
class Metric:
    """A score of predictions. `compute` takes logits [N, classes] and targets [N] of a whole split."""

    name: str
    compute: Callable[[Tensor, Tensor], float]
    higher_is_better: bool = True


@dataclass(frozen=True)
class Task:
    """What is learnt and how it is scored. Subclasses are frozen dataclasses: their fields are their parameters."""

    modality: ClassVar[str] = "vision"
    files: ClassVar[tuple[str, ...]] = ()  # below a data folder; any of them means that the data set is there
    data_files: ClassVar[tuple[DataFile, ...]] = ()  # what `load` asks `folders.provide` for; listings tell their state

    def load(self, folders: DataFolders) -> Data:
        """Reads the data set, downloading it once if it may.

        Raises:
            MissingData: it is neither here nor downloadable; the message says what to put where.
        """
        raise NotImplementedError

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The hard-label loss, a scalar: cross-entropy, mean over the batch."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, targets)

    def metrics(self, spec: DataSpec) -> tuple[Metric, ...]:
        """How predictions are scored; the first is the primary one, by which methods are ranked."""
        from kdbench.metrics import classification_metrics

        return classification_metrics(spec.classes)
