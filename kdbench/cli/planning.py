"""`kdbench plan`: what would run, what is cached or skipped and why, and what it would cost."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.table import Table
from rich.text import Text

from kdbench.cli.choosing import tuning_folder
from kdbench.cli.console import out
from kdbench.cli.data import data_folders
from kdbench.cli.running import requested_suite, run_name
from kdbench.execution.local import is_finished
from kdbench.measuring.estimate import Estimate, estimate
from kdbench.plan import Plan, Trial
from kdbench.planner import Planner
from kdbench.plugins import discover
from kdbench.store.run_folder import RunFolder
from kdbench.store.trial_files import teacher_files
from kdbench.training.device import resolve_device
from kdbench.tuning.tuner import Tuner


def show_plan(
    suite: str,
    methods: list[str],
    seeds: int | None,
    tuning_trials: int,
    folder: Path,
    name: str | None,
    device: str,
) -> None:
    """Prints the cohorts, then what is skipped, then the cost of what is left to do; in the tuned track that of tuning
    first."""
    wanted = requested_suite(suite, methods, seeds)
    with data_folders() as folders:
        planner = Planner(wanted, discover(), folders)
    run = RunFolder(folder / run_name(name, wanted, tuning_trials))
    tuner = Tuner(planner, tuning_trials, tuning_folder(run)) if tuning_trials else None
    plan = planner.plan(tuner.chosen() if tuner and tuner.is_done else None)
    if tuner:
        _print_tuning(tuner, resolve_device(device))
    students = {trial for trial in plan.trials if not is_finished(run.trial(trial.fingerprint).record())}
    teachers = {
        trial
        for trial in plan.teachers
        if students and not is_finished(teacher_files(folder, trial.fingerprint).record())
    }
    out.print(Text.assemble((wanted.title or wanted.id, "bold"), f" ({wanted.id}), run {run.path}"), soft_wrap=True)
    out.print(_cohorts(plan, students))
    _print_skipped(plan)
    every = len([*plan.trials])
    out.print(f"{every} trials: {every - len(students)} cached in {run.path}, {len(students)} to run", soft_wrap=True)
    if stale := _stale(run, students):
        said = (
            f"{stale} of them had a record: configuration, data, plugin source, versions or engine have changed since"
        )
        out.print(said, soft_wrap=True)
    kept = len(plan.teachers) - len(teachers)
    out.print(f"{len(plan.teachers)} teachers: {kept} cached or not needed, {len(teachers)} to train", soft_wrap=True)
    if students:
        target = resolve_device(device)
        _print_cost(estimate(plan, students, teachers, target), str(target))


def _print_tuning(tuner: Tuner, device: torch.device) -> None:
    """What choosing configurations still costs; every round about as much as the next one."""
    if tuner.is_done:
        out.print(f"tuning: all {tuner.trials} rounds are done; below, what was chosen", soft_wrap=True)
        return
    left = tuner.trials - tuner.done
    teachers = {
        trial
        for trial in tuner.plan.teachers
        if not is_finished(teacher_files(tuner.folder.path, trial.fingerprint).record())
    }
    students = set(tuner.plan.trials)
    cost = estimate(tuner.plan, students, teachers, device)
    seconds = cost.teacher_seconds + left * (cost.student_seconds + cost.pass_seconds)
    said = f"tuning: {left} of {tuner.trials} rounds are left, each of {len(students)} trials on validation: about "
    out.print(f"{said}{_duration(seconds)} on {device}", soft_wrap=True)
    out.print("below, what follows, as if the suite's own configurations were chosen", style="dim", soft_wrap=True)


def _cohorts(plan: Plan, missing: set[Trial]) -> Table:
    table = Table(box=None, pad_edge=False)
    for header in ("cohort", "task", "pair", "seed", "methods (one teacher pass per batch serves all)"):
        table.add_column(header, overflow="fold")
    for number, cohort in enumerate(plan.cohorts, start=1):
        head = cohort.head
        names = [trial.method_name if trial in missing else f"{trial.method_name} (cached)" for trial in cohort.trials]
        table.add_row(*map(Text, [str(number), head.task, head.pair, str(head.seed), ", ".join(names)]))
    return table


def _stale(run: RunFolder, students: set[Trial]) -> int:
    """How many of the trials to run have a record under an older fingerprint."""
    recorded = run.manifest().trials if run.has_manifest() else {}
    return sum(recorded.get(trial.identity, trial.fingerprint) != trial.fingerprint for trial in students)


def _print_skipped(plan: Plan) -> None:
    reasons: dict[tuple[str, str, str, str], list[int]] = {}
    for each in plan.skipped:
        trial = each.trial
        reasons.setdefault((trial.task, trial.pair, trial.method_name, each.reason), []).append(trial.seed)
    for (task, pair, method, reason), seeds in reasons.items():
        said = f"skipped: {method} on {task}, {pair} ({len(seeds)} seeds): {reason}"
        out.print(said, markup=False, soft_wrap=True)


def _print_cost(cost: Estimate, device: str) -> None:
    table = Table(box=None, pad_edge=False, title=f"estimated cost on {device}", title_justify="left")
    for header in ("", "networks", "FLOPs", "time"):
        table.add_column(header, justify="left" if not header else "right")
    table.add_row("teachers", str(cost.teachers), f"{cost.teacher_flops:.2e}", _duration(cost.teacher_seconds))
    table.add_row("students", str(cost.students), f"{cost.student_flops:.2e}", _duration(cost.student_seconds))
    table.add_row("teacher passes", "", f"{cost.pass_flops:.2e}", _duration(cost.pass_seconds))
    total = cost.teacher_flops + cost.student_flops + cost.pass_flops
    table.add_row("together", "", f"{total:.2e}", _duration(cost.seconds), style="bold")
    out.print(table)
    out.print(
        "time is measured on a few steps of each network here and now; losses, measuring and storing come on top",
        style="dim",
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 3 * 86400 else f"{seconds / 86400:.0f} days"
