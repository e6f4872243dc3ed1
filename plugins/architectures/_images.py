"""What image networks ask of a task's inputs, and the embedding of those that have none on their way."""

from __future__ import annotations

from torch import Tensor, nn

from kdbench import BadInput, DataSpec


def image_shape(spec: DataSpec) -> tuple[int, int, int]:
    """Channels, height and width of one input, for networks that answer once to each.

    Raises:
        BadInput: the inputs are not images, or want an answer at each of their positions.
    """
    if spec.positions:
        raise BadInput(
            f"this architecture answers once for each image, not at positions {list(spec.positions)}",
            hint="choose an architecture made for this task",
        )
    return _shape(spec)


def scene_shape(spec: DataSpec) -> tuple[int, int, int]:
    """Channels, height and width of one input, for networks that answer at every pixel.

    Raises:
        BadInput: the inputs are not images, or do not want an answer at every pixel.
    """
    channels, height, width = _shape(spec)
    if spec.positions != (height, width) or spec.extras:
        raise BadInput(
            f"this architecture answers with a class at each of {height}x{width} pixels, which this task does not ask",
            hint="choose an architecture made for this task",
        )
    return channels, height, width


def _shape(spec: DataSpec) -> tuple[int, int, int]:
    if len(spec.input_shape) != 3:
        raise BadInput(
            f"this architecture takes images [channels, height, width], not inputs of shape {list(spec.input_shape)}",
            hint="choose an architecture made for this task",
        )
    channels, height, width = spec.input_shape
    return channels, height, width


class PooledBeside(nn.Module):
    """Passes features on and pools them beside: an embedding for networks that have none on their way to the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, features: Tensor) -> Tensor:
        self.pool(features)
        return features
