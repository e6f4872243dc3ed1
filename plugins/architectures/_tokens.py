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
