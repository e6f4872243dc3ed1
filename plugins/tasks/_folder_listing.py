"""Listing: which files of an image folder belong to which split and class."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kdbench import BadInput

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
_TEST_SHARE = 5  # one image of five
_SEED = 0

Files = Mapping[str, list[str]]  # class -> paths below the root, sorted


@dataclass(frozen=True)
class Listing:
    """The files of a data set: per split ("train", "test" and maybe "validation"), per class."""

    root: Path
    splits: Mapping[str, Files]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.splits["train"])

    def files(self, split: str) -> list[str]:
        """All paths of a split, class after class."""
        return [path for paths in self.splits[split].values() for path in paths]

    def labels(self, split: str) -> list[int]:
        """The class number of each path in `files`."""
        return [label for label, paths in enumerate(self.splits[split].values()) for _ in paths]

    def limited(self, per_class: int) -> Listing:
        """The first `per_class` training files of each class, and of the other splits the same share, rounded up."""
        available = {name: len(paths) for name, paths in self.splits["train"].items()}

        def keep(name: str, count: int) -> int:
            return -(-count * min(per_class, available[name]) // available[name])

        return Listing(
            self.root,
            {
                split: {name: paths[: keep(name, len(paths))] for name, paths in files.items()}
                for split, files in self.splits.items()
            },
        )


def list_images(root: Path) -> Listing:
    """The images of `root`: train/, test/ and maybe val/ or validation/, each with a folder per class; or such folders.

    Without a test folder, one image of five of each class is held out for testing, by a fixed seed.

    Raises:
        BadInput: there are no images, a class is empty, train/ or test/ is alone, or their classes differ.
    """
    folders = _subfolders(root)
    if "train" not in folders and "test" not in folders:
        return Listing(root, _hold_out(_images(root, root)))
    for needed in ("train", "test"):
        if needed not in folders:
            raise BadInput(f"{root} has no folder '{needed}'", hint="give it train/ and test/, or only class folders")
    splits = {"train": _images(root, root / "train"), "test": _images(root, root / "test")}
    for name in ("validation", "val"):
        if name in folders and "validation" not in splits:
            splits["validation"] = _images(root, root / name)
    for split, files in splits.items():
        only = sorted(set(files) ^ set(splits["train"]))
        if only:
            where = "train" if only[0] in splits["train"] else split
            raise BadInput(f"train and {split} of {root} differ in their classes: '{only[0]}' is only in {where}")
    return Listing(root, splits)


def _images(root: Path, folder: Path) -> dict[str, list[str]]:
    files = {name: _files(root, folder / name) for name in _subfolders(folder)}
    if not any(files.values()):
        raise BadInput(
            f"there are no images under {folder}", hint=f"it needs a folder per class, with {', '.join(EXTENSIONS)}"
        )
    for name, paths in files.items():
        if not paths:
            raise BadInput(f"class folder {folder / name} holds no image", hint="fill it or remove it")
    return files


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _files(root: Path, folder: Path) -> list[str]:
    found = []
    for parent, _, names in os.walk(folder, followlinks=True):
        relative = os.path.relpath(parent, root)
        # A leading dot marks what file managers leave beside images.
        found += [
            f"{relative}/{name}" for name in names if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        ]
    return sorted(found)


def _hold_out(files: Files) -> dict[str, Files]:
    train, test = {}, {}
    for name, paths in files.items():
        if len(paths) < 2:
            raise BadInput(f"class '{name}' has a single image ({paths[0]}), so none can be held out for testing")
        held = set(random.Random(_SEED).sample(paths, max(1, len(paths) // _TEST_SHARE)))
        train[name] = [path for path in paths if path not in held]
        test[name] = [path for path in paths if path in held]
    return {"train": train, "test": test}
