"""Digits: scikit-learn's own, split once and for all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from kdbench import DataFolders, MissingData
from kdbench_plugins.tasks import digits
from kdbench_plugins.tasks.digits import Digits


def test_they_are_those_of_scikit_learn_in_the_split_that_it_draws(tmp_path: Path) -> None:
    data, theirs = Digits().load(DataFolders((), tmp_path)), load_digits()
    drawn = train_test_split(np.arange(1797), test_size=0.3, stratify=theirs.target, random_state=0)
    for split, indices in zip((data.train, data.test), map(np.sort, drawn), strict=True):
        (batch,) = split.batches([torch.arange(len(split))])
        assert (batch.inputs[:, 0].numpy() == theirs.images[indices]).all()
        assert (batch.targets.numpy() == theirs.target[indices]).all()


def test_where_scikit_learn_keeps_them_elsewhere_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    with pytest.raises(MissingData, match="digits are not at"):
        Digits().load(DataFolders((), tmp_path))
