"""Likeness of features: golden values, and what CKA and relation correlation must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdbench import Batch, Data, DataSpec, Tap, Task, TensorSplit
from kdbench.measuring.features import MOST_EXAMPLES, debiased_cka, features, likeness, relation_correlation
from kdbench.training.taps import TappedNetwork

CPU = torch.device("cpu")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(size: int, seed: int) -> Tensor:
    return torch.linalg.qr(normal(size, size, seed=seed)).Q


def hsic_by_definition(k: np.ndarray, m: np.ndarray) -> float:
    """Song et al. 2012, equation 5, written with matrices."""
    n, one = len(k), np.ones(len(k))
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    total = np.trace(k @ m) + one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * one @ k @ m @ one
    return total / (n * (n - 3))


def test_cka_matches_its_definition():
    first, second = normal(12, 5).numpy() + 3, normal(12, 7, seed=1).numpy() - 1
    second[:, 0] += first[:, 0]
    k, m = first @ first.T, second @ second.T  # not centred: the unbiased estimate needs none of it
    expected = hsic_by_definition(k, m) / np.sqrt(hsic_by_definition(k, k) * hsic_by_definition(m, m))
    assert debiased_cka(torch.from_numpy(first), torch.from_numpy(second)) == pytest.approx(expected, rel=1e-9)


def test_relation_correlation_by_hand():
    first = torch.tensor([[0.0], [1.0], [3.0]])  # distances 1, 3, 2
    second = torch.tensor([[0.0], [2.0], [3.0]])  # distances 2, 3, 1
    expected = np.corrcoef([1, 3, 2], [2, 3, 1])[0, 1]
    assert relation_correlation(first, second) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-3, 1e3), st.floats(-50, 50))
def test_rotation_scale_and_shift_change_nothing(seed: int, scale: float, shift: float):
    first, second = normal(30, 6, seed=seed), normal(30, 6, seed=seed + 1)
    second = second + 0.7 * first
    moved = scale * (second @ rotation(6, seed)) + shift
    for measure in (debiased_cka, relation_correlation):
        assert measure(first, moved) == pytest.approx(measure(first, second), abs=1e-8)
        assert measure(first, second) == pytest.approx(measure(second, first), abs=1e-12)
        assert measure(first, scale * (first @ rotation(6, seed)) + shift) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("numbers", [3, 40, 1000])
def test_independent_features_are_unlike_however_many_numbers_they_have(numbers: int):
    found = [debiased_cka(normal(100, numbers, seed=seed), normal(100, numbers, seed=seed + 99)) for seed in range(9)]
    assert abs(np.mean(found)) < 0.03
    assert min(found) < 0  # unbiased: it errs to both sides


def test_what_is_not_defined_is_absent():
    same, many = torch.full((30, 4), 0.1, dtype=torch.float64), normal(30, 4)
    assert debiased_cka(same, many) is None
    assert relation_correlation(many, same) is None
    assert debiased_cka(many[:3], many[:3]) is None
    assert relation_correlation(many[:2], many[:2]) is None
    assert relation_correlation(torch.eye(3), torch.eye(3)) is None  # all are equally far from all
    assert likeness({"stage1": same, "embedding": same}, {"stage1": many, "embedding": many}) == {}
    assert likeness({}, {"stage1": many}) == {}
    found = likeness({"stage1": many, "stage2": same}, {"stage1": many, "stage2": many})
    assert found == {"cka_stage1": pytest.approx(1)}  # and no mean over what is left


def test_the_last_stages_are_paired():
    names = [f"stage{i}" for i in range(1, 11)]
    student = {name: normal(20, 3, seed=i) for i, name in enumerate(names)}
    found = likeness(student, {"stage1": student["stage9"], "stage2": student["stage10"]})
    assert {name: round(value, 9) for name, value in found.items()} == {"cka_stage9": 1, "cka_stage10": 1, "cka": 1}


class _Net(nn.Module):
    """Two stages, the first with 9 x 9 positions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.head = nn.Conv2d(1, 3, 3, padding=1), nn.Dropout(0.5), nn.Linear(3, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.drop(self.first(inputs)).mean(dim=(2, 3)))


def data(examples: int) -> Data:
    split = TensorSplit(normal(examples, 1, 9, 9).float(), torch.zeros(examples, dtype=torch.long))
    return Data(DataSpec((1, 9, 9), 2), train=split, test=split)


def test_features_are_pooled_and_from_an_even_sample():
    network, loaded = _Net().eval(), data(1200)
    taps = {"stage1": Tap("first"), "embedding": Tap("head", at="input")}
    found = features(TappedNetwork(network, taps, taps, Task()), loaded, CPU)
    assert {name: tuple(each.shape) for name, each in found.items()} == {
        "stage1": (MOST_EXAMPLES, 3 * 16),
        "embedding": (MOST_EXAMPLES, 3),
    }
    assert found["stage1"].dtype == torch.float64
    whole = network.first(loaded.test.inputs[[0, -1]]).detach()
    expected = torch.nn.functional.adaptive_avg_pool2d(whole, 4).flatten(1)
    torch.testing.assert_close(found["stage1"][[0, -1]].float(), expected)


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 11), (5, 7, 2), (5, 2, 6, 9)])
def test_features_of_any_positions_are_pooled(shape: tuple[int, ...]):
    class Constant(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return self.tap(normal(len(inputs), *shape).float()).flatten(1)[:, :2]

    network = Constant()
    network.tap = nn.Identity()
    found = features(TappedNetwork(network, {"stage1": Tap("tap")}, ["stage1"], Task()), data(6), CPU)
    assert found["stage1"].shape == (6, 5 * int(np.prod([min(4, axis) for axis in shape[1:]])))


def test_a_batch_is_what_the_network_sees():
    """The taps come from prepared inputs, in the order of the sample."""
    seen = []

    class Watching(Task):
        def logits(self, output: Tensor, batch: Batch) -> Tensor:
            seen.append(batch.indices)
            return output

    features(TappedNetwork(_Net().eval(), {"stage1": Tap("first")}, ["stage1"], Watching()), data(1200), CPU)
    positions = torch.cat(seen)
    assert positions[0] == 0
    assert positions[-1] == 1199
    assert (positions.diff() > 0).all()
