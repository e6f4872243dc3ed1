"""Distilling step by step: the student learns to give reasons, and answers without them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdbench import Family, Loop, Needs, OwnLoop, Range, Weight

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class StepByStep(OwnLoop):
    """Learns each example twice: for its answer, and for the reasons that the data give for it.

    Hsieh et al. 2023, equation 3: L_label + weight * L_rationale, the cross-entropies of the answer and of the tokens
    of the rationale, which a prefix of the question asks for. The teacher of the paper is a large model that was
    prompted for reasons beforehand; here it is whoever wrote them into the data. The student asks itself twice a step,
    so that each costs two of the baseline's: `longer_scratch` shows what that alone would buy. When it is tested it
    gives no reasons. Tasks without rationales skip it.
    """

    family: ClassVar[Family] = "response"
    paper: ClassVar[str] = "Hsieh et al. 2023, arXiv:2305.02301"
    controls: ClassVar[tuple[str, ...] | None] = ("label_smoothing", "longer_scratch")
    search_space: ClassVar = {"weight": Range(0.1, 10.0, log=True)}

    weight: Weight = 1.0

    @property
    def needs(self) -> Needs:
        return Needs(teacher=(), teachers=0)

    def build(self, loop: Loop) -> nn.Module | None:
        assert loop.batch is not None
        loop.rationales(loop.batch)  # refuses where there are none
        return None

    def loop_losses(self, loop: Loop) -> dict[str, Tensor]:
        assert loop.batch is not None
        reasons = loop.rationales(loop.batch)
        student = loop.students[0]
        return {
            "task": loop.task_loss(student(loop.batch)["logits"], loop.batch),
            "rationale": self.weight * loop.task_loss(student(reasons)["logits"], reasons),
        }
