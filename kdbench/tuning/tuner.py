"""Tuner: the rounds in which all contenders are tuned side by side."""

from __future__ import annotations

import time

import torch

from kdbench.execution.executors import Local
from kdbench.execution.limits import Limits
from kdbench.execution.local import epochs_to_train, is_finished
from kdbench.execution.work import Executor, Work
from kdbench.plan import BoardKey, Configuration, Configurations, Plan, Trial
from kdbench.planner import Planner
from kdbench.store.run_folder import RunFolder
from kdbench.training.observer import Observer
from kdbench.tuning.choice import Choice
from kdbench.tuning.contender import Contender
from kdbench.tuning.space import contender_name


class Tuner:
    """Chooses, for every method and control on every board, the best of `trials` configurations.

    A round tries one configuration of each, so that they share batches and teachers. Trials are ordinary ones, on a
    seed of their own, scored by the last epoch on the validation split. Nothing of a tuning is stored but their
    records: made anew, it asks the same again, and goes on where the records end.

    Attributes:
        plan: the round that is open, or was the last; `done`: how many rounds are over.

    Raises:
        MissingExtra: Optuna is not installed.
        BrokenPlugin: a method would search a parameter that it does not have.
    """

    def __init__(self, planner: Planner, trials: int, folder: RunFolder) -> None:
        self.trials, self.done, self.folder = trials, 0, folder
        self._planner = planner.for_tuning()
        self._contenders = _contenders(planner)
        self._ask()
        while not self.is_done and self._is_recorded():
            self._close_round()

    @property
    def is_done(self) -> bool:
        """Whether all rounds are."""
        return self.done == self.trials

    def epochs_left(self) -> int:
        """The epochs, summed over networks, of what is still to be trained."""
        if self.is_done:
            return 0
        later = (self.trials - self.done - 1) * sum(trial.recipe.epochs for trial in self.plan.trials)
        return epochs_to_train(self.plan, self.folder, self.folder.path) + later

    def run(
        self, device: torch.device, observer: Observer, executor: Executor | None = None, limits: Limits | None = None
    ) -> None:
        """Trains what is missing, by default in this process and without limits.

        Raises:
            OutOfTime: the run's time is over. Everything already stored is kept.
            StoreError: results cannot be written. Everything already stored is kept.
        """
        executor, limits, begun = executor or Local(), limits or Limits(), time.monotonic()
        while not self.is_done:
            observer.note(f"tuning, round {self.done + 1} of {self.trials}")
            work = Work(self.plan, self.folder, self.folder.path, device, self._asked, validation_only=True)
            for _ in executor.execute(work, limits.after(time.monotonic() - begun), observer):
                pass
            self._close_round()

    def chosen(self) -> Configurations:
        """What every board's methods and controls are to be run with, once tuning is done."""
        found: dict[BoardKey, list[Configuration]] = {}
        for contender in self._contenders:
            found.setdefault(contender.board, []).append(contender.chosen)
        return found

    def choices(self) -> list[Choice]:
        """The same for people, without those that there was nothing to tune of."""
        return [choice for contender in self._contenders if (choice := contender.choice())]

    def _ask(self) -> None:
        asked: dict[BoardKey, list[Configuration]] = {}
        for contender in self._contenders:
            contender.ask()
            asked.setdefault(contender.board, []).extend([contender.asked] if contender.asked else [])
        self._asked: Configurations = asked
        self.plan: Plan = self._planner.cross(asked)

    def _close_round(self) -> None:
        trials = {trial.identity.rpartition("|")[0]: trial for trial in _all(self.plan)}
        for contender in self._contenders:
            if contender.asked:
                trial = trials["|".join([*contender.board, str(contender.asked)])]
                record = self.folder.trial(trial.fingerprint).record()
                assert record is not None
                contender.tell(record)
        self.done += 1
        if not self.is_done:
            self._ask()

    def _is_recorded(self) -> bool:
        return all(is_finished(self.folder.trial(trial.fingerprint).record()) for trial in _all(self.plan))


def _contenders(planner: Planner) -> list[Contender]:
    found: dict[tuple[str, ...], Contender] = {}
    for board, configurations in planner.own.items():
        metric = planner.tasks[board[0]].validation_metric
        for own in configurations:
            found.setdefault((*board, contender_name(own)), Contender(board, own, metric))
    return list(found.values())


def _all(plan: Plan) -> list[Trial]:
    return [*plan.trials, *(skipped.trial for skipped in plan.skipped)]
