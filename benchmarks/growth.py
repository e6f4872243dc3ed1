"""How time and memory grow as trials grow tenfold and a hundredfold: in planning, in training, in ranking.

Every figure comes from a process of its own, so that no memory is left over from the one before.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from kdbench import DataFolders
from kdbench.cli.results import board_of
from kdbench.execution.local import execute
from kdbench.plan import Plan
from kdbench.planner import make_plan
from kdbench.plugins import discover
from kdbench.store.run_folder import RunFolder
from kdbench.suite import Suite
from kdbench.training.observer import Observer

from .harness import ROOT, Report, Setting, Table, Target, main
from .made_up import MadeUpRun
from .timing import seconds_of

LIMIT = 1.25  # the last tenfold's cost of one more trial, to that of the tenfold before

TRAINING = ("more seeds", "more methods")
_PLANNED, _PAIR = 5, 2  # methods to a seed, where more seeds are planned or trained


@dataclass(frozen=True)
class Growth(Setting):
    """Every stage at every count of trials, which grow by equal factors; `trained` for those that train, multiples of
    two; `listed` for planning and ranking, multiples of 135, which a made-up board has."""

    stages: tuple[str, ...] = ("plan", *TRAINING, "leaderboard")
    trained: tuple[int, ...] = (10, 100, 1000)
    listed: tuple[int, ...] = (135, 1350, 13500)
    clock: str = "wall"


QUICK = Growth(trained=(4, 12, 36))


@dataclass(frozen=True)
class Cost:
    """What a stage took: seconds, and by how many bytes it raised the process's peak memory."""

    trials: int
    seconds: float
    memory: int


def measure(setting: Growth) -> Report:
    """Runs every stage at every count in a fresh process."""
    costs = {
        stage: [
            _in_process(stage, count, setting.clock)
            for count in (setting.trained if stage in TRAINING else setting.listed)
        ]
        for stage in setting.stages
    }
    rows = [
        (stage, str(cost.trials), f"{cost.seconds:.2f}", f"{1000 * cost.seconds / cost.trials:.2f}", _mib(cost.memory))
        for stage, found in costs.items()
        for cost in found
    ]
    marginal, targets = [], []
    for stage, found in costs.items():
        seconds, memory = marginal_costs(found)
        marginal.append((stage, _milliseconds(seconds), ", ".join(f"{each / 1024:.0f}" for each in memory)))
        if len(seconds) > 1 and seconds[-2] > 0:
            targets.append(Target(f"{stage}: one more trial, late to early", seconds[-1] / seconds[-2], LIMIT, "x"))
    tables = (
        Table(
            f"Fresh processes; times: {setting.clock}.",
            ("stage", "trials", "s", "ms a trial", "peak memory added, MiB"),
            rows,
        ),
        Table(
            "One more trial, between one count and the next.",
            ("stage", "ms", "KiB of peak memory"),
            marginal,
        ),
    )
    question = (
        "Growth: planning, training tiny trials (more seeds: cohorts of two; more methods: one cohort of all) with all "
        "measurements, and a leaderboard of records on disk."
    )
    samples = {stage: [vars(cost) for cost in found] for stage, found in costs.items()}
    return Report("growth", question, tables, tuple(targets), samples)


def marginal_costs(costs: list[Cost]) -> tuple[list[float], list[float]]:
    """Seconds and bytes of one more trial, between each count and the next."""
    steps = [(later.trials - sooner.trials, sooner, later) for sooner, later in pairwise(costs)]
    return (
        [(later.seconds - sooner.seconds) / trials for trials, sooner, later in steps],
        [(later.memory - sooner.memory) / trials for trials, sooner, later in steps],
    )


def cost_of(stage: str, trials: int, clock: str) -> Cost:
    """Does the work of a stage in this process, after a little of the same, which loads what it needs."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        STAGES[stage](2, folder / "warm-up")()
        work = STAGES[stage](trials, folder / "measured")
        before = _peak_memory()
        seconds = seconds_of(work, clock)
        return Cost(trials, seconds, _peak_memory() - before)


def _plan(trials: int, folder: Path) -> Callable[[], object]:
    return lambda: _planned(_PLANNED, max(1, trials // _PLANNED), folder)


def _more_seeds(trials: int, folder: Path) -> Callable[[], object]:
    return _training(_planned(_PAIR, trials // _PAIR, folder), folder)


def _more_methods(trials: int, folder: Path) -> Callable[[], object]:
    return _training(_planned(trials, 1, folder), folder)


def _leaderboard(trials: int, folder: Path) -> Callable[[], object]:
    run = MadeUpRun.of(trials).write(folder)
    return lambda: board_of(run)


STAGES: Mapping[str, Callable[[int, Path], Callable[[], object]]] = {
    "plan": _plan,
    "more seeds": _more_seeds,
    "more methods": _more_methods,
    "leaderboard": _leaderboard,
}


def _planned(methods: int, seeds: int, cache: Path) -> Plan:
    """Scratch and KD at temperatures on a few digits, one epoch each, one teacher for all seeds."""
    suite = Suite.model_validate(
        {
            "suite": "growth@1.0",
            "tasks": ["digits[train_examples=100]"],
            "pairs": [{"teacher": ["cnn[width=0.5]"], "student": "cnn[width=0.25]"}],
            "methods": [f"kd[temperature={temperature}]" for temperature in range(2, methods + 1)],
            "add_controls": False,
            "seeds": seeds,
            "teachers": "fixed",
            "recipe": {"epochs": 1, "batch_size": 32},
        }
    )
    return make_plan(suite, discover(), DataFolders((), cache))


def _training(plan: Plan, folder: Path) -> Callable[[], object]:
    run = RunFolder.create(folder, "growth")

    def work() -> None:
        for fresh in execute(plan, run, folder, torch.device("cpu"), Observer()):
            for record in fresh:
                if record.status != "done":
                    raise RuntimeError(f"{record.method} {record.status}: {record.reason}")

    return work


def _in_process(stage: str, trials: int, clock: str) -> Cost:
    code = (
        "import json, torch; from benchmarks.growth import cost_of; "
        f"torch.set_num_threads({torch.get_num_threads()}); "
        f"print(json.dumps(vars(cost_of({stage!r}, {trials}, {clock!r}))))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return Cost(**json.loads(ended.stdout.splitlines()[-1]))


def _peak_memory() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _mib(memory: float) -> str:
    return f"{memory / 2**20:.1f}"


def _milliseconds(seconds: list[float]) -> str:
    return ", ".join(f"{1000 * each:.2f}" for each in seconds)


if __name__ == "__main__":
    main(measure, QUICK, Growth())
