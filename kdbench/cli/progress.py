"""Progress of a run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from kdbench.hyperparameters import values
from kdbench.plan import Cohort, Trial
from kdbench.planner import TUNING_SEED
from kdbench.spec import Spec
from kdbench.training.observer import Observer

_PLAIN_LINES = 4  # per cohort: enough to see that it lives, few enough for a log


class ConsoleObserver(Observer):
    """Counts the epochs of all networks still to train; `epochs` is their sum over the run.

    Use as a context manager: the live display ends with the block, whatever ends it.
    """

    def __init__(self, console: Console, epochs: int) -> None:
        self.console = console
        self.live: Live | None = None
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            expand=True,
        )
        self.task = self.progress.add_task("training", total=epochs)
        if console.is_terminal and epochs:
            self.live = Live(self.progress, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> ConsoleObserver:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def cohort_started(self, cohort: Cohort, first_epoch: int) -> None:
        self.progress.update(self.task, description=_title(cohort), advance=first_epoch * len(cohort.trials))
        if not self.live:
            self._line(f"{_title(cohort)}: from epoch {first_epoch} of {cohort.head.recipe.epochs}")

    def epoch_ended(self, cohort: Cohort, epochs: int, curves: Mapping[Trial, Mapping[str, list[float]]]) -> None:
        self.progress.advance(self.task, len(curves))
        if self.live:
            self.live.update(Group(_table(curves), self.progress))
        elif epochs % max(1, cohort.head.recipe.epochs // _PLAIN_LINES) == 0:
            losses = "  ".join(f"{_label(trial)} {_last(seen, 'loss')}" for trial, seen in curves.items())
            self._line(f"{_title(cohort)}: epoch {epochs}, loss: {losses}")

    def trial_stored(self, trial: Trial, status: str, reason: str | None) -> None:
        if status != "done":
            self.note(f"{_label(trial)} (seed {trial.seed}) {status}: {reason}")

    def note(self, message: str) -> None:
        self._line(message)

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)


def _title(cohort: Cohort) -> str:
    head = cohort.head
    seed = "tuning" if head.seed == TUNING_SEED else f"seed {head.seed}"
    if head.reference is None:
        return f"{head.task} teacher {head.student}, {seed}"
    return f"{head.task} {head.pair}, {seed}, {len(cohort.trials)} methods"


def _table(curves: Mapping[Trial, Mapping[str, list[float]]]) -> Table:
    table = Table("method", box=None, pad_edge=False)
    for column in ("loss", "validation"):
        table.add_column(column, justify="right")
    for trial, seen in curves.items():
        validation = next((name for name in seen if name.startswith("validation_")), "")
        table.add_row(Text(_label(trial)), _last(seen, "loss"), _last(seen, validation))
    return table


def _label(trial: Trial) -> str:
    default = values(type(trial.method)())
    changed = {key: value for key, value in values(trial.method).items() if value != default.get(key)}
    return str(Spec(trial.method_name, changed))


def _last(curves: Mapping[str, list[float]], name: str) -> str:
    return f"{curves[name][-1]:.4f}" if curves.get(name) else ""
