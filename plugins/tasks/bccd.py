"""BCCD: blood cells under the microscope, each with its box."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from kdbench import BadInput, Count, Data, DataFile, DataFolders, DataSpec, Metric, TensorSplit

from ._anchors import Level
from ._detection import BOX, Detection, require_scores
from ._images import Normalise
from ._masks import read_image
from ._voc import image_names, objects_of

_NAMES = ("RBC", "WBC", "Platelets")
_SEED = 0

Example = tuple[np.ndarray, list[list[float]]]  # pixels [3, height, width], and rows of the target


@dataclass(frozen=True)
class BCCD(Detection):
    """Red cells, white cells and platelets in 364 photographs of blood smears, 640x480 pixels (Shenggan, 2017).

    The published splits: 205 images for training, 87 for validation, 72 for testing; red cells are 85 % of all objects.
    The anchors were fitted to these cells, whose sides are near 0.16 (red), 0.3 (white) and 0.06 (platelets) of the
    image's width: 1600 anchors at 160x120, on grids of 8, 16 and 32 pixels. Two boxes of no area are left out.
    Recipes have no augmentation here, for boxes would not follow; `mirrored` is the task's own.

    Attributes:
        size: WIDTHxHEIGHT to which images are brought (bilinear), and boxes with them.
        mirrored: three further copies of each training image and its boxes: left and right exchanged, top and bottom,
            and both. An epoch is then four times as long.
        train_examples: only so many of the training images, drawn once and for all: a smaller number takes a part of a
            larger one's.
    """

    modality: ClassVar[str] = "vision"
    data_files: ClassVar[tuple[DataFile, ...]] = (
        DataFile(
            "vision/bccd_voc.zip",
            "6e2a408072b7fc5d72e754001b593c3272494007b074a123341004eb6f3e2223",
            folder="BCCD",
            source="the folder BCCD of github.com/Shenggan/BCCD_Dataset",
        ),
    )
    levels = (Level(8, 0.16, 0.065), Level(16, 0.29, 0.22), Level(32, 0.36, 0.42))

    size: str = "160x120"
    mirrored: bool = False
    train_examples: Count | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[1-9]\d{1,3}x[1-9]\d{1,3}", self.size):
            raise ValueError(f"size must be WIDTHxHEIGHT, e.g. 160x120, not {self.size!r:.80}")

    def image_shape(self) -> tuple[int, int]:
        width, height = map(int, self.size.split("x"))
        return height, width

    def load(self, folders: DataFolders) -> Data:
        """uint8 inputs [N, 3, height, width], float32 targets [N, most objects of an image, 5].

        Raises:
            MissingData: it is neither here nor downloadable, or a file of it is missing.
            MissingExtra: the library that scores detections is not installed.
            BadInput: an image, an annotation or a list cannot be read or is wrong.
        """
        require_scores()
        folder = folders.provide(self.data_files[0])
        train, validation, test = (self._split(folder, split) for split in ("train", "val", "test"))
        if self.train_examples is not None:
            if self.train_examples > len(train):
                raise BadInput(f"BCCD has {len(train)} training examples, not {self.train_examples}")
            order = np.random.default_rng(_SEED).permutation(len(train))
            train = train.subset(torch.from_numpy(order[: self.train_examples]))
        return Data(
            spec=DataSpec(
                input_shape=(3, *self.image_shape()),
                classes=1 + len(_NAMES),
                positions=(len(self.anchors()),),
                extras=BOX,
            ),
            train=self._mirrored(train) if self.mirrored else train,
            validation=validation,
            test=test,
            class_names=("background", *_NAMES),
            prepare=Normalise.to(train.inputs),
        )

    def metrics(self, spec: DataSpec) -> tuple[Metric, ...]:
        return (*super().metrics(spec), *self.class_metrics(_NAMES))

    def _split(self, folder: Path, split: str) -> TensorSplit:
        with ThreadPoolExecutor() as threads:
            read = list(threads.map(partial(self._example, folder), image_names(folder, split)))
        targets = np.full((len(read), max(len(rows) for _, rows in read), BOX + 1), -1, dtype=np.float32)
        for own, (_, rows) in zip(targets, read, strict=True):
            own[: len(rows)] = rows
        return TensorSplit(torch.from_numpy(np.stack([pixels for pixels, _ in read])), torch.from_numpy(targets))

    def _example(self, folder: Path, name: str) -> Example:
        from PIL import Image

        height, width = self.image_shape()
        picture = read_image(folder / "JPEGImages" / f"{name}.jpg")
        rows = objects_of(folder / "Annotations" / f"{name}.xml", _NAMES, picture.size)
        resized = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
        pixels = np.ascontiguousarray(resized.transpose(2, 0, 1))
        return pixels, [[x1 * width, y1 * height, x2 * width, y2 * height, kind] for x1, y1, x2, y2, kind in rows]

    def _mirrored(self, split: TensorSplit) -> TensorSplit:
        height, width = self.image_shape()
        both = _mirror(split, axis=0, length=width)
        return _mirror(both, axis=1, length=height)


def _mirror(split: TensorSplit, axis: int, length: int) -> TensorSplit:
    """Every example, then every example with an axis (0: x, 1: y) turned round."""
    turned = split.targets.clone()
    turned[:, :, axis] = length - split.targets[:, :, axis + 2]
    turned[:, :, axis + 2] = length - split.targets[:, :, axis]
    turned = turned.where(split.targets[:, :, 4:] > 0, split.targets)
    inputs = torch.cat([split.inputs, split.inputs.flip(3 - axis)])
    return TensorSplit(inputs, torch.cat([split.targets, turned]))
