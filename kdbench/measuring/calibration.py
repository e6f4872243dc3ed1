"""How far a network's confidence can be trusted."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kdbench.torchvision_ops import ensure as ensure_torchvision

ECE_BINS = 15


def calibration(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """NLL, ECE and Brier score of logits [N, classes] and targets [N] of a whole split, in float64.

    Returns:
        "nll": mean negative log-likelihood, in nats.
        "ece": expected calibration error of the top label, L1, over 15 bins of equal width (Guo et al. 2017, eq. 5).
        "brier": squared error of the probabilities, summed over classes (so between 0 and 2, for two classes too),
            mean over examples (Brier 1950).
    """
    logits = logits.detach().to("cpu", torch.float64)
    targets = targets.detach().to("cpu", torch.long)
    probabilities = logits.softmax(dim=1)
    return {
        "nll": cross_entropy(logits, targets).item(),
        "ece": _calibration_error(probabilities, targets),
        "brier": _brier(probabilities, targets),
    }


def calibration_curve(logits: Tensor, targets: Tensor) -> dict[str, list[float]]:
    """The reliability diagram behind "ece" (Guo et al. 2017, figure 1), in float64: a number per bin, by confidence.

    Returns:
        "confidence": mean probability of the top label; "accuracy": share of examples on which it is right; "share":
            of all examples. Empty bins are left out, so that "ece" is the sum of share * |accuracy - confidence|.
    """
    probabilities = logits.detach().to("cpu", torch.float64).softmax(dim=1)
    confidences, predictions = probabilities.max(dim=1)
    right = predictions.eq(targets.detach().to("cpu", torch.long)).double()
    edges = torch.linspace(0, 1, ECE_BINS + 1, dtype=torch.float64)
    bins = torch.bucketize(confidences, edges[1:-1], right=True)
    counts, confident, correct = (
        torch.bincount(bins, weights=weights, minlength=ECE_BINS) for weights in (None, confidences, right)
    )
    filled = counts > 0
    return {
        "confidence": (confident / counts)[filled].tolist(),
        "accuracy": (correct / counts)[filled].tolist(),
        "share": (counts.double() / len(bins))[filled].tolist(),
    }


def _calibration_error(probabilities: Tensor, targets: Tensor) -> float:
    ensure_torchvision()  # torchmetrics imports it
    from torchmetrics.functional.classification import binary_calibration_error

    confidences, predictions = probabilities.max(dim=1)
    # A confidence of exactly 1 would get a sixteenth bin of its own.
    confidences = confidences.clamp(max=1 - torch.finfo(torch.float64).eps)
    # The binary form, with "the top label is right" as its event: the multi-class one falls back to float32.
    return binary_calibration_error(confidences, predictions.eq(targets).long(), n_bins=ECE_BINS, norm="l1").item()


def _brier(probabilities: Tensor, targets: Tensor) -> float:
    from sklearn.metrics import brier_score_loss

    classes = range(probabilities.shape[1])
    loss = brier_score_loss(targets.numpy(), probabilities.numpy(), labels=list(classes), scale_by_half=False)
    return float(loss)
