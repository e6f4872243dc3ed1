"""Self-distillation through early exits ("be your own teacher")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from kdbench import Family, Fraction, Method, Needs, Positive, Range, Step, Weight, full_precision, soft_loss

from ._exits import build_exits, exit_answers


@dataclass(frozen=True)
class SelfDistillation(Method):
    """Teaches early exits with the network's own deepest answer; needs no teacher.

    Zhang et al. 2019 (BYOT), section 3: CE of the deepest classifier + the sum, over exits on every stage but the last,
    of (1 - soft_weight) CE + soft_weight T^2 KL(deepest || exit) + hint_weight mean((embedding - deepest embedding)^2).
    Defaults: 0.1 as in the paper; T = 3 and 0.03 as in the authors' code, which drops T^2 and sums the hint's squares,
    so that its weight depends on the batch: here T^2 stays and the hint is a mean. The deepest answer is never pulled.
    """

    family: ClassVar[Family] = "self"
    paper: ClassVar[str] = "Zhang et al. 2019, arXiv:1905.08094"
    search_space: ClassVar = {
        "temperature": Range(1.0, 10.0, log=True),
        "soft_weight": Range(0.01, 0.99),
        "hint_weight": Range(0.001, 1.0, log=True),
    }

    temperature: Positive = 3.0
    soft_weight: Fraction = 0.1
    hint_weight: Weight = 0.03

    @property
    def needs(self) -> Needs:
        # a network of one stage has no place for an exit: asking for a second one has it skipped
        return Needs(student=("logits", "embedding", "stages", "stage2"), teacher=(), teachers=0)

    def build_auxiliary(self, example: Step) -> nn.Module:
        return build_exits(example)

    def losses(self, step: Step) -> dict[str, Tensor]:
        deepest, target = step.student["logits"].detach(), full_precision(step.student["embedding"].detach())
        logits, embeddings = zip(*exit_answers(step), strict=True)
        hard = [step.task_loss(each) for each in logits]
        soft = [soft_loss(each, deepest, self.temperature) for each in logits]
        hint = [mse_loss(full_precision(each), target) for each in embeddings]
        return {
            "task": step.task_loss(step.student["logits"]),
            "exits": (1 - self.soft_weight) * torch.stack(hard).sum(),
            "soft": self.soft_weight * torch.stack(soft).sum(),
            "hint": self.hint_weight * torch.stack(hint).sum(),
        }
