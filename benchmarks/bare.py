"""Distillation without kdbench: the loops that a practitioner writes by hand for one student, as lean as they get.

Each computes what the engine does for the method of its name, on the same modules (a test compares trained weights).
Features are returned by the forward pass, as the networks of the CRD benchmark (Tian et al. 2020) do: there are no
hooks. The losses follow that benchmark's code or the authors' own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdbench import Batch

from .workloads import DECAY, LEARNING_RATE, MOMENTUM


class Answer(NamedTuple):
    """What a network answers: logits [batch, classes], the feature of each stage, and the embedding."""

    logits: Tensor
    stages: Sequence[Tensor] = ()
    embedding: Tensor | None = None


def plain(network: nn.Module, inputs: Tensor) -> Answer:
    """The logits alone."""
    return Answer(network(inputs))


def with_features(network: nn.Module, inputs: Tensor) -> Answer:
    """All that the feature methods look at, collected on the way."""
    stages, embedding, value = [], None, inputs
    for name, layer in network.named_children():
        if name == "classifier":
            embedding = value
        value = layer(value)
        if name.startswith("stage"):
            stages.append(value)
    return Answer(value, stages, embedding)


def cross_entropy(student: Answer, targets: Tensor) -> Tensor:
    """The loss of the student alone."""
    return functional.cross_entropy(student.logits, targets)


def kd(student: Answer, teacher: Answer, targets: Tensor, temperature: float = 4.0) -> Tensor:
    """0.1 CE + 0.9 T^2 KL (Hinton et al. 2015)."""
    soft = functional.kl_div(
        functional.log_softmax(student.logits / temperature, dim=1),
        functional.softmax(teacher.logits / temperature, dim=1),
        reduction="batchmean",
    )
    return 0.1 * cross_entropy(student, targets) + 0.9 * temperature**2 * soft


def hint(student: Answer, teacher: Answer, targets: Tensor, regressor: nn.Module) -> Tensor:
    """CE + 10 MSE of the second stages, after a 1x1 convolution (FitNets; the CRD benchmark's 100 diverges here)."""
    distance = functional.mse_loss(regressor(student.stages[1]), teacher.stages[1])
    return cross_entropy(student, targets) + 10 * distance


def attention(student: Answer, teacher: Answer, targets: Tensor) -> Tensor:
    """CE + 1000 times the mean squared differences of attention maps (Zagoruyko & Komodakis 2017)."""
    pairs = zip(student.stages, teacher.stages, strict=True)
    distances = [(_attention_map(own) - _attention_map(other)).pow(2).mean() for own, other in pairs]
    return cross_entropy(student, targets) + 1000 * sum(distances)


def _attention_map(feature: Tensor) -> Tensor:
    return functional.normalize(feature.pow(2).mean(1).view(feature.size(0), -1))


def relations(student: Answer, teacher: Answer, targets: Tensor) -> Tensor:
    """CE + 25 distances + 50 angles (Park et al. 2019)."""
    assert student.embedding is not None
    assert teacher.embedding is not None
    with torch.no_grad():
        other_distances, other_angles = _distances(teacher.embedding), _angles(teacher.embedding)
    distance = functional.smooth_l1_loss(_distances(student.embedding), other_distances)
    angle = functional.smooth_l1_loss(_angles(student.embedding), other_angles)
    return cross_entropy(student, targets) + 25 * distance + 50 * angle


def _distances(embedding: Tensor) -> Tensor:
    squares = embedding.pow(2).sum(dim=1)
    products = embedding @ embedding.t()
    distances = (squares.unsqueeze(1) + squares.unsqueeze(0) - 2 * products).clamp(min=1e-12).sqrt().clone()
    distances[range(len(embedding)), range(len(embedding))] = 0
    return distances / distances[distances > 0].mean()


def _angles(embedding: Tensor) -> Tensor:
    differences = embedding.unsqueeze(0) - embedding.unsqueeze(1)
    directions = functional.normalize(differences, p=2, dim=2)
    return torch.bmm(directions, directions.transpose(1, 2)).view(-1)


@dataclass(frozen=True)
class _Recipe:
    """How a method is trained by hand: how networks are called, and the loss of what they answer."""

    call: Callable[[nn.Module, Tensor], Answer]
    loss: Callable[..., Tensor]
    distils: bool = True
    regresses: bool = False


# By the name under which a suite asks the engine for the same.
_BY_HAND = {
    "scratch": _Recipe(plain, cross_entropy, distils=False),
    "kd": _Recipe(plain, kd),
    "fitnets[stages=joint,hard_weight=1,soft_weight=0,hint_weight=10]": _Recipe(with_features, hint, regresses=True),
    "rkd": _Recipe(with_features, relations),
    "attention_transfer": _Recipe(with_features, attention),
}
METHODS = tuple(_BY_HAND)


def methods_for(kind: str) -> tuple[str, ...]:
    """The methods that are written by hand for a kind of data: those that look at features, for images only."""
    return tuple(name for name, recipe in _BY_HAND.items() if kind == "images" or recipe.call is plain)


class BareLoop:
    """One training run: a student, its teacher in eval mode, one optimiser, the running sum of the loss."""

    def __init__(self, method: str, student: nn.Module, teacher: nn.Module, example: Tensor, optimizer: str) -> None:
        self.by_hand, self.student, self.teacher = _BY_HAND[method], student.train(), teacher
        self.regressor = self._regressor(example).train() if self.by_hand.regresses else None
        groups = [{"params": list(student.parameters()), "weight_decay": DECAY}]
        if self.regressor is not None:
            groups.append({"params": list(self.regressor.parameters()), "weight_decay": 0.0})
        self.optimizer: torch.optim.Optimizer
        if optimizer == "adamw":
            self.optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
        else:
            self.optimizer = torch.optim.SGD(groups, lr=LEARNING_RATE, momentum=MOMENTUM)
        self.running_loss = torch.zeros((), device=example.device)

    def _regressor(self, example: Tensor) -> nn.Module:
        with torch.no_grad():
            # eval, or the running means of the norms would see this batch
            student = with_features(self.student.eval(), example).stages[1]
            teacher = with_features(self.teacher, example).stages[1]
        self.student.train()
        return nn.Conv2d(student.shape[1], teacher.shape[1], kernel_size=1).to(example.device)

    def step(self, batch: Batch) -> None:
        """One step of training."""
        call, extra = self.by_hand.call, () if self.regressor is None else (self.regressor,)
        if self.by_hand.distils:
            # the teacher first: in between it would drive the student's activations out of the caches (5 to 15 %)
            with torch.no_grad():
                teacher = call(self.teacher, batch.inputs)
            loss = self.by_hand.loss(call(self.student, batch.inputs), teacher, batch.targets, *extra)
        else:
            loss = self.by_hand.loss(call(self.student, batch.inputs), batch.targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.running_loss += loss.detach() * len(batch)
