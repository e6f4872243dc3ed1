"""Data-free adversarial distillation: the student never sees an example of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn.functional import l1_loss

from kdbench import Count, Family, Loop, Needs, NotApplicable, OwnLoop, Range

from ._generator import Generator

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class DataFree(OwnLoop):
    """Answers like the teacher to inputs that a generator makes up.

    Fang et al. 2019, algorithm 1: the student minimises the mean |student - teacher| of the logits on generated inputs,
    and the generator maximises it, one of its steps to `student_steps` (k) of the student's. Here both are trained by
    the suite's optimiser, the generator by the reversed gradient of the student's own step; its outputs are normalised,
    as prepared inputs are. The paper counts steps in its own epochs; here there are as many as others take.
    """

    family: ClassVar[Family] = "response"
    paper: ClassVar[str] = "Fang et al. 2019, arXiv:1912.11006"
    search_space: ClassVar = {"student_steps": Range(1, 10)}
    expected_failed_checks: ClassVar = {
        "batch_of_one": "it makes its batches up, and none is smaller than the recipe's"
    }

    student_steps: Count = 5
    noise: Count = 256

    @property
    def needs(self) -> Needs:
        return Needs(data="none")

    def build(self, loop: Loop) -> nn.Module:
        if loop.spec.vocabulary is not None:
            raise NotApplicable("it makes inputs up by their gradients, which tokens do not have")
        if loop.spec.positions:
            raise NotApplicable("it makes inputs up, and cannot tell which of their positions count")
        return Generator(self.noise, loop.spec.input_shape)

    def loop_losses(self, loop: Loop) -> dict[str, Tensor]:
        assert isinstance(loop.auxiliary, Generator)
        inputs = loop.auxiliary(loop.size)
        if loop.index % self.student_steps:
            inputs = inputs.detach()
        else:
            inputs.register_hook(torch.neg)
        student, teacher = loop.ask(loop.students[0], inputs), loop.ask(loop.teachers[0], inputs)
        return {"disagreement": l1_loss(student, teacher)}
