"""Detection: boxes and classes of the objects in an image, answered anchor by anchor, and how that is scored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torchvision.ops import box_iou

from kdbench import Answers, BadInput, Batch, Data, DataSpec, Metric, MissingExtra, Task

from ._anchors import Level, anchor_boxes, box_loss, class_loss, detect, match, matched_classes

if TYPE_CHECKING:
    from torch import nn

BOX = 4  # numbers that say where a box is
MOST = 100  # detections of an image that count, as in COCO
_LEAST = 0.05  # scores up to here are no detections; SSD's 0.01 triples the time of scoring for 0.001 of mAP
_OVERLAP = 0.45  # boxes of one class that share more (intersection over union) are one, as in SSD
_OVERLAPS = tuple(percent / 100 for percent in range(50, 100, 5))
_SHOWN = 3  # images that samples tell of
_CONFIDENT = 0.5


@dataclass(frozen=True)
class Detection(Task):
    """One-stage detection with anchors, as in SSD (Liu et al. 2016).

    A network answers [batch, classes + 4, anchors]: for each anchor of `_anchors.anchor_boxes` logits of the background
    and the classes, then the offsets of its box. Targets are [batch, most objects, 5]: boxes (x1, y1, x2, y2) in pixels
    and classes from 1, rows of -1 where an image has fewer.

    All anchors are rows of `logits`, [batch * anchors, classes], labelled with the class of the object that they match.
    Nearly all are background, easily: so NLL, ECE, Brier score, agreement and KL from the teacher, means over these
    rows, are all close to their best, and only differences between methods tell something. For the same reason a
    soft loss, a mean over rows, is small beside the task's, a sum divided by the matched anchors alone.
    """

    levels: ClassVar[tuple[Level, ...]]

    def image_shape(self) -> tuple[int, int]:
        """Height and width of the inputs."""
        raise NotImplementedError

    def anchors(self, device: torch.device | None = None) -> Tensor:
        """All anchors of an image, [anchors, 4]."""
        return anchor_boxes(*self.image_shape(), self.levels, device)

    def logits(self, output: Tensor, batch: Batch) -> Tensor:
        """The class part of the answer, as rows [batch * anchors, classes]: image by image, in the anchors' order.

        Raises:
            BadInput: the network does not answer for these anchors.
        """
        logits, _ = self._parts(output)
        return logits.flatten(0, 1)

    def labels(self, batch: Batch) -> Tensor:
        """The class of the object that each anchor matches, 0 where it matches none, [batch * anchors]."""
        return self._classes(batch).flatten()

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of matched anchors and hard backgrounds, divided by the matched anchors: `class_loss`."""
        classes = self._classes(batch)
        return class_loss(logits.reshape(*classes.shape, -1), classes)

    def output_losses(self, output: Tensor, batch: Batch) -> Answers:
        """ "boxes": smooth L1 of the offsets of matched anchors: `box_loss`."""
        _, offsets = self._parts(output)
        return {"boxes": box_loss(offsets, batch.targets, self._matches(batch), self.anchors(output.device))}

    def answers(self, output: Tensor, batch: Batch) -> Answers:
        """The detections of each image, `MOST` at most, and the truth.

        "boxes" [batch, 100, 4], "scores" and "classes" [batch, 100], as `Detections` has them; "objects": the targets.
        """
        logits, offsets = self._parts(output)
        found = detect(logits, offsets, self.anchors(), self.image_shape(), least=_LEAST, most=MOST, overlap=_OVERLAP)
        return {**found._asdict(), "objects": batch.targets}

    def metrics(self, spec: DataSpec) -> tuple[Metric, ...]:
        """Mean average precision at overlaps of 0.5 to 0.95, as in COCO (the primary one), and at 0.5, as in VOC."""
        return (
            Metric("map", average_precision, reads=READS, unit="share"),
            Metric("map50", partial(average_precision, overlap=0.5), reads=READS, unit="share"),
        )

    def class_metrics(self, names: tuple[str, ...]) -> tuple[Metric, ...]:
        """Average precision of each class at overlaps of 0.5 to 0.95; `names` without the background."""
        return tuple(
            Metric(f"ap_{name.lower()}", partial(average_precision, label=label), reads=READS, unit="share")
            for label, name in enumerate(names, 1)
        )

    @torch.no_grad()
    def samples(self, network: nn.Module, data: Data, device: torch.device) -> tuple[str, ...]:
        """The first test images: of each class, how many were found (score above 0.5) and how many of the true ones
        some find of their class overlaps by half."""
        (batch,) = data.test.batches([torch.arange(min(_SHOWN, len(data.test)))])
        was_training = network.training
        output = network.eval()(data.prepare(batch.inputs.to(device))).float()
        network.train(was_training)
        found = self.answers(output, batch)
        told = zip(*(found[name] for name in READS), strict=True)
        return tuple(f"test image {number}: {_told(data.class_names, *each)}" for number, each in enumerate(told))

    def _parts(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [batch, anchors, classes] and offsets [batch, anchors, 4]."""
        anchors = len(self.anchors())
        if output.ndim != 3 or output.shape[2] != anchors:
            raise BadInput(
                f"the network answers {list(output.shape[1:])}, not for each of {anchors} anchors",
                hint="choose a detector, e.g. ssd",
            )
        return output[:, :-BOX].transpose(1, 2), output[:, -BOX:].transpose(1, 2)

    def _classes(self, batch: Batch) -> Tensor:
        return matched_classes(batch.targets, self._matches(batch))

    def _matches(self, batch: Batch) -> Tensor:
        return _match_once(batch.targets, batch.targets._version, self.anchors(batch.targets.device))


@lru_cache(maxsize=2)
def _match_once(objects: Tensor, version: int, anchors: Tensor) -> Tensor:
    """`match`, remembered: trials of a cohort share their batches, and each asks twice. Tensors are keys by identity,
    and `version` counts what is written into them."""
    return match(objects, anchors)


READS = ("boxes", "scores", "classes", "objects")


def require_scores() -> None:
    """Fails before anything is trained.

    Raises:
        MissingExtra: the library that scores detections is not installed.
    """
    if find_spec("pycocotools") is None:
        raise MissingExtra("scoring detections", "detection")


def average_precision(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    objects: Tensor,
    *,
    overlap: float | None = None,
    label: int | None = None,
) -> float:
    """Average precision as COCO's own code computes it, the mean over 101 recalls, classes and overlaps.

    Takes the answers of a `Detection`. `overlap`: the only intersection over union at which a box counts as found,
    one of 0.5, 0.55, ..., 0.95; None: all ten. `label`: the only class; None: all that occur among `objects`. NaN where
    none does.

    Raises:
        MissingExtra: pycocotools is not installed.
    """
    require_scores()
    if not (objects[:, :, 4] > 0).any():
        return float("nan")
    found = _precision(boxes, scores, classes, objects, boxes._version + scores._version + classes._version)
    chosen = found if overlap is None else found[_OVERLAPS.index(overlap)]
    chosen = chosen if label is None else chosen[..., label : label + 1]  # empty where it occurs nowhere
    return chosen[chosen >= 0].mean().item()


@lru_cache(maxsize=1)
def _precision(boxes: Tensor, scores: Tensor, classes: Tensor, objects: Tensor, version: int) -> Tensor:
    """Precision at each overlap, recall and class, [10, 101, classes]; -1 where a class does not occur.

    Remembered as in `_match_once`: a task's metrics all read it, and it is slow.
    """
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(iou_thresholds=list(_OVERLAPS), extended_summary=True)
    metric.update(
        [
            {"boxes": box[kind > 0], "scores": score[kind > 0], "labels": kind[kind > 0]}
            for box, score, kind in zip(boxes, scores, classes, strict=True)
        ],
        [{"boxes": own[own[:, 4] > 0, :4], "labels": own[own[:, 4] > 0, 4].long()} for own in objects],
    )
    summary = metric.compute()
    present = summary["classes"].reshape(-1).long()
    found = torch.full((*summary["precision"].shape[:2], int(present.max()) + 1), -1.0, dtype=torch.float64)
    found[..., present] = summary["precision"][..., 0, -1].double()  # objects of all sizes, all detections
    return found


def _told(names: tuple[str, ...], boxes: Tensor, scores: Tensor, classes: Tensor, objects: Tensor) -> str:
    parts = []
    for label, name in enumerate(names[1:], 1):
        found = boxes[(classes == label) & (scores > _CONFIDENT)]
        true = objects[objects[:, 4] == label, :4]
        hit = int((box_iou(true, found) >= 0.5).any(dim=1).sum()) if len(found) else 0
        parts.append(f"{name}: {len(found)} found, {hit} of {len(true)} true ones")
    return "; ".join(parts)
