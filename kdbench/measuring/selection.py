"""What another choice of epoch would have scored: the epoch best on validation, and the habit of the best on test."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from kdbench.plan import LoadedTask
from kdbench.training.prediction import answers
from kdbench.training.trained import Trained


def selected_scores(
    trained: Trained, student: nn.Module, loaded: LoadedTask, last: float, device: torch.device
) -> dict[str, float]:
    """Test scores of the epochs whose weights were kept (`Trial.kept_epochs`) and of the last one, which scored `last`.

    Returns, where the primary metric takes no decoding and weights were kept:
        "best_validation_<primary>": of the epoch whose validation score was best, the first among equals.
        "best_on_test_<primary>": the best of them all: how a score looks that was chosen by what it measures.
        "optimism": how far the latter flatters the last epoch; 0 or more, in the metric's unit.
        "selection_epochs": among how many epochs was chosen.
    """
    metric, validation = loaded.metrics[0], loaded.validation_metric
    if metric.decoded or not trained.snapshots:
        return {}
    curve, sign = trained.curves[f"validation_{validation.name}"], 1 if metric.higher_is_better else -1
    private = copy.deepcopy(student)
    scores = {}
    for epoch in sorted(trained.snapshots):
        private.load_state_dict(trained.snapshots[epoch].weights())
        scores[epoch] = metric.score(answers(private, loaded.data.test, loaded, device))
    scores = {epoch: score for epoch, score in scores.items() if math.isfinite(score)} | {len(curve): last}
    orientation = 1 if validation.higher_is_better else -1
    chosen = max(scores, key=lambda epoch: (orientation * curve[epoch - 1], -epoch))
    best = max(scores.values(), key=lambda score: sign * score)
    return {
        f"best_validation_{metric.name}": scores[chosen],
        f"best_on_test_{metric.name}": best,
        "optimism": sign * (best - last),
        "selection_epochs": float(len(scores)),
    }
