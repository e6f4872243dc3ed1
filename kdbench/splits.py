"""TensorSplit and LoadedSplit: the examples of one part of a data set, in memory or read when they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from kdbench.errors import BadInput
from kdbench.task import Batch, Data

_DIGEST_BATCH = 256
VALIDATION_SEED = 0  # the split is part of the suite, not of a seed: all seeds are scored on the same examples


@dataclass(frozen=True, eq=False)
class TensorSplit:
    """Examples held in memory: inputs [examples, ...] (images as uint8), targets [examples, ...] on the same device."""

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"{len(self.inputs)} inputs, but {len(self.targets)} targets")

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, order: Sequence[Tensor]) -> Iterator[Batch]:
        """The batches whose examples `order` lists by position, each a LongTensor [batch]."""
        for positions in order:
            chosen = positions.to(self.inputs.device, non_blocking=True)
            yield Batch(self.inputs.index_select(0, chosen), self.targets.index_select(0, chosen), chosen)

    def subset(self, indices: Tensor) -> TensorSplit:
        """The same examples, restricted to `indices` (LongTensor) in that order."""
        chosen = indices.to(self.inputs.device)
        return TensorSplit(self.inputs.index_select(0, chosen), self.targets.index_select(0, chosen))

    @property
    def nbytes(self) -> int:
        """Of inputs and targets."""
        return self.inputs.nbytes + self.targets.nbytes

    def to(self, device: torch.device) -> TensorSplit:
        """The same examples on `device`, where their batches are then made."""
        return TensorSplit(self.inputs.to(device), self.targets.to(device))

    def digest(self) -> str:
        """SHA-256 over dtype, shape and bytes of inputs and targets, as hex; computed once."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for tensor in (self.inputs, self.targets):
            digest.update(_header(tensor.dtype, tuple(tensor.shape)))
            digest.update(_content(tensor))
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class LoadedSplit:
    """Examples too large for memory, read from a map-style dataset by `workers` processes (0: in this one).

    Attributes:
        dataset: item i is the input of example i, a tensor of one shape and dtype for all, the same at each reading.
        targets: [examples, ...], held apart because splits are stratified by them without reading any input.
        workers: processes that read ahead; they change the speed, never the batches.
        known_digest: what `digest` answers; empty: every example is read once to compute it, and the answer equals
            that of a `TensorSplit` with the same content.
    """

    dataset: Dataset[Tensor]
    targets: Tensor
    workers: int = 0
    known_digest: str = ""

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, order: Sequence[Tensor]) -> Iterator[Batch]:
        """The batches whose examples `order` lists by position, each a LongTensor [batch]."""
        # DataLoader draws a seed for its workers at each start: from its own generator, or the global one would move.
        loader = DataLoader(
            self.dataset,
            batch_sampler=[positions.tolist() for positions in order],
            num_workers=self.workers,
            generator=torch.Generator(),
        )
        for positions, inputs in zip(order, loader, strict=True):
            yield Batch(inputs, self.targets[positions], positions)

    def subset(self, indices: Tensor) -> LoadedSplit:
        """The same examples, restricted to `indices` (LongTensor) in that order.

        The digest of a subset of a known one is derived from it, so that nothing has to be read again.
        """
        known = ""
        if self.known_digest:
            digest = hashlib.sha256(self.known_digest.encode())
            digest.update(_content(indices))
            known = digest.hexdigest()
        return LoadedSplit(Subset(self.dataset, indices.tolist()), self.targets[indices], self.workers, known)

    def digest(self) -> str:
        """SHA-256 over the content, as hex; computed once."""
        return self.known_digest or self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        order = torch.arange(len(self)).split(_DIGEST_BATCH)
        for number, batch in enumerate(self.batches(order)):
            if number == 0:
                digest.update(_header(batch.inputs.dtype, (len(self), *batch.inputs.shape[1:])))
            digest.update(_content(batch.inputs))
        digest.update(_header(self.targets.dtype, tuple(self.targets.shape)))
        digest.update(_content(self.targets))
        return digest.hexdigest()


def stratified_holdout(targets: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Positions kept and held out, both sorted LongTensors, with the class shares of `targets` [examples] in each.

    Where that is impossible (targets that are no class labels, a class with a single example, fewer places than
    classes) the cut is plainly random.

    Raises:
        BadInput: `fraction` leaves one of the two sides empty.
    """
    examples = len(targets)
    held = round(fraction * examples)
    if not 0 < held < examples:
        raise BadInput(f"cannot hold out a fraction of {fraction:g} of {examples} examples")
    random = np.random.RandomState(seed)
    if _can_stratify(targets, held):
        held_out = _stratified(targets.cpu().numpy(), held, random)
    else:
        held_out = random.permutation(examples)[:held]
    kept = np.setdiff1d(np.arange(examples), held_out)
    return torch.from_numpy(kept), torch.from_numpy(np.sort(held_out))


def _stratified(labels: NDArray[np.integer[Any]], held: int, random: np.random.RandomState) -> NDArray[np.intp]:
    """The positions that scikit-learn's train_test_split(stratify=labels) would hold out, which a test compares with.

    To import it takes as long as torch: a plan would wait for it, in every suite that has no validation split.
    """
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    kept = _shares(counts, len(labels) - held, random)
    taken = _shares(counts - kept, held, random)
    found = []
    for members, first, more in zip(_members(classes), kept, taken, strict=True):
        found.append(members[random.permutation(len(members))][first : first + more])
    return np.concatenate(found)


def _members(classes: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """The positions of each class, in order."""
    return np.split(np.argsort(classes, kind="mergesort"), np.cumsum(np.bincount(classes))[:-1])


def _shares(counts: NDArray[np.integer[Any]], draws: int, random: np.random.RandomState) -> NDArray[np.intp]:
    """How many of each class are drawn, `draws` in all: in proportion, the largest remainders rounded up, ties at
    random."""
    exact = counts / counts.sum() * draws
    shares = np.floor(exact)
    missing, remainders = int(draws - shares.sum()), exact - shares
    for remainder in np.unique(remainders)[::-1]:
        if not missing:
            break
        (tied,) = np.where(remainders == remainder)
        chosen = random.choice(tied, size=min(len(tied), missing), replace=False)
        shares[chosen] += 1
        missing -= len(chosen)
    return shares.astype(np.intp)


def with_validation(data: Data, fraction: float) -> Data:
    """The data with a validation split: its own, or one cut from train, stratified, the same for every seed."""
    if data.validation is not None:
        return data
    kept, held_out = stratified_holdout(data.train.targets, fraction, VALIDATION_SEED)
    return replace(data, train=data.train.subset(kept), validation=data.train.subset(held_out))


def resident(data: Data, device: torch.device, fits: Callable[[int], bool]) -> Data:
    """The data with the splits that training reads on `device`, all of them at once, if they are in memory and `fits`
    says that there is room for their bytes; the test split stays where it is."""
    held = [split for split in (data.train, data.validation) if isinstance(split, TensorSplit)]
    if not held or not fits(sum(split.nbytes for split in held)):
        return data
    train, validation = (
        split.to(device) if isinstance(split, TensorSplit) else split for split in (data.train, data.validation)
    )
    assert train is not None
    return replace(data, train=train, validation=validation)


def stratified_order(targets: Tensor, seed: int) -> Tensor:
    """A random order of the examples, LongTensor [examples], of which every beginning has the class shares of
    `targets` as nearly as its length allows. So larger parts of the data contain the smaller ones.

    Targets that are no class labels are ordered plainly at random.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(targets), generator=generator)
    if targets.ndim != 1 or targets.is_floating_point():
        return shuffled
    labels = targets.cpu()[shuffled]
    place = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        place[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return shuffled[place.sort(stable=True).indices]


def _can_stratify(targets: Tensor, held: int) -> bool:
    if targets.ndim != 1 or targets.is_floating_point():
        return False
    counts = torch.unique(targets, return_counts=True)[1]
    return int(counts.min()) >= 2 and len(counts) <= min(held, len(targets) - held)


def _header(dtype: torch.dtype, shape: tuple[int, ...]) -> bytes:
    return f"{dtype} {list(shape)};".encode()


def _content(tensor: Tensor) -> memoryview:
    # Through uint8, because numpy lacks bfloat16.
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data
