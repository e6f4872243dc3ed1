"""DML against Zhang et al. 2018: each peer learns from the labels and from the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdbench import BadInput
from kdbench.hyperparameters import construct
from kdbench.testing import check_method, example_step
from kdbench_plugins.methods.dml import DML


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def by_hand(step, targets):
    """Both terms, one pair of peers and one example at a time."""
    answers = [softmax(student["logits"].detach().numpy()) for student in step.students]
    rows, classes = answers[0].shape
    task = mutual = 0.0
    for i, own in enumerate(answers):
        task += sum(-np.log(own[row, targets[row]]) for row in range(rows)) / rows
        for j, other in enumerate(answers):
            if i != j:
                terms = [other[r, c] * np.log(other[r, c] / own[r, c]) for r in range(rows) for c in range(classes)]
                mutual += sum(terms) / rows / (len(answers) - 1)
    return task, mutual


@pytest.mark.parametrize("peers", [2, 3, 4])
def test_both_terms_are_the_equations_summed_over_the_peers(peers):
    method = DML(peers=peers, mutual_weight=0.7)
    step = example_step(method, dtype=torch.float64)
    targets = torch.arange(8) % 5
    step = replace(step, task_loss=lambda logits: torch.nn.functional.cross_entropy(logits, targets))
    task, mutual = by_hand(step, targets.tolist())
    losses = method.losses(step)
    assert len(step.students) == peers
    assert losses.keys() == {"task", "mutual"}
    assert losses["task"].item() == pytest.approx(task, rel=1e-10)
    assert losses["mutual"].item() == pytest.approx(0.7 * mutual, rel=1e-9)


@pytest.mark.parametrize("peers", [2, 3])
def test_a_peer_is_pulled_towards_the_others_and_pulls_none_of_them(peers):
    # The gradient of KL(p || softmax(z)) is softmax(z) - p: that of its own logits only, if no target is pulled along.
    method = DML(peers=peers)
    step = example_step(method, dtype=torch.float64)
    method.losses(step)["mutual"].backward()
    answers = [softmax(student["logits"].detach().numpy()) for student in step.students]
    for i, student in enumerate(step.students):
        others = [answer for j, answer in enumerate(answers) if j != i]
        expected = (answers[i] - np.mean(others, axis=0)) / 8
        np.testing.assert_allclose(student["logits"].grad.numpy(), expected, rtol=1e-9, atol=1e-15)


def test_peers_that_agree_have_nothing_to_teach_each_other():
    step = example_step(DML(), dtype=torch.float64)
    first = step.students[0]["logits"]
    copy = first.detach().clone().requires_grad_()
    mutual = DML().losses(replace(step, students=[{"logits": first}, {"logits": copy}]))["mutual"]
    mutual.backward()
    assert mutual.item() == 0
    assert first.grad.abs().max() < 1e-15


def test_it_needs_peers_and_no_teacher():
    needs = DML(peers=5).needs
    assert (needs.students, needs.teachers, needs.teacher) == (5, 0, ())
    assert DML() == DML(peers=2, mutual_weight=1.0)
    with pytest.raises(BadInput, match="peers must be 2 or more, not 1"):
        construct(DML, {"peers": "1"}, where="dml")


def test_three_peers_keep_the_contract():
    check_method(DML(peers=3))
