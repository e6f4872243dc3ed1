"""How classifications are scored, over a whole split at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdbench.task import Metric

if TYPE_CHECKING:
    from torch import Tensor


def classification_metrics(classes: int) -> tuple[Metric, ...]:
    """Accuracy (the primary one), top-5 accuracy where there are more than five classes, and macro F1."""
    top5 = (Metric("top5_accuracy", top5_accuracy),) if classes > 5 else ()
    return (Metric("accuracy", accuracy), *top5, Metric("macro_f1", macro_f1))


def accuracy(logits: Tensor, targets: Tensor) -> float:
    """The share of examples whose largest logit is the target's; among equal ones the first counts."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(targets.cpu().numpy(), logits.argmax(dim=1).cpu().numpy()))


def top5_accuracy(logits: Tensor, targets: Tensor) -> float:
    """The share of examples whose target is among the five largest logits; among equal ones the first count.

    Not `torch.topk`, whose order among ties is unspecified: a collapsed network would score what the kernel picks.
    """
    five = logits.argsort(dim=1, descending=True, stable=True)[:, :5]
    return (five == targets.unsqueeze(1)).any(dim=1).double().mean().item()


def macro_f1(logits: Tensor, targets: Tensor) -> float:
    """The mean of the classes' F1 scores, over the classes that occur as target or as prediction."""
    from sklearn.metrics import f1_score

    predictions = logits.argmax(dim=1).cpu().numpy()
    return float(f1_score(targets.cpu().numpy(), predictions, average="macro", zero_division=0.0))
