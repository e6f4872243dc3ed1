"""What can be watched of a run; the command line shows it."""

from __future__ import annotations

from collections.abc import Mapping

from kdbench.plan import Cohort, Trial


class Observer:
    """Told of each event; does nothing by itself."""

    def cohort_started(self, cohort: Cohort, first_epoch: int) -> None:
        """Training begins (or goes on) with epoch `first_epoch`, counted from 0."""

    def epoch_ended(self, cohort: Cohort, epochs: int, curves: Mapping[Trial, Mapping[str, list[float]]]) -> None:
        """`epochs` epochs are done; `curves` holds those of the trials still in training."""

    def cohort_ended(self, cohort: Cohort) -> None:
        """All trials of the cohort are trained or have left."""

    def trial_stored(self, trial: Trial, status: str, reason: str | None) -> None:
        """A trial's record is on disk."""

    def waiting(self) -> None:
        """Another command trains what this one needs; told again and again until it has."""

    def note(self, message: str) -> None:
        """Something worth knowing that stops nothing."""
