"""The tuned track of `kdbench run`: chooses configurations, and shows what was chosen."""

from __future__ import annotations

import torch
from rich.table import Table
from rich.text import Text

from kdbench.cli.console import err, out
from kdbench.cli.progress import ConsoleObserver
from kdbench.errors import BadInput, UnknownName
from kdbench.execution.limits import Limits
from kdbench.execution.work import Executor
from kdbench.plan import Configurations
from kdbench.planner import Planner
from kdbench.store.run_folder import RunFolder
from kdbench.tuning.choice import Choice, save_choices
from kdbench.tuning.tuner import Tuner

FIXED, TUNED = "fixed", "tuned"
DEFAULT_TRIALS = 10


def requested_trials(track: str, trials: int | None) -> int:
    """How many configurations are to be tried of every method and control; none in the fixed track.

    Raises:
        UnknownName: there is no such track.
        BadInput: the number and the track do not go together.
    """
    if track not in (FIXED, TUNED):
        raise UnknownName("track", track, (FIXED, TUNED))
    if track == TUNED:
        if trials is not None and trials < 1:
            raise BadInput(f"--tuning-trials {trials}: must be 1 or more; the first is the suite's own configuration")
        return trials or DEFAULT_TRIALS
    if trials is not None:
        hint = "the fixed track runs the suite's own configurations; to choose others, add --track tuned"
        raise BadInput("--tuning-trials is an option of the tuned track", hint=hint)
    return 0


def tuning_folder(run: RunFolder) -> RunFolder:
    """Where a run keeps the trials and teachers by which its configurations were chosen."""
    return RunFolder(run.path / "tuning")


def choose(
    planner: Planner, trials: int, run: RunFolder, device: torch.device, executor: Executor, limits: Limits
) -> Configurations:
    """Tunes what is not tuned yet, keeps and prints the choices.

    Raises:
        OutOfTime: the run's time is over. Everything already stored is kept.
    """
    tuner = Tuner(planner, trials, tuning_folder(run))
    with ConsoleObserver(err, tuner.epochs_left()) as observer:
        tuner.run(device, observer, executor, limits)
    choices = tuner.choices()
    save_choices(tuner.folder.path / "choices.json", choices)
    _print_choices(choices)
    return tuner.chosen()


def _print_choices(choices: list[Choice]) -> None:
    boards: dict[tuple[str, str, str], list[Choice]] = {}
    for choice in choices:
        boards.setdefault((choice.task, choice.pair, choice.metric), []).append(choice)
    for (task, pair, metric), chosen in boards.items():
        said = f", the best of {chosen[0].trials} tries by {metric} on validation"
        out.print(Text.assemble((f"{task}: {pair}", "bold"), said), soft_wrap=True)
        table = Table(box=None, pad_edge=False)
        table.add_column("method", no_wrap=True)
        for header in ("best", "suite's own", "failed"):
            table.add_column(header, justify="right", no_wrap=True)
        table.add_column("chosen")
        for choice in chosen:
            scores = (_score(choice.score), _score(choice.own_score), str(choice.failed or ""))
            table.add_row(Text(choice.method), *scores, Text(_changes(choice) or "the suite's own"))
        out.print(table)
        out.print()


def _changes(choice: Choice) -> str:
    """In what the configuration chosen differs from the suite's own."""
    changed = {key: value for key, value in choice.params.items() if value != choice.own_params[key]}
    if choice.learning_rate != choice.own_learning_rate:
        changed["learning_rate"] = float(f"{choice.learning_rate:.3g}")
    return ", ".join(f"{key}={value}" for key, value in changed.items())


def _score(score: float | None) -> str:
    return "none" if score is None else f"{score:.4f}"
