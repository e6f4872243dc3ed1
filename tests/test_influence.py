"""Influences of test examples on scores: of means, of ratios, of anything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import matthews_corrcoef
from torch import Tensor

from kdbench.measuring import influence
from kdbench.measuring.influence import influences
from kdbench.metrics import classification_metrics, position_metrics, share
from kdbench.task import Metric

GENERATOR = torch.Generator().manual_seed(0)
ERRORS, WORDS = (torch.randint(low, high, (60,), generator=GENERATOR).double() for low, high in ((0, 4), (3, 12)))
LOGITS, TARGETS = torch.randn(300, 4, generator=GENERATOR), torch.randint(4, (300,), generator=GENERATOR)


def without(metric: Metric, answers: dict[str, Tensor], example: int) -> float:
    kept = torch.arange(len(next(iter(answers.values())))) != example
    return metric.score({name: tensor[kept] for name, tensor in answers.items()})


def test_of_accuracy_they_are_deviations_from_the_mean():
    accuracy = classification_metrics(4)[0]
    answers = {"logits": LOGITS, "targets": TARGETS}
    right = (LOGITS.argmax(1) == TARGETS).double()
    torch.testing.assert_close(influences(accuracy, answers), right - right.mean())
    jackknife = [(299) * (accuracy.score(answers) - without(accuracy, answers, i)) for i in range(5)]
    torch.testing.assert_close(influences(accuracy, answers)[:5], torch.tensor(jackknife, dtype=torch.float64))


@pytest.mark.parametrize("additive", [True, False])
def test_of_a_rate_they_are_those_of_the_ratio(additive: bool):
    metric = Metric("wer", share, reads=("errors", "words"), additive=additive)
    found = influences(metric, {"errors": ERRORS, "words": WORDS})
    # the derivative of a ratio of sums: (e_i - rate w_i) / mean w
    linear = (ERRORS - ERRORS.sum() / WORDS.sum() * WORDS) / WORDS.mean()
    torch.testing.assert_close(found, linear - linear.mean(), atol=0.01, rtol=0.05)
    assert abs(found.mean()) < 1e-12


def test_sums_give_what_leaving_out_gives():
    for metric in position_metrics():
        answers = {"nll": ERRORS + 1, "correct": ERRORS, "positions": WORDS}
        assert metric.additive
        expected = torch.tensor([without(metric, answers, i) for i in range(60)], dtype=torch.float64)
        expected = 59 * (metric.score(answers) - expected)
        torch.testing.assert_close(influences(metric, answers), expected - expected.mean())


def test_any_metric_will_do_and_its_variance_is_the_bootstraps():
    def matthews(logits: Tensor, targets: Tensor) -> float:
        return float(matthews_corrcoef(targets.numpy(), logits.argmax(1).numpy()))

    metric = Metric("matthews", matthews)
    targets = torch.where(torch.rand(300, generator=GENERATOR) < 0.5, LOGITS.argmax(1), TARGETS)
    found = influences(metric, {"logits": LOGITS, "targets": targets})
    variance = found.square().sum().item() / 300**2
    random = np.random.default_rng(0)
    resampled = [
        matthews(LOGITS[chosen], targets[chosen])
        for chosen in (torch.from_numpy(random.integers(0, 300, 300)) for _ in range(1500))
    ]
    assert variance == pytest.approx(np.var(resampled, ddof=1), rel=0.15)


def test_many_examples_are_left_out_in_groups(monkeypatch: pytest.MonkeyPatch):
    metric = Metric("mean", lambda values: values.mean(), reads=("values",))
    values = torch.randn(1000, generator=GENERATOR, dtype=torch.float64)
    alone = influences(Metric("mean", metric.compute, reads=("values",), additive=False), {"values": values})
    assert len(alone) == influence.MOST_GROUPS
    monkeypatch.setattr(influence, "MOST_GROUPS", 100)
    grouped = influences(metric, {"values": values})
    variances = [found.square().sum().item() / len(found) ** 2 for found in (alone, grouped)]
    expected = values.var().item() / 1000
    assert variances == pytest.approx([expected, expected], rel=0.25)
