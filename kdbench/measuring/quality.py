"""How well a network does its task."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kdbench.errors import BrokenPlugin
from kdbench.task import Metric


def score(metrics: Sequence[Metric], logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Every metric by name, of logits [N, classes] and targets [N] of a whole split: never a mean over batches.

    Raises:
        BrokenPlugin: two metrics of the task bear one name.
    """
    scores = {metric.name: float(metric.compute(logits, targets)) for metric in metrics}
    if len(scores) < len(metrics):
        raise BrokenPlugin(f"two metrics bear one name: {', '.join(metric.name for metric in metrics)}")
    return scores
