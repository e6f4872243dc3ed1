"""The example step: every tap that a method asks for, in the shapes that a network would give it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from kdbench import ALL, Method, Needs, stage_taps
from kdbench.testing import example_step


@dataclass(frozen=True)
class Asks(Method):
    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()

    @property
    def needs(self) -> Needs:
        return Needs(student=("logits", *self.student), teacher=self.teacher, students=2, teachers=ALL)


EVERYTHING = Asks(("embedding", "stages"), ("logits", "embedding", "stages"))


def test_an_example_has_every_tap_that_is_asked_for() -> None:
    step = example_step(EVERYTHING, batch=3, classes=4, positions=(5, 2), answers=2)
    assert (len(step.students), len(step.teachers)) == (2, 3)
    assert [tuple(stage.shape[2:]) for stage in stage_taps(step.student)] == [(5, 2), (4, 1), (3, 1)]
    assert step.student["logits"].shape == (6, 4)
    for tap in ("embedding", "stage1", "stage2", "stage3"):
        assert step.student[tap].shape[1] != step.teacher[tap].shape[1]
    assert all(tensor.is_leaf and tensor.requires_grad for taps in step.students for tensor in taps.values())
    assert not any(tensor.requires_grad for taps in step.teachers for tensor in taps.values())
    assert step.labels is not None
    assert step.labels.shape == (6,)
    assert example_step(EVERYTHING, labelled=False).labels is None


def test_an_example_is_set_by_its_seed_and_leaves_the_global_generator_alone(animal: Callable[[str], Method]) -> None:
    state = torch.get_rng_state()
    first, second, other = (example_step(animal("imitates"), seed=seed) for seed in (1, 1, 2))
    assert torch.get_rng_state().equal(state)
    assert first.student["stage1"].equal(second.student["stage1"])
    assert first.auxiliary.weight.equal(second.auxiliary.weight)
    assert not first.student["stage1"].equal(other.student["stage1"])
    assert not first.auxiliary.weight.equal(other.auxiliary.weight)


def test_channels_last_is_another_layout_of_the_same_numbers() -> None:
    usual, last = (example_step(EVERYTHING, channels_last=layout).student["stage1"] for layout in (False, True))
    assert last.equal(usual)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert not last.is_contiguous()


@pytest.mark.parametrize("positions", [(6,), (4, 4)])
def test_queries_keys_and_values_lie_at_the_same_positions_in_teacher_and_student(positions: tuple[int, ...]) -> None:
    step = example_step(Asks(("query2", "value1"), ("query4", "key12")), batch=3, positions=positions)
    assert step.student["query2"].shape == step.student["value1"].shape == (3, 16, *positions)
    assert step.teacher["query4"].shape == step.teacher["key12"].shape == (3, 24, *positions)


def test_a_gradient_has_the_shape_of_its_stage() -> None:
    step = example_step(Asks(("stage2", "gradient2"), ("stage3", "gradient3")))
    assert step.student["gradient2"].shape == step.student["stage2"].shape
    assert step.teacher["gradient3"].shape == step.teacher["stage3"].shape


@pytest.mark.parametrize("tap", ["attic", "query0", "stage"])
def test_a_tap_that_no_network_has_is_named(tap: str) -> None:
    with pytest.raises(AssertionError, match=rf"asks for '{tap}'.* query1"):
        example_step(Asks((tap,)))
