"""ImageFolder: the user's own images, one folder per class."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import PIL
import torch
from annotated_types import Ge
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from kdbench import BadInput, Count, Data, DataFolders, DataSpec, LoadedSplit, Positive, Task, TensorSplit

from ._cache import write_whole
from ._folder_listing import IMAGES, Listing, find_root, list_folder
from ._images import Normalise

_GB = 10**9
_STATISTICS_SAMPLE = 2000
_CHUNK = 128

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFolder(Task):
    """Your own images, a folder per class: brought to RGB and one size, decoded once and kept in the cache folder.

    Attributes:
        path: the folder, or an archive of it (zip, tar.gz; unpacked once), absolute, or below a search folder or the
            current one. It holds train/, test/ and maybe val/ or validation/, each with a folder per class; or the
            class folders alone, of which one image of five of each is then held out for testing.
        size: side in pixels to which all images are resized (bilinear, without regard to proportions); None: height
            and width of the first training image.
        max_per_class: only the first so many training files of each class, by name, and the same share (rounded up)
            of its test and validation files.
        memory_limit_gb: when the decoded images would take more (GB of 10^9 bytes), they are read anew for each batch.
        workers: processes that do so.
    """

    path: str
    size: Count | None = None
    max_per_class: Count | None = None
    memory_limit_gb: Positive = 4.0
    workers: Annotated[int, Ge(0)] = 2

    def load(self, folders: DataFolders) -> Data:
        """uint8 inputs [N, 3, height, width].

        Raises:
            MissingData: there is no such folder or archive (says where it was looked for), or the archive is damaged.
            BadInput: the folder has no images, an empty class, differing classes, or an image that cannot be read.
        """
        listing = list_folder(find_root(self.path, folders, "KDBENCH_DATA adds folders"), IMAGES)
        if self.max_per_class is not None:
            listing = listing.limited(self.max_per_class)
        shape = (self.size, self.size) if self.size else _shape_of(listing.root / listing.files("train")[0])
        images = {split: Images(listing.root, tuple(listing.files(split)), shape) for split in listing.splits}
        targets = {split: torch.tensor(listing.labels(split)) for split in listing.splits}
        cached = folders.cache / "image_folder" / self._key(listing, shape)

        splits: Mapping[str, TensorSplit | LoadedSplit]
        if sum(len(each) for each in images.values()) * 3 * shape[0] * shape[1] <= self.memory_limit_gb * _GB:
            decoded = _decoded(images, cached.with_suffix(".safetensors"))
            splits = {split: TensorSplit(decoded[split], targets[split]) for split in images}
            sample = decoded["train"]
        else:
            splits = _loaded(images, targets, self.workers, cached.with_suffix(".json"))
            sample = torch.stack([images["train"][i] for i in _spread(len(images["train"]), _STATISTICS_SAMPLE)])
        return Data(
            spec=DataSpec(input_shape=(3, *shape), classes=len(listing.classes)),
            train=splits["train"],
            test=splits["test"],
            validation=splits.get("validation"),
            class_names=listing.classes,
            prepare=Normalise.to(sample),
        )

    def _key(self, listing: Listing, shape: tuple[int, int]) -> str:
        """A name for these files as they are now, decoded in this way."""
        files = {}
        for split in listing.splits:
            stats = [os.stat(listing.root / file) for file in listing.files(split)]
            files[split] = [
                (file, stat.st_size, stat.st_mtime_ns) for file, stat in zip(listing.files(split), stats, strict=True)
            ]
        described = json.dumps([PIL.__version__, shape, self.max_per_class, files])
        return hashlib.sha256(described.encode()).hexdigest()


@dataclass(frozen=True)
class Images(Dataset[Tensor]):
    """Image files, each decoded when it is asked for, to uint8 [3, height, width]."""

    root: Path
    files: tuple[str, ...]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.decode(index))

    def decode(self, index: int) -> np.ndarray:
        """The pixels of one image.

        Raises:
            BadInput: the file cannot be read; names it.
        """
        path = self.root / self.files[index]
        height, width = self.shape
        try:
            with Image.open(path) as image:
                picture = image.convert("RGB")
        except (
            Exception
        ) as error:  # decoders of damaged files raise what they please: OSError, SyntaxError, struct.error
            raise _unreadable(path, error) from error
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))

    def decode_all(self) -> Tensor:
        """All of them, [N, 3, height, width], in parallel threads: a gain for large images; small ones hold the GIL."""
        pixels = np.empty((len(self), 3, *self.shape), dtype=np.uint8)

        def fill(start: int) -> None:
            for index in range(start, min(start + _CHUNK, len(self))):
                pixels[index] = self.decode(index)

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(fill, range(0, len(self), _CHUNK)))  # the list raises the first error there was
        return torch.from_numpy(pixels)


def _unreadable(path: Path, error: Exception) -> BadInput:
    return BadInput(f"cannot read the image {path}: {error}", hint="replace it or remove it")


def _shape_of(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception as error:
        raise _unreadable(path, error) from error


def _decoded(images: Mapping[str, Images], cached: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    if cached.exists():
        try:
            return load_file(cached)
        except (OSError, SafetensorError) as error:
            logger.warning("%s cannot be read and is made anew: %s", cached, error)
    tensors = {split: each.decode_all() for split, each in images.items()}
    try:
        write_whole(cached, lambda temporary: save_file(tensors, temporary))
    except (OSError, SafetensorError) as error:
        logger.warning("%s cannot be kept, so each load decodes all images again: %s", cached, error)
    return tensors


def _loaded(
    images: Mapping[str, Images], targets: Mapping[str, Tensor], workers: int, cached: Path
) -> dict[str, LoadedSplit]:
    splits = {split: LoadedSplit(each, targets[split], workers) for split, each in images.items()}
    digests = _digests(splits, cached)
    return {split: LoadedSplit(each, targets[split], workers, digests[split]) for split, each in images.items()}


def _digests(splits: Mapping[str, LoadedSplit], cached: Path) -> dict[str, str]:
    """Reads all images, the first time."""
    if cached.exists():
        try:
            return dict(json.loads(cached.read_text()))
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be read and is made anew: %s", cached, error)
    digests = {split: each.digest() for split, each in splits.items()}
    try:
        write_whole(cached, lambda temporary: temporary.write_text(json.dumps(digests)))
    except OSError as error:
        logger.warning("%s cannot be kept, so each load reads all images again: %s", cached, error)
    return digests


def _spread(count: int, most: int) -> Sequence[int]:
    """At most `most` positions below `count`, evenly spread, so that all classes are among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int)).tolist()
