"""Reading images and the masks that label their pixels, each pair brought to one size."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from kdbench import IGNORED, BadInput, TensorSplit

from ._folder_listing import IMAGES

_LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".pgm")  # what lossy formats do to class ids makes other classes of them
_SEED = 0


@dataclass(frozen=True)
class Pair:
    """An image and the mask that gives the class id of each of its pixels."""

    image: Path
    mask: Path


def list_pairs(images: Path, masks: Path) -> list[Pair]:
    """The images of a folder, by name, each with the mask of the same stem.

    Raises:
        BadInput: a folder is missing or empty, an image has no mask or a mask no image, or two files share a stem;
            names the file.
    """
    pictures, labels = _by_stem(images, IMAGES.extensions), _by_stem(masks, _LOSSLESS)
    for stem in sorted(pictures.keys() ^ labels.keys()):
        if stem in pictures:
            raise BadInput(f"the image {pictures[stem]} has no mask", hint=f"put {stem}.png into {masks}")
        raise BadInput(f"the mask {labels[stem]} has no image", hint=f"put the image into {images}, or remove the mask")
    return [Pair(pictures[stem], labels[stem]) for stem in sorted(pictures)]


def nested(pairs: Sequence[Pair], examples: int | None, title: str) -> list[Pair]:
    """So many of the pairs, drawn once and for all: a smaller number takes a part of a larger one's.

    Raises:
        BadInput: there are fewer; `title` names the data set in the message.
    """
    if examples is None:
        return list(pairs)
    if examples > len(pairs):
        raise BadInput(f"{title} has {len(pairs)} training examples, not {examples}")
    return [pairs[index] for index in np.random.default_rng(_SEED).permutation(len(pairs))[:examples]]


@dataclass(frozen=True)
class MaskReader:
    """Reads pairs at one size: images averaged down (bilinear, RGB), masks by their nearest pixel.

    Attributes:
        height, width: in pixels, of what is returned.
        classes: ids are below it.
        ignored: the id of pixels without label.
    """

    height: int
    width: int
    classes: int
    ignored: int

    def read(self, pairs: Sequence[Pair]) -> TensorSplit:
        """uint8 inputs [N, 3, height, width] and int64 targets [N, height, width].

        Raises:
            BadInput: a file cannot be read, a mask has another size than its image, holds an id that is no class or
                labels no pixel; names the file.
        """
        images = np.empty((len(pairs), 3, self.height, self.width), dtype=np.uint8)
        targets = np.empty((len(pairs), self.height, self.width), dtype=np.int64)

        def fill(index: int) -> None:
            images[index], targets[index] = self._pair(pairs[index])

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(fill, range(len(pairs))))  # the list raises the first error there was
        return TensorSplit(torch.from_numpy(images), torch.from_numpy(targets))

    def _pair(self, pair: Pair) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        picture = read_image(pair.image)
        ids = read_mask(pair.mask)
        if ids.shape != (picture.height, picture.width):
            raise BadInput(
                f"the mask {pair.mask} has {ids.shape[1]}x{ids.shape[0]} pixels,"
                f" its image {pair.image} {picture.width}x{picture.height}"
            )
        self._check(ids, pair.mask)
        if picture.size != (self.width, self.height):
            picture = picture.resize((self.width, self.height), Image.Resampling.BILINEAR)
        nearest = ids[np.ix_(_centres(ids.shape[0], self.height), _centres(ids.shape[1], self.width))]
        if (nearest == self.ignored).all():
            raise BadInput(f"the mask {pair.mask} labels no pixel", hint="remove it and its image")
        return np.asarray(picture).transpose(2, 0, 1), np.where(nearest == self.ignored, IGNORED, nearest)

    def _check(self, ids: np.ndarray[Any, Any], mask: Path) -> None:
        wrong = np.argwhere((ids != self.ignored) & ((ids < 0) | (ids >= self.classes)))
        if len(wrong):
            row, column = wrong[0]
            raise BadInput(
                f"the mask {mask} has the class id {ids[row, column]} at row {row}, column {column};"
                f" there are the classes 0 to {self.classes - 1}, and {self.ignored} for no label"
            )


def read_image(path: Path) -> Image.Image:
    """The picture, decoded, in RGB.

    Raises:
        BadInput: the file cannot be read; names it.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # decoders of damaged files raise what they please
        raise BadInput(f"cannot read the image {path}: {error}", hint="replace it or remove it") from error


def read_mask(path: Path) -> np.ndarray[Any, Any]:
    """The ids as they stand in the file, int32 [height, width]; a palette's indices are ids.

    Raises:
        BadInput: the file cannot be read, or is a colour picture; names it.
    """
    try:
        with Image.open(path) as image:
            ids = np.asarray(image)
    except Exception as error:
        raise BadInput(
            f"cannot read the mask {path}: {error}", hint="replace it, or remove it and its image"
        ) from error
    if ids.ndim != 2:
        raise BadInput(
            f"the mask {path} is a colour picture", hint="a mask has one channel, whose values are class ids"
        )
    return ids.astype(np.int32)


def _by_stem(folder: Path, extensions: tuple[str, ...]) -> Mapping[str, Path]:
    if not folder.is_dir():
        raise BadInput(f"there is no folder {folder}")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        # a leading dot marks what file managers leave beside images
        if path.suffix.lower() in extensions and not path.name.startswith("."):
            if path.stem in found:
                raise BadInput(f"{found[path.stem]} and {path.name} are the same by name", hint="remove one of them")
            found[path.stem] = path
    if not found:
        raise BadInput(f"there are no files under {folder}", hint=f"it needs {', '.join(extensions)}")
    return found


def _centres(length: int, size: int) -> np.ndarray[Any, Any]:
    """Of `size` equal parts of `length` pixels, the pixels at their centres."""
    return ((np.arange(size) + 0.5) * length / size).astype(int)
