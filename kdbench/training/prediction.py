"""What a network answers over a whole split: all that scores need, and the rows that comparisons are made on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdbench.errors import BrokenPlugin
from kdbench.plan import LoadedTask, Trial
from kdbench.task import Answers, Batch, Data, DataSpec, Split
from kdbench.training.randomness import generator, seeded

EVALUATION_BATCH = 256
POSITIONS_BATCH = 32  # where an example has an answer at each of its positions,
OUTPUT_NUMBERS = 1 << 25  # and fewer where a batch would answer more numbers than these: 128 MB
KEPT_NUMBERS = 1 << 22  # logits kept of a split: 16 MB


@dataclass(frozen=True)
class Predictions:
    """A network's predictions for a split, on the CPU.

    Attributes:
        answers: what the task's metrics read, by name, each [examples, ...].
        logits: float32 [rows, classes]: one row per example; or, of an answer with positions, all of them or an even
            random sample (the same for every network), so that the split fits memory.
        labels: the classes of these rows [rows]; None where rows have no label of their own.
    """

    answers: Answers
    logits: Tensor
    labels: Tensor | None

    @property
    def finite(self) -> bool:
        """Whether every number of them is one."""
        tensors = (self.logits, *self.answers.values())
        return all(bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point())

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, as it is stored: the answers, `row_labels` where there are labels, and `row_logits` where
        they are not the answer "logits"."""
        found = dict(self.answers)
        if not _same(found.get("logits"), self.logits):
            found["row_logits"] = self.logits
        if self.labels is not None:
            found["row_labels"] = self.labels
        return found

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Predictions:
        """What `tensors` gave; "influences", which are stored beside it, are no part of it."""
        found = {name: torch.from_numpy(array) for name, array in arrays.items() if name != "influences"}
        labels = found.pop("row_labels", None)
        logits = found.pop("row_logits") if "row_logits" in found else found["logits"]
        return cls(found, logits, labels)


def _same(first: Tensor | None, second: Tensor) -> bool:
    return first is not None and first.dtype == second.dtype and first.equal(second)


@torch.no_grad()
def predict(network: nn.Module, split: Split, loaded: LoadedTask, device: torch.device) -> Predictions:
    """All predictions of `network` for `split`, in order, those that take decoding included."""
    task, found, rows, labels = loaded.task, [], [], []
    share = KEPT_NUMBERS / (len(split) * prod(loaded.data.spec.positions) * loaded.data.spec.classes)
    for number, (batch, output) in enumerate(_outputs(network, split, loaded.data, device)):
        with seeded(0, "decoding", number):
            decoded = task.decode(network, batch)
        found.append(_on_cpu({**task.answers(output, batch), **decoded}))
        logits, own = task.logits(output, batch), task.labels(batch)
        kept = slice(None) if share >= 1 or output.ndim == 2 else _sample(len(logits), share, number)
        rows.append(logits[kept].cpu())
        if own is not None:
            labels.append(own[kept].cpu())
    return Predictions(_joined(found), torch.cat(rows), torch.cat(labels) if labels else None)


@torch.no_grad()
def answers(
    network: nn.Module, split: Split, loaded: LoadedTask, device: torch.device, size: int | None = None
) -> Answers:
    """What the task's metrics read of every example of `split`, in order, without decoding. `size`: examples in a
    batch, `evaluation_batch` unless the bits do not matter."""
    outputs = _outputs(network, split, loaded.data, device, size)
    return _joined([_on_cpu(loaded.task.answers(output, batch)) for batch, output in outputs])


@torch.no_grad()
def relabelled(trial: Trial, split: Split, loaded: LoadedTask, teacher: nn.Module, device: torch.device) -> Split:
    """`split` with the targets that the teacher of `trial` decodes for it: the same at each call.

    Raises:
        NotApplicable: the task has no decoded answers.
        BrokenPlugin: the task returned other examples.
    """
    with seeded(trial.seed, trial.stream, "relabelling"):
        found = loaded.task.relabelled(split, loaded.data, teacher, device)
    if len(found) != len(split):
        raise BrokenPlugin(f"{loaded.name} relabelled {len(split)} examples as {len(found)}")
    return found


def prepared(split: Split, order: Sequence[Tensor], data: Data, device: torch.device) -> Iterator[Batch]:
    """The batches of `order` as networks take them, on `device`."""
    for batch in split.batches(order):
        inputs = data.prepare(batch.inputs.to(device, non_blocking=True))
        yield Batch(inputs, batch.targets.to(device, non_blocking=True), batch.indices.to(device))


def _outputs(
    network: nn.Module, split: Split, data: Data, device: torch.device, size: int | None = None
) -> Iterator[tuple[Batch, Tensor]]:
    """Batches and what the network answers to them in eval mode, float32; it is left in the mode it was in."""
    size = size or evaluation_batch(data.spec)
    was_training = network.training
    network.eval()
    try:
        for batch in prepared(split, torch.arange(len(split)).split(size), data, device):
            yield batch, network(batch.inputs).float()
    finally:
        network.train(was_training)


def evaluation_batch(spec: DataSpec) -> int:
    """Examples in a batch that is answered to be scored: by the data's shapes alone, so that a network answers the same
    bits each time."""
    numbers = prod(spec.positions) * (spec.classes + spec.extras)
    return max(1, min(POSITIONS_BATCH if spec.positions else EVALUATION_BATCH, OUTPUT_NUMBERS // numbers))


def _sample(rows: int, share: float, batch: int) -> Tensor:
    """Which rows of a batch are kept, bool [rows]: the same for every network."""
    return torch.rand(rows, generator=generator(0, "rows", batch)) < share


def _on_cpu(tensors: Answers) -> Answers:
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def _joined(batches: Sequence[Answers]) -> Answers:
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
