"""Detection: anchors, losses and scores against hand and torchvision; BCCD on made-up cells; SSD; the whole road."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from kdbench import (
    Architecture,
    BadInput,
    Batch,
    Data,
    DataFolders,
    DataSpec,
    MissingData,
    MissingExtra,
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
from kdbench.training.prediction import Predictions

torchvision_ops.ensure()

from torchvision.models.detection import ssd as torchvision_ssd  # noqa: E402
from torchvision.models.detection._utils import BoxCoder, SSDMatcher  # noqa: E402
from torchvision.ops import box_iou  # noqa: E402

from kdbench_plugins.tasks import _anchors, _detection  # noqa: E402
from kdbench_plugins.tasks._anchors import Level, anchor_boxes, box_loss, class_loss, detect, match  # noqa: E402
from kdbench_plugins.tasks._detection import average_precision  # noqa: E402

CPU = torch.device("cpu")
NAMES = ("RBC", "WBC", "Platelets")
COLOURS = {"RBC": (200, 60, 60), "WBC": (60, 60, 200), "Platelets": (20, 160, 20)}
SHARES = {"RBC": 0.16, "WBC": 0.3, "Platelets": 0.08}  # of the image's width
BCCD = "bccd[size=96x72]"


def create(kind: str, written: str) -> Any:
    return discover().create(kind, Spec.parse(written))


def bccd(written: str = BCCD) -> _detection.Detection:
    task = create("task", written)
    assert isinstance(task, _detection.Detection)
    return task


# --- made-up cells ----------------------------------------------------------------------------------------------------


def annotation(*objects: tuple[str, float, float, float, float]) -> str:
    found = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        "</bndbox></object>"
        for name, x1, y1, x2, y2 in objects
    )
    return f"<annotation>{found}</annotation>"


def write_cells(root: Path, counts: tuple[int, int, int] = (24, 8, 8), size: tuple[int, int] = (128, 96)) -> Path:
    """Rectangles of a colour per class, one of each in a third of the image, in BCCD's layout."""
    folder = root / "BCCD"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    width, height = size
    number = 0
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        names = []
        for _ in range(count):
            pixels = rng.integers(200, 256, (height, width, 3), dtype=np.uint8)
            objects = []
            for third, name in enumerate(rng.permutation(list(NAMES)).tolist()):
                side = round(SHARES[name] * width)
                x = int(rng.integers(third * width // 3, (third + 1) * width // 3 - side + 1))
                y = int(rng.integers(0, height - side + 1))
                pixels[y : y + side, x : x + side] = COLOURS[name]
                objects.append((name, x, y, x + side, y + side))
            names.append(f"cell{number}")
            Image.fromarray(pixels).save(folder / "JPEGImages" / f"cell{number}.jpg", quality=95)
            (folder / "Annotations" / f"cell{number}.xml").write_text(annotation(*objects))
            number += 1
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> DataFolders:
    root = write_cells(tmp_path_factory.mktemp("cells"))
    return DataFolders((root,), root / "cache")


@pytest.fixture(scope="module")
def data(cells: DataFolders) -> Data:
    return bccd().load(cells)


def batch_of(split: TensorSplit, data: Data, count: int) -> Batch:
    (raw,) = split.batches([torch.arange(count)])
    return Batch(data.prepare(raw.inputs), raw.targets, raw.indices)


# --- anchors, by hand -------------------------------------------------------------------------------------------------


def test_anchors_stand_around_the_centres_of_cells() -> None:
    boxes = anchor_boxes(9, 16, (Level(8, side=0.5, other=0.25, ratio=4.0), Level(16, 0.75, 1.0, 1.0)))
    assert len(boxes) == 4 * (2 * 2 + 1)  # 9 pixels make two rows of 8
    first = [[0, 0, 8, 8], [2, 2, 6, 6], [-4, 2, 12, 6], [2, -4, 6, 12]]
    assert boxes[:4].tolist() == first
    assert boxes[4:8].tolist() == [[x1 + 8, y1, x2 + 8, y2] for x1, y1, x2, y2 in first]
    assert boxes[8:12].tolist() == [[x1, y1 + 8, x2, y2 + 8] for x1, y1, x2, y2 in first]
    assert boxes[16:].tolist() == [[2, 2, 14, 14], [0, 0, 16, 16], [2, 2, 14, 14], [2, 2, 14, 14]]


@pytest.mark.parametrize(("size", "anchors"), [("160x120", 1600), ("192x144", 2280)])
def test_the_anchors_of_bccd(size: str, anchors: int) -> None:
    boxes = bccd(f"bccd[size={size}]").anchors()
    assert boxes.shape == (anchors, 4)
    width = int(size[:3])
    for side in (0.16 * width, 0.3 * width):  # a red or white cell in the middle matches without being forced to
        middle = torch.tensor([[width / 2 - side / 2, 60 - side / 2, width / 2 + side / 2, 60 + side / 2]])
        assert float(box_iou(middle, boxes).max()) > 0.6


ANCHORS = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 10, 6], [40, 40, 50, 50]])
OBJECTS = torch.tensor(
    [
        [[0.0, 0, 10, 9, 1], [40, 40, 44, 44, 2]],  # 0.9 and 0.67 with two anchors; 0.16 with its best
        [[-1, -1, -1, -1, -1], [-1, -1, -1, -1, -1]],
        [[20, 0, 30, 10, 3], [-1, -1, -1, -1, -1]],
    ]
)


def test_matching_by_hand() -> None:
    matches = match(OBJECTS, ANCHORS)
    assert matches.tolist() == [[0, -1, 0, 1], [-1] * 4, [-1, 0, -1, -1]]
    classes = _anchors.matched_classes(OBJECTS, matches)
    assert classes.tolist() == [[1, 0, 1, 2], [0] * 4, [0, 3, 0, 0]]


def test_what_is_remembered_of_a_batch_notices_writing() -> None:
    task = bccd()
    targets = torch.tensor([[[10.0, 10, 30, 30, 1]]])
    batch = Batch(torch.zeros(1, 3, 72, 96), targets, torch.arange(1))
    assert set(task.labels(batch).tolist()) == {0, 1}
    targets[0, 0, 4] = 2
    assert set(task.labels(batch).tolist()) == {0, 2}


# --- losses -----------------------------------------------------------------------------------------------------------


def test_the_class_loss_takes_three_backgrounds_for_each_matched_anchor() -> None:
    classes = torch.tensor([[2, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    logits = torch.zeros(2, 6, 4, dtype=torch.float64)
    assert class_loss(logits, classes).item() == pytest.approx(4 * math.log(4))
    logits[0, 1:3, 0] = 5.0  # two easy backgrounds: the three hard ones stay
    logits[1] = torch.randn(6, 4)  # an image without objects counts for nothing
    assert class_loss(logits, classes).item() == pytest.approx(4 * math.log(4))
    logits[0, 3:5, 0] = 6.0  # now one is hard, and the easier of the others is left out
    easy = math.log(1 + 3 * math.exp(-5))
    assert class_loss(logits, classes).item() == pytest.approx(2 * math.log(4) + 2 * easy)


def test_no_object_in_a_batch_is_no_loss_and_a_finite_gradient() -> None:
    logits = torch.randn(2, 6, 4, requires_grad=True)
    offsets = torch.randn(2, 4, 4, requires_grad=True)
    nothing = OBJECTS[1:2].expand(2, -1, -1)
    loss = class_loss(logits, torch.zeros(2, 6, dtype=torch.int64))
    loss = loss + box_loss(offsets, nothing, match(nothing, ANCHORS), ANCHORS)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_both_losses_are_torchvisions(data: Data) -> None:
    task, batch = bccd(), batch_of(data.train, data, 6)
    anchors = task.anchors()
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(6, 8, len(anchors), generator=generator, dtype=torch.float64)
    truth = [{"boxes": own[:, :4].double(), "labels": own[:, 4].long()} for own in batch.targets]
    ssd = SimpleNamespace(box_coder=BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)), neg_to_pos_ratio=3.0)
    expected = torchvision_ssd.SSD.compute_loss(
        ssd,
        truth,
        {"cls_logits": output[:, :4].transpose(1, 2).contiguous(), "bbox_regression": output[:, 4:].transpose(1, 2)},
        [anchors.double()] * 6,
        [SSDMatcher(0.5)(box_iou(own["boxes"], anchors.double())) for own in truth],
    )
    found = task.loss(task.logits(output, batch), batch)
    assert found.item() == pytest.approx(expected["classification"].item(), rel=1e-6)
    boxes = task.output_losses(output, batch)["boxes"]
    assert boxes.item() == pytest.approx(expected["bbox_regression"].item(), rel=1e-5)


def test_rows_and_labels_go_image_by_image_in_the_order_of_the_anchors(data: Data) -> None:
    task, batch = bccd(), batch_of(data.train, data, 3)
    anchors = len(task.anchors())
    output = torch.arange(3 * 8 * anchors, dtype=torch.float32).view(3, 8, anchors)
    rows = task.logits(output, batch)
    assert rows.shape == (3 * anchors, 4)
    assert torch.equal(rows[anchors + 5], output[1, :4, 5])
    labels = task.labels(batch).view(3, anchors)
    for own, classes in zip(batch.targets, labels, strict=True):
        best = box_iou(own[:, :4], task.anchors()).argmax(dim=1)
        assert torch.equal(classes[best], own[:, 4].long())


@pytest.mark.parametrize("shape", [(2, 4), (2, 8, 999), (2, 4, 72, 96)])
def test_a_network_that_answers_for_other_anchors_is_refused(shape: tuple[int, ...], data: Data) -> None:
    with pytest.raises(BadInput, match=r"not for each of 588 anchors\nchoose a detector, e.g. ssd"):
        bccd().logits(torch.zeros(shape), batch_of(data.train, data, 2))


# --- detections and scores, by hand -----------------------------------------------------------------------------------


def test_detections_by_hand() -> None:
    logits = torch.full((2, 4, 3), -20.0)
    logits[:, :, 0] = 0.0  # background
    logits[0, 0, 1], logits[0, 2, 1] = 3.0, 2.0  # the third overlaps the first by 0.6: suppressed
    logits[0, 3, 1], logits[0, 3, 2] = -1.0, 1.0  # one anchor, both classes
    offsets = torch.zeros(2, 4, 4)
    offsets[0, 3] = torch.tensor([10.0, 0.0, 5 * math.log(2), 0.0])  # its own width to the right, twice as wide
    found = detect(logits, offsets, ANCHORS, (48, 52), least=0.05, most=5, overlap=0.5)
    assert [part.shape for part in found] == [(2, 5, 4), (2, 5), (2, 5)]
    assert found.classes.tolist() == [[1, 2, 1, -1, -1], [-1] * 5]
    e = math.exp
    expected = [e(3) / (1 + e(3)), e(1) / (1 + e(-1) + e(1)), e(-1) / (1 + e(-1) + e(1)), 0, 0]
    assert found.scores[0].tolist() == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(found.boxes[0, 0], ANCHORS[0])
    torch.testing.assert_close(found.boxes[0, 1], torch.tensor([45.0, 40, 52, 48]))  # 45 to 65, clipped
    assert not found.boxes[0, 3:].any()
    assert not found.boxes[1].any()


def scored(detections: list[list[float]], objects: list[list[float]], **options: Any) -> float:
    """Of one image: (x1, y1, x2, y2, class, score), and (x1, y1, x2, y2, class)."""
    rows = torch.tensor([*detections, [0, 0, 0, 0, -1, 0]])
    truth = torch.tensor([*objects, [-1.0] * 5])
    return average_precision(rows[None, :, :4], rows[None, :, 5], rows[None, :, 4].long(), truth[None], **options)


TWO = [[0.0, 0, 10, 10, 1], [20, 20, 40, 40, 1]]
RIGHT_WRONG_RIGHT = [[0.0, 0, 10, 10, 1, 0.9], [60, 60, 70, 70, 1, 0.8], [20, 20, 40, 40, 1, 0.7]]


def test_average_precision_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    # precision 1 up to recall 0.5 (51 of 101 points), then 2/3
    golden = (51 + 50 * 2 / 3) / 101
    assert scored(RIGHT_WRONG_RIGHT, TWO) == pytest.approx(golden, abs=1e-6)
    # 0.72 overlaps: found at 0.5, 0.55, 0.6, 0.65, 0.7 of the ten thresholds
    near, truth = [[0.0, 0, 10, 7.2, 2, 0.6]], [[0.0, 0, 10, 10, 2]]
    assert scored(near, truth) == pytest.approx(0.5, abs=1e-6)
    assert scored(near, truth, overlap=0.5) == pytest.approx(1, abs=1e-6)
    # classes count alike, whatever their number of objects
    both = scored([*RIGHT_WRONG_RIGHT, *near], [*TWO, *truth])
    assert both == pytest.approx((golden + 0.5) / 2, abs=1e-6)
    assert scored([*RIGHT_WRONG_RIGHT, *near], [*TWO, *truth], label=2) == pytest.approx(0.5, abs=1e-6)
    assert capsys.readouterr() == ("", "")


def test_edges_of_average_precision() -> None:
    assert scored([], TWO) == 0
    assert scored(RIGHT_WRONG_RIGHT, [[0.0, 0, 10, 10, 3]]) == 0
    assert math.isnan(scored(RIGHT_WRONG_RIGHT, []))
    assert math.isnan(scored([], []))
    assert math.isnan(scored(RIGHT_WRONG_RIGHT, TWO, label=2))


def test_without_the_library_it_is_said_before_training(monkeypatch: pytest.MonkeyPatch, cells: DataFolders) -> None:
    monkeypatch.setattr(_detection, "find_spec", lambda name: None)
    for fails in (lambda: bccd().load(cells), lambda: scored(RIGHT_WRONG_RIGHT, TWO)):
        with pytest.raises(MissingExtra, match=r"pip install 'kdbench\[detection\]'"):
            fails()


# --- loading ----------------------------------------------------------------------------------------------------------


def test_loading(data: Data) -> None:
    assert data.spec == DataSpec((3, 72, 96), 4, positions=(588,), extras=4)
    assert data.class_names == ("background", *NAMES)
    assert isinstance(data.validation, TensorSplit)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [24, 8, 8]
    assert data.train.inputs.dtype == torch.uint8
    assert data.train.targets.shape == (24, 3, 5)
    image, rows = data.test.inputs[0], data.test.targets[0]
    for x1, y1, x2, y2, label in rows.tolist():  # boxes lie where the colours are, at the new size
        colour = image[:, int(y1 + y2) // 2, int(x1 + x2) // 2].float()
        expected = torch.tensor(COLOURS[NAMES[int(label) - 1]]).float()
        assert (colour - expected).abs().max() < 40
        assert x2 - x1 == y2 - y1 == round(SHARES[NAMES[int(label) - 1]] * 128) * 0.75


def test_boxes_are_scaled_those_of_no_area_left_out_and_rows_filled_up(tmp_path: Path) -> None:
    root = write_cells(tmp_path, counts=(2, 1, 1))
    text = annotation(("RBC", 0, 0, 128, 96), ("WBC", 5, 5, 5, 9), ("Platelets", 64.5, 48, 128, 96))
    (root / "BCCD" / "Annotations" / "cell0.xml").write_text(text)
    data = bccd("bccd[size=64x36]").load(DataFolders((root,), root / "cache"))
    assert data.train.targets[0].tolist() == [[0, 0, 64, 36, 1], [32.25, 18, 64, 36, 3], [-1] * 5]


def test_mirrored_images_have_their_boxes(cells: DataFolders, data: Data) -> None:
    four = bccd("bccd[size=96x72,mirrored=true]").load(cells)
    assert len(four.train) == 4 * len(data.train)
    assert four.test.digest() == data.test.digest()
    assert four.prepare == data.prepare
    _, right, down, both = (part[3] for part in four.train.targets.split(24))
    x1, y1, x2, y2, label = data.train.targets[3].unbind(1)
    torch.testing.assert_close(right, torch.stack([96 - x2, y1, 96 - x1, y2, label], dim=1))
    torch.testing.assert_close(down, torch.stack([x1, 72 - y2, x2, 72 - y1, label], dim=1))
    torch.testing.assert_close(both, torch.stack([96 - x2, 72 - y2, 96 - x1, 72 - y1, label], dim=1))
    for position, flips in ((27, [2]), (51, [1]), (75, [1, 2])):
        assert torch.equal(four.train.inputs[position], data.train.inputs[3].flip(flips))


def test_padding_is_not_mirrored(tmp_path: Path) -> None:
    root = write_cells(tmp_path, counts=(2, 1, 1))
    (root / "BCCD" / "Annotations" / "cell0.xml").write_text(annotation(("RBC", 0, 0, 10, 10)))
    data = bccd("bccd[size=96x72,mirrored=true]").load(DataFolders((root,), root / "cache"))
    assert (data.train.targets[::2, 1:] == -1).all()


def test_fewer_images_are_a_part_of_more(cells: DataFolders, data: Data) -> None:
    few, more = (bccd(f"bccd[size=96x72,train_examples={count}]").load(cells).train for count in (5, 11))
    assert (len(few), len(more)) == (5, 11)
    assert torch.equal(more.subset(torch.arange(5)).inputs, few.inputs)
    with pytest.raises(BadInput, match="24 training examples, not 25"):
        bccd("bccd[train_examples=25]").load(cells)


@pytest.mark.parametrize("size", ["160", "160x", "x120", "0x120", "160X120", "160x120x3"])
def test_sizes_that_are_none(size: str) -> None:
    with pytest.raises(BadInput, match="size must be WIDTHxHEIGHT"):
        create("task", f"bccd[size={size}]")


RBC = ("RBC", 1, 2, 30, 40)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("Annotations/cell0.xml", annotation(), r"cell0.xml has no object"),
        ("Annotations/cell0.xml", annotation(RBC, ("RCB", 1, 2, 3, 4)), r"cell0.xml, object 2: unknown class 'RCB'"),
        ("Annotations/cell0.xml", annotation(("RBC", 1, 2, 129, 40)), r"cell0.xml, object 1: its box .* of 128x96"),
        ("Annotations/cell0.xml", annotation(("RBC", 9, 2, 8, 40)), r"cell0.xml, object 1: its box .* not inside"),
        ("Annotations/cell0.xml", annotation(("RBC", math.nan, 2, 8, 9)), r"cell0.xml, object 1: its box .*nan"),
        ("Annotations/cell0.xml", annotation(RBC).replace("<ymax>40</ymax>", ""), r"cell0.xml, object 1: .*bndbox"),
        ("Annotations/cell0.xml", annotation(RBC)[:-20], r"cell0.xml cannot be read as XML: .* line 1"),
        ("Annotations/cell0.xml", b"\xff\xfe<annotation>", r"cell0.xml cannot be read as UTF-8 text"),
        ("ImageSets/Main/val.txt", b"cell\xe9", r"val.txt cannot be read as UTF-8 text"),
        ("ImageSets/Main/val.txt", "\n", r"val.txt names no image"),
        ("ImageSets/Main/val.txt", "cell0\ncell1\ncell0\n", r"val.txt names cell0 twice"),
        ("JPEGImages/cell0.jpg", b"\xff\xd8\xff\xe0 no picture", r"cannot read the image .*cell0.jpg"),
    ],
)
def test_faults_are_named_by_file(tmp_path: Path, file: str, content: str | bytes, message: str) -> None:
    root = write_cells(tmp_path, counts=(2, 1, 1))
    (root / "BCCD" / file).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(BadInput, match=message):
        bccd().load(DataFolders((root,), root / "cache"))


def test_a_cut_off_image_is_named(tmp_path: Path) -> None:
    root = write_cells(tmp_path, counts=(2, 1, 1))
    path = root / "BCCD" / "JPEGImages" / "cell1.jpg"
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(BadInput, match=r"cannot read the image .*cell1.jpg: .*truncated"):
        bccd().load(DataFolders((root,), root / "cache"))


@pytest.mark.parametrize("file", ["ImageSets/Main/test.txt", "Annotations/cell3.xml"])
def test_missing_files_are_named(tmp_path: Path, file: str) -> None:
    root = write_cells(tmp_path, counts=(2, 1, 1))
    (root / "BCCD" / file).unlink()
    with pytest.raises(MissingData, match=f"{Path(file).name} is missing"):
        bccd().load(DataFolders((root,), root / "cache"))
    shutil.rmtree(root / "BCCD")
    with pytest.raises(MissingData, match=r"bccd_voc.zip is not on this machine"):
        bccd().load(DataFolders((root,), root / "cache"))


# --- SSD --------------------------------------------------------------------------------------------------------------

SSD = "ssd[backbone=resnet8,width=0.25]"
SPEC = DataSpec((3, 72, 96), 4, positions=(588,), extras=4)


def ssd(written: str = SSD, spec: DataSpec = SPEC) -> tuple[Architecture, nn.Module]:
    torch.manual_seed(0)
    built = create("architecture", written)
    return built, built.build(spec)


@pytest.mark.parametrize("size", ["96x72", "160x120", "100x75"])
def test_ssd_answers_in_the_order_of_the_anchors(size: str) -> None:
    """Feature maps are replaced by where their cells are, and heads pass on the centre of what they see."""
    task = bccd(f"bccd[size={size}]")
    anchors, (height, width) = task.anchors(), task.image_shape()
    _, network = ssd("ssd[backbone=resnet8]", DataSpec((3, height, width), 4, positions=(len(anchors),), extras=4))

    def whereabouts(stride: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def replaced(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            rows, columns = (torch.arange(length) for length in output.shape[2:])
            found = torch.zeros_like(output)
            found[:, 0] = (columns + 0.5) * stride
            found[:, 1] = ((rows + 0.5) * stride)[:, None]
            found[:, 2] = stride
            return found

        return replaced

    for name, stride in (("stage2", 8), ("stage3", 16), ("stage4", 32)):
        network.get_submodule(name).register_forward_hook(whereabouts(stride))
    for convolution in network.head.regression_head.module_list:
        nn.init.zeros_(convolution.weight)
        for anchor in range(4):
            convolution.weight.data[4 * anchor + torch.arange(3), torch.arange(3), 1, 1] = 1.0
            convolution.bias.data[4 * anchor + 3] = anchor
    with torch.no_grad():
        x, y, stride, anchor = network.eval()(torch.zeros(1, 3, height, width))[0, 4:]
    torch.testing.assert_close(x, anchors[:, [0, 2]].mean(dim=1))
    torch.testing.assert_close(y, anchors[:, [1, 3]].mean(dim=1))
    sides = {}
    for level in task.levels:
        first, second, long, short = (
            width * share
            for share in (level.side, level.other, level.side * level.ratio**0.5, level.side / level.ratio**0.5)
        )
        sides[level.stride] = [(first, first), (second, second), (long, short), (short, long)]
    expected = torch.tensor([sides[int(s)][int(a)] for s, a in zip(stride, anchor, strict=True)])
    torch.testing.assert_close(anchors[:, 2:] - anchors[:, :2], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (DataSpec((3, 32, 32), 10), "boxes at anchors, which this task does not ask for"),
        (DataSpec((3, 72, 96), 11, positions=(72, 96)), "boxes at anchors, which this task does not ask for"),
        (DataSpec((40,), 4, positions=(588,), extras=4), "takes images"),
        (dataclasses.replace(SPEC, positions=(590,)), "147 cells on images of 72x96, .* 590 anchors cannot"),
    ],
)
def test_tasks_that_ssd_does_not_fit(spec: DataSpec, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        ssd(SSD, spec)


@pytest.mark.parametrize("written", ["ssd[backbone=vgg8]", "ssd[backbone=resnet9]", "ssd[width=0]"])
def test_backbones_that_are_none(written: str) -> None:
    with pytest.raises(BadInput, match=r"backbone must be|depth must be|width="):
        create("architecture", written)


def test_taps_are_stages_and_an_embedding_of_the_last() -> None:
    built, network = ssd("ssd[backbone=resnet8,width=0.5]")
    taps, seen = built.taps(network), {}
    for name, tap in taps.items():
        network.get_submodule(tap.module).register_forward_hook(
            lambda _, __, output, name=name: seen.update({name: output})
        )
    output = network(torch.randn(2, 3, 72, 96))
    assert output.shape == (2, 8, 588)
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in seen.items()}
    assert shapes == {
        "stage1": (8, 18, 24),
        "stage2": (16, 9, 12),
        "stage3": (32, 5, 6),
        "stage4": (32, 3, 3),
        "embedding": (32,),
    }
    torch.testing.assert_close(seen["embedding"], seen["stage4"].mean(dim=(2, 3)))
    assert all(tensor._version == 0 for name, tensor in seen.items() if name != "embedding")
    (output.square().mean() + seen["embedding"].square().mean()).backward()
    assert all(bool(parameter.grad.any()) for parameter in network.parameters())


def test_the_seed_decides_the_weights_and_both_counters_agree() -> None:
    (_, first), (_, second) = ssd(), ssd()
    other = create("architecture", SSD).build(SPEC)
    state, again = first.state_dict(), second.state_dict()
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert any(not torch.equal(state[name], tensor) for name, tensor in other.state_dict().items())
    small, large = (deployed_cost(network, SPEC) for network in (first, ssd("ssd[backbone=resnet14]")[1]))
    assert small["macs_disagreement"] == large["macs_disagreement"] == 0
    assert large["macs"] > 8 * small["macs"]


# --- it learns --------------------------------------------------------------------------------------------------------


def test_a_small_network_learns_to_detect_rectangles(cells: DataFolders, data: Data) -> None:
    task = bccd()
    loaded = LoadedTask(BCCD, task, data, "")
    _, network = ssd("ssd[backbone=resnet8,width=0.5]")
    map50 = next(metric for metric in task.metrics(data.spec) if metric.name == "map50")
    before = map50.score(prediction.answers(network, data.test, loaded, CPU))
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    network.train()
    for epoch in range(25):
        order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(epoch)).split(8)
        for batch in prediction.prepared(data.train, order, data, CPU):
            output = network(batch.inputs)
            loss = task.loss(task.logits(output, batch), batch) + task.output_losses(output, batch)["boxes"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    after = prediction.answers(network, data.test, loaded, CPU)
    assert before < 0.05
    assert map50.score(after) > 0.5
    names = [metric.name for metric in task.metrics(data.spec)]
    assert names == ["map", "map50", "ap_rbc", "ap_wbc", "ap_platelets"]
    each = [metric.score(after) for metric in task.metrics(data.spec)]
    assert each[0] == pytest.approx(np.mean(each[2:]), abs=1e-6)
    lines = task.samples(network, data, CPU)
    assert len(lines) == 3
    assert lines[0].startswith("test image 0: RBC: ")
    assert lines[0].count("of 1 true ones") == 3
    # answers are per example: any resampling of them can be scored
    twice = {name: tensor.repeat(2, *[1] * (tensor.ndim - 1)) for name, tensor in after.items()}
    assert map50.score(twice) == pytest.approx(map50.score(after), abs=0.05)


# --- the whole road ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(
    cells: DataFolders, tmp_path_factory: pytest.TempPathFactory, suite_text: Callable[..., str]
) -> tuple[dict[str, Record], RunFolder, Data]:
    """Every method, an epoch each."""
    root = tmp_path_factory.mktemp("detection")
    (root / "suite.yaml").write_text(
        suite_text(
            tasks=f"'{BCCD}'",
            teachers="'ssd[backbone=resnet8,width=0.5]', 'ssd[backbone=resnet8,width=0.375]'",
            student=f"'{SSD}'",
            methods="kd, rkd, fitnets, attention_transfer, ensemble, dml, self_distillation",
            epochs="1",
            recipe="  optimizer: adamw\n  clip_grad_norm: 5.0",
        )
    )
    plan = make_plan(load_suite(str(root / "suite.yaml")), discover(), cells)
    folder = RunFolder.create(root / "out", "run")
    ended = execute(plan, folder, root / "out", CPU, Observer())
    found = {record.method: record for records in ended for record in records}
    return found, folder, plan.tasks[BCCD].data


def test_every_method_trains_on_detection_unchanged(run: tuple[dict[str, Record], RunFolder, Data]) -> None:
    records, _, _ = run
    assert len(records) == 8
    assert records.pop("self_distillation").reason == "early exits need a task with one answer per example"
    for name, record in records.items():
        assert (record.status, record.reason) == ("done", None), (name, record.error)
        assert (record.primary, record.higher_is_better) == ("map", True)
        assert {"map", "map50", "ap_rbc", "nll", "ece", "brier", "agreement", "teacher_kl"} <= record.metrics.keys()
        assert record.metrics["macs_disagreement"] == 0
        assert all(math.isfinite(value) for value in record.metrics.values()), name
        assert len(record.curves["validation_map"]) == len(record.curves["loss/output/boxes"]) == 1
    first, second = (records[name].curves["loss/output/boxes"] for name in ("scratch", "kd"))
    assert first == second  # a single step, from the same weights on the same batch: boxes are every method's


def test_what_is_stored_gives_the_scores_again(run: tuple[dict[str, Record], RunFolder, Data]) -> None:
    records, folder, data = run
    record = records["kd"]
    stored = Predictions.of(folder.trial(record.fingerprint).predictions())
    assert {name: tuple(tensor.shape) for name, tensor in stored.answers.items()} == {
        "boxes": (8, 100, 4),
        "scores": (8, 100),
        "classes": (8, 100),
        "objects": (8, 3, 5),
    }
    for metric in bccd().metrics(data.spec):
        assert metric.score(stored.answers) == record.metrics[metric.name]
    assert stored.labels is not None
    assert stored.logits.shape == (8 * 588, 4)
    assert torch.equal(stored.labels > 0, stored.labels.clamp(0, 1).bool())
    assert 0.8 < (stored.labels == 0).float().mean().item() < 1
    assert len(record.samples) == 3


# --- the real cells ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    not (
        os.environ.get("KDBENCH_DATA")
        and DataFolders.from_environment().find("BCCD", "vision/bccd_voc.zip", "bccd_voc.zip")
    ),
    reason="BCCD is not under $KDBENCH_DATA",
)
def test_the_published_splits(tmp_path: Path) -> None:
    data = bccd("bccd[size=32x24]").load(DataFolders(DataFolders.from_environment().search, tmp_path))
    assert isinstance(data.validation, TensorSplit)
    counts = [
        torch.bincount(split.targets[:, :, 4][split.targets[:, :, 4] > 0].long()).tolist()[1:]
        for split in (data.train, data.validation, data.test)
    ]
    assert [len(split) for split in (data.train, data.validation, data.test)] == [205, 87, 72]
    published = [[2382, 214, 209], [968, 87, 83], [805, 71, 69]]
    assert sum(map(sum, counts)) == sum(map(sum, published)) - 2  # two have no area
    assert all(
        abs(a - b) <= 2 for own, told in zip(counts, published, strict=True) for a, b in zip(own, told, strict=True)
    )
