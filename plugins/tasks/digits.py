"""Digits: scikit-learn's handwritten digits, embedded in the library."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdbench import Count, Data, DataFolders, DataSpec, Task, TensorSplit

from ._images import Normalise
from ._subset import nested_subset

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
        everything = TensorSplit(torch.from_numpy(images), torch.from_numpy(targets))
        used = nested_subset(everything.subset(torch.from_numpy(train)), self.train_examples, "digits")
        return Data(
            spec=DataSpec(input_shape=(1, 8, 8), classes=10),
            train=used,
            test=everything.subset(torch.from_numpy(test)),
            class_names=tuple(str(digit) for digit in range(10)),
            prepare=Normalise.to(used.inputs),
        )
