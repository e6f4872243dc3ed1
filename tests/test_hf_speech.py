"""Speech to text by the library `datasets`: parquet files as the hub has them, and a hub that does not answer."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from kdbench import BadInput, Data, DataFolders, MissingData, MissingExtra
from kdbench.plugins import discover
from kdbench.spec import Spec

SAID = {
    "train": ["one two", "Don't stop - now!", "a b c"],
    "validation": ["two"],
    "test": ["one", "three four"],
}
RATE = 16000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Noise and transcripts, in parquet files as the hub keeps them."""
    import datasets

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    random = np.random.default_rng(0)
    (tmp_path / "speech").mkdir()
    for split, transcripts in SAID.items():
        sounds = []
        for number in range(len(transcripts)):
            written = io.BytesIO()
            soundfile.write(written, 0.1 * random.standard_normal(RATE * (number + 1) // 2), RATE, format="flac")
            sounds.append({"bytes": written.getvalue(), "path": None})
        rows = datasets.Dataset.from_dict({"audio": sounds, "text": transcripts})
        rows.to_parquet(str(tmp_path / "speech" / f"{split}.parquet"))
    return tmp_path / "speech"


def load(folder: Path, **params: Any) -> Data:
    task = discover().create("task", Spec("hf_speech", {"path": str(folder), "train": "train", **params}))
    return task.load(DataFolders((folder.parent,), folder.parent / "cache"))


def test_recordings_and_transcripts_come_in_order(folder: Path) -> None:
    data = load(folder)
    task = discover().create("task", Spec("hf_speech", {"path": str(folder)}))
    assert (len(data.train), len(data.validation), len(data.test)) == (3, 1, 2)
    said = [task.text(row) for row in data.train.targets.tolist()]
    assert said == ["ONE TWO", "DON'T STOP NOW", "A B C"]
    bands, frames = data.spec.input_shape
    assert (bands, data.spec.classes, frames) == (40, 29, data.spec.positions[0] * 4)
    valid = (data.train.inputs != 0).any(dim=1).sum(dim=1)
    assert valid.tolist() == pytest.approx([50, 100, 150], abs=2)  # 10 ms each
    assert torch.equal(load(folder).train.inputs, data.train.inputs)


def test_long_utterances_are_left_out_of_training_only(folder: Path) -> None:
    data = load(folder, longest="0.6", examples="2")
    assert (len(data.train), len(data.test)) == (1, 2)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"train": "train.100"}, r"has no split 'train.100'\n.*train, validation, test"),
        ({"transcript": "said"}, "split 'train' of .* has no column 'said'"),
        ({"sample_rate": "8000"}, "row 0 of split 'train' has 16000 samples a second, not 8000"),
    ],
)
def test_what_does_not_fit_is_named(folder: Path, params: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load(folder, **params)


def test_a_hub_that_does_not_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    library = ModuleType("datasets")
    library.load_dataset = refuse  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", library)
    with pytest.raises(MissingData, match=r"the hub did not give .*no network\n.*parquet files"):
        load(folder)


def test_without_the_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"optional dependency"):
        load(folder)
