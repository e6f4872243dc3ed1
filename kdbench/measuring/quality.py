"""How well a network does its task."""

from __future__ import annotations

from collections.abc import Sequence

from kdbench.errors import BrokenPlugin
from kdbench.task import Answers, Metric


def scores(metrics: Sequence[Metric], answers: Answers) -> dict[str, float]:
    """Every metric by name, of the answers to a whole split: never a mean over batches.

    Raises:
        BrokenPlugin: two metrics of the task bear one name.
    """
    found = {metric.name: metric.score(answers) for metric in metrics}
    if len(found) < len(metrics):
        raise BrokenPlugin(f"two metrics bear one name: {', '.join(metric.name for metric in metrics)}")
    return found
