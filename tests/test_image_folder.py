"""ImageFolder: layouts, sizes, the cache, the loader behind the same interface, and messages for people."""

from __future__ import annotations

import logging
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdbench import BadInput, Data, DataFolders, LoadedSplit, MissingData, TensorSplit
from kdbench.plugins import discover
from kdbench.spec import Spec

CLASSES = ("ant", "bee")


def pixels(seed: int, height: int = 6, width: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, seed: int, **shape: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed, **shape)).save(path)


def write(root: Path, counts: dict[str, int]) -> Path:
    """Per part of the path ("train/ant") so many images, all different."""
    seed = 0
    for part, count in counts.items():
        for i in range(count):
            save(root / part / f"{i:02}.png", seed)
            seed += 1
    return root


@pytest.fixture
def folders(tmp_path: Path) -> DataFolders:
    return DataFolders((tmp_path, tmp_path / "cache"), tmp_path / "cache")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "photos", {"train/ant": 5, "train/bee": 10, "test/ant": 2, "test/bee": 4})


def load(folders: DataFolders, **params: object) -> Data:
    return discover().create("task", Spec("image_folder", {"path": "photos", **params})).load(folders)


def test_pixels_and_classes_are_those_of_the_files(root: Path, folders: DataFolders) -> None:
    data = load(folders)
    assert data.class_names == CLASSES
    assert data.train.targets.tolist() == [0] * 5 + [1] * 10
    assert data.test.targets.tolist() == [0] * 2 + [1] * 4
    assert data.validation is None
    expected = np.stack([pixels(seed) for seed in range(15)]).transpose(0, 3, 1, 2)
    assert (data.train.inputs.numpy() == expected).all()


@pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_loader_and_memory_agree_bit_for_bit(root: Path, folders: DataFolders, workers: int) -> None:
    write(root, {"val/ant": 1, "val/bee": 1})
    memory, loader = load(folders), load(folders, memory_limit_gb=1e-9, workers=workers)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0)).split(4)
    assert memory.prepare == loader.prepare
    for name in ("train", "test", "validation"):
        left, right = getattr(memory, name), getattr(loader, name)
        assert (type(left), type(right)) == (TensorSplit, LoadedSplit)
        assert left.digest() == right.digest()
        picks = order if name != "validation" else [torch.tensor([1, 0])]
        for one, other in zip(left.batches(picks), right.batches(picks), strict=True):
            assert torch.equal(one.inputs, other.inputs)
            assert torch.equal(one.targets, other.targets)
            assert torch.equal(one.indices, other.indices)


def test_digests_of_large_folders_are_computed_once(root: Path, folders: DataFolders, monkeypatch) -> None:
    first = load(folders, memory_limit_gb=1e-9, workers=0)
    monkeypatch.setattr(LoadedSplit, "batches", lambda *_: pytest.fail("read again"))
    assert load(folders, memory_limit_gb=1e-9, workers=0).train.digest() == first.train.digest()


@pytest.mark.parametrize("limit", [1.0, 1e-9], ids=["memory", "loader"])
def test_statistics_see_no_test_image(root: Path, folders: DataFolders, limit: float) -> None:
    before = load(folders, memory_limit_gb=limit, workers=0).prepare
    save(root / "test/ant/00.png", 999)
    assert load(folders, memory_limit_gb=limit, workers=0).prepare == before
    save(root / "train/ant/00.png", 999)
    assert load(folders, memory_limit_gb=limit, workers=0).prepare != before


def test_a_changed_pixel_changes_the_digest_in_spite_of_the_cache(root: Path, folders: DataFolders) -> None:
    before = load(folders)
    changed = pixels(0)
    changed[3, 3, 1] ^= 1
    Image.fromarray(changed).save(root / "train/ant/00.png")
    after = load(folders)
    assert after.train.digest() != before.train.digest()
    assert after.test.digest() == before.test.digest()


def test_the_second_load_decodes_nothing(root: Path, folders: DataFolders, monkeypatch) -> None:
    first = load(folders)
    (cached,) = (folders.cache / "image_folder").iterdir()
    assert cached.suffix == ".safetensors"
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded again"))
    assert load(folders).train.digest() == first.train.digest()


def test_a_damaged_cache_is_made_anew(root: Path, folders: DataFolders, caplog) -> None:
    first = load(folders)
    (cached,) = (folders.cache / "image_folder").iterdir()
    cached.write_bytes(cached.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        assert load(folders).train.digest() == first.train.digest()
    assert f"{cached} cannot be read" in caplog.text
    assert load(folders).train.digest() == first.train.digest()


@pytest.mark.parametrize("limit", [1.0, 1e-9], ids=["memory", "loader"])
def test_without_a_writable_cache_it_loads_all_the_same(root: Path, tmp_path: Path, caplog, limit: float) -> None:
    (tmp_path / "file").write_text("no folder")
    folders = DataFolders((tmp_path,), tmp_path / "file" / "cache")
    with caplog.at_level(logging.WARNING):
        data = load(folders, memory_limit_gb=limit, workers=0)
    assert len(data.train) == 15
    assert "cannot be kept" in caplog.text


def test_images_of_other_sizes_and_modes_are_converted(root: Path, folders: DataFolders) -> None:
    save(root / "train/bee/00.png", 1, height=12, width=3)
    Image.fromarray(pixels(2)[:, :, 0]).save(root / "train/bee/01.png")
    data = load(folders)
    assert data.spec.input_shape == (3, 6, 7)
    grey = data.train.inputs[6]
    assert torch.equal(grey[0], grey[1])
    assert (grey[0].numpy() == pixels(2)[:, :, 0]).all()
    assert load(folders, size=4).spec.input_shape == (3, 4, 4)


def test_one_in_five_of_each_class_is_held_out_without_a_test_folder(tmp_path: Path, folders: DataFolders) -> None:
    write(tmp_path / "photos", {"ant": 10, "bee": 2, "cat": 20})
    data, again = load(folders), load(folders)
    assert torch.bincount(data.train.targets).tolist() == [8, 1, 16]
    assert torch.bincount(data.test.targets).tolist() == [2, 1, 4]
    assert data.test.digest() == again.test.digest()
    pictures = [{image.numpy().tobytes() for image in split.inputs} for split in (data.train, data.test)]
    assert not pictures[0] & pictures[1]
    assert len(pictures[0] | pictures[1]) == 32


def test_max_per_class_keeps_the_first_files_and_the_same_share_for_testing(root: Path, folders: DataFolders) -> None:
    data = load(folders, max_per_class=5)
    assert torch.bincount(data.train.targets).tolist() == [5, 5]
    assert torch.bincount(data.test.targets).tolist() == [2, 2]  # all of 2; 5/10 of 4
    full = load(folders)
    assert torch.equal(data.train.inputs, full.train.inputs[:10])
    assert torch.equal(data.test.inputs, full.test.inputs[:4])
    assert torch.bincount(load(folders, max_per_class=1).test.targets).tolist() == [1, 1]  # rounded up


@pytest.mark.parametrize("name", ["val", "validation"])
def test_a_validation_folder_is_used(root: Path, folders: DataFolders, name: str) -> None:
    write(root, {f"{name}/ant": 1, f"{name}/bee": 2})
    validation = load(folders).validation
    assert validation is not None
    assert validation.targets.tolist() == [0, 1, 1]


def test_what_file_managers_leave_is_ignored(root: Path, folders: DataFolders) -> None:
    before = load(folders).train.digest()
    (root / "train/.thumbnails").mkdir()
    (root / "train/ant/._00.png").write_bytes(b"resource fork")
    (root / "train/ant/Thumbs.db").write_bytes(b"index")
    assert load(folders).train.digest() == before


def test_paths_are_absolute_or_below_search_and_current_folders(root: Path, folders: DataFolders, monkeypatch) -> None:
    elsewhere = DataFolders((folders.cache,), folders.cache)
    expected = load(folders).train.digest()
    assert load(elsewhere, path=str(root)).train.digest() == expected
    monkeypatch.chdir(root.parent)
    assert load(elsewhere).train.digest() == expected


def test_a_missing_folder_says_where_it_was_looked_for(folders: DataFolders) -> None:
    with pytest.raises(MissingData, match="no folder or archive 'absent'") as caught:
        load(folders, path="absent")
    for place in (*folders.search, Path.cwd()):
        assert str(place / "absent") in str(caught.value)


def zipped(root: Path, top: str) -> Path:
    archive = root.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(root.rglob("*.png")):
            packed.write(file, f"{top}{file.relative_to(root)}")
        packed.writestr("__MACOSX/._photos", "left by a Mac")
    return archive


def tarred(root: Path, top: str) -> Path:
    archive = root.with_suffix(".tar.gz")
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(root, top or ".")
    return archive


@pytest.mark.parametrize("top", ["", "photos/"])
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive_is_unpacked_once_into_the_cache(
    root: Path, folders: DataFolders, pack: Callable[[Path, str], Path], top: str, monkeypatch
) -> None:
    expected = load(folders)
    archive = pack(root, top)
    shutil.rmtree(root)
    here = set(folders.search[0].iterdir())
    data = load(folders, path=archive.name)
    assert [split.digest() for split in (data.train, data.test)] == [
        split.digest() for split in (expected.train, expected.test)
    ]
    assert data.class_names == CLASSES
    monkeypatch.setattr("kdbench.data.unpack", lambda *_: pytest.fail("unpacked again"))
    for path in (str(archive), f"elsewhere/{archive.name}"):
        assert load(folders, path=path).train.digest() == expected.train.digest()
    assert set(folders.search[0].iterdir()) == here


def test_a_changed_archive_is_unpacked_anew(root: Path, folders: DataFolders) -> None:
    before = load(folders, path=zipped(root, "").name).train.digest()
    save(root / "train/ant/00.png", 999)
    assert load(folders, path=zipped(root, "").name).train.digest() != before


def test_a_damaged_archive_is_named_and_leaves_nothing(root: Path, folders: DataFolders) -> None:
    archive = tarred(root, "photos")
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(MissingData, match=r"photos.tar.gz is damaged: .*\npack it anew"):
        load(folders, path=archive.name)
    assert [path.suffix for path in (folders.cache / "unpacked").iterdir()] == [".lock"]
    (folders.search[0] / "notes.txt").write_text("no archive")
    with pytest.raises(MissingData, match=r"notes.txt is not unpacked: it is neither a zip nor a tar.gz archive"):
        load(folders, path="notes.txt")


def test_messages_for_people(root: Path, folders: DataFolders) -> None:
    (root / "train/cat").mkdir()
    with pytest.raises(BadInput, match=r"class folder .*train/cat holds no image"):
        load(folders)
    save(root / "train/cat/0.png", 50)
    with pytest.raises(BadInput, match=r"train and test of .* differ in their classes: 'cat' is only in train"):
        load(folders)


def test_an_empty_folder_has_no_images(tmp_path: Path, folders: DataFolders) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(BadInput, match="there are no images under"):
        load(folders)


def test_train_needs_test(tmp_path: Path, folders: DataFolders) -> None:
    write(tmp_path / "photos", {"train/ant": 2})
    with pytest.raises(BadInput, match="has no folder 'test'"):
        load(folders)


def test_a_single_image_cannot_be_held_out(tmp_path: Path, folders: DataFolders) -> None:
    write(tmp_path / "photos", {"ant": 3, "bee": 1})
    with pytest.raises(BadInput, match="class 'bee' has a single image"):
        load(folders)


@pytest.mark.parametrize("limit", [1.0, 1e-9], ids=["memory", "loader"])
@pytest.mark.parametrize("name", ["train/bee/03.png", "train/ant/00.png"])
@pytest.mark.parametrize("kept", [0, 20, 100])
def test_a_truncated_image_is_named(root: Path, folders: DataFolders, limit: float, name: str, kept: int) -> None:
    (root / name).write_bytes((root / name).read_bytes()[:kept])
    with pytest.raises(BadInput, match=f"cannot read the image .*{name}"):
        load(folders, memory_limit_gb=limit, workers=0)
    assert not os.path.exists(folders.cache / "image_folder")


@pytest.mark.parametrize("params", [{"size": 0}, {"max_per_class": 0}, {"memory_limit_gb": 0}, {"workers": -1}])
def test_parameters_out_of_range(params: dict[str, int], folders: DataFolders) -> None:
    with pytest.raises(BadInput, match=next(iter(params))):
        load(folders, **params)
