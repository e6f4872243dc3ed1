"""The benchmarks measure what they say: the bare loops train what the engine trains, and statistics and reports hold.

No test depends on how long anything takes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Imports a module of the benchmarks, which are no part of the installed package."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))
    return lambda name: import_module(f"benchmarks.{name}")


def drifting(rounds: int, **speeds: float) -> dict[str, list[float]]:
    """Seconds of contenders on a machine that slows down threefold and is noisy."""
    random = np.random.default_rng(0)
    drift = np.linspace(1, 3, rounds) * random.lognormal(0, 0.3, rounds)
    return {name: list(speed * drift * random.lognormal(0, 0.01, rounds)) for name, speed in speeds.items()}


def test_ratios_are_paired_so_that_drift_cancels(load: Load) -> None:
    timing = load("timing")
    rounds = timing.Rounds(drifting(40, bare=0.1, engine=0.11))
    ratio = timing.median_interval(rounds.ratios(["engine"], "bare"))
    assert ratio.low <= 1.1 <= ratio.high
    assert ratio.high - ratio.low < 0.02
    spread = rounds.median("bare")
    assert spread.high / spread.low > 1.3  # which the single times could not have told


def test_several_contenders_are_added_round_by_round(load: Load) -> None:
    rounds = load("timing").Rounds({"a": [1.0, 2.0, 3.0], "b": [1.0, 1.0, 1.0]})
    assert rounds.together("a", "b", "b").tolist() == [3.0, 4.0, 5.0]
    assert rounds.ratios(["a", "b"], "b").tolist() == [2.0, 3.0, 4.0]
    assert rounds.median("a", "b").value == 3.0


def test_the_interval_of_a_median_holds_it(load: Load) -> None:
    median_interval = load("timing").median_interval
    assert median_interval([2.0]) == load("timing").Estimate(2.0, 2.0, 2.0)
    found = median_interval(list(np.random.default_rng(1).normal(5.0, 1.0, 200)))
    assert found.low < 5.0 < found.high
    assert found.low <= found.value <= found.high


def test_a_line_is_found_with_its_spread(load: Load) -> None:
    random = np.random.default_rng(0)
    samples = {n: list(0.8 + 1.1 * n + random.normal(0, 0.05, 15)) for n in (1, 2, 4, 8, 16)}
    found = load("timing").line(samples)
    assert found.slope.low <= 1.1 <= found.slope.high
    assert found.intercept.low <= 0.8 <= found.intercept.high
    assert found.slope.high - found.slope.low < 0.05


def test_contenders_take_turns_in_rotating_order(load: Load) -> None:
    calls: list[str] = []
    contenders = {name: lambda name=name: calls.append(name) for name in "abc"}
    rounds = load("timing").interleaved(contenders, rounds=2, warmup=1)
    assert "".join(calls) == "abcbcacab"
    assert {name: len(seconds) for name, seconds in rounds.seconds.items()} == {"a": 2, "b": 2, "c": 2}


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(None, None, "met"), (0.9, 1.01, "met"), (0.9, 1.1, "open"), (1.03, 1.1, "MISSED")],
)
def test_a_target_is_judged_by_its_interval(load: Load, low: float | None, high: float | None, verdict: str) -> None:
    target = load("harness").Target("ratio", 1.0, 1.02, "x", low, high)
    assert target.verdict == verdict
    assert str(target).startswith(f"{verdict}: ratio: 1 x")


def test_bare_loops_train_what_the_engine_trains(load: Load) -> None:
    """The same weights, from the same beginning and the same batches: the baseline leaves nothing out."""
    bare, pacing, workloads = load("bare"), load("pacing"), load("workloads")
    workload = workloads.Workload("resnet14", "resnet8")
    pace = pacing.Paced(batch_size=8, rounds=2, warmup=0)
    ready = pace.bench(workload, bare.METHODS)
    loops = {
        method: bare.BareLoop(method, ready.student("scratch"), ready.teacher, ready.example(8), "sgd")
        for method in bare.METHODS
    }
    regressors = {method: loop.regressor for method, loop in loops.items() if loop.regressor is not None}
    with workloads.seeded(0, ready.trials["scratch"].stream, "auxiliary"):
        for regressor in regressors.values():
            regressor.reset_parameters()
    batches: list[Any] = []
    split = pacing.PacedSplit(ready.loaded.data.train, {"witness": batches.append}, workload.steps, pace)
    ended = ready.train(bare.METHODS, split)
    for trained, loop in zip(ended, loops.values(), strict=True):
        for batch in batches[1:]:  # the first is the example to whose shapes the engine builds auxiliary modules
            loop.step(batch)
        torch.testing.assert_close(trained.student.state_dict(), loop.student.state_dict(), rtol=1e-3, atol=1e-5)


def test_a_paced_split_hands_out_every_batch_and_drops_the_warm_up(load: Load) -> None:
    pacing, workloads = load("pacing"), load("workloads")
    pace = pacing.Paced(batch_size=4, rounds=2, warmup=1)
    seen: list[Any] = []
    ready = pace.bench(workloads.Workload("resnet8", "resnet8", steps=2), ["scratch"])
    split = pacing.PacedSplit(ready.loaded.data.train, {"rival": seen.append}, 2, pace)
    assert len(split) == len(split.targets) == 4 * 2 * 3
    handed = list(split.batches(torch.arange(len(split)).split(4)))
    assert len(handed) == len(seen) == 6
    assert all(torch.equal(mine.inputs, rivals.inputs) for mine, rivals in zip(handed, seen, strict=True))
    assert {name: len(seconds) for name, seconds in split.rounds.seconds.items()} == {"rival": 2, "engine": 2}


def test_a_trial_that_fails_is_not_timed(load: Load) -> None:
    pacing, workloads = load("pacing"), load("workloads")
    pace = pacing.Paced(batch_size=4, rounds=1, warmup=0)
    ready = pace.bench(workloads.Workload("conv_gru[width=2]", "conv_gru", "sound"), ["kd[hard_weight=3e38]"])
    with pytest.raises(RuntimeError, match="kd diverged"):
        pacing.paced(ready, list(ready.trials), {}, pace)


@pytest.mark.parametrize("stage", ["plan", "more seeds", "more methods", "leaderboard"])
def test_every_stage_of_growth_does_its_work(load: Load, stage: str) -> None:
    cost = load("growth").cost_of(stage, 4, "wall")
    assert cost.trials == 4
    assert cost.seconds > 0
    assert cost.memory >= 0


def test_the_store_is_charged_for_what_it_writes(load: Load, tmp_path: Path) -> None:
    store = load("store")
    with store.charged(store.PLACES) as spent:
        load("made_up").MadeUpRun.of(27, examples=5).write(tmp_path)
    assert spent[store.FILES] > 0
    assert spent[store.END] == spent[store.CHECKPOINTS] == 0


def test_a_command_that_fails_is_not_timed(load: Load) -> None:
    with pytest.raises(RuntimeError, match="unknown suite 'nothing'"):
        load("store").taken_apart(["run", "nothing"])


def test_what_one_more_trial_costs(load: Load) -> None:
    growth = load("growth")
    costs = [growth.Cost(10, 1.0, 100), growth.Cost(100, 10.0, 1000), growth.Cost(1000, 190.0, 10000)]
    assert growth.marginal_costs(costs) == ([0.1, 0.2], [10.0, 10.0])


MINIMAL: dict[str, dict[str, Any]] = {
    "step_cost": {"workloads": ("resnet20",), "methods": ("scratch", "rkd"), "batch_size": 4, "rounds": 2, "warmup": 0},
    "lockstep": {
        "workloads": ("conv_gru",),
        "mixed": (),
        "methods": (1, 2),
        "batch_size": 4,
        "rounds": 2,
        "warmup": 0,
    },
    "data_path": {"workloads": ("resnet20",), "batch_size": 4, "rounds": 2, "warmup": 0},
    "startup": {"rounds": 1, "warmup": 0, "methods": 2, "seeds": 1},
    "store": {"arguments": "run --help", "records": 27, "examples": 20, "rounds": 1},
    "analysis": {"methods": 2, "seeds": 3, "examples": 50, "rounds": 1, "warmup": 0},
    "growth": {"stages": ("plan",), "listed": (5, 10)},
    "canonical": {"batch_size": 4, "rounds": 1, "warmup": 0, "matrix": 64, "megabytes": 1},
}


@pytest.mark.parametrize("name", MINIMAL)
def test_every_benchmark_reports(
    load: Load,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Through its command line: a table of Markdown, and the same as JSON with what it was measured with."""
    module, harness = load(name), load("harness")
    options = [
        f"--{option.replace('_', '-')}={';'.join(map(str, value)) if isinstance(value, tuple) else value}"
        for option, value in MINIMAL[name].items()
    ]
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--out", str(tmp_path), *options])
    harness.main(module.measure, module.QUICK, type(module.QUICK)())
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert f"## {name}" in printed
    assert written["tables"]
    for table in written["tables"]:
        assert table["rows"]
        assert all(len(row) == len(table["headers"]) for row in table["rows"])
        assert all(f"| {row[0]}" in printed for row in table["rows"])
    assert written["samples"]
    assert written["setting"]["clock"] == "wall"
    assert {"commit", "command", "threads", "torch", "processor", "seconds"} <= written["conditions"].keys()
