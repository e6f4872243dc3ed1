"""What text networks ask of a task's inputs."""

from __future__ import annotations

from kdbench import BadInput, DataSpec


def token_shape(spec: DataSpec) -> tuple[int, int]:
    """Tokens of one input, and the size of the vocabulary.

    Raises:
        BadInput: the inputs are not token ids.
    """
    if spec.vocabulary is None or len(spec.input_shape) != 1:
        raise BadInput(
            f"this architecture takes token ids [length], not inputs of shape {list(spec.input_shape)}",
            hint="choose an architecture made for this task",
        )
    return spec.input_shape[0], spec.vocabulary


def text_shape(spec: DataSpec) -> tuple[int, int]:
    """`token_shape`, for networks that answer once for each text.

    Raises:
        BadInput: the inputs are not token ids, or want an answer at each of their positions.
    """
    if spec.positions:
        raise BadInput(
            f"this architecture answers once for each text, not at positions {list(spec.positions)}",
            hint="choose an architecture made for this task",
        )
    return token_shape(spec)
