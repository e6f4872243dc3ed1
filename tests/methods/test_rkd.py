"""RKD against Park et al. 2019, section 3.2, in plain loops, and the invariances it promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.testing import example_step
from kdbench_plugins.methods.rkd import RKD, relations


def smooth_l1(x):
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def distances(points):
    raw = [[float(np.sqrt(((a - b) ** 2).sum())) for b in points] for a in points]
    positive = [d for row in raw for d in row if d > 0]
    return np.array(raw) / (sum(positive) / len(positive))


def cosine(vertex, first, second):
    a, b = first - vertex, second - vertex
    lengths = np.sqrt((a**2).sum() * (b**2).sum())
    return float(a @ b / lengths) if lengths > 0 else 0.0


def test_both_terms_are_the_equations_over_all_pairs_and_triplets():
    step = example_step(RKD(), batch=5, dtype=torch.float64)
    student, teacher = step.student["embedding"].detach().numpy(), step.teacher["embedding"].numpy()
    distance = np.mean([smooth_l1(x) for x in (distances(student) - distances(teacher)).ravel()])
    angle = np.mean(
        [
            smooth_l1(cosine(student[i], student[j], student[k]) - cosine(teacher[i], teacher[j], teacher[k]))
            for i, j, k in np.ndindex(5, 5, 5)
        ]
    )
    losses = RKD().losses(step)
    assert losses["distance"].item() == pytest.approx(25 * distance, rel=1e-10)
    assert losses["angle"].item() == pytest.approx(50 * angle, rel=1e-10)
    assert losses["task"].equal(step.task_loss(step.student["logits"]))


def test_a_triangle_worked_out_by_hand():
    # Sides 3, 4, 5 with the right angle at the first example: mean 4, cosines 0, 3/5 and 4/5.
    lengths, cosines = relations(torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], dtype=torch.float64))
    np.testing.assert_allclose(lengths, [[0, 0.75, 1], [0.75, 0, 1.25], [1, 1.25, 0]], atol=1e-15)
    np.testing.assert_allclose([cosines[0, 1, 2], cosines[1, 0, 2], cosines[2, 0, 1]], [0, 0.6, 0.8], atol=1e-15)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    batch=st.integers(3, 8),
    scale=st.floats(0.01, 100),
    shift=st.floats(-10, 10),
    extra=st.integers(0, 3),
)
def test_turning_scaling_shifting_and_embedding_in_more_dimensions_change_no_relation(seed, batch, scale, shift, extra):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(batch, 4, generator=generator, dtype=torch.float64)
    square = torch.randn(4 + extra, 4 + extra, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(square)
    wider = torch.nn.functional.pad(points, (0, extra))
    step = replace(example_step(RKD(), batch=batch), teachers=[{"embedding": points}])
    moved = {**step.student, "embedding": scale * wider @ rotation + shift}
    losses = RKD().losses(replace(step, students=[moved]))
    assert losses["distance"].item() == pytest.approx(0, abs=1e-16)
    assert losses["angle"].item() == pytest.approx(0, abs=1e-16)


def test_a_reordered_batch_is_another_relation():
    step = example_step(RKD(), dtype=torch.float64)
    shuffled = {**step.student, "embedding": step.teacher["embedding"].flip(0)}
    losses = RKD().losses(replace(step, students=[shuffled]))
    assert min(losses["distance"], losses["angle"]) > 0.1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_coinciding_examples_give_finite_values_and_gradients(dtype):
    step = example_step(RKD(), batch=4, dtype=dtype)
    collapsed = torch.ones(4, 10, dtype=dtype)
    collapsed[3] = 2
    embedding = collapsed.requires_grad_()
    losses = RKD().losses(replace(step, students=[{**step.student, "embedding": embedding}]))
    (losses["distance"] + losses["angle"]).backward()
    assert losses["distance"].isfinite()
    assert losses["angle"].isfinite()
    assert embedding.grad.isfinite().all()
    assert embedding.grad.abs().max() < 1e3


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_wholly_collapsed_batch_has_no_distance_at_all(value):
    lengths, cosines = relations(torch.full((3, 4), value))
    assert not lengths.any()
    assert not cosines.any()


def test_a_batch_of_one_has_no_relation():
    losses = RKD().losses(example_step(RKD(), batch=1))
    assert losses["distance"].item() == losses["angle"].item() == 0


def test_a_batch_of_two_has_one_distance_which_normalising_makes_one():
    losses = RKD().losses(example_step(RKD(), batch=2, dtype=torch.float64))
    assert losses["distance"].item() == pytest.approx(0, abs=1e-28)
    assert losses["angle"].item() == pytest.approx(0, abs=1e-28)
