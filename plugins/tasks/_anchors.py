"""Anchors: the fixed grid of boxes that a one-stage detector answers for, and what SSD makes of it.

The mathematics of SSD (Liu et al. 2016, arXiv:1512.02325) in torchvision's parts: default boxes, matcher, box coding.
Boxes are (x1, y1, x2, y2) in pixels. Ground truth is a tensor [batch, most objects, 5]: a box and its class, counted
from 1 (0 is the background), or a row of -1 where an image has fewer objects.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, smooth_l1_loss
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou, clip_boxes_to_image

NEGATIVES = 3  # background anchors in the loss per matched one
_CODER = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
_MATCHER = SSDMatcher(0.5)
_MOST_CANDIDATES = 100  # per image and class, before non-maximum suppression


class Level(NamedTuple):
    """One feature map: pixels between its cells, and the anchors at each, as shares of the image's width.

    Four per cell, in this order: a square of `side`, a square of `other`, and `side` drawn out to the aspect ratio
    `ratio`, lying and standing.
    """

    stride: int
    side: float
    other: float
    ratio: float = 4 / 3


def cells(height: int, width: int, stride: int) -> tuple[int, int]:
    """Rows and columns of a feature map: halving, rounded up, until the stride is reached."""
    return -(-height // stride), -(-width // stride)


@lru_cache
def anchor_boxes(height: int, width: int, levels: tuple[Level, ...], device: torch.device | None = None) -> Tensor:
    """All anchors of an image, [anchors, 4]: level by level, row by row, cell by cell, in the order of `Level`.

    They stand around the centres of the cells, and may reach beyond the image. torchvision's generator, used for one
    level at a time, because it derives a level's second square from the next level; and told that the image is square,
    because it would stretch the boxes with it.
    """
    boxes = []
    canvas = ImageList(torch.empty(1, 1, width, width), [(width, width)])
    for stride, side, other, ratio in levels:
        generator = DefaultBoxGenerator([[ratio]], scales=[side, other**2 / side], steps=[stride], clip=False)
        boxes += generator(canvas, [torch.empty(1, 1, *cells(height, width, stride))])
    return torch.cat(boxes).to(device)


def match(objects: Tensor, anchors: Tensor) -> Tensor:
    """For each anchor the row of the object that it answers for, or -1, [batch, anchors].

    An object takes the anchor that overlaps it most, and all whose intersection over union is at least 0.5; an anchor
    of several takes the one that it overlaps most.
    """
    matches = []
    for own in objects:
        boxes = own[own[:, 4] > 0, :4]
        nothing = anchors.new_full((len(anchors),), -1, dtype=torch.int64)
        matches.append(_MATCHER(box_iou(boxes, anchors)) if len(boxes) else nothing)
    return torch.stack(matches)


def matched_classes(objects: Tensor, matches: Tensor) -> Tensor:
    """The class of each anchor's object, 0 where it has none: int64 [batch, anchors]."""
    classes = objects[:, :, 4].long().gather(1, matches.clamp_min(0))
    return classes.where(matches >= 0, 0)


def class_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of the matched anchors and of the hardest of the others, three for each; a scalar.

    `logits` [batch, anchors, classes], `classes` [batch, anchors]. The others are picked in each image by their loss;
    the sum is divided by the number of matched anchors in the batch (at least 1). Liu et al. 2016, equations 1 and 3.
    """
    losses = cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none").view_as(classes)
    matched = classes > 0
    hardness = losses.detach().masked_fill(matched, -torch.inf)
    rank = hardness.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    hard = (rank < NEGATIVES * matched.sum(dim=1, keepdim=True)) & ~matched
    return losses[matched | hard].sum() / matched.sum().clamp_min(1)


def box_loss(offsets: Tensor, objects: Tensor, matches: Tensor, anchors: Tensor) -> Tensor:
    """Smooth L1 of the matched anchors' offsets [batch, anchors, 4]: summed over the four, mean over them; a scalar.

    Liu et al. 2016, equation 2.
    """
    image, anchor = torch.nonzero(matches >= 0, as_tuple=True)
    boxes = objects[image, matches[image, anchor], :4]
    wanted = _CODER.encode_single(boxes, anchors[anchor])
    return smooth_l1_loss(offsets[image, anchor], wanted, reduction="sum") / max(len(anchor), 1)


class Detections(NamedTuple):
    """What a detector found: boxes [batch, most, 4], scores [batch, most], best first, and classes [batch, most].

    Where an image has fewer: boxes and scores of 0, class -1.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor


def detect(
    logits: Tensor, offsets: Tensor, anchors: Tensor, shape: tuple[int, int], *, least: float, most: int, overlap: float
) -> Detections:
    """The `most` best boxes of each image after non-maximum suppression in each class, on the CPU.

    `logits` [batch, anchors, classes], `offsets` [batch, anchors, 4]; `shape`: height and width, to which boxes are
    clipped. Boxes that score `least` or less, or that overlap a better one by more than `overlap`, are dropped.
    """
    logits, offsets, anchors = (tensor.detach().cpu() for tensor in (logits, offsets, anchors))
    decoded = _CODER.decode_single(offsets.flatten(0, 1), anchors.repeat(len(offsets), 1)).view_as(offsets)
    found = [
        _best(boxes, scores, least, most, overlap)
        for boxes, scores in zip(clip_boxes_to_image(decoded, shape), logits.softmax(dim=2), strict=True)
    ]
    return Detections(*(torch.stack(each) for each in zip(*found, strict=True)))


def _best(boxes: Tensor, scores: Tensor, least: float, most: int, overlap: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of one image: boxes [anchors, 4] and scores [anchors, classes]."""
    kept = []
    for label in range(1, scores.shape[1]):
        order = scores[:, label].argsort(descending=True, stable=True)[:_MOST_CANDIDATES]
        order = order[scores[order, label] > least]
        order = order[torch.ops.torchvision.nms(boxes[order], scores[order, label], overlap)]
        kept.append(torch.stack([order, torch.full_like(order, label)]))
    anchor, label = torch.cat(kept, dim=1)
    best = scores[anchor, label].argsort(descending=True, stable=True)[:most]
    anchor, label = anchor[best], label[best]
    padded = Detections(boxes.new_zeros(most, 4), boxes.new_zeros(most), label.new_full((most,), -1))
    for into, values in zip(padded, (boxes[anchor], scores[anchor, label], label), strict=True):
        into[: len(values)] = values
    return padded
