"""How classifications, of examples or of positions, are scored over a whole split at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdbench.task import IGNORED, Metric

if TYPE_CHECKING:
    from torch import Tensor


def classification_metrics(classes: int) -> tuple[Metric, ...]:
    """Accuracy (the primary one), top-5 accuracy where there are more than five classes, and macro F1."""
    top5 = (Metric("top5_accuracy", top5_accuracy, unit="share"),) if classes > 5 else ()
    return (
        Metric("accuracy", accuracy, unit="share", per_example=right),
        *top5,
        Metric("macro_f1", macro_f1, unit="share"),
    )


def position_metrics() -> tuple[Metric, ...]:
    """Perplexity (the primary one) and accuracy, over all positions of all examples."""
    return (
        Metric("perplexity", perplexity, higher_is_better=False, reads=("nll", "positions"), unit="", additive=True),
        Metric("accuracy", share, reads=("correct", "positions"), unit="share", additive=True),
    )


def position_answers(output: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Of output [batch, classes, *positions] and targets [batch, *positions], sums per example, float64 [batch] on the
    CPU (not every accelerator has float64).

    Returns:
        "nll": negative log-likelihood of the positions that are not `IGNORED`, in nats; "correct" and "positions":
        how many of them are right, and how many there are.
    """
    from torch.nn.functional import cross_entropy

    valid = targets != IGNORED
    nll = cross_entropy(output, targets, ignore_index=IGNORED, reduction="none")
    correct = (output.argmax(dim=1) == targets) & valid
    found = {"nll": nll, "correct": correct, "positions": valid}
    return {name: tensor.cpu().double().flatten(1).sum(1) for name, tensor in found.items()}


def perplexity(nll: Tensor, positions: Tensor) -> float:
    """exp of the mean negative log-likelihood, from sums per example (nats)."""
    return (nll.sum() / positions.sum()).exp().item()


def share(part: Tensor, whole: Tensor) -> float:
    """The sum of `part` over the sum of `whole`, from sums per example: a rate (errors per word, right ones of all)."""
    return (part.sum() / whole.sum()).item()


def accuracy(logits: Tensor, targets: Tensor) -> float:
    """The share of examples whose largest logit is the target's; among equal ones the first counts."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(targets.cpu().numpy(), logits.argmax(dim=1).cpu().numpy()))


def right(logits: Tensor, targets: Tensor) -> Tensor:
    """Which examples `accuracy` counts, bool [N]."""
    return logits.argmax(dim=1) == targets


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
