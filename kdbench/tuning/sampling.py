"""Asking Optuna for the next configuration to try. The only file that knows it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kdbench.errors import MissingExtra
from kdbench.hyperparameters import Choices, Range, SearchSpace

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

RANDOM_TRIALS = 5  # before the estimator has seen enough; Optuna's own 10 would leave most tunings random
_DIGITS = 3


class Sampler:
    """Points of a search space, one after the other: first `own`, the suite's, then what the sampler proposes.

    A tree-structured Parzen estimator (Bergstra et al. 2011), seeded by `name` alone: the same scores told lead to the
    same points asked, in any company, so a tuning is replayed from its records. Floats are rounded to three digits.

    Raises:
        MissingExtra: Optuna is not installed.
    """

    def __init__(self, name: str, space: SearchSpace, own: Mapping[str, Any], higher_is_better: bool) -> None:
        try:
            import optuna
        except ImportError as error:
            raise MissingExtra("the tuned track", "tuning") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        self._study = optuna.create_study(
            direction="maximize" if higher_is_better else "minimize",
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS),
        )
        self._space = {key: _distribution(values) for key, values in space.items()}
        self._own: Mapping[str, Any] | None = own
        self._asked: Trial | None = None
        self._own_counts = all(value in space[key] for key, value in own.items())

    def ask(self) -> dict[str, Any]:
        """The next point to try."""
        if self._own is not None:
            own, self._own = dict(self._own), None
            if self._own_counts:  # else it lies outside of the space: it is tried, and the sampler not told
                self._study.enqueue_trial(own)
                self._asked = self._study.ask(self._space)
            return own
        self._asked = self._study.ask(self._space)
        return {key: _rounded(value) for key, value in self._asked.params.items()}

    def tell(self, score: float | None) -> None:
        """What the point last asked for scored; None: it failed."""
        from optuna.trial import TrialState

        if self._asked is not None:
            self._study.tell(self._asked, score, state=TrialState.FAIL if score is None else None)
            self._asked = None


def _distribution(values: Range | Choices) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, Choices):
        return CategoricalDistribution(values)
    if isinstance(values.low, int) and isinstance(values.high, int):
        return IntDistribution(values.low, values.high, log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _rounded(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
