"""Distilling an ensemble: one student, the mean answer of several teachers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from kdbench import ALL, Family, Needs, Positive, Step, Weight, full_precision

from .kd import KD, MaskedClass

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Ensemble(KD):
    """Learns the mean answer of all the teachers beside the true labels.

    Hinton et al. 2015, section 2, whose teacher may be an ensemble: KD towards the mean of the teachers' softened
    probabilities. Libraries differ: some average the logits, which is the normalised geometric mean of those
    probabilities and lets one confident teacher outvote the others. `average` says which. Weights and T as in KD.
    """

    family: ClassVar[Family] = "ensemble"
    paper: ClassVar[str] = "Hinton et al. 2015, arXiv:1503.02531"

    average: Literal["probabilities", "logits"] = "probabilities"
    temperature: Positive = 4.0
    hard_weight: Weight = 0.1
    soft_weight: Weight = 0.9
    masked_class: MaskedClass = None

    @property
    def needs(self) -> Needs:
        return Needs(teachers=ALL)

    def teacher_logits(self, step: Step) -> Tensor:
        logits = torch.stack([full_precision(teacher["logits"]) for teacher in step.teachers])
        if self.average == "logits":
            return logits.mean(0)
        # A softmax undoes the logarithm, up to the missing 1/K, which it does not see.
        return self.temperature * (logits / self.temperature).log_softmax(-1).logsumexp(0)
