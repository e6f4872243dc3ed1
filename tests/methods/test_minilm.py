"""MiniLM against Wang et al. 2021: relations among queries, keys and values, one number at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from kdbench import NotApplicable
from kdbench.testing import check_method, example_step
from kdbench_plugins.methods.minilm import MiniLM


def relations(vectors, heads):
    """Per example and head, the softmaxed rows [positions, positions] of vectors [channels, positions]."""
    width = vectors.shape[0] // heads
    for head in range(heads):
        part = vectors[head * width : (head + 1) * width]
        count = part.shape[1]
        products = np.empty((count, count))
        for i in range(count):
            for j in range(count):
                products[i, j] = sum(part[c, i] * part[c, j] for c in range(width)) / math.sqrt(width)
        powers = np.exp(products - products.max(1, keepdims=True))
        yield powers / powers.sum(1, keepdims=True)


def distance(student, teacher, heads):
    """The mean over examples, heads and positions of KL(teacher || student)."""
    divergences = []
    for own, other in zip(student, teacher, strict=True):
        flat = [vectors.reshape(vectors.shape[0], -1) for vectors in (own, other)]
        for p, q in zip(relations(flat[1], heads), relations(flat[0], heads), strict=True):
            divergences += [sum(p[i] * np.log(p[i] / q[i])) for i in range(len(p))]
    return sum(divergences) / len(divergences)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("positions", [(5,), (2, 3)])
def test_each_kind_is_the_mean_divergence_of_its_relations(heads, positions):
    method = MiniLM(student_layer=1, teacher_layer=3, relation_heads=heads, relation_weight=0.4)
    step = example_step(method, batch=3, positions=positions, dtype=torch.float64)
    losses = method.losses(step)
    assert losses.keys() == {"task", "query", "key", "value"}
    for kind in ("query", "key", "value"):
        student, teacher = step.student[f"{kind}1"].detach().numpy(), step.teacher[f"{kind}3"].numpy()
        assert losses[kind].item() == pytest.approx(0.4 * distance(student, teacher, heads), rel=1e-9)
    assert losses["task"].equal(step.task_loss(step.student["logits"]))


def test_relations_that_agree_leave_nothing_to_learn():
    method = MiniLM()
    step = example_step(method, dtype=torch.float64)
    copies = {f"{kind}4": step.student[f"{kind}2"].detach().clone() for kind in ("query", "key", "value")}
    losses = method.losses(replace(step, teachers=[copies]))
    sum(losses[kind] for kind in ("query", "key", "value")).backward()
    assert [losses[kind].item() for kind in ("query", "key", "value")] == [0, 0, 0]
    assert all(step.student[f"{kind}2"].grad.abs().max() < 1e-15 for kind in ("query", "key", "value"))


def test_heads_are_cut_from_all_channels_in_their_order():
    # one channel of each head differs: turned round within its head it leaves the relations, across heads it does not
    method = MiniLM(relation_heads=2)
    step = example_step(method, dtype=torch.float64)
    vectors = step.student["query2"].detach()
    within, across = vectors.clone(), vectors.clone()
    within[:, [0, 1]] = vectors[:, [1, 0]]
    across[:, [0, 15]] = vectors[:, [15, 0]]
    torch.testing.assert_close(method.relations(within), method.relations(vectors))
    assert not torch.allclose(method.relations(across), method.relations(vectors))


def test_the_layers_are_the_users_choice():
    assert MiniLM(student_layer=3, teacher_layer=12).needs.student == ("logits", "query3", "key3", "value3")
    assert MiniLM(student_layer=3, teacher_layer=12).needs.teacher == ("query12", "key12", "value12")
    assert MiniLM() == MiniLM(student_layer=2, teacher_layer=4, relation_heads=4, relation_weight=1.0)


def test_a_width_that_the_heads_do_not_divide_is_not_applicable():
    with pytest.raises(NotApplicable, match="16 channels cannot be cut into 5 relation heads"):
        example_step(MiniLM(relation_heads=5))


def test_other_positions_are_not_applicable():
    method = MiniLM()
    step = example_step(method)
    fewer = {name: tensor[..., :-1] for name, tensor in step.teacher.items()}
    with pytest.raises(NotApplicable, match="have other positions"):
        method.build_auxiliary(replace(step, teachers=[fewer]))


@pytest.mark.parametrize("heads", [1, 8])
def test_it_keeps_the_contract_with_other_heads_and_layers(heads):
    check_method(MiniLM(relation_heads=heads, student_layer=1, teacher_layer=1))
