"""How cohorts are best laid out over a machine's cores: in processes side by side, or in one with several threads."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection

import torch

from .harness import Report, Table, main
from .levers import COMPANY, EngineStep
from .pacing import Paced
from .timing import Estimate, Rounds, interleaved, median_interval
from .workloads import WORKLOADS

CORES = os.cpu_count() or 1

Crew = Sequence[Connection]  # to the processes of one layout


@dataclass(frozen=True)
class Layout(Paced):
    """Every layout on every workload: "2x1" are two processes of one thread each. The first is the measure.

    Times are always wall time: what counts is when all of them are done.
    """

    workloads: tuple[str, ...] = ("resnet20", "conv_gru", "wrn_40_2")
    layouts: tuple[str, ...] = tuple(dict.fromkeys(("1x1", f"1x{CORES}", f"{CORES}x1")))
    rounds: int = 15
    warmup: int = 2


QUICK = Layout(batch_size=16, rounds=5, warmup=1, workloads=("resnet20", "resnet56"))


def measure(setting: Layout) -> Report:
    """Has every process of all layouts wait with cohorts of its own, and lets those of one layout at a time train."""
    rows, samples = [], {}
    with ExitStack() as stack:
        crews = {layout: stack.enter_context(_crew(layout, setting)) for layout in setting.layouts}
        for crew in crews.values():
            _await(crew)
        for name in setting.workloads:
            rounds = _timed(name, crews, setting)
            samples[str(WORKLOADS[name])] = rounds.seconds
            rows += [(str(WORKLOADS[name]), *_row(rounds, layout, setting.layouts[0])) for layout in setting.layouts]
    title = (
        f"Cohorts of KD and three other methods, batches of {setting.batch_size}, {setting.rounds} rounds. Speeds: "
        "median (quartiles). Ratios: median of the rounds' (95 % bootstrap interval)."
    )
    headers = ("pair", "processes", "threads each", "cohort-steps per second", f"to {setting.layouts[0]}")
    question = f"Layout: as many cohorts as processes train side by side, on {CORES} cores; wall time of all of them."
    return Report("layout", question, (Table(title, headers, rows),), samples=samples)


def _timed(workload: str, crews: Mapping[str, Crew], setting: Layout) -> Rounds:
    """The seconds of one cohort-step, whichever process does it."""
    laps = {layout: partial(_lap, crew, workload) for layout, crew in crews.items()}
    taken = interleaved(laps, setting.rounds, setting.warmup)
    steps = {layout: len(crew) * WORKLOADS[workload].steps for layout, crew in crews.items()}
    return Rounds({layout: [lap / steps[layout] for lap in laps] for layout, laps in taken.seconds.items()})


def _row(rounds: Rounds, layout: str, usual: str) -> tuple[str, ...]:
    seconds = rounds.median(layout)
    speed = Estimate(1 / seconds.value, 1 / seconds.high, 1 / seconds.low)
    return *layout.split("x"), speed.shown(2), median_interval(rounds.ratios([usual], layout)).shown(2)


@contextmanager
def _crew(layout: str, setting: Layout) -> Iterator[Crew]:
    """The processes of a layout, started afresh; they end with the block."""
    processes, threads = map(int, layout.split("x"))
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        crew = []
        for _ in range(processes):
            here, there = context.Pipe()
            context.Process(target=_member, args=(there, threads, setting), daemon=True).start()
            there.close()  # so that the end of the process is the end of the pipe
            crew.append(stack.enter_context(here))
        yield crew


def _member(parent: Connection, threads: int, setting: Layout) -> None:
    """Trains a cohort of the workload that it is told, a lap each time, until the parent hangs up."""
    torch.set_num_threads(threads)
    engines = {name: _engine(name, setting) for name in setting.workloads}
    parent.send(True)
    with suppress(EOFError):
        while True:
            engines[parent.recv()].lap()
            parent.send(True)


def _engine(name: str, setting: Layout) -> EngineStep:
    methods = COMPANY[WORKLOADS[name].kind]
    return EngineStep(setting.bench(WORKLOADS[name], methods), methods, changes={})


def _lap(crew: Crew, workload: str) -> None:
    for each in crew:
        each.send(workload)
    _await(crew)


def _await(crew: Crew) -> None:
    """Returns when all processes have done what they were told.

    Raises:
        EOFError: one of them has ended; what it raised, it has printed.
    """
    for each in crew:
        each.recv()


if __name__ == "__main__":
    main(measure, QUICK, Layout())
