"""A rival of distillation: the teacher itself, in eight bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kdbench import Family, Method, Needs


@dataclass(frozen=True)
class Int8(Method):
    """Stores the teacher's weights in eight bits, without training.

    Post-training quantisation of weights only (Krishnamoorthi 2018, section 3.1): of every convolution, linear layer
    and embedding, symmetric, one scale per output channel, rounded to the nearest of -127..127. Activations stay in
    float32 and weights are expanded where they are used: a quarter of the file, no fewer MACs and no less latency.
    """

    family: ClassVar[Family] = "compression"
    paper: ClassVar[str] = "Krishnamoorthi 2018, arXiv:1806.08342"

    @property
    def needs(self) -> Needs:
        return Needs(teacher=(), student_architecture="teacher", budget="none")

    def initial_weights(
        self, student: Mapping[str, Tensor], teachers: Sequence[Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        return teachers[0]

    def deploy(self, student: nn.Module) -> None:
        student.requires_grad_(False)  # integers have no gradients
        for module in student.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear | nn.Embedding):
                parametrize.register_parametrization(module, "weight", _Expanded(), unsafe=True)


class _Expanded(nn.Module):
    """Eight-bit integers and their scales as float32 weights [outputs, ...]."""

    def forward(self, integers: Tensor, scales: Tensor) -> Tensor:
        return integers * scales

    def right_inverse(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        largest = weights.flatten(1).abs().amax(1).reshape(-1, *[1] * (weights.ndim - 1))
        scales = largest.clamp(min=torch.finfo(weights.dtype).tiny) / 127
        return (weights / scales).round().to(torch.int8), scales
