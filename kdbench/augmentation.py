"""Random crops and flips of a whole batch at once, so that no time goes into per-image Python.

The random numbers come from a CPU generator whatever the inputs' device, so that all devices see the same pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from kdbench.errors import BadInput, UnknownName
from kdbench.hyperparameters import Count, construct
from kdbench.spec import Spec

Transform = Callable[[Tensor, Generator], Tensor]


@dataclass(frozen=True)
class Crop:
    """A random window of each image's own size, after a zero border of `padding` pixels was put around it."""

    padding: Count = 4

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        batch, _, height, width = images.shape
        offsets = torch.randint(0, 2 * self.padding + 1, (2, batch), generator=generator).to(
            images.device, non_blocking=True
        )
        windows = pad(images, [self.padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
        return windows[torch.arange(batch, device=images.device), :, offsets[0], offsets[1]]


@dataclass(frozen=True)
class Flip:
    """Left and right exchanged in about half of the images."""

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        flipped = torch.randint(0, 2, (len(images), 1, 1, 1), generator=generator).bool()
        return torch.where(flipped.to(images.device, non_blocking=True), images.flip(-1), images)


_TRANSFORMS: dict[str, type[Crop] | type[Flip]] = {"crop": Crop, "flip": Flip}


@dataclass(frozen=True)
class Augmentation:
    """The transforms of a recipe, applied in order to raw inputs [batch, channels, height, width], never in place."""

    transforms: tuple[Transform, ...] = ()

    def __call__(self, inputs: Tensor, generator: Generator) -> Tensor:
        """New inputs of the same shape and dtype; without transforms, `inputs` themselves.

        Raises:
            BadInput: the inputs are no images.
        """
        if self.transforms and inputs.ndim != 4:
            raise BadInput(
                f"crop and flip need images [batch, channels, height, width], not inputs {list(inputs.shape)}",
                hint="leave the recipe's augmentation empty for this task",
            )
        for transform in self.transforms:
            inputs = transform(inputs, generator)
        return inputs


def parse(specs: Sequence[str]) -> Augmentation:
    """The augmentation that a recipe writes as `["crop[padding=4]", "flip"]`.

    Raises:
        UnknownName: no augmentation bears a name.
        BadInput: a spec that cannot be read, or a parameter that is unknown or out of range.
    """
    return Augmentation(tuple(_transform(Spec.parse(text)) for text in specs))


def _transform(spec: Spec) -> Transform:
    if spec.name not in _TRANSFORMS:
        raise UnknownName("augmentation", spec.name, _TRANSFORMS)
    if spec.flags:
        raise BadInput(f"augmentation '{spec.name}' has no flag '{spec.flags[0]}'", hint="write key=value")
    return construct(_TRANSFORMS[spec.name], spec.params, f"augmentation '{spec.name}'")
