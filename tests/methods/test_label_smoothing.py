"""Label smoothing against the smoothed cross-entropy written out, and against PyTorch's."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy

from kdbench import Step
from kdbench_plugins.methods.label_smoothing import LabelSmoothing

LOGITS = [[1.0, -2.0, 0.5], [0.0, 3.0, -1.0], [0.2, 0.1, 0.0], [5.0, 5.0, -5.0]]
TARGETS = [0, 2, 1, 1]


def step():
    targets = torch.tensor(TARGETS)
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    return Step([{"logits": logits}], [], partial(cross_entropy, target=targets), torch.arange(4))


def test_it_is_cross_entropy_with_smoothed_labels():
    smoothing, classes, total = 0.1, 3, 0.0
    for row, target in zip(LOGITS, TARGETS, strict=True):
        normaliser = math.log(sum(math.exp(logit) for logit in row))
        for index, logit in enumerate(row):
            label = (1 - smoothing) * (index == target) + smoothing / classes
            total -= label * (logit - normaliser)
    loss = sum(LabelSmoothing(smoothing).losses(step()).values())
    assert loss.item() == pytest.approx(total / len(LOGITS), rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 1.0])
def test_loss_and_gradient_are_those_of_pytorch(smoothing):
    ours, theirs = step(), step()
    loss = sum(LabelSmoothing(smoothing).losses(ours).values())
    expected = cross_entropy(theirs.student["logits"], torch.tensor(TARGETS), label_smoothing=smoothing)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours.student["logits"].grad, theirs.student["logits"].grad)


def test_no_smoothing_is_training_from_scratch():
    each = step()
    losses = LabelSmoothing(0.0).losses(each)
    assert losses["uniform"].item() == 0
    assert losses["task"].equal(each.task_loss(each.student["logits"]))
