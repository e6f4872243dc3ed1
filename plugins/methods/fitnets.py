"""FitNets: hints from the teacher's middle stage, then its answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from kdbench import Family, Fraction, Needs, Positive, Range, Step, Weight, common_positions, full_precision

from .kd import KD, MaskedClass


@dataclass(frozen=True)
class FitNets(KD):
    """Imitates a middle stage of the teacher first, then learns from its answers.

    Romero et al. 2015, equations 3 (hint) and 2 (KD), as two stages: only the hint for the first `hint_fraction` of the
    steps, only KD after, inside the common budget. `stages=joint` adds the hint to KD at every step instead; popular
    benchmarks add it to the hard loss alone: joint with hard_weight=1, soft_weight=0 and hint_weight=100.
    The hint is a mean of squared errors (the paper's: half a sum), after a 1x1 convolution to the teacher's channels;
    where the positions differ, the larger feature is averaged down.
    """

    family: ClassVar[Family] = "feature"
    paper: ClassVar[str] = "Romero et al. 2015, arXiv:1412.6550"
    search_space: ClassVar = {**KD.search_space, "hint_weight": Range(0.01, 100.0, log=True)}

    stages: Literal["two", "joint"] = "two"
    hint: str = "stage2"  # the teacher's stage
    guided: str = "stage2"  # the student's stage
    hint_weight: Weight = 1.0
    hint_fraction: Fraction = 0.3
    temperature: Positive = 4.0
    hard_weight: Weight = 0.1
    soft_weight: Weight = 0.9
    masked_class: MaskedClass = None

    @property
    def needs(self) -> Needs:
        return Needs(student=("logits", self.guided), teacher=("logits", self.hint))

    def build_auxiliary(self, example: Step) -> nn.Module:
        return nn.Conv1d(example.student[self.guided].shape[1], example.teacher[self.hint].shape[1], kernel_size=1)

    def losses(self, step: Step) -> dict[str, Tensor]:
        if self.stages == "joint":
            return {**super().losses(step), "hint": self.hint_loss(step)}
        return {"hint": self.hint_loss(step)} if step.progress < self.hint_fraction else super().losses(step)

    def hint_loss(self, step: Step) -> Tensor:
        """The weighted mean of squared errors between the regressed guided stage and the hint."""
        guided, regressor = step.student[self.guided], cast(nn.Conv1d, step.auxiliary)
        regressed = regressor(guided.reshape(*guided.shape[:2], -1)).reshape(guided.shape[0], -1, *guided.shape[2:])
        regressed, hint = common_positions(regressed, step.teacher[self.hint])
        return self.hint_weight * mse_loss(full_precision(regressed), full_precision(hint))
