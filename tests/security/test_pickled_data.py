"""CIFAR comes pickled: its files are read without the power to run anything, even where their checksums are right."""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdbench import DataFolders, MissingData, torchvision_ops
from kdbench.plugins import discover
from kdbench.spec import Spec

torchvision_ops.ensure()

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
LABELS = {"labels": [0, 1, 2, 9], "fine_labels": [0, 10, 20, 99]}


def _text(text: bytes) -> bytes:
    return b"T" + struct.pack("<I", len(text)) + text


def python_2(label_key: str) -> bytes:
    """What cPickle of Python 2 wrote for a mapping of labels and an array, opcode by opcode, as CIFAR's authors did."""
    labels = b"](" + b"".join(b"K" + bytes([label]) for label in LABELS[label_key]) + b"e"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01K\x04M\x00\x0c\x86" + kind + b"I00\n" + _text(PIXELS.tobytes()) + b"tb"
    return b"\x80\x02}(" + _text(label_key.encode()) + labels + _text(b"data") + array + state + b"u."


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (self.folder,)


Write = Callable[[str, dict[str, bytes]], DataFolders]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Makes a data set of such files, some of them others; torchvision is told the checksums of all."""

    def make(name: str, others: dict[str, bytes]) -> DataFolders:
        import torchvision

        known = getattr(torchvision.datasets, name)
        folder = tmp_path / "data" / known.base_folder
        folder.mkdir(parents=True)
        label_key = "labels" if name == "CIFAR10" else "fine_labels"
        names = [f"class {index}" for index in range(10 if name == "CIFAR10" else 100)]

        def put(file: str, content: bytes) -> str:
            content = others.get(file, content)
            (folder / file).write_bytes(content)
            return hashlib.md5(content).hexdigest()

        for listed in ("train_list", "test_list"):
            sums = [[file, put(file, python_2(label_key))] for file, _ in getattr(known, listed)]
            monkeypatch.setattr(known, listed, sums)
        meta = {**known.meta, "md5": put(known.meta["filename"], pickle.dumps({known.meta["key"]: names}, protocol=2))}
        monkeypatch.setattr(known, "meta", meta)

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError("no network")

        monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", refuse)
        return DataFolders((tmp_path / "data",), tmp_path / "cache")

    return make


@pytest.mark.filterwarnings("ignore")  # of numpy, about how old ones pickled
@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_the_data_are_those_that_torchvision_unpickles(name: str, write: Write) -> None:
    import torchvision

    folders = write(name, {})
    data = discover().create("task", Spec(name.lower())).load(folders)
    for split, train in ((data.train, True), (data.test, False)):
        theirs = getattr(torchvision.datasets, name)(folders.search[0], train=train)
        assert np.array_equal(split.inputs.permute(0, 2, 3, 1).numpy(), theirs.data)
        assert split.targets.tolist() == theirs.targets
        assert data.class_names == tuple(theirs.classes)


@pytest.mark.parametrize("file", ["data_batch_1", "test_batch", "batches.meta"])
def test_a_malicious_file_with_the_right_checksum_does_not_run(file: str, write: Write, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    pickle.loads(pickle.dumps(Trap(sprung)))
    sprung.rmdir()  # it does work
    folders = write("CIFAR10", {file: pickle.dumps({"data": PIXELS, "labels": Trap(sprung)})})
    with pytest.raises(MissingData, match=rf"{file} is no file of CIFAR's: it asks for (posix|nt)\.mkdir"):
        discover().create("task", Spec("cifar10")).load(folders)
    assert not sprung.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02",
        pickle.dumps([1, 2]),
        pickle.dumps({"data": np.zeros(3)}),
        pickle.dumps({"data": np.zeros((2, 3072), np.uint8, order="F")}, protocol=4),
        pickle.dumps({"data": np.array([{}], dtype=object)}, protocol=2),
        python_2("labels").replace(b"K\x04M\x00\x0c\x86", b"K\x05M\x00\x0c\x86"),
        python_2("labels").replace(b"cnumpy\ndtype\n", b"cbuiltins\neval\n"),
        b"\x80\x04cnumpy\nndarray\n}b.",
        b"\x80\x02\x82\x01.",
        b"Pid\n.",
    ],
    ids=[
        "empty",
        "cut",
        "list",
        "floats",
        "columns",
        "objects",
        "shape",
        "eval",
        "of a class",
        "extension",
        "persistent",
    ],
)
def test_what_else_stands_there_is_refused_in_words(content: bytes, write: Write) -> None:
    with pytest.raises(MissingData, match="data_batch_1 is no file of CIFAR's: "):
        discover().create("task", Spec("cifar10")).load(write("CIFAR10", {"data_batch_1": content}))
