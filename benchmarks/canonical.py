"""How long the field's canonical comparison takes here: WRN-40-2 to WRN-16-2 on CIFAR-10, 240 epochs, all built-in
methods, three seeds; and how much of the device it uses.

Steps are measured, the rest is extrapolated from them. Made-up images cost what CIFAR-10's do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from kdbench.flops import count_flops
from kdbench.plan import Trial
from kdbench.plugins import discover
from kdbench.training.device import resolve_device

from .engine_step import EngineStep, batches_of
from .harness import Report, Table, main
from .pacing import ENGINE, Paced, paced
from .timing import Rounds
from .workloads import WORKLOADS, Bench, Workload, planned

IMAGES = 50_000  # for training, of CIFAR-10
WORDY = ("sequence_kd", "step_by_step")  # learn from sentences, which images come without


@dataclass(frozen=True)
class Canonical(Paced):
    """The comparison. The device's measures are the product of square matrices of side `matrix`, and the copying of a
    tensor of so many `megabytes`."""

    workload: str = "wrn_40_2"
    epochs: int = 240
    seeds: int = 3
    rounds: int = 10
    warmup: int = 2
    matrix: int = 8192
    megabytes: int = 1024


QUICK = Canonical(workload="resnet20", batch_size=16, rounds=3, warmup=1, matrix=1024, megabytes=64)


def measure(setting: Canonical) -> Report:
    """Times a step of every cohort of the comparison and one of the teacher's training, and the device by itself."""
    workload, device = WORKLOADS[setting.workload], resolve_device(setting.device)
    cohorts, left_out = _cohorts(workload)
    ready = setting.bench(workload, [name for names in cohorts for name in names])
    timed = {", ".join(names): paced(ready, names, {}, setting) for names in cohorts}
    flops = {", ".join(names): _flops(ready, names) for names in cohorts}
    teacher = _teacher_rounds(workload, setting)
    largest = max(timed, key=lambda names: names.count(","))
    tables = (
        _speed(largest, timed[largest], flops[largest], setting, device),
        _extrapolated(ready, timed, teacher, left_out, setting),
    )
    question = f"Canonical: how long the field's usual comparison takes on this machine, {workload}."
    samples = {**{names: rounds.seconds for names, rounds in timed.items()}, "teacher": teacher.seconds}
    return Report("canonical", question, tables, samples=samples)


def _cohorts(workload: Workload) -> tuple[list[list[str]], list[str]]:
    """The built-in methods that train, as the engine trains them together; and those that the pair cannot have."""
    names = [name for name in discover().plugins["method"] if name not in ("scratch", *WORDY)]
    plan = planned(workload, names, examples=64, batch_size=16)
    trained = [cohort for cohort in plan.cohorts if cohort.head.recipe.epochs]
    together = [[trial.method_name for trial in cohort.trials] for cohort in trained]
    return together, [*WORDY, *(skipped.trial.method_name for skipped in plan.skipped)]


def _teacher_rounds(workload: Workload, setting: Canonical) -> Rounds:
    """A step of the teacher, as its own student without a teacher."""
    itself = Workload(workload.teacher, workload.teacher, workload.kind, workload.optimizer, workload.steps)
    return paced(setting.bench(itself, ["scratch"]), ["scratch"], {}, setting)


def _flops(ready: Bench, methods: list[str]) -> int:
    """What one step of these methods together takes, as it is dispatched."""
    step, batch = EngineStep(ready, methods, {}), batches_of(ready)[0]
    return count_flops(lambda: step(batch))


def _speed(methods: str, rounds: Rounds, flops: int, setting: Canonical, device: torch.device) -> Table:
    step, count = rounds.median(ENGINE), methods.count(",") + 1
    peaks = {kind: matmul_flops(setting.matrix, kind, device) for kind in (torch.float32, torch.bfloat16)}
    rows = [
        (f"one step of {count} methods together, ms", step.shown(1, 1000)),
        ("images a second, through every student", f"{setting.batch_size * count / step.value:.0f}"),
        ("GFLOP a step, backward passes included", f"{flops / 1e9:.1f}"),
        ("GFLOP a second", f"{flops / step.value / 1e9:.1f}"),
        *(
            (f"of the measured matmul peak, {_named(kind)}", f"{flops / step.value / peak:.2%}")
            for kind, peak in peaks.items()
        ),
        *((f"matmul peak, {_named(kind)}, GFLOP a second", f"{peak / 1e9:.0f}") for kind, peak in peaks.items()),
        ("memory bandwidth (copying), GB a second", f"{copied_bytes(setting.megabytes, device) / 1e9:.1f}"),
    ]
    if device.type == "cuda":
        rows.append(("peak memory on the device, GB", f"{torch.cuda.max_memory_allocated(device) / 1e9:.2f}"))
    title = f"Batches of {setting.batch_size}, {setting.rounds} rounds; times ({setting.clock}): median (quartiles)."
    return Table(title, ("what", "figure"), rows)


def _extrapolated(
    ready: Bench, timed: dict[str, Rounds], teacher: Rounds, left_out: list[str], setting: Canonical
) -> Table:
    """Hours, from steps: what a cohort trains longer than the suite says, it is charged for."""
    hours = {"teachers": _hours(teacher, 1, setting)}
    for names, rounds in timed.items():
        trial: Trial = ready.trials[names.split(", ")[0]]
        hours[names] = _hours(rounds, trial.recipe.epochs, setting)
    hours["all"] = sum(hours.values())
    rows = [(_shortly(names), f"{taken:.1f}", f"{taken / 24:.2f}") for names, taken in hours.items()]
    title = (
        f"Extrapolated to {setting.epochs} epochs of {IMAGES} images and {setting.seeds} seeds, each with a teacher of "
        f"its own; without evaluation. The pair cannot have {', '.join(left_out)}."
    )
    return Table(title, ("what", "hours", "days"), rows)


def _shortly(names: str) -> str:
    count = names.count(",") + 1
    return names if count == 1 else f"{count} methods together"


def _hours(rounds: Rounds, epochs: int, setting: Canonical) -> float:
    steps = IMAGES // setting.batch_size * setting.epochs * setting.seeds * epochs
    return rounds.median(ENGINE).value * steps / 3600


def _named(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def matmul_flops(side: int, kind: torch.dtype, device: torch.device) -> float:
    """FLOPs a second of square matrix products, the best of a few."""
    left, right = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    return 2 * side**3 / _best_seconds(lambda: left @ right, device)


def copied_bytes(megabytes: int, device: torch.device) -> float:
    """Bytes a second read and written by copying, the best of a few."""
    source = torch.ones(megabytes * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * len(source) / _best_seconds(lambda: target.copy_(source), device)


def _best_seconds(work: Callable[[], object], device: torch.device) -> float:
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return best


if __name__ == "__main__":
    main(measure, QUICK, Canonical())
