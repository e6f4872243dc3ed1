"""How much each test example moves a score: what intervals over examples are made of, whatever the metric."""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.task import Answers, Metric

MOST_GROUPS = 500  # a metric that must be computed anew without each example is computed so often at most


def influences(metric: Metric, answers: Answers) -> Tensor:
    """Influences of the test examples on a score, float64 [units], of mean 0: a unit is an example or a group of them.

    Of a mean they are the examples' deviations from it. Of any other score they are the jackknife's,
    (n - 1) (score - score without the unit), which tend to the score's derivative as examples grow many (Efron 1982).
    Two networks scored on one split have the same units, so that influences can be subtracted.
    """
    read = [answers[name] for name in metric.reads]
    if metric.per_example is not None:
        values = metric.per_example(*read).double()
        return values - values.mean()
    without = _additive(metric, read) if metric.additive else _grouped(metric, read)
    found = (len(without) - 1) * (metric.score(answers) - without)
    return found - found.mean()


def _additive(metric: Metric, read: list[Tensor]) -> Tensor:
    """The score without each example, from sums."""
    sums = [tensor.double().sum(0, keepdim=True) for tensor in read]
    parts = [(total - tensor.double()).unsqueeze(1) for total, tensor in zip(sums, read, strict=True)]
    return torch.tensor([float(metric.compute(*part)) for part in zip(*parts, strict=True)], dtype=torch.float64)


def _grouped(metric: Metric, read: list[Tensor]) -> Tensor:
    """The score without each group of examples: each example by itself as long as they are few."""
    examples = len(read[0])
    number = torch.arange(examples) % min(examples, MOST_GROUPS)
    scores = [metric.compute(*(tensor[number != group] for tensor in read)) for group in number.unique()]
    return torch.tensor([float(score) for score in scores], dtype=torch.float64)
