"""What a configuration is chosen by: the validation split. The test split stays closed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from kdbench.measuring.measure import Measured, Measurer, validation_score
from kdbench.training.prediction import Predictions
from kdbench.training.trained import Trained


class ValidationMeasurer(Measurer):
    """Measures trials by the last epoch's validation score, and what they cost, alone."""

    def measure(
        self, trained: Trained, networks: Mapping[str, nn.Module], teachers: Mapping[str, Predictions]
    ) -> Measured:
        """As `Measurer.measure`. A divergence is charged for what it computed; a failure, whose steps cannot be
        repeated, for its seconds alone."""
        measured = super().measure(trained, networks, teachers)
        if trained.status != "diverged":
            return measured
        spent = self._training_flops(trained, networks)
        return replace(measured, record=measured.record.model_copy(update={"metrics": spent}))

    def _measure(
        self,
        trained: Trained,
        student: nn.Module,
        networks: Mapping[str, nn.Module],
        teachers: Mapping[str, Predictions],
    ) -> Measured:
        score = validation_score(self.plan.tasks[trained.trial.task], trained)
        metrics = {**score, **self._training_flops(trained, networks)}
        return Measured(self._spent(trained, status="done", metrics=metrics))
