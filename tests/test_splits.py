"""Splits: batches in the order asked for, digests over the content, and the cut of validation from train."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import Dataset

from kdbench.errors import BadInput
from kdbench.splits import LoadedSplit, TensorSplit, stratified_holdout, stratified_order

INPUTS = torch.arange(10 * 2 * 3, dtype=torch.uint8).reshape(10, 2, 3)
TARGETS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])
ORDER = [torch.tensor([7, 0, 7]), torch.tensor([9]), torch.tensor([2, 1, 5, 4])]


class Rows(Dataset[Tensor]):
    def __getitem__(self, index: int) -> Tensor:
        return INPUTS[index]


def splits() -> list[TensorSplit | LoadedSplit]:
    return [TensorSplit(INPUTS, TARGETS), LoadedSplit(Rows(), TARGETS)]


@pytest.mark.parametrize("split", splits(), ids=lambda split: type(split).__name__)
def test_batches_follow_the_order(split: TensorSplit | LoadedSplit) -> None:
    batches = list(split.batches(ORDER))
    assert len(split) == 10
    assert len(batches) == len(ORDER)
    for batch, positions in zip(batches, ORDER, strict=True):
        assert batch.indices.tolist() == positions.tolist()
        assert batch.inputs.tolist() == [INPUTS[i].tolist() for i in positions.tolist()]
        assert batch.targets.tolist() == [TARGETS[i].item() for i in positions.tolist()]


@pytest.mark.parametrize("split", splits(), ids=lambda split: type(split).__name__)
def test_subsets_of_subsets_keep_their_own_positions(split: TensorSplit | LoadedSplit) -> None:
    subset = split.subset(torch.tensor([8, 6, 4, 2])).subset(torch.tensor([3, 0]))
    (batch,) = subset.batches([torch.tensor([1, 0])])
    assert subset.targets.tolist() == [4, 5]
    assert batch.indices.tolist() == [1, 0]
    assert batch.inputs.tolist() == [INPUTS[8].tolist(), INPUTS[2].tolist()]
    assert batch.targets.tolist() == [5, 4]


@pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning")
def test_workers_change_no_batch() -> None:
    alone = list(LoadedSplit(Rows(), TARGETS, workers=0).batches(ORDER))
    shared = list(LoadedSplit(Rows(), TARGETS, workers=2).batches(ORDER))
    for left, right in zip(alone, shared, strict=True):
        assert torch.equal(left.inputs, right.inputs)
        assert torch.equal(left.targets, right.targets)
        assert torch.equal(left.indices, right.indices)


@pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_global_random_state_alone(workers: int) -> None:
    before = torch.get_rng_state()
    list(LoadedSplit(Rows(), TARGETS, workers=workers).batches(ORDER))
    assert torch.equal(before, torch.get_rng_state())


def test_digest_is_sha256_over_dtype_shape_and_bytes() -> None:
    expected = hashlib.sha256(b"torch.uint8 [10, 2, 3];" + bytes(range(60)))
    expected.update(b"torch.int64 [10];" + TARGETS.numpy().astype("<i8").tobytes())
    assert TensorSplit(INPUTS, TARGETS).digest() == expected.hexdigest()
    assert LoadedSplit(Rows(), TARGETS).digest() == expected.hexdigest()


def test_digest_sees_values_shape_dtype_targets_and_order() -> None:
    pixel = INPUTS.clone()
    pixel[9, 1, 2] += 1
    variants = [
        TensorSplit(INPUTS, TARGETS),
        TensorSplit(pixel, TARGETS),
        TensorSplit(INPUTS.reshape(10, 3, 2), TARGETS),
        TensorSplit(INPUTS.view(torch.int8), TARGETS),
        TensorSplit(INPUTS, TARGETS.flip(0)),
        TensorSplit(INPUTS.flip(0), TARGETS),
    ]
    assert len({split.digest() for split in variants}) == len(variants)


def test_digest_does_not_depend_on_the_layout_in_memory() -> None:
    strided = INPUTS.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous()
    assert TensorSplit(strided, TARGETS).digest() == TensorSplit(INPUTS, TARGETS).digest()


def test_bfloat16_has_a_digest() -> None:
    assert len(TensorSplit(INPUTS.bfloat16(), TARGETS).digest()) == 64


def test_known_digest_is_not_computed_again_and_tells_subsets_apart() -> None:
    class Unread(Dataset[Tensor]):
        def __getitem__(self, index: int) -> Tensor:
            raise AssertionError("read")

    split = LoadedSplit(Unread(), TARGETS, known_digest="abc")
    subsets = [split.subset(torch.tensor(indices)) for indices in ([0, 1], [1, 0], [0, 2])]
    assert split.digest() == "abc"
    assert len({"abc", *(subset.digest() for subset in subsets)}) == 4
    assert subsets[0].digest() == split.subset(torch.tensor([0, 1])).digest()


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="10 inputs, but 9 targets"):
        TensorSplit(INPUTS, TARGETS[:9])


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**32 - 1),
)
def test_holdout_is_a_partition_that_the_seed_decides(counts: list[int], fraction: float, seed: int) -> None:
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    if not 0 < round(fraction * len(targets)) < len(targets):
        with pytest.raises(BadInput, match="cannot hold out"):
            stratified_holdout(targets, fraction, seed)
        return
    kept, held = stratified_holdout(targets, fraction, seed)
    again = stratified_holdout(targets, fraction, seed)
    assert len(held) == round(fraction * len(targets))
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(targets)))
    assert kept.dtype == held.dtype == torch.int64
    assert kept.tolist() == sorted(kept.tolist())
    assert held.tolist() == sorted(held.tolist())
    assert torch.equal(kept, again[0])
    assert torch.equal(held, again[1])


def test_holdout_keeps_the_class_shares() -> None:
    targets = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[
        torch.randperm(100, generator=torch.Generator().manual_seed(3))
    ]
    kept, held = stratified_holdout(targets, 0.2, seed=1)
    assert torch.bincount(targets[held]).tolist() == [12, 6, 2]
    assert torch.bincount(targets[kept]).tolist() == [48, 24, 8]
    assert held.tolist() != stratified_holdout(targets, 0.2, seed=2)[1].tolist()


@pytest.mark.parametrize(
    "targets",
    [torch.tensor([0] * 19 + [1]), torch.arange(10).repeat(2), torch.zeros(20, 5).long(), torch.rand(20)],
    ids=["a class of one", "more classes than places", "sequences", "regression"],
)
def test_holdout_is_plainly_random_where_it_cannot_be_stratified(targets: Tensor) -> None:
    kept, held = stratified_holdout(targets, 0.2, seed=0)
    assert (len(kept), len(held)) == (16, 4)
    assert not set(kept.tolist()) & set(held.tolist())


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    seed=st.integers(0, 2**32 - 1),
    part=st.floats(0.05, 1.0),
)
def test_every_beginning_of_a_stratified_order_is_stratified(counts: list[int], seed: int, part: float) -> None:
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    order = stratified_order(targets, seed)
    assert sorted(order.tolist()) == list(range(len(targets)))
    size = max(1, round(part * len(targets)))
    taken = torch.bincount(targets[order[:size]], minlength=len(counts))
    exact = torch.tensor(counts) * size / len(targets)
    assert ((taken - exact).abs() <= 1 + len(counts) / 2).all()


def test_a_stratified_order_is_another_for_each_seed_and_plain_where_there_are_no_classes() -> None:
    labels = torch.arange(100) % 5
    assert not torch.equal(stratified_order(labels, 0), stratified_order(labels, 1))
    assert torch.equal(stratified_order(labels, 0), stratified_order(labels, 0))
    assert sorted(stratified_order(torch.rand(50), 3).tolist()) == list(range(50))


@given(
    labels=st.lists(st.integers(0, 6), min_size=4, max_size=120),
    fraction=st.floats(0.05, 0.6),
    seed=st.integers(0, 5),
)
@settings(max_examples=200, deadline=None)
def test_the_cut_is_the_one_that_scikit_learn_draws(labels: list[int], fraction: float, seed: int) -> None:
    from sklearn.model_selection import train_test_split

    targets, held = torch.tensor(labels), round(fraction * len(labels))
    if not 0 < held < len(labels):
        return
    counts = torch.unique(targets, return_counts=True)[1]
    fits = counts.min() >= 2 and len(counts) <= min(held, len(labels) - held)
    theirs = train_test_split(
        np.arange(len(labels)), test_size=held, random_state=seed, stratify=labels if fits else None
    )
    ours = stratified_holdout(targets, fraction, seed)
    assert [part.tolist() for part in ours] == [sorted(part.tolist()) for part in theirs]
