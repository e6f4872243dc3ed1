"""Sequence-level distillation against Kim and Rush 2016, sections 3.1 and 3.2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kdbench.data import DataFolders
from kdbench.plan import Cohort
from kdbench.planner import make_plan
from kdbench.plugins import discover
from kdbench.suite_file import load_suite
from kdbench.testing import example_step
from kdbench.training.cohort import train
from kdbench.training.observer import Observer
from kdbench_plugins.methods.sequence_kd import SequenceKD


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_alone_it_is_cross_entropy_on_the_teachers_answers_and_looks_at_no_logits():
    method = SequenceKD()
    assert (method.needs.teacher, method.needs.teachers, method.needs.targets) == ((), 1, "teacher")
    step = example_step(method, answers=3, dtype=torch.float64)
    losses = method.losses(step)
    assert losses.keys() == {"task"}
    assert losses["task"].item() == step.task_loss(step.student["logits"]).item()


@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_the_word_level_term_is_interpolated_with_it(weight):
    method = SequenceKD(word_weight=weight)
    step = example_step(method, batch=2, answers=7, dtype=torch.float64)
    targets = torch.arange(14) % 5
    step = replace(step, task_loss=lambda logits: torch.nn.functional.cross_entropy(logits, targets))
    losses = method.losses(step)

    p, q = softmax(step.teacher["logits"].numpy()), softmax(step.student["logits"].detach().numpy())
    hard = -np.log(q[np.arange(14), targets.numpy()]).mean()
    word = (p * np.log(p / q)).sum(1).mean()
    assert losses["task"].item() == pytest.approx((1 - weight) * hard, rel=1e-10, abs=1e-15)
    assert losses["word"].item() == pytest.approx(weight * word, rel=1e-10)


def test_where_answers_are_not_decoded_it_is_skipped_with_the_reason(
    tiny_suite: Callable[..., Path], tmp_path: Path
) -> None:
    plan = make_plan(load_suite(str(tiny_suite(methods="sequence_kd"))), discover(), DataFolders((tmp_path,), tmp_path))
    (trial,) = (trial for trial in plan.trials if trial.method_name == "sequence_kd")
    loaded, (teacher,) = plan.tasks[trial.task], trial.teachers
    networks = {teacher.fingerprint: plan.architectures[teacher.student].build(loaded.data.spec)}
    (ended,) = train(
        Cohort((trial,)), loaded, plan.architectures, networks, lambda _: tmp_path, torch.device("cpu"), Observer()
    )
    assert (ended.status, ended.reason) == ("skipped", "Digits has no decoded answers to learn from")
