"""The contract of a task, for every built-in one: shapes, splits, digests, batches and preparation."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import os
import pickle
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import ClassVar
from urllib.error import URLError

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import kdbench_plugins
from kdbench import IGNORED, BadInput, Data, DataFolders, MissingData, Task, TensorSplit
from kdbench.plugins import discover
from kdbench.spec import Spec
from kdbench_plugins.tasks._ctc import SpeechToText
from kdbench_plugins.tasks.cose import CosE

NAMES = sorted(kdbench_plugins.kdbench_tasks())
RAW = {
    "vision": torch.uint8,
    "speech": torch.float16,
    "nlp": torch.int64,
    "sensor": torch.float32,
}  # how inputs are held, by modality
PRIMARY = {"CoLA": "matthews_correlation", "CamVid": "miou", "SegmentationFolder": "miou"}
FASHION = DataFolders.from_environment().find("FashionMNIST/raw/train-images-idx3-ubyte.gz")


def create(text: str) -> Task:
    return discover().create("task", Spec.parse(text))


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def offline(patch: pytest.MonkeyPatch) -> list[str]:
    """No download succeeds; the addresses that were asked for."""
    create("cifar10")  # a plugin is loaded through the registry, which makes torchvision importable
    asked = []

    def refuse(url: str, *_args: object, **_kwargs: object) -> None:
        asked.append(url)
        raise URLError("no network")

    for module in ("cifar", "mnist"):
        patch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", refuse)
    return asked


def write_images(folder: Path) -> str:
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for name in ("ant", "bee", "cat"):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return f"image_folder[path={folder.name}]"


def write_cifar(folder: Path, patch: pytest.MonkeyPatch, name: str, label_key: str, names_key: str) -> str:
    """A data set in CIFAR's own format, four pictures per file, whose checksums torchvision is told."""
    import torchvision

    dataset = getattr(torchvision.datasets, name.upper())
    classes = int(name.removeprefix("cifar"))
    rng = np.random.default_rng(0)
    target = folder / dataset.base_folder
    target.mkdir(parents=True)

    def write(file: str, content: dict[str, object]) -> str:
        data = pickle.dumps(content, protocol=4)
        (target / file).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    for attribute in ("train_list", "test_list"):
        sums = []
        for file, _ in getattr(dataset, attribute):
            pixels = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
            sums.append([file, write(file, {"data": pixels, label_key: rng.integers(0, classes, 4).tolist()})])
        patch.setattr(dataset, attribute, sums)
    md5 = write(dataset.meta["filename"], {names_key: [f"class {i}" for i in range(classes)]})
    patch.setattr(dataset, "meta", {**dataset.meta, "md5": md5})
    return name


def write_recordings(folder: Path, files: Iterable[str], rate: int) -> None:
    """Half a second of noise each, all different."""
    import soundfile

    for seed, file in enumerate(files):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / file, np.random.default_rng(seed).uniform(-0.5, 0.5, rate // 2), rate)


def write_spoken_digits(folder: Path) -> str:
    names = [f"recordings/{digit}_ann_{take}.wav" for digit in range(10) for take in (0, 5)]
    write_recordings(folder, names, rate=8000)
    return "spoken_digits"


def write_an4(folder: Path) -> str:
    folder.mkdir(parents=True)
    rows = ["utt_id\tsplit\tspeaker\tstart_frame\tn_frames\twav\ttranscript"]
    for i in range(12):
        rows.append(f"u{i}\t{'test' if i > 8 else 'train'}\ts{i}\t{20 * i}\t20\t\tNO {i % 3 * 'GO'}Y")
    (folder / "utterances.tsv").write_text("\n".join(rows))
    np.save(folder / "mfcc.npy", np.random.default_rng(0).normal(size=(240, 13)).astype(np.float32))
    return "an4[validation_speakers=2,subsampling=2]"


def write_connected_digits(folder: Path) -> str:
    speakers = ("ann", "bob", "theo")
    write_recordings(
        folder, [f"recordings/{digit}_{name}_0.wav" for digit in range(10) for name in speakers], rate=8000
    )
    return "connected_digits[validation_speaker=bob]"


def write_audio_folder(folder: Path) -> str:
    parts = [
        f"{split}/{name}/{i}.wav" for split in ("train", "test", "val") for name in ("no", "yes") for i in range(3)
    ]
    write_recordings(folder, parts, rate=16000)
    return f"audio_folder[path={folder.name}]"


def write_speech_commands(folder: Path) -> str:
    write_recordings(folder, [f"{word}/{i}.wav" for word in ("no", "yes") for i in range(5)], rate=16000)
    (folder / "testing_list.txt").write_text("no/0.wav\nyes/0.wav\n")
    (folder / "validation_list.txt").write_text("no/1.wav\nyes/1.wav\n")
    return "speech_commands"


def sentences(classes: Iterable[int], before: int) -> list[dict[str, object]]:
    """Four sentences of each class, of the same few words; none like the `before` others of its class."""
    return [{"label": label, "text": f"Class {label}:" + " fox" * (before + i)} for label in classes for i in range(4)]


def write_text_set(folder: Path, patch: pytest.MonkeyPatch, name: str) -> str:
    """A data set in the form of the original, whose checksum its task is told."""
    cls = type(create(name))
    (file,) = cls.data_files
    splits = [split for parts in cls.parts.values() for split in parts]
    rows = [
        {"split": split, **row}
        for number, split in enumerate(splits)
        for row in sentences(range(len(cls.names)), before=4 * number)
    ]
    path = folder / file.name
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    patch.setattr(cls, "data_files", (dataclasses.replace(file, sha256=sha256),))
    return name


def write_multi30k(folder: Path, patch: pytest.MonkeyPatch) -> str:
    """Captions in the form of the original, whose checksum its task is told."""
    cls = type(create("multi30k"))
    (file,) = cls.data_files
    rows = [
        {"split": split, "en": f"a {split} with {i} dogs", "de": f"ein {split} mit {i} Hunden"}
        for split in ("train", "val", "test_2016_flickr")
        for i in range(6)
    ]
    path = folder / file.name
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    patch.setattr(cls, "data_files", (dataclasses.replace(file, sha256=sha256),))
    return "multi30k[vocab_size=300]"


def write_cose(folder: Path, patch: pytest.MonkeyPatch) -> str:
    """Questions in the form of the original, whose checksum its task is told."""
    cls = type(create("cose"))
    (file,) = cls.data_files
    rows = [
        {
            "split": split,
            "question": f"{split}: what comes after {i}?",
            "choices": [str(i), str(i + 1), "it"],
            "label": 1,
            "rationale": f"{i} and one more",
        }
        for split, count in (("train", 12), ("dev", 6))
        for i in range(count)
    ]
    path = folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    patch.setattr(cls, "data_files", (dataclasses.replace(file, sha256=sha256),))
    return "cose[vocab_size=300]"


def write_plain_text(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{i * i} dogs saw {i} foxes.\n" for i in range(60)))


def write_shakespeare(folder: Path, patch: pytest.MonkeyPatch) -> str:
    """A text in the place of the original, whose checksum its task is told."""
    cls = type(create("shakespeare"))
    (file,) = cls.data_files
    write_plain_text(folder / file.name)
    sha256 = hashlib.sha256((folder / file.name).read_bytes()).hexdigest()
    patch.setattr(cls, "data_files", (dataclasses.replace(file, sha256=sha256),))
    return "shakespeare[context=16]"


def write_text_lm(folder: Path) -> str:
    write_plain_text(folder / "own.txt")
    return "text_lm[path=own.txt,context=16]"


def write_text_file(folder: Path) -> str:
    folder.mkdir(parents=True)
    lines = [f'{row["label"]},"{row["text"]}"' for row in sentences([3, 5, 10], before=0)]
    (folder / "own.csv").write_text("\n".join(["label,text", *lines]))
    return "text_file[path=own.csv]"


def offer_on_hub(patch: pytest.MonkeyPatch) -> str:
    """A library `datasets` whose hub has one data set."""

    class Rows:
        column_names = ("label", "text")
        features: ClassVar = {}

        def __init__(self, before: int) -> None:
            self.rows = sentences([0, 1], before)

        def __getitem__(self, column: str) -> list[object]:
            return [row[column] for row in self.rows]

    library = ModuleType("datasets")
    library.load_dataset = lambda *_, **__: {"train": Rows(0), "validation": Rows(4), "test": Rows(8)}
    patch.setitem(sys.modules, "datasets", library)
    return "hf_text[path=someone/something]"


def write_hub_speech(folder: Path) -> str:
    """Noise and transcripts in parquet files, as the hub keeps them."""
    import datasets

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        sounds = []
        for _ in range(6):
            written = io.BytesIO()
            soundfile.write(written, 0.1 * rng.standard_normal(8000), 16000, format="flac")
            sounds.append({"bytes": written.getvalue(), "path": None})
        rows = datasets.Dataset.from_dict({"audio": sounds, "text": ["one", "two", "three"] * 2})
        rows.to_parquet(str(folder / f"{split}.parquet"))
    return f"hf_speech[path={folder},train=train]"


def write_turbofan(folder: Path) -> str:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        rows = [[engine, cycle, *rng.normal(size=24)] for engine in range(1, 6) for cycle in range(1, 9)]
        np.savetxt(folder / f"{part}_FD001.txt", rows)
    np.savetxt(folder / "RUL_FD001.txt", [4, 8, 15, 16, 23])
    return "turbofan[window=4,validation_engines=2]"


def write_scenes(images: Path, masks: Path, seed: int) -> None:
    """Six noisy pictures, each pixel of which is of some class."""
    rng = np.random.default_rng(seed)
    for folder in (images, masks):
        folder.mkdir(parents=True)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(images / f"{i}.png")
        Image.fromarray(rng.integers(0, 4, (6, 8), dtype=np.uint8)).save(masks / f"{i}.png")


def write_camvid(folder: Path) -> str:
    for seed, split in enumerate(("train", "val", "test")):
        write_scenes(folder / split, folder / f"{split}annot", seed)
    return "camvid[height=6]"


def write_bccd(folder: Path) -> str:
    """A red cell in each of six noisy pictures a split."""
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    cell = (
        "<object><name>RBC</name><bndbox><xmin>8</xmin><ymin>8</ymin><xmax>13</xmax><ymax>12</ymax></bndbox></object>"
    )
    for split in ("train", "val", "test"):
        names = [f"{split}{i}" for i in range(6)]
        for name in names:
            Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(folder / f"JPEGImages/{name}.jpg")
            (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{cell}</annotation>")
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
    return "bccd[size=32x24]"


def write_segmentation_folder(folder: Path) -> str:
    for seed, split in enumerate(("train", "test")):
        write_scenes(folder / split / "images", folder / split / "masks", seed)
    (folder / "classes.txt").write_text("sky\nroad\ntree\ncar\n")
    return f"segmentation_folder[path={folder.name}]"


@pytest.fixture(scope="module", params=NAMES)
def task(request, tmp_path_factory, patch, offline) -> tuple[Task, DataFolders]:
    """Each task, with folders in which it finds its data without a network."""
    base: Path = tmp_path_factory.mktemp(request.param)
    makers: dict[str, Callable[[], str]] = {
        "digits": lambda: "digits",
        "image_folder": lambda: write_images(base / "data" / "photos"),
        "cifar10": lambda: write_cifar(base / "data", patch, "cifar10", "labels", "label_names"),
        "cifar100": lambda: write_cifar(base / "data", patch, "cifar100", "fine_labels", "fine_label_names"),
        "fashion_mnist": lambda: "fashion_mnist",
        "spoken_digits": lambda: write_spoken_digits(base / "data" / "fsdd"),
        "audio_folder": lambda: write_audio_folder(base / "data" / "words"),
        "speech_commands": lambda: write_speech_commands(base / "data" / "speech_commands"),
        "an4": lambda: write_an4(base / "data" / "an4"),
        "hf_speech": lambda: write_hub_speech(base / "hub"),
        "connected_digits": lambda: write_connected_digits(base / "data" / "fsdd"),
        "sst2": lambda: write_text_set(base / "data", patch, "sst2"),
        "ag_news": lambda: write_text_set(base / "data", patch, "ag_news"),
        "cola": lambda: write_text_set(base / "data", patch, "cola"),
        "multi30k": lambda: write_multi30k(base / "data", patch),
        "cose": lambda: write_cose(base / "data", patch),
        "shakespeare": lambda: write_shakespeare(base / "data", patch),
        "text_lm": lambda: write_text_lm(base / "data"),
        "text_file": lambda: write_text_file(base / "data"),
        "turbofan": lambda: write_turbofan(base / "data" / "CMAPSS"),
        "hf_text": lambda: offer_on_hub(patch),
        "camvid": lambda: write_camvid(base / "data" / "CamVid"),
        "segmentation_folder": lambda: write_segmentation_folder(base / "data" / "scenes"),
        "bccd": lambda: write_bccd(base / "data" / "BCCD"),
    }
    search = base / "data"
    if request.param == "fashion_mnist":
        if FASHION is None:
            pytest.skip("FashionMNIST/raw is not under $KDBENCH_DATA")
        search = FASHION.parents[2]
    return create(makers[request.param]()), DataFolders((search, base / "cache"), base / "cache")


@pytest.fixture(scope="module")
def data(task: tuple[Task, DataFolders]) -> Data:
    return task[0].load(task[1])


def parts(data: Data) -> list[TensorSplit]:
    return [split for split in (data.train, data.test, data.validation) if split is not None]


def test_shapes_and_targets_agree_with_the_spec(task: tuple[Task, DataFolders], data: Data) -> None:
    if data.spec.classes != data.spec.vocabulary:  # tokens have no names
        assert len(data.class_names) == data.spec.classes
    for split in parts(data):
        assert split.inputs.dtype == RAW[data.spec.modality]
        assert split.inputs.shape == (len(split), *data.spec.input_shape)
        if data.spec.extras:  # objects with their boxes; what anchors have of them is tested in test_detection.py
            assert split.targets.dtype == torch.float32
            assert split.targets.shape[::2] == (len(split), data.spec.extras + 1)
            continue
        assert split.targets.dtype == torch.int64
        if isinstance(task[0], CosE):  # reasons, too, are written in the targets: see test_cose.py
            assert split.targets.shape == (len(split), 3, *data.spec.positions)
        elif not isinstance(task[0], SpeechToText):  # which frame holds which character, CTC leaves open
            assert split.targets.shape == (len(split), *data.spec.positions)
        counted = split.targets[split.targets != IGNORED] if data.spec.positions else split.targets
        assert counted.min() >= 0
        assert counted.max() < data.spec.classes


def test_digests_are_stable_over_loads_and_see_a_pixel(task: tuple[Task, DataFolders], data: Data) -> None:
    again = task[0].load(task[1])
    for split, other in zip(parts(data), parts(again), strict=True):
        assert split.digest() == other.digest()
        changed = other.inputs.clone()
        changed.view(-1)[-1] += 1
        assert TensorSplit(changed, other.targets).digest() != split.digest()
    assert len({split.digest() for split in parts(data)}) == len(parts(data))


def test_no_test_example_is_a_training_example(task: tuple[Task, DataFolders], data: Data) -> None:
    train, test = ({pixels.numpy().tobytes() for pixels in split.inputs} for split in (data.train, data.test))
    assert not train & test


def test_preparation_is_deterministic_and_changes_nothing(data: Data) -> None:
    (batch,) = data.test.batches([torch.tensor([1, 0, 1])])
    before = batch.inputs.clone()
    prepared = data.prepare(batch.inputs)
    assert prepared.dtype == (torch.float32 if data.spec.vocabulary is None else torch.int64)
    assert prepared.shape == (3, *data.spec.input_shape)
    assert torch.equal(prepared, data.prepare(batch.inputs))
    assert torch.equal(prepared[0], prepared[2])
    assert torch.equal(batch.inputs, before)


def test_statistics_come_from_the_training_split_alone(task: tuple[Task, DataFolders], data: Data) -> None:
    if isinstance(task[0], SpeechToText):
        pytest.skip("utterances are normalised by themselves, which is tested in test_ctc.py")
    if data.spec.vocabulary is not None:
        pytest.skip("token ids are not normalised; where the vocabulary comes from is tested in test_text.py")
    prepared = data.prepare(data.train.inputs).double().transpose(0, 1).flatten(1)  # per channel or band
    channels = torch.ones(data.spec.input_shape[0]).double()
    torch.testing.assert_close(prepared.mean(dim=1), 0 * channels, atol=1e-5, rtol=0)
    torch.testing.assert_close(prepared.std(dim=1, correction=0), channels, atol=1e-5, rtol=0)


def test_preparation_survives_pickling(data: Data) -> None:
    assert pickle.loads(pickle.dumps(data.prepare)) == data.prepare


def test_batches_follow_the_order(data: Data) -> None:
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:6].split(4)
    for batch, positions in zip(data.train.batches(order), order, strict=True):
        assert torch.equal(batch.indices, positions)
        assert torch.equal(batch.inputs, data.train.inputs[positions])
        assert torch.equal(batch.targets, data.train.targets[positions])


def test_metrics_begin_with_the_primary_one(task: tuple[Task, DataFolders], data: Data) -> None:
    if isinstance(task[0], SpeechToText):
        pytest.skip("error rates are lower where they are better, and tested in test_ctc.py")
    if data.spec.extras:
        pytest.skip("which answer is right, boxes included, is tested in test_detection.py")
    if isinstance(task[0], CosE):
        pytest.skip("among which letters it counts is tested in test_cose.py")
    (batch,) = data.test.batches([torch.arange(len(data.test))])
    output = torch.nn.functional.one_hot(batch.targets.clamp(min=0), data.spec.classes).float().movedim(-1, 1)
    answers = task[0].answers(output, batch)
    metrics = [metric for metric in task[0].metrics(data.spec) if metric.higher_is_better and not metric.decoded]
    assert metrics[0].name == PRIMARY.get(type(task[0]).__name__, "accuracy")
    assert [metric.score(answers) for metric in metrics] == [1.0] * len(metrics)


NOWHERE = DataFolders((Path("nowhere"),), Path("nowhere"))


def test_digits_are_split_by_class_shares() -> None:
    data = create("digits").load(NOWHERE)
    assert (len(data.train), len(data.test)) == (1257, 540)
    shares = [torch.bincount(split.targets) / len(split) for split in (data.train, data.test)]
    assert (shares[0] - shares[1]).abs().max() < 2 / 540
    assert int(data.train.inputs.max()) == 16


def test_fewer_digits_are_a_stratified_subset_of_more() -> None:
    few, more = (create(f"digits[train_examples={count}]").load(NOWHERE) for count in (100, 400))
    everything = create("digits").load(NOWHERE)
    assert torch.bincount(few.train.targets).min() >= 9
    assert torch.bincount(few.train.targets).max() <= 11
    pictures = [[pixels.numpy().tobytes() for pixels in each.train.inputs] for each in (few, more, everything)]
    assert (len(pictures[0]), len(pictures[1])) == (100, 400)
    assert set(pictures[0]) <= set(pictures[1]) <= set(pictures[2])
    assert few.test.digest() == everything.test.digest()
    assert few.prepare != everything.prepare


def test_more_digits_than_there_are() -> None:
    with pytest.raises(BadInput, match="1257 training examples, not 1258"):
        create("digits[train_examples=1258]").load(NOWHERE)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("cifar10", ["CIFAR-10 ", "cifar-10-python.tar.gz (MD5 c58f30108f718f92721af3b95e74349a)", "cs.toronto.edu"]),
        (
            "cifar100",
            ["CIFAR-100 ", "cifar-100-python.tar.gz (MD5 eb9058c3a382ffc7106e4002c42a8d85)", "cs.toronto.edu"],
        ),
        (
            "fashion_mnist",
            ["Fashion-MNIST ", "FashionMNIST/raw/t10k-labels-idx1-ubyte.gz (MD5 bb300cfdad3c16e7a12a480ee83cd310)"],
        ),
    ],
)
def test_missing_data_say_what_to_put_where(name: str, wanted: list[str], tmp_path: Path, offline: list[str]) -> None:
    folders = DataFolders((tmp_path / "given", tmp_path / "cache"), tmp_path / "cache")
    asked = len(offline)
    with pytest.raises(MissingData) as caught:
        create(name).load(folders)
    assert len(offline) > asked  # a download was tried
    for part in [*wanted, "neither on this machine nor downloadable", str(folders.search[0]), str(folders.search[1])]:
        assert part in str(caught.value)


def test_an_archive_in_a_search_folder_is_unpacked_into_the_cache(tmp_path: Path, offline: list[str]) -> None:
    import torchvision

    given, cache = tmp_path / "given", tmp_path / "cache"
    given.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        write_cifar(tmp_path / "source", patch, "cifar10", "labels", "label_names")
        with tarfile.open(given / "cifar-10-python.tar.gz", "w:gz") as archive:
            archive.add(tmp_path / "source" / "cifar-10-batches-py", "cifar-10-batches-py")
        md5 = hashlib.md5((given / "cifar-10-python.tar.gz").read_bytes()).hexdigest()
        patch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", md5)
        asked = len(offline)
        data = create("cifar10").load(DataFolders((given, cache), cache))
        again = create("cifar10").load(DataFolders((cache,), cache))
    assert len(offline) == asked
    assert (len(data.train), len(data.test)) == (20, 4)
    assert data.train.digest() == again.train.digest()
    assert os.listdir(given) == ["cifar-10-python.tar.gz"]
    assert os.listdir(cache) == ["cifar-10-batches-py"]


def test_a_damaged_copy_is_named(tmp_path: Path, offline: list[str]) -> None:
    (tmp_path / "cifar-100-python").mkdir()
    (tmp_path / "cifar-100-python" / "train").write_bytes(b"half a file")
    with pytest.raises(MissingData, match=r"cifar-100-python: Dataset not found or corrupted"):
        create("cifar100").load(DataFolders((tmp_path,), tmp_path / "cache"))


def test_cifar_pixels_are_channels_first(tmp_path: Path, offline: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        write_cifar(tmp_path, patch, "cifar10", "labels", "label_names")
        data = create("cifar10").load(DataFolders((tmp_path,), tmp_path / "cache"))
        stored = pickle.loads((tmp_path / "cifar-10-batches-py" / "data_batch_1").read_bytes())
    assert data.train.inputs[:4].reshape(4, 3072).tolist() == stored["data"].tolist()
    assert data.train.targets[:4].tolist() == stored["labels"]


@pytest.mark.skipif(FASHION is None, reason="FashionMNIST/raw is not under $KDBENCH_DATA")
def test_fashion_mnist_leaves_a_read_only_folder_alone(tmp_path: Path, offline: list[str]) -> None:
    assert FASHION is not None
    raw = tmp_path / "given" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in FASHION.parent.glob("*.gz"):
        (raw / file.name).symlink_to(file)
    before = sorted(os.listdir(raw))
    data = create("fashion_mnist").load(DataFolders((tmp_path / "given", tmp_path / "cache"), tmp_path / "cache"))
    assert (len(data.train), len(data.test)) == (60000, 10000)
    assert torch.bincount(data.train.targets).tolist() == [6000] * 10
    assert sorted(os.listdir(raw)) == before
    assert len(os.listdir(tmp_path / "cache" / "FashionMNIST" / "raw")) == 4
