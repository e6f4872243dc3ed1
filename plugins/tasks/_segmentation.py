"""Segmentation: a class for every pixel, and how that is scored over a whole split."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdbench import IGNORED, Answers, Batch, Data, DataSpec, Metric, Task

if TYPE_CHECKING:
    from torch import nn

_SAMPLES_BATCH = 16


@dataclass(frozen=True)
class Segmentation(Task):
    """A classification of every pixel: targets are class ids [batch, height, width], `IGNORED` where there is none."""

    def answers(self, output: Tensor, batch: Batch) -> Answers:
        """ "confusion", int64 [batch, classes, classes]: labelled pixels by true class (row) and answer (column)."""
        return {"confusion": confusion(output.argmax(dim=1), batch.targets, output.shape[1])}

    def metrics(self, spec: DataSpec) -> tuple[Metric, ...]:
        scores = {"miou": mean_iou, "pixel_accuracy": pixel_accuracy, "mean_class_accuracy": mean_class_accuracy}
        return tuple(
            Metric(name, compute, reads=("confusion",), unit="share", additive=True) for name, compute in scores.items()
        )

    def samples(self, network: nn.Module, data: Data, device: torch.device) -> tuple[str, ...]:
        """One line: each class's IoU over the test split; a dash where it neither occurs nor is answered."""
        counts = []
        for batch in data.test.batches(torch.arange(len(data.test)).split(_SAMPLES_BATCH)):
            output = network(data.prepare(batch.inputs.to(device)))
            counts.append(
                self.answers(output, Batch(batch.inputs, batch.targets.to(device), batch.indices))["confusion"]
            )
        each = zip(data.class_names, class_iou(torch.cat(counts)).tolist(), strict=True)
        return ("IoU: " + ", ".join(f"{name} {iou:.3f}" if not isnan(iou) else f"{name} -" for name, iou in each),)


def confusion(predictions: Tensor, targets: Tensor, classes: int) -> Tensor:
    """How often each true class (row) was answered by each class (column), int64 [batch, classes, classes].

    `predictions`, `targets`: class ids [batch, *positions]; where the target is `IGNORED`, nothing counts.
    """
    images = torch.arange(len(targets), device=targets.device).view(-1, *[1] * (targets.ndim - 1))
    cells = (images * classes + targets) * classes + predictions
    counts = torch.bincount(cells[targets != IGNORED], minlength=len(targets) * classes**2)
    return counts.view(len(targets), classes, classes)


def class_iou(counts: Tensor) -> Tensor:
    """Of confusion counts [examples, classes, classes], each class's intersection over union in all examples together,
    float64 [classes]; NaN where the class neither occurs nor is answered."""
    total = counts.sum(dim=0).double()
    right = total.diagonal()
    return right / (total.sum(dim=0) + total.sum(dim=1) - right)


def mean_iou(counts: Tensor) -> float:
    """The mean of the classes' IoU (Everingham et al. 2010), over the classes that occur as target or as answer."""
    return class_iou(counts).nanmean().item()


def pixel_accuracy(counts: Tensor) -> float:
    """The share of labelled pixels whose answer is right."""
    total = counts.sum(dim=0)
    return (total.diagonal().sum() / total.sum()).item()


def mean_class_accuracy(counts: Tensor) -> float:
    """The mean over the classes that occur of the share of their pixels whose answer is right."""
    total = counts.sum(dim=0).double()
    return (total.diagonal() / total.sum(dim=1)).nanmean().item()
