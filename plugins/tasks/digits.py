"""Digits: scikit-learn's handwritten digits, embedded in the library."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdbench import BadInput, Count, Data, DataFolders, DataSpec, Task, TensorSplit

from ._images import Normalise

_TEST_SHARE = 0.3
_SEED = 0


@dataclass(frozen=True)
class Digits(Task):
    """1797 handwritten digits of 8x8 grey pixels (0..16), 540 of them for testing: needs neither network nor disk.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998 (its test part).

    Attributes:
        train_examples: how many of the 1257 training examples are used, with equal class shares; a smaller number
            gives a subset of what a larger one gives. None: all.
    """

    train_examples: Count | None = None

    def load(self, folders: DataFolders) -> Data:
        """uint8 inputs [N, 1, 8, 8].

        Raises:
            BadInput: more training examples are asked for than there are.
        """
        import torch
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        images, targets = digits.images.astype(np.uint8)[:, None], digits.target.astype(np.int64)
        train, test = (
            np.sort(part)
            for part in train_test_split(
                np.arange(len(targets)), test_size=_TEST_SHARE, stratify=targets, random_state=_SEED
            )
        )
        if self.train_examples is not None:
            if self.train_examples > len(train):
                raise BadInput(f"digits has {len(train)} training examples, not {self.train_examples}")
            train = train[_spread(targets[train])[: self.train_examples]]
        splits = [
            TensorSplit(torch.from_numpy(images[part]), torch.from_numpy(targets[part])) for part in (train, test)
        ]
        return Data(
            spec=DataSpec(input_shape=(1, 8, 8), classes=10),
            train=splits[0],
            test=splits[1],
            class_names=tuple(str(digit) for digit in range(10)),
            prepare=Normalise.to(splits[0].inputs),
        )


def _spread(targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """All positions, shuffled, in an order of which every beginning has the classes in their shares."""
    shuffled = np.random.default_rng(_SEED).permutation(len(targets))
    place = np.empty(len(targets))
    for label in np.unique(targets):
        members = shuffled[targets[shuffled] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.lexsort((targets, place))
