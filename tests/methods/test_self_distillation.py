"""Self-distillation against Zhang et al. 2019, section 3."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from kdbench import NotApplicable, stage_taps
from kdbench.testing import example_step
from kdbench_plugins.methods.self_distillation import SelfDistillation

METHOD = SelfDistillation(temperature=3.0, soft_weight=0.2, hint_weight=0.5)


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def answers(step):
    return [exit_(stage) for exit_, stage in zip(step.auxiliary, stage_taps(step.student)[:-1], strict=True)]


def test_every_term_is_the_sum_over_the_exits_of_its_equation():
    targets = torch.arange(8) % 5
    step = example_step(METHOD, dtype=torch.float64)
    step = replace(step, task_loss=lambda logits: nn.functional.cross_entropy(logits, targets))
    deepest, embedding = (step.student[tap].detach().numpy() for tap in ("logits", "embedding"))
    hard = soft = hint = 0.0
    for logits, exit_embedding in answers(step):
        logits, exit_embedding = logits.detach().numpy(), exit_embedding.detach().numpy()
        hard += -np.log(softmax(logits)[np.arange(8), targets.numpy()]).mean()
        p, q = softmax(deepest / 3), softmax(logits / 3)
        soft += 9 * (p * np.log(p / q)).sum() / 8
        hint += ((exit_embedding - embedding) ** 2).sum() / embedding.size

    losses = METHOD.losses(step)
    task = -np.log(softmax(deepest)[np.arange(8), targets.numpy()]).mean()
    assert losses.keys() == {"task", "exits", "soft", "hint"}
    assert losses["task"].item() == pytest.approx(task, rel=1e-10)
    assert losses["exits"].item() == pytest.approx(0.8 * hard, rel=1e-10)
    assert losses["soft"].item() == pytest.approx(0.2 * soft, rel=1e-9)
    assert losses["hint"].item() == pytest.approx(0.5 * hint, rel=1e-10)


def test_a_batch_repeated_has_the_same_loss():
    # The authors' sum over the hint would double it.
    step = example_step(METHOD, dtype=torch.float64)
    twice = {tap: torch.cat([tensor, tensor]) for tap, tensor in step.student.items()}
    targets = torch.arange(8) % 5

    def loss(taps, labels):
        at = replace(step, students=[taps], task_loss=lambda logits: nn.functional.cross_entropy(logits, labels))
        return METHOD.losses(at)

    torch.testing.assert_close(loss(twice, targets.repeat(2)), loss(step.student, targets))


def test_there_is_an_exit_on_every_stage_but_the_last_and_all_are_registered():
    step = example_step(METHOD)
    assert len(step.auxiliary) == 2
    sum(METHOD.losses(step).values()).backward()
    registered = dict(step.auxiliary.named_parameters())
    assert {name.split(".")[0] for name in registered} == {"0", "1"}
    assert all(parameter.grad.abs().sum() > 0 for parameter in registered.values())


def test_the_deepest_answer_teaches_and_is_not_taught():
    step = example_step(METHOD)
    losses = METHOD.losses(step)
    (losses["exits"] + losses["soft"] + losses["hint"]).backward()
    assert step.student["logits"].grad is None
    assert step.student["embedding"].grad is None
    assert step.student["stage3"].grad is None
    assert step.student["stage1"].grad.abs().sum() > 0
    assert step.student["stage2"].grad.abs().sum() > 0


def test_an_exit_that_agrees_with_the_deepest_classifier_is_not_pulled():
    step = example_step(METHOD, dtype=torch.float64)
    step = replace(step, auxiliary=nn.ModuleList([step.auxiliary[1]]))
    taps = {"stage1": step.student["stage2"], "stage2": step.student["stage3"]}
    with torch.no_grad():
        logits, embedding = step.auxiliary[0](taps["stage1"])
    losses = METHOD.losses(replace(step, students=[{**taps, "logits": logits, "embedding": embedding}]))
    assert losses["soft"].item() == 0
    assert losses["hint"].item() == 0


@pytest.mark.parametrize("positions", [(9,), (5, 4), (3, 3, 2)])
def test_exits_answer_whatever_the_positions_and_each_example_by_itself(positions):
    step = example_step(METHOD, positions=positions, dtype=torch.float64)
    for exit_, stage in zip(step.auxiliary, stage_taps(step.student)[:-1], strict=True):
        together, embedding = exit_(stage)
        assert together.shape == step.student["logits"].shape
        assert embedding.shape == step.student["embedding"].shape
        torch.testing.assert_close(exit_(stage[:1])[0], together[:1])


def test_it_looks_at_no_teacher():
    assert METHOD.needs.teachers == 0
    assert example_step(METHOD).teachers == []


def test_tasks_with_several_answers_per_example_are_refused():
    with pytest.raises(NotApplicable, match="one answer per example"):
        example_step(METHOD, answers=3)


def test_a_student_of_one_stage_is_refused():
    step = example_step(METHOD)
    one = {tap: step.student[tap] for tap in ("logits", "embedding", "stage1")}
    with pytest.raises(NotApplicable, match="at least two stages"):
        METHOD.build_auxiliary(replace(step, students=[one]))
