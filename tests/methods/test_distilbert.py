"""DistilBERT against Sanh et al. 2019: its three terms by hand, and where its weights come from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdbench import DataSpec, NotApplicable
from kdbench.plugins import discover
from kdbench.spec import Spec
from kdbench.testing import check_method, example_step
from kdbench_plugins.methods._layers import counterparts
from kdbench_plugins.methods.distilbert import DistilBERT

TEXTS = DataSpec((9,), 3, modality="nlp", vocabulary=40)
CHARACTERS = DataSpec((9,), 40, modality="nlp", vocabulary=40, positions=(9,))


def softmax(rows):
    powers = np.exp(rows - rows.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def same_width(step):
    """The step with a teacher whose last stage has the student's shape, and so needs no map."""
    generator = torch.Generator().manual_seed(5)
    last = torch.randn(step.student["stage3"].shape, generator=generator, dtype=torch.float64)
    taught = replace(step, teachers=[{**step.teacher, "stage3": last}])
    return replace(taught, auxiliary=DistilBERT().build_auxiliary(taught))


@pytest.mark.parametrize("positions", [(6,), (4, 5)])
def test_each_term_by_hand(positions):
    method = DistilBERT(temperature=3.0, hard_weight=0.4, soft_weight=0.7, cosine_weight=1.3)
    step = same_width(example_step(method, batch=3, positions=positions, dtype=torch.float64))
    losses = method.losses(step)
    assert losses.keys() == {"task", "soft", "cosine"}

    own, goal = step.student["logits"].detach().numpy(), step.teacher["logits"].numpy()
    p, q = softmax(goal / 3), softmax(own / 3)
    assert losses["soft"].item() == pytest.approx(0.7 * 9 * (p * np.log(p / q)).sum() / len(p), rel=1e-12)
    assert losses["task"].item() == pytest.approx(0.4 * step.task_loss(step.student["logits"]).item(), rel=1e-12)

    distances = []
    for s, t in zip(step.student["stage3"].detach().numpy(), step.teacher["stage3"].numpy(), strict=True):
        for a, b in zip(s.reshape(len(s), -1).T, t.reshape(len(t), -1).T, strict=True):
            distances.append(1 - a @ b / np.sqrt((a @ a) * (b @ b)))
    assert losses["cosine"].item() == pytest.approx(1.3 * sum(distances) / len(distances), rel=1e-12)


def test_golden_values():
    # one example, two classes, one position of two channels: each term fits a line of arithmetic
    step = example_step(DistilBERT(), batch=1, classes=2, dtype=torch.float64)
    leaf = {"logits": torch.tensor([[2.0, 0.0]]).double(), "stage3": torch.tensor([[[3.0], [4.0]]]).double()}
    goal = {"logits": torch.tensor([[0.0, 2.0]]).double(), "stage3": torch.tensor([[[1.0], [0.0]]]).double()}
    step = replace(step, students=[leaf], teachers=[goal], task_loss=lambda logits: logits.sum())
    step = replace(step, auxiliary=DistilBERT().build_auxiliary(step))
    losses = {term: loss.item() for term, loss in DistilBERT().losses(step).items()}
    # halved logits (1, 0) and (0, 1) differ by KL = (e - 1) / (e + 1) = tanh(1/2); 5 * T^2 = 20. cos = 3/5.
    assert losses == pytest.approx({"task": 4.0, "soft": 20 * np.tanh(0.5), "cosine": 0.4}, rel=1e-12)


def test_the_defaults_are_those_of_the_paper():
    assert DistilBERT() == DistilBERT(temperature=2.0, hard_weight=2.0, soft_weight=5.0, cosine_weight=1.0)
    assert DistilBERT().start == "teacher"


@pytest.mark.parametrize(
    ("students", "teachers", "taken"),
    [
        (6, 12, [0, 2, 4, 7, 9, 11]),  # as the authors' code lists them
        (2, 4, [0, 3]),
        (3, 6, [0, 2, 5]),
        (4, 4, [0, 1, 2, 3]),
        (1, 3, [0]),
    ],
)
def test_layers_at_even_steps_are_taken(students, teachers, taken):
    own, other = ([f"model.layer.{i}.block.0.weight" for i in range(count)] for count in (students, teachers))
    assert counterparts(own, other) == {
        f"model.layer.{i}.block.0.weight": f"model.layer.{layer}.block.0.weight" for i, layer in enumerate(taken)
    }


def built(written, spec, seed):
    torch.manual_seed(seed)
    return discover().create("architecture", Spec.parse(written)).build(spec)


@pytest.mark.parametrize(
    ("family", "spec", "prefix"),
    [("bert", TEXTS, "model.bert.encoder.layer"), ("gpt2", CHARACTERS, "transformer.h")],
)
def test_the_student_starts_from_the_teachers_layers(family, spec, prefix):
    student, teacher = (built(f"{family}[layers={n},width=16]", spec, seed=n) for n in (3, 6))
    fresh, theirs = student.state_dict(), teacher.state_dict()
    given = DistilBERT().initial_weights(fresh, [theirs])
    assert given.keys() == fresh.keys()
    student.load_state_dict(given)
    layers, stack = student.get_submodule(prefix), teacher.get_submodule(prefix)
    for own, other in ((0, 0), (1, 2), (2, 5)):
        expected = stack[other].state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in layers[own].state_dict().items())
        assert not all(torch.equal(value, stack[1].state_dict()[name]) for name, value in expected.items())
    elsewhere = [name for name in fresh if not name.startswith(prefix)]
    assert len(elsewhere) >= 4
    assert all(torch.equal(given[name], theirs[name]) for name in elsewhere)


def test_a_student_as_deep_as_its_teacher_starts_as_its_copy():
    student, teacher = (built("bert[layers=2,width=16]", TEXTS, seed).eval() for seed in (0, 1))
    student.load_state_dict(DistilBERT().initial_weights(student.state_dict(), [teacher.state_dict()]))
    tokens = torch.tensor([[2, 7, 31, 12, 3, 0, 0, 0, 0]])
    assert torch.equal(student(tokens), teacher(tokens))


@pytest.mark.parametrize(
    ("student", "teacher", "reason"),
    [
        (
            "bert[layers=2,width=16]",
            "bert[layers=4,width=32]",
            r"word_embeddings.weight' is \[40, 16\], the teacher's \[40, 32\]",
        ),
        ("bert[layers=3,width=16]", "bert[layers=2,width=16]", "has 3 layers, more than the teacher's 2"),
        ("bert[layers=2,width=16]", "text_cnn", "would start from '.*', which the teacher does not have"),
    ],
)
def test_networks_that_do_not_fit_are_not_applicable(student, teacher, reason):
    states = [built(written, TEXTS, seed=0).state_dict() for written in (student, teacher)]
    with pytest.raises(NotApplicable, match=reason):
        DistilBERT().initial_weights(states[0], [states[1]])
    assert DistilBERT(start="fresh").initial_weights(states[0], [states[1]]) == {}


def test_widths_that_differ_are_joined_by_a_map():
    method = DistilBERT(start="fresh")
    step = example_step(method, positions=(6,), dtype=torch.float64)
    assert (step.auxiliary.in_features, step.auxiliary.out_features) == (12, 18)
    check_method(method)


def test_states_that_point_the_same_way_leave_nothing_to_learn():
    step = example_step(DistilBERT(), dtype=torch.float64)
    step = replace(step, teachers=[{**step.teacher, "stage3": 7 * step.student["stage3"].detach()}])
    step = replace(step, auxiliary=DistilBERT().build_auxiliary(step))
    assert DistilBERT().losses(step)["cosine"].item() == pytest.approx(0, abs=1e-15)
