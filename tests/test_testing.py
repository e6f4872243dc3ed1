"""The conformance kit finds what it is there to find: each broken method is named with its reason."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from kdbench import ALL, Method, Needs, stage_taps
from kdbench.testing import check_method, example_step


@dataclass(frozen=True)
class Sound(Method):
    """Matches the mean of stage 1 through a regressor; keeps every rule."""

    family: ClassVar = "feature"
    paper: ClassVar[str] = "none"

    @property
    def needs(self):
        return Needs(student=("logits", "stage1"), teacher=("logits", "stage1"))

    def build_auxiliary(self, example):
        return nn.Linear(example.student["stage1"].shape[1], example.teacher["stage1"].shape[1])

    def losses(self, step):
        student, teacher = (taps["stage1"].flatten(2).mean(2) for taps in (step.student, step.teacher))
        return {
            "task": step.task_loss(step.student["logits"]),
            "match": (step.auxiliary(student) - teacher).square().mean(),
        }


def with_match(wrong):
    """Sound, but for the term "match", which `wrong(step, right)` replaces."""

    @dataclass(frozen=True)
    class Broken(Sound):
        def losses(self, step):
            losses = super().losses(step)
            return {**losses, "match": wrong(step, losses["match"])}

    return Broken()


def effect(change):
    """Sound, but for a side effect of its losses."""
    return with_match(lambda step, right: (change(step), right)[1])


def steep(step, right):
    """Right in value, with an infinite slope."""
    return right + (step.student["stage1"] * 0).sqrt().sum()


def unregressed(step, right):
    return step.student["stage1"].mean()


def flattened(step):
    return step.student["stage1"].view(len(step.indices), -1)


def test_a_sound_method_passes():
    check_method(Sound())


@pytest.mark.parametrize(
    ("reason", "method"),
    [
        ("'match' must be a scalar", with_match(lambda step, right: right.reshape(1))),
        ("'match' must be a tensor", with_match(lambda step, right: 0.0)),
        ("'match' must be finite, and is nan", with_match(lambda step, right: right * float("nan"))),
        ("batch of one: .*'match' must be finite", with_match(lambda step, right: right / (len(step.indices) - 1))),
        ("gradient of student 0 stage1 must be finite", with_match(steep)),
        ("no gradient ever reaches .*student 0 stage1", with_match(lambda step, right: right.detach())),
        ("no gradient ever reaches auxiliary bias, auxiliary weight$", with_match(unregressed)),
        ("teacher's stage1 must not be modified", effect(lambda step: step.teacher["stage1"].mul_(1))),
        ("teacher's stage1 must not be modified", effect(lambda step: step.teacher["stage1"].data.mul_(2))),
        ("teacher's logits must not be given a gradient", effect(lambda step: step.teacher["logits"].requires_grad_())),
        ("losses must not seed torch's generator", effect(lambda step: torch.manual_seed(0))),
        ("NumPy's random state must not be changed", effect(lambda step: np.random.rand())),
        ("Python's random state must not be changed", effect(lambda step: random.random())),
        ("not registered", with_match(lambda step, right: right * torch.ones((), requires_grad=True))),
        ("channels_last: progress 0: raised RuntimeError", effect(flattened)),
    ],
)
def test_a_broken_loss_is_named_with_its_reason(reason, method):
    with pytest.raises(AssertionError, match=reason):
        check_method(method)


def test_a_loss_that_remembers_is_found():
    calls = []
    with pytest.raises(AssertionError, match="same under the same seed"):
        check_method(with_match(lambda step, right: right + len(calls.append(1) or calls)))


def test_changing_the_grad_mode_is_found():
    try:
        with pytest.raises(AssertionError, match="grad mode must not be changed"):
            check_method(effect(lambda step: torch.set_grad_enabled(False)))
    finally:
        torch.set_grad_enabled(True)


def test_drawing_from_torchs_generator_is_allowed():
    check_method(with_match(lambda step, right: right * (1 + torch.rand(()))))


def test_dataclasses_must_be_frozen_and_decorated():
    class Undecorated(Sound):
        pass

    with pytest.raises(AssertionError, match="Undecorated: it must be decorated"):
        check_method(Undecorated())


def test_all_but_controls_name_their_paper():
    @dataclass(frozen=True)
    class Nameless(Sound):
        paper: ClassVar[str] = ""

    with pytest.raises(AssertionError, match="Nameless: it must name its paper"):
        check_method(Nameless())


def test_a_tap_that_no_network_has_is_named():
    @dataclass(frozen=True)
    class Curious(Sound):
        @property
        def needs(self):
            return Needs(student=("logits", "stage1", "attic"))

    with pytest.raises(AssertionError, match="asks for 'attic'"):
        check_method(Curious())


@dataclass(frozen=True)
class Everything(Method):
    """Asks for all there is."""

    @property
    def needs(self):
        taps = ("logits", "embedding", "stages")
        return Needs(student=taps, teacher=taps, students=2, teachers=ALL)


def test_an_example_has_every_tap_that_is_asked_for():
    step = example_step(Everything(), batch=3, classes=4, positions=(5, 2), answers=2)
    assert (len(step.students), len(step.teachers)) == (2, 3)
    assert [tuple(stage.shape[2:]) for stage in stage_taps(step.student)] == [(5, 2), (4, 1), (3, 1)]
    assert step.student["logits"].shape == (6, 4)
    for tap in ("embedding", "stage1", "stage2", "stage3"):
        assert step.student[tap].shape[1] != step.teacher[tap].shape[1]
    assert all(tensor.is_leaf and tensor.requires_grad for taps in step.students for tensor in taps.values())
    assert not any(tensor.requires_grad for taps in step.teachers for tensor in taps.values())


def test_an_example_is_set_by_its_seed_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, second, other = (example_step(Sound(), seed=seed) for seed in (1, 1, 2))
    assert torch.get_rng_state().equal(state)
    assert first.student["stage1"].equal(second.student["stage1"])
    assert first.auxiliary.weight.equal(second.auxiliary.weight)
    assert not first.student["stage1"].equal(other.student["stage1"])
    assert not first.auxiliary.weight.equal(other.auxiliary.weight)


def test_channels_last_is_another_layout_of_the_same_numbers():
    usual, last = (example_step(Sound(), channels_last=layout).student["stage1"] for layout in (False, True))
    assert last.equal(usual)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert not last.is_contiguous()


@dataclass(frozen=True)
class Attentive(Method):
    """Asks for the attention of one layer of each."""

    @property
    def needs(self):
        return Needs(student=("logits", "query2", "value1"), teacher=("query4", "key12"))


@pytest.mark.parametrize("positions", [(6,), (4, 4)])
def test_queries_keys_and_values_lie_at_the_same_positions_in_teacher_and_student(positions):
    step = example_step(Attentive(), batch=3, positions=positions)
    assert step.student["query2"].shape == step.student["value1"].shape == (3, 16, *positions)
    assert step.teacher["query4"].shape == step.teacher["key12"].shape == (3, 24, *positions)


def test_layers_count_from_one():
    @dataclass(frozen=True)
    class Zeroth(Sound):
        @property
        def needs(self):
            return Needs(student=("logits", "stage1", "query0"))

    with pytest.raises(AssertionError, match=r"asks for 'query0'.* query1"):
        check_method(Zeroth())
