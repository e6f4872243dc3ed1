"""OwnLoop, Loop: the second contract, for methods that must ask the networks themselves.

Most methods turn one shared `Step` into losses. A few cannot: they make their inputs up (data-free distillation), or
ask the student twice (rationales). These run alone, without sharing teacher passes; budget and optimiser remain the
engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from kdbench.method import Method, Step

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdbench.task import Batch, DataSpec

Network = Callable[["Batch"], Mapping[str, "Tensor"]]


@dataclass(frozen=True)
class Loop:
    """One step, in the hands of a method that owns its loop.

    Attributes:
        students, teachers: answer a prepared batch with the taps of `Method.needs`, "logits" always among them.
            Students are in train mode. Teachers are frozen and in eval mode, but gradients pass through them to inputs.
        batch: the data's next batch, prepared; None where `needs.data` is "none".
        task_loss: the hard-label loss (a scalar) of logits [N, classes] for a batch.
        rationales: the same examples with the reasons for their answers as targets.
            Raises NotApplicable: the task has none; the trial is skipped with this reason.
        spec: the shapes of one prepared input and of one answer.
        size: examples in a batch of the suite's recipe.
        index: how many steps came before; `progress`: 0 at the first step of training, 1 at the last.
        auxiliary: what `build` returned; trained with the student, thrown away after.
    """

    students: Sequence[Network]
    teachers: Sequence[Network]
    batch: Batch | None
    task_loss: Callable[[Tensor, Batch], Tensor]
    rationales: Callable[[Batch], Batch]
    spec: DataSpec
    size: int
    index: int = 0
    progress: float = 0.0
    auxiliary: nn.Module | None = None

    def ask(self, network: Network, inputs: Tensor) -> Tensor:
        """The logits of `network` for prepared inputs [batch, *spec.input_shape] that are no examples of the data."""
        import torch

        from kdbench.task import Batch

        nowhere = torch.full((len(inputs),), -1, device=inputs.device)
        return network(Batch(inputs, nowhere, nowhere))["logits"]


@dataclass(frozen=True)
class OwnLoop(Method):
    """A method that asks the networks itself: one call of `loop_losses` is one optimisation step."""

    def build(self, loop: Loop) -> nn.Module | None:
        """Modules trained along with the student (a generator), built to the shapes of a first step.

        Raises:
            NotApplicable: the method has no meaning for such data; the trial is skipped with this reason.
        """
        return None

    def loop_losses(self, loop: Loop) -> dict[str, Tensor]:
        """The terms of the loss, each a scalar already weighted; their sum is minimised and each is logged."""
        raise NotImplementedError

    @final
    def build_auxiliary(self, example: Step) -> nn.Module | None:
        """Never asked: see `build`."""
        raise NotImplementedError(f"{type(self).__name__} owns its loop")

    @final
    def losses(self, step: Step) -> dict[str, Tensor]:
        """Never asked: see `loop_losses`."""
        raise NotImplementedError(f"{type(self).__name__} owns its loop")
