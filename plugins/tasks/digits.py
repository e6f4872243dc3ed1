"""Digits: scikit-learn's handwritten digits, embedded in the library."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from kdbench import Count, Data, DataFolders, DataSpec, MissingData, Task, TensorSplit

from ._images import Normalise
from ._subset import nested_subset

# Which examples are for testing, a bit each: the stratified 30 % that scikit-learn's train_test_split drew at
# random_state 0. Written down, so that no later version of it draws others, and a plan need not import it.
_TEST = bytes.fromhex(
    "002004c8b5263040081641219342050c5a00081122240028062c1e081108960a009019320430fca0128194e042284adab044"
    "1724c942c8a24a2030806004d821408b802000588dc50010400ea09000054ae801301000228ecc09005226840083b8053c23"
    "a69c0a0224000fc9542804a498cd02124061e500802c604e9c376b8192160154c8404842a0a4180a5000b60b8561e6891380"
    "4b126c80c02205068e420109f202c141b98813c809190001948e21028410a8f52033283920c944c8c8688a01029322920309"
    "22a6402d26062108a8608198c8a0141286124a12853ca41520"
)


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
            MissingData: scikit-learn keeps them elsewhere than its versions so far.
        """
        import torch

        rows = np.loadtxt(_table(), delimiter=",", dtype=np.uint8)
        images, targets = rows[:, :-1].reshape(-1, 1, 8, 8), rows[:, -1].astype(np.int64)
        for_testing = np.unpackbits(np.frombuffer(_TEST, np.uint8), count=len(rows)).astype(bool)
        train, test = (torch.from_numpy(np.flatnonzero(part)) for part in (~for_testing, for_testing))
        everything = TensorSplit(torch.from_numpy(images), torch.from_numpy(targets))
        used = nested_subset(everything.subset(train), self.train_examples, "digits")
        return Data(
            spec=DataSpec(input_shape=(1, 8, 8), classes=10),
            train=used,
            test=everything.subset(test),
            class_names=tuple(str(digit) for digit in range(10)),
            prepare=Normalise.to(used.inputs),
        )


def _table() -> Path:
    """Where scikit-learn keeps the digits: 64 pixels and the class in each row."""
    found = find_spec("sklearn")
    path = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz" if found and found.origin else None
    if path is None or not path.exists():
        raise MissingData(f"scikit-learn's digits are not at {path}", hint="pip install 'scikit-learn>=1.7'")
    return path
