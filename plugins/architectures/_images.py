"""What image networks ask of a task's inputs."""

from __future__ import annotations

from kdbench import BadInput, DataSpec


def image_shape(spec: DataSpec) -> tuple[int, int, int]:
    """Channels, height and width of one input.

    Raises:
        BadInput: the inputs are not images.
    """
    if len(spec.input_shape) != 3:
        raise BadInput(
            f"this architecture takes images [channels, height, width], not inputs of shape {list(spec.input_shape)}",
            hint="choose an architecture made for this task",
        )
    channels, height, width = spec.input_shape
    return channels, height, width
