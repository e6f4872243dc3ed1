"""A method or control in its tuning: what was tried of it, and what it comes out with."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from kdbench.errors import BadInput
from kdbench.measuring.record import Record
from kdbench.plan import BoardKey, Configuration, TuningCost
from kdbench.task import Metric
from kdbench.tuning.choice import Choice
from kdbench.tuning.sampling import Sampler
from kdbench.tuning.space import configuration_at, contender_name, point_of, space_of


@dataclass(frozen=True)
class Tried:
    """A configuration and how it went: its score on the validation split, None where it has none."""

    configuration: Configuration
    record: Record
    score: float | None

    @property
    def learning_rate(self) -> float:
        """What it was trained with."""
        return float(self.record.provenance["recipe"]["learning_rate"])


class Contender:
    """Asks for one configuration a round, and is told its record. The suite's own comes first.

    Attributes:
        asked: the configuration of this round; None where there is none.
        tried, refused: what was tried, in order; and how many others the method itself refused, values that are allowed
            each, but not together.
    """

    def __init__(self, board: BoardKey, own: Configuration, metric: Metric) -> None:
        self.board, self.own, self.metric = board, own, metric
        self.asked: Configuration | None = None
        self.tried: list[Tried] = []
        self.refused = 0
        space = space_of(own)
        self._able = bool(space)
        name = "|".join([*board, contender_name(own)])
        self._sampler = Sampler(name, space, point_of(own, space), metric.higher_is_better)

    def ask(self) -> None:
        """Takes the next configuration from the sampler, unless there is nothing to tune."""
        self.asked = None
        if not self._able:
            return
        point = self._sampler.ask()
        try:
            self.asked = configuration_at(point, self.own) if self.tried else self.own
        except BadInput:
            self.refused += 1
            self._sampler.tell(None)

    def tell(self, record: Record) -> None:
        """The record of what was asked. Where the suite's own configuration cannot run, no other is tried."""
        assert self.asked is not None
        found = record.metrics.get(f"validation_{self.metric.name}", math.nan) if record.status == "done" else math.nan
        score = found if math.isfinite(found) else None
        self.tried.append(Tried(self.asked, record, score))
        self._sampler.tell(score)
        self._able = self.tried[0].record.status != "skipped"

    @property
    def best(self) -> Tried:
        """The one with the best score, the first among equals; the suite's own where none has a score."""
        sign = 1 if self.metric.higher_is_better else -1
        return max(self.tried, key=lambda each: -math.inf if each.score is None else sign * each.score)

    @property
    def chosen(self) -> Configuration:
        """What it is run with, and what it cost to choose that."""
        return replace(self.best.configuration, tuning=self._cost()) if self._able else self.own

    def choice(self) -> Choice | None:
        """What there is to say of it; None where nothing was tuned."""
        if not self._able:
            return None
        best, own, cost = self.best, self.tried[0], self._cost()
        return Choice(
            task=self.board[0],
            pair=self.board[1],
            method=self.own.method_name,
            params=best.record.params,
            learning_rate=best.learning_rate,
            score=best.score,
            own_params=own.record.params,
            own_learning_rate=own.learning_rate,
            own_score=own.score,
            metric=self.metric.name,
            higher_is_better=self.metric.higher_is_better,
            trials=cost.trials,
            failed=self.refused + sum(each.score is None for each in self.tried),
            flops=cost.flops,
            seconds=cost.seconds,
        )

    def _cost(self) -> TuningCost:
        """A configuration that came twice was trained once."""
        records = {each.record.fingerprint: each.record for each in self.tried}.values()
        return TuningCost(
            trials=len(self.tried) + self.refused,
            flops=math.fsum(record.metrics.get("training_flops", 0.0) for record in records),
            seconds=math.fsum(record.measurements.get("training_seconds", 0.0) for record in records),
        )
