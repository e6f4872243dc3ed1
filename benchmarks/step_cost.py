"""What a step of the engine costs, against a bare hand-written PyTorch loop of the same method on the same batches."""

from __future__ import annotations

from dataclasses import dataclass

from .bare import METHODS, BareLoop, methods_for
from .harness import Report, Table, Target, main
from .pacing import ENGINE, Paced, paced
from .timing import Estimate, Rounds, median_interval
from .workloads import WORKLOADS, Bench

LIMIT = 1.02
SPREAD = "Times ({clock}): median (quartiles). Ratios: median of the rounds' (95 % bootstrap interval)."


@dataclass(frozen=True)
class StepCost(Paced):
    """Every method on every workload."""

    workloads: tuple[str, ...] = ("resnet20", "wrn_40_2", "conv_gru", "bert")
    methods: tuple[str, ...] = METHODS


QUICK = StepCost(workloads=("resnet20", "conv_gru"), batch_size=32, rounds=12, warmup=1)


def measure(setting: StepCost) -> Report:
    """Times engine and bare loop in turns; a second bare loop shows what the instrument makes of no difference.

    Each method is judged, and all of a workload together, which tells smaller differences.
    """
    rows, targets, samples = [], [], {}
    for name in setting.workloads:
        workload = WORKLOADS[name]
        methods = [method for method in methods_for(workload.kind) if method in setting.methods]
        ready = setting.bench(workload, methods)
        everything = Rounds()
        for method in methods:
            rounds = _timed(ready, method, workload.optimizer, setting)
            everything.extend(rounds)
            samples[f"{workload}, {method}"] = rounds.seconds
            times = [rounds.median(each).shown(1, 1000) for each in ("bare", ENGINE)]
            short = method.partition("[")[0]
            rows.append((str(workload), short, *times, *(each.shown() for each in _ratios(rounds))))
            targets.append(_target(f"{short}, {workload}", rounds))
        rows.append((str(workload), "all", "", "", *(each.shown() for each in _ratios(everything))))
        targets.append(_target(f"all methods, {workload}", everything))
    headers = ("pair", "method", "bare loop, ms", "engine, ms", "engine / bare", "bare again / bare")
    title = f"One step, batches of {setting.batch_size}, {setting.rounds} rounds. {SPREAD.format(clock=setting.clock)}"
    question = (
        "Step cost: the engine against a hand-written loop, taking turns over the same batches; both with the "
        "teacher's pass, neither with augmentation."
    )
    return Report("step_cost", question, (Table(title, headers, rows),), tuple(targets), samples)


def _ratios(rounds: Rounds) -> tuple[Estimate, Estimate]:
    """Of the engine and of the second bare loop, to the first."""
    return median_interval(rounds.ratios([ENGINE], "bare")), median_interval(rounds.ratios(["bare again"], "bare"))


def _target(what: str, rounds: Rounds) -> Target:
    ratio, _ = _ratios(rounds)
    return Target(what, ratio.value, LIMIT, "x", ratio.low, ratio.high)


def _timed(ready: Bench, method: str, optimizer: str, setting: StepCost) -> Rounds:
    example = ready.example(setting.batch_size)
    rivals = {
        name: BareLoop(method, ready.student(method), ready.teacher, example, optimizer).step
        for name in ("bare", "bare again")
    }
    return paced(ready, [method], rivals, setting)


if __name__ == "__main__":
    main(measure, QUICK, StepCost())
