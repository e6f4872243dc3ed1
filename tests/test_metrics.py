"""Metrics against values worked out by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from kdbench.metrics import accuracy, classification_metrics, macro_f1, top5_accuracy


def one_hot(predictions: list[int], classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predictions), classes).float()


def test_names_and_which_is_primary() -> None:
    assert [metric.name for metric in classification_metrics(10)] == ["accuracy", "top5_accuracy", "macro_f1"]
    assert [metric.name for metric in classification_metrics(5)] == ["accuracy", "macro_f1"]
    assert all(metric.higher_is_better for metric in classification_metrics(10))


def test_accuracy_by_hand() -> None:
    value = accuracy(one_hot([0, 1, 2, 2, 1], 3), torch.tensor([0, 1, 2, 0, 0]))
    assert type(value) is float
    assert value == 3 / 5


def test_macro_f1_by_hand() -> None:
    # class 0: precision 1, recall 1/3, F1 1/2; class 1: precision 1/2, recall 1, F1 2/3; class 2: the same.
    value = macro_f1(one_hot([0, 1, 2, 2, 1], 3), torch.tensor([0, 1, 2, 0, 0]))
    assert type(value) is float
    assert value == pytest.approx((1 / 2 + 2 / 3 + 2 / 3) / 3, abs=1e-15)


def test_macro_f1_counts_only_classes_that_occur() -> None:
    # Of ten classes, 0 and 1 are targets, 0 and 7 predictions: F1 of 0 is 2/3 (precision 1/2), of 1 and 7 zero.
    value = macro_f1(one_hot([0, 0, 7], 10), torch.tensor([0, 1, 1]))
    assert value == pytest.approx((2 / 3) / 3, abs=1e-15)


def test_top5_against_numpy() -> None:
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(500, 20)), rng.integers(0, 20, size=500)
    rank = (logits > logits[np.arange(500), targets][:, None]).sum(axis=1)
    value = top5_accuracy(torch.from_numpy(logits), torch.from_numpy(targets))
    assert type(value) is float
    assert value == (rank < 5).mean()


def test_a_collapsed_network_scores_chance() -> None:
    logits, targets = torch.zeros(20, 10), torch.arange(10).repeat(2)
    assert accuracy(logits, targets) == 0.1
    assert top5_accuracy(logits, targets) == 0.5


@pytest.mark.parametrize("metric", classification_metrics(6), ids=lambda metric: metric.name)
def test_perfect_and_low_precision_logits(metric) -> None:
    targets = torch.arange(6).repeat(3)
    logits = one_hot(targets.tolist(), 6)
    assert metric.compute(logits, targets) == 1.0
    assert metric.compute(logits.bfloat16(), targets) == 1.0


def test_importing_the_module_imports_no_torch() -> None:
    code = "import sys, kdbench.metrics; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
