"""Early exits: small classifiers on the stages of a network, trained with it and thrown away after."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from torch import nn

from kdbench import NotApplicable, Step, stage_taps

if TYPE_CHECKING:
    from torch import Tensor


class Exit(nn.Module):
    """A stage [batch, widths[0], *positions] to its own logits [batch, classes] and embedding [batch, widths[-1]].

    One stride-2 convolution for each later stage that it stands in for, then the mean over positions and a linear
    classifier. Each example is normalised by itself, so that an exit works at any batch size.
    """

    def __init__(self, widths: Sequence[int], axes: int, classes: int) -> None:
        super().__init__()
        convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes]
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [convolution(narrow, wide, 3, stride=2, padding=1), nn.GroupNorm(1, wide), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, stage: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.features(stage).flatten(2).mean(2)
        return self.classifier(embedding), embedding


def build_exits(example: Step) -> nn.ModuleList:
    """An exit on every stage of the student but the last, growing to the width of its embedding.

    Raises:
        NotApplicable: the student has a single stage, or gives several answers for one example.
    """
    stages, logits, embedding = stage_taps(example.student), example.student["logits"], example.student["embedding"]
    if len(stages) < 2:
        raise NotApplicable("early exits need a student with at least two stages")
    if len(logits) != len(stages[0]):
        raise NotApplicable("early exits need a task with one answer per example")
    widths = [*(stage.shape[1] for stage in stages[:-1]), embedding.shape[1]]
    return nn.ModuleList(Exit(widths[i:], stage.ndim - 2, logits.shape[1]) for i, stage in enumerate(stages[:-1]))


def exit_answers(step: Step) -> list[tuple[Tensor, Tensor]]:
    """The logits and the embedding of each of the exits that were built, from the shallowest."""
    stages = zip(cast("nn.ModuleList", step.auxiliary), stage_taps(step.student), strict=False)
    return [exit_(stage) for exit_, stage in stages]
