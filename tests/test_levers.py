"""The benchmarks of levers and layouts pull what they say, and train what the engine trains.

No test depends on how long anything takes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import torch

from kdbench.recipe import Speedup
from kdbench.training import compiled

Load = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def load() -> Iterator[Load]:
    """Imports a module of the benchmarks, which are no part of the installed package."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(Path(__file__).parent.parent))
        yield lambda name: import_module(f"benchmarks.{name}")


@pytest.fixture(autouse=True)
def _no_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is compiled is traced, but run as it is."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    monkeypatch.setattr(compiled, "_cpp_compiler", lambda: True)


@pytest.fixture(scope="module")
def small(load: Load) -> Any:
    """KD and three feature methods on a small pair of networks for images, the teacher fitted to its examples."""
    pace = load("pacing").Paced(batch_size=8, rounds=2, warmup=0)
    ready = pace.bench(load("workloads").Workload("resnet14", "resnet8"), load("levers").COMPANY["images"])
    load("levers").fit(ready, 4)
    return ready


def test_a_step_is_the_engines(load: Load, small: Any) -> None:
    """The same bits as the training loop itself, after the same batches."""
    levers, pacing = load("levers"), load("pacing")
    methods = levers.COMPANY["images"]
    step = levers.EngineStep(small, methods, {})
    seen: list[Any] = []
    pace = pacing.Paced(batch_size=8, rounds=2, warmup=0)
    ended = small.train(methods, pacing.PacedSplit(small.loaded.data.train, {"witness": seen.append}, 1, pace))
    for batch in seen[1:]:  # the first is the example to whose shapes the engine builds auxiliary modules
        step(batch)
    for trained, learner in zip(ended, step.learners, strict=True):
        expected = trained.student.state_dict()
        assert all(tensor.equal(expected[name]) for name, tensor in learner.networks[0].state_dict().items())


def test_every_speedup_of_a_recipe_is_a_lever(load: Load) -> None:
    levers = load("levers").LEVERS
    assert set(get_args(Speedup)) < set(levers)
    assert levers["all"] == {"speedups": get_args(Speedup), "precision": "bf16"}


def test_a_fitted_teacher_tells_its_examples_apart(load: Load, small: Any) -> None:
    levers = load("levers")
    answers = levers.EngineStep(small, ["kd"], {}).teacher_logits(levers.batches_of(small)).argmax(1)
    assert len(answers.unique()) > len(answers) / 2
    assert not small.teacher.training
    assert not any(parameter.requires_grad for parameter in small.teacher.parameters())


@pytest.mark.parametrize("lever", ["off again", *get_args(Speedup), "precision: bf16", "all"])
def test_a_pulled_lever_answers_nearly_the_same(load: Load, small: Any, lever: str) -> None:
    levers = load("levers")
    batches = levers.batches_of(small)
    off, on = (levers.EngineStep(small, ["kd", "rkd"], levers.LEVERS[name]) for name in (levers.OFF, lever))
    expected, found = (engine.teacher_logits(batches) for engine in (off, on))
    assert (found - expected).norm() < 0.1 * expected.norm()
    assert found.equal(expected) or lever != "off again"
    assert torch.allclose(on.losses(batches, 2), off.losses(batches, 2), rtol=0.1)


def test_stored_answers_are_asked_for_once(load: Load, small: Any) -> None:
    levers = load("levers")
    engine = levers.EngineStep(small, ["kd"], levers.LEVERS["stored_answers"])
    passes = engine.panel.passes
    engine.lap()
    engine.lap()
    assert engine.panel.passes == passes


def test_a_layout_is_as_fast_as_its_cohorts_are_done(load: Load) -> None:
    rounds = load("timing").Rounds({"1x1": [0.5, 0.5, 0.5], "2x1": [0.25, 0.3, 0.25]})
    row = load("layout")._row(rounds, "2x1", "1x1")
    assert row == ("2", "1", "4.00 (3.64 to 4.00)", "2.00 (1.67 to 2.00)")


MINIMAL: dict[str, dict[str, Any]] = {
    "levers": {"workloads": ("conv_gru",), "levers": ("off again", "all"), "evaluated": (4,), "fitting": 1},
    "layout": {"workloads": ("conv_gru",), "layouts": ("2x1",)},
}


@pytest.mark.parametrize("name", MINIMAL)
def test_both_report(
    load: Load,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Through their command line: tables of Markdown, and the same as JSON."""
    module, harness = load(name), load("harness")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    wanted = {**MINIMAL[name], "batch_size": 4, "rounds": 2, "warmup": 0}
    options = [
        f"--{option.replace('_', '-')}={';'.join(map(str, value)) if isinstance(value, tuple) else value}"
        for option, value in wanted.items()
    ]
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--out", str(tmp_path), *options])
    harness.main(module.measure, module.QUICK, type(module.QUICK)())
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert len(written["tables"]) == (4 if name == "levers" else 1)
    for table in written["tables"]:
        assert table["rows"]
        assert all(len(row) == len(table["headers"]) for row in table["rows"])
        assert all(f"| {row[0]}" in printed for row in table["rows"])
    assert written["samples"]
