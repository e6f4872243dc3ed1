"""Distilling step by step against Hsieh et al. 2023, equation 3."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from kdbench import Batch, DataSpec, Loop, NotApplicable
from kdbench_plugins.methods.step_by_step import StepByStep


def reasons(batch):
    return replace(batch, inputs=batch.inputs + 1, targets=(batch.targets + 1) % 4)


def loop(rationales=reasons):
    drawn = torch.Generator().manual_seed(0)
    batch = Batch(torch.randn(5, 4, generator=drawn), torch.randint(4, (5,), generator=drawn), torch.arange(5))
    return Loop(
        students=[lambda batch: {"logits": batch.inputs.square()}],
        teachers=[],
        batch=batch,
        task_loss=lambda logits, batch: cross_entropy(logits, batch.targets),
        rationales=rationales,
        spec=DataSpec((4,), 4),
        size=5,
    )


def test_it_is_the_answers_loss_and_the_weighted_loss_of_the_reasons():
    step = loop()
    losses = StepByStep(weight=0.3).loop_losses(step)
    answers = cross_entropy(step.batch.inputs.square(), step.batch.targets)
    given = cross_entropy((step.batch.inputs + 1).square(), (step.batch.targets + 1) % 4)
    assert losses["task"].item() == pytest.approx(answers.item())
    assert losses["rationale"].item() == pytest.approx(0.3 * given.item())


def test_it_refuses_data_without_reasons_before_it_trains():
    def none(batch):
        raise NotApplicable("there are no rationales")

    with pytest.raises(NotApplicable, match="no rationales"):
        StepByStep().build(loop(none))
    assert StepByStep().build(loop()) is None
