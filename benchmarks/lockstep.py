"""What N methods cost in lockstep, where they share batches and the teacher's passes, against N separate bare runs.

Another seed is another cohort: S seeds cost S times as much on both sides, and no ratio changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .bare import METHODS, BareLoop
from .harness import Report, Table, Target, main
from .pacing import ENGINE, Paced, Step, paced
from .timing import Rounds, line, median_interval
from .workloads import WORKLOADS, Bench, Workload

LIMIT = 1.05

STUDENT, SEPARATE = "student", "separate"  # a bare student without a teacher; a bare run of KD, its own teacher passes


@dataclass(frozen=True)
class Lockstep(Paced):
    """Cohorts of so many `methods` on every workload; on those of `mixed`, also one of different methods."""

    workloads: tuple[str, ...] = tuple(WORKLOADS)
    mixed: tuple[str, ...] = ("resnet20",)
    methods: tuple[int, ...] = (1, 2, 4, 8, 16)
    rounds: int = 15
    warmup: int = 2
    streams: int = 1  # more on CUDA only

    def bench(self, workload: Workload, methods: Sequence[str]) -> Bench:
        """The workload planned, for an engine with so many streams."""
        return replace(super().bench(workload, methods), streams=self.streams)


QUICK = Lockstep(methods=(1, 2, 4), batch_size=16, rounds=5, warmup=1)


def measure(setting: Lockstep) -> Report:
    """Times cohorts of KD at different temperatures, which cost alike, then one of the methods written by hand."""
    grown, fitted, mixed, targets = [], [], [], []
    samples: dict[str, Any] = {}
    for name in setting.workloads:
        workload = WORKLOADS[name]
        by_count = _grown(workload, setting)
        grown += [_row(workload, count, rounds) for count, rounds in by_count.items()]
        samples |= {f"{workload}, {count} methods": rounds.seconds for count, rounds in by_count.items()}
        # in units of the bare student's step of the same round, so that no drift of the machine enters
        fit = line({count: rounds.ratios([ENGINE], STUDENT) for count, rounds in by_count.items()})
        fitted.append((str(workload), fit.slope.shown(), fit.intercept.shown(2)))
        slope = fit.slope
        targets.append(Target(f"one more method, {workload}", slope.value, LIMIT, "x", slope.low, slope.high))
        if name in setting.mixed:
            rounds = _mixed(workload, setting)
            samples[f"{workload}, mixed"] = rounds.seconds
            mixed.append(_mixed_row(workload, rounds))
    said = f"batches of {setting.batch_size}, {setting.rounds} rounds, streams: {setting.streams}"
    question = (
        "Lockstep: N methods trained together by the engine, against as many bare runs of KD, each with its own "
        "teacher passes. Times are of one step of all N; engine and bare loops take turns over the same batches."
    )
    return Report("lockstep", question, _tables(said, setting.clock, grown, fitted, mixed), tuple(targets), samples)


def _tables(
    said: str,
    clock: str,
    grown: Sequence[Sequence[str]],
    fitted: Sequence[Sequence[str]],
    mixed: Sequence[Sequence[str]],
) -> tuple[Table, ...]:
    head = ("pair", "N", "student alone, ms", "one KD run, ms", "N in lockstep, ms", "N runs / lockstep")
    spread = f"Times ({clock}): median (quartiles). Ratios: median of the rounds' (95 % bootstrap interval)."
    units = "in steps of the bare student without a teacher; 95 % bootstrap intervals"
    tables = [
        Table(f"N methods, {said}. {spread}", head, grown),
        Table(f"Least squares over N, {units}.", ("pair", "one more method", "fixed: teacher and data"), fitted),
    ]
    if mixed:
        headers = ("pair", "methods", "separate runs, ms", "lockstep, ms", "separate / lockstep")
        tables.append(Table(f"Different methods, each against its own bare run, {said}.", headers, mixed))
    return tuple(tables)


def _grown(workload: Workload, setting: Lockstep) -> dict[int, Rounds]:
    """Cohorts of 1, 2, ... KDs, each in turns with a bare student and one bare KD run."""
    names = [f"kd[temperature={temperature}]" for temperature in range(2, 2 + max(setting.methods))]
    ready = setting.bench(workload, names)
    found = {}
    for count in setting.methods:
        rivals = {
            STUDENT: _bare(ready, "scratch", workload, setting),
            SEPARATE: _bare(ready, "kd", workload, setting),
        }
        found[count] = paced(ready, names[:count], rivals, setting)
    return found


def _mixed(workload: Workload, setting: Lockstep) -> Rounds:
    """All methods that are written by hand, in one cohort, and each as a bare run."""
    ready = setting.bench(workload, METHODS)
    rivals = {method: _bare(ready, method, workload, setting) for method in METHODS}
    return paced(ready, METHODS, rivals, setting)


def _bare(ready: Bench, method: str, workload: Workload, setting: Lockstep) -> Step:
    example = ready.example(setting.batch_size)
    return BareLoop(method, ready.student("scratch"), ready.teacher, example, workload.optimizer).step


def _row(workload: Workload, count: int, rounds: Rounds) -> tuple[str, ...]:
    times = [rounds.median(each).shown(1, 1000) for each in (STUDENT, SEPARATE, ENGINE)]
    return (str(workload), str(count), *times, median_interval(rounds.ratios([SEPARATE] * count, ENGINE)).shown(2))


def _mixed_row(workload: Workload, rounds: Rounds) -> tuple[str, ...]:
    names = ", ".join(method.partition("[")[0] for method in METHODS)
    times = rounds.median(*METHODS).shown(1, 1000), rounds.median(ENGINE).shown(1, 1000)
    return (str(workload), names, *times, median_interval(rounds.ratios(METHODS, ENGINE)).shown(2))


if __name__ == "__main__":
    main(measure, QUICK, Lockstep())
