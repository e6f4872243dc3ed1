"""SegmentationFolder: the user's own images, with a mask for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdbench import BadInput, Count, Data, DataFolders, DataSpec, MissingData

from ._images import Normalise
from ._masks import MaskReader, Pair, list_pairs, nested, read_image
from ._segmentation import Segmentation


@dataclass(frozen=True)
class SegmentationFolder(Segmentation):
    """Your own images and masks: train/ and test/, and maybe val/ or validation/, each with images/ and masks/.

    A mask has the name and the size of its image, in a lossless format (.png), and one channel, whose values are class
    ids. The file classes.txt names the classes, one a line, the first that of id 0. All images are decoded at each load
    and held in memory, with 11 bytes a pixel.

    Attributes:
        path: the folder, absolute, or below a search folder or the current one.
        height: of images and labels, in pixels; None: that of the first training image. All are brought to its
            proportions.
        ignored: the id of pixels without label, which count for nothing.
        train_examples: so many training images, drawn once and for all, a smaller number a part of a larger one's;
            None: all.
    """

    path: str
    height: Count | None = None
    ignored: int = 255
    train_examples: Count | None = None

    def load(self, folders: DataFolders) -> Data:
        """uint8 inputs [N, 3, height, width], int64 targets [N, height, width].

        Raises:
            MissingData: there is no such folder; says where it was looked for.
            BadInput: a file cannot be used, or is missing; names it.
        """
        root = self._root(folders)
        pairs = {split: list_pairs(root / split / "images", root / split / "masks") for split in _splits(root)}
        classes = _classes(root / "classes.txt")
        shape = self._shape(pairs["train"][0])
        reader = MaskReader(*shape, classes=len(classes), ignored=self.ignored)
        train = reader.read(nested(pairs["train"], self.train_examples, str(root)))
        held_out = next((pairs[name] for name in ("validation", "val") if name in pairs), None)
        return Data(
            spec=DataSpec((3, *shape), classes=len(classes), positions=shape),
            train=train,
            test=reader.read(pairs["test"]),
            validation=reader.read(held_out) if held_out else None,
            class_names=classes,
            prepare=Normalise.to(train.inputs),
        )

    def _root(self, folders: DataFolders) -> Path:
        places = [folder / Path(self.path).expanduser() for folder in (*folders.search, Path.cwd())]
        for place in places:  # an absolute path is itself, whatever stands before it
            if place.is_dir():
                return place.resolve()
        looked = ", ".join(dict.fromkeys(map(str, places)))
        raise MissingData(f"there is no folder '{self.path}'", hint=f"looked at {looked}; KDBENCH_DATA adds folders")

    def _shape(self, first: Pair) -> tuple[int, int]:
        image = read_image(first.image)
        height = self.height or image.height
        return height, max(1, round(height * image.width / image.height))


def _splits(root: Path) -> list[str]:
    for needed in ("train", "test"):
        if not (root / needed).is_dir():
            raise BadInput(
                f"{root} has no folder '{needed}'", hint="give it train/ and test/, each with images/ and masks/"
            )
    return [split for split in ("train", "test", "validation", "val") if (root / split).is_dir()]


def _classes(listed: Path) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip())
    except FileNotFoundError as error:
        hint = "write the name of each class into it, one a line, the first that of id 0"
        raise BadInput(f"there is no file {listed}", hint=hint) from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{listed} is not UTF-8: {error}") from error
    if len(names) < 2:
        raise BadInput(f"{listed} names {len(names)} classes: there is nothing to tell apart")
    return names
