"""How long the command line takes to answer, each time in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from .harness import ROOT, Report, Setting, Table, Target, main
from .timing import interleaved

PLAN = "plan of {trials} trials"


@dataclass(frozen=True)
class Startup(Setting):
    """Every command `rounds` times, after `warmup` times; the planned suite has `methods` x `seeds` trials."""

    rounds: int = 15
    warmup: int = 2
    clock: str = "wall"
    methods: int = 20
    seeds: int = 50


QUICK = Startup(rounds=5, warmup=1)


def measure(setting: Startup) -> Report:
    """Times the commands in turns, beside a Python that does nothing and one that imports torch."""
    planned = PLAN.format(trials=setting.methods * setting.seeds)
    with TemporaryDirectory() as folder:
        suite = Path(folder, "many.yaml")
        suite.write_text(suite_of(setting.methods, setting.seeds), encoding="utf-8")
        out = ["--out", str(Path(folder, "results"))]
        limits = {
            "--help": (["-m", "kdbench", "--help"], 0.3),
            "list": (["-m", "kdbench", "list"], 0.5),
            planned: (["-m", "kdbench", "plan", str(suite), *out], 3.0),
            "python": (["-c", "pass"], None),
            "import torch": (["-c", "import torch"], None),
        }
        commands = {name: _process(arguments) for name, (arguments, _) in limits.items()}
        rounds = interleaved(commands, setting.rounds, setting.warmup, setting.clock)
    rows, targets = [], []
    for name, (_, limit) in limits.items():
        taken = rounds.median(name)
        rows.append((name, taken.shown(2), "" if limit is None else f"{limit:g}"))
        if limit is not None:
            targets.append(Target(name, taken.value, limit, "s", taken.low, taken.high))
    title = f"Fresh processes, {setting.rounds} rounds in turns; times ({setting.clock}): median (quartiles)."
    table = Table(title, ("command", "s", "at most"), rows)
    return Report("startup", "Start-up: how long commands take.", (table,), tuple(targets), rounds.seconds)


def suite_of(methods: int, seeds: int) -> str:
    """A suite with so many methods, KD at temperatures, and scratch among them, on embedded data."""
    kds = "".join(f"  - kd[temperature={temperature}]\n" for temperature in range(2, methods + 1))
    return (
        "suite: many@1.0\n"
        "tasks: [digits]\n"
        'pairs: [{teacher: ["cnn[width=4]"], student: "cnn[width=0.5]"}]\n'
        f"methods:\n{kds}"
        "add_controls: false\n"
        f"seeds: {seeds}\n"
        "recipe: {epochs: 30}\n"
    )


def _process(arguments: Sequence[str]) -> Callable[[], object]:
    """Runs Python with these arguments to its end; a failure is no measurement, and stops the benchmark."""
    return lambda: subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main(measure, QUICK, Startup())
