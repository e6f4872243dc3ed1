"""The pieces of a loss that several methods share, each written once and to the full precision."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax


def soft_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) between softened answers [N, classes], summed over classes, mean over rows.

    T^2 is always there, T = 1 included, so that the gradient keeps its size as T changes: it is
    T (softmax(student / T) - softmax(teacher / T)) / N. Exactly 0 where the two agree.

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    student = log_softmax(full_precision(student_logits) / temperature, dim=1)
    teacher = log_softmax(full_precision(teacher_logits) / temperature, dim=1)
    return temperature**2 * kl_div(student, teacher, reduction="batchmean", log_target=True)


def full_precision(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is if wider: differences of near-equal numbers vanish in bfloat16."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def common_positions(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two features [batch, channels, *positions] brought to the same positions, whatever the number of axes.

    Along each axis the longer is averaged down to the shorter, so that no value is made up. If the numbers of axes
    differ (a map against tokens), all positions are laid out along one axis first. Equal shapes come back untouched.
    """
    if first.ndim != second.ndim:
        first, second = (tensor.reshape(*tensor.shape[:2], -1) for tensor in (first, second))
    for axis in range(2, first.ndim):
        size = min(first.shape[axis], second.shape[axis])
        first, second = _averaged(first, axis, size), _averaged(second, axis, size)
    return first, second


def _averaged(tensor: Tensor, axis: int, size: int) -> Tensor:
    """Adaptive average pooling of one axis; by slices, because torch's own has no deterministic gradient on CUDA."""
    length = tensor.shape[axis]
    if length == size:
        return tensor
    windows = [(index * length // size, -(-(index + 1) * length // size)) for index in range(size)]
    return torch.stack([tensor.narrow(axis, start, end - start).mean(axis) for start, end in windows], axis)
