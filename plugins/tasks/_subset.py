"""Fewer training examples, for experiments with limited data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdbench import BadInput, TensorSplit

_SEED = 0


def nested_subset(split: TensorSplit, examples: int | None, title: str) -> TensorSplit:
    """The split restricted to `examples` of its own, classes in their shares; a smaller number takes a part of these.

    Raises:
        BadInput: the split has fewer; `title` names the data set in the message.
    """
    import torch

    if examples is None:
        return split
    if examples > len(split):
        raise BadInput(f"{title} has {len(split)} training examples, not {examples}")
    return split.subset(torch.from_numpy(_spread(split.targets.numpy())[:examples]))


def _spread(targets: NDArray[Any]) -> NDArray[np.int64]:
    """All positions, shuffled, in an order of which every beginning has the classes in their shares."""
    shuffled = np.random.default_rng(_SEED).permutation(len(targets))
    place = np.empty(len(targets))
    for label in np.unique(targets):
        members = shuffled[targets[shuffled] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.lexsort((targets, place))
