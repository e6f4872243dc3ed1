"""Training without a teacher."""

from __future__ import annotations

from kdbench import NO_TEACHER
from kdbench.testing import example_step
from kdbench_plugins.methods.scratch import Scratch


def test_it_is_the_task_loss_and_nothing_else():
    step = example_step(Scratch())
    losses = Scratch().losses(step)
    assert losses.keys() == {"task"}
    assert losses["task"].equal(step.task_loss(step.student["logits"]))


def test_it_asks_for_no_teacher():
    assert Scratch().needs == NO_TEACHER
    assert example_step(Scratch()).teachers == []
