"""PKT against Passalis & Tefas 2018, section 3, with the means of the authors' code, one pair at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from kdbench.testing import example_step
from kdbench_plugins.methods.pkt import PKT, neighbours


def probabilities(points):
    """How likely example i picks j, by (1 + cosine) / 2."""

    def similarity(a, b):
        product = sum(x * y for x, y in zip(a, b, strict=True))
        return (1 + product / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))) / 2

    rows = [[similarity(a, b) for b in points] for a in points]
    return [[value / sum(row) for value in row] for row in rows]


@pytest.mark.parametrize("batch", [2, 5])
def test_it_is_the_divergence_over_all_pairs(batch):
    step = example_step(PKT(), batch=batch, dtype=torch.float64)
    q, p = probabilities(step.student["embedding"].tolist()), probabilities(step.teacher["embedding"].tolist())
    total = sum(p[i][j] * math.log(p[i][j] / q[i][j]) for i in range(batch) for j in range(batch))
    losses = PKT(weight=7.0).losses(step)
    # The authors' 1e-7 beside each probability is not in the equation.
    assert losses["neighbours"].item() == pytest.approx(7 * total / batch**2, rel=1e-4)
    assert losses["task"].equal(step.task_loss(step.student["logits"]))


def test_a_value_worked_out_by_hand():
    # Teacher: at right angles, (1, 1/2) / 1.5. Student: the same direction, (1, 1) / 2.
    teacher = torch.tensor([[3.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    student = torch.tensor([[1.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
    step = example_step(PKT(), batch=2, dtype=torch.float64)
    step = replace(step, students=[{**step.student, "embedding": student}], teachers=[{"embedding": teacher}])
    expected = (2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)) / 2
    assert PKT(weight=1.0).losses(step)["neighbours"].item() == pytest.approx(expected, rel=1e-5)


def test_each_row_sums_to_one():
    embedding = example_step(PKT(), dtype=torch.float64).teacher["embedding"]
    torch.testing.assert_close(neighbours(embedding).sum(1), torch.ones(8, dtype=torch.float64))


def test_it_vanishes_with_its_gradient_where_the_student_is_the_teacher():
    step = example_step(PKT(), dtype=torch.float64)
    copy = step.teacher["embedding"].clone().requires_grad_()
    loss = PKT(weight=1.0).losses(replace(step, students=[{**step.student, "embedding": copy}]))["neighbours"]
    loss.backward()
    assert loss.item() == 0
    assert copy.grad.abs().max() < 1e-8


def test_it_is_never_negative_and_grows_away_from_the_teacher():
    step = example_step(PKT(), dtype=torch.float64)
    noise = torch.randn(8, 14, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = []
    for amount in (0.0, 0.1, 0.5):
        moved = {**step.student, "embedding": step.teacher["embedding"] + amount * noise}
        values.append(PKT().losses(replace(step, students=[moved]))["neighbours"].item())
    assert 0 == values[0] < values[1] < values[2]


def test_scaling_and_turning_embeddings_changes_nothing():
    embedding = example_step(PKT(), dtype=torch.float64).teacher["embedding"]
    square = torch.randn(14, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rotation, _ = torch.linalg.qr(square)
    torch.testing.assert_close(neighbours(5 * embedding @ rotation), neighbours(embedding))


def test_a_batch_of_one_is_its_own_neighbour():
    step = example_step(PKT(), batch=1, dtype=torch.float64)
    loss = PKT().losses(step)["neighbours"]
    loss.backward()
    assert loss.item() == 0
    assert step.student["embedding"].grad.abs().max() < 1e-10


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("student", [[[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [-1.0, 0.0]]])
def test_dead_and_opposite_embeddings_give_finite_values_and_gradients(dtype, student):
    step = example_step(PKT(), batch=2, dtype=dtype)
    embedding = torch.tensor(student, dtype=dtype, requires_grad=True)
    loss = PKT().losses(replace(step, students=[{**step.student, "embedding": embedding}]))["neighbours"]
    loss.backward()
    assert loss.isfinite()
    assert embedding.grad.isfinite().all()
