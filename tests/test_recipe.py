"""Schedules and parameter groups against hand-made values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from kdbench.recipe import Recipe
from kdbench.training.recipe import build_optimizer, learning_rate


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 0.1), (0.62, 0.1), (0.625, 0.01), (0.8, 0.001), (0.99, 0.0001)]
)
def test_multistep(progress: float, expected: float) -> None:
    assert learning_rate(Recipe(epochs=1, learning_rate=0.1), progress) == pytest.approx(expected)


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.5, 0.999])
def test_cosine(progress: float) -> None:
    expected = 0.2 * (1 + math.cos(math.pi * progress)) / 2
    assert learning_rate(Recipe(epochs=1, learning_rate=0.2, schedule="cosine"), progress) == pytest.approx(expected)


def test_warmup_rises_linearly_and_meets_the_schedule() -> None:
    recipe = Recipe(epochs=1, learning_rate=1.0, schedule="constant", warmup=0.2)
    assert learning_rate(recipe, 0.1) == pytest.approx(0.5)
    assert 0 < learning_rate(recipe, 0.0) < 0.01
    assert learning_rate(recipe, 0.2) == 1.0


@pytest.mark.parametrize("everything", [False, True])
def test_biases_norms_and_auxiliary_modules_do_not_decay(everything: bool) -> None:
    student = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    auxiliary = nn.Linear(2, 2)
    recipe = Recipe(epochs=1, weight_decay=0.1, decay_biases_and_norms=everything)
    optimizer = build_optimizer(recipe, [student], auxiliary)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == 8
    assert decay[id(student[0].weight)] == 0.1
    for exempt in (student[0].bias, student[1].weight, student[1].bias):
        assert decay[id(exempt)] == (0.1 if everything else 0.0)
    assert decay[id(auxiliary.weight)] == 0.0


def test_tied_weights_are_listed_once() -> None:
    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    b.weight = a.weight
    optimizer = build_optimizer(Recipe(epochs=1), [nn.Sequential(a, b)], None)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(parameters) == len({id(p) for p in parameters}) == 3


def test_a_teacher_may_be_taken_as_it_comes(kdbench: Callable[..., Any], tiny_suite: Callable[..., Path]) -> None:
    suite = tiny_suite(methods="kd, untrained_teacher", recipe="teacher_recipe: {epochs: 0}")
    status, said, _ = kdbench("plan", str(suite))
    assert status == 0
    assert "none of them is untrained" in " ".join(said.split())
    out = suite.parent / "out"
    status, _, message = kdbench("run", str(suite), "--out", str(out))
    assert status == 0, message
    (record,) = [json.loads(path.read_bytes()) for path in (out / "teachers").glob("*/record.json")]
    assert (record["status"], record["curves"]) == ("done", {})


def test_a_student_must_be_trained(kdbench: Callable[..., Any], tiny_suite: Callable[..., Path]) -> None:
    status, _, message = kdbench("plan", str(tiny_suite(epochs="0")))
    assert status == 2
    assert "recipe.epochs" in message
