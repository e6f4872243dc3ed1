"""Listing: which files of a folder of the user's own belong to which split and class."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kdbench import BadInput, DataFolders, MissingData

_TEST_SHARE = 5  # one file of five
_SEED = 0

Files = Mapping[str, list[str]]  # class -> paths below the root, sorted


@dataclass(frozen=True)
class Kind:
    """What is listed.

    Attributes:
        noun: what people call one of the files, e.g. "image".
        extensions: how their names end, in small letters.
        skipped: how folders begin that are no class; a leading dot marks what file managers leave.
    """

    noun: str
    extensions: tuple[str, ...]
    skipped: tuple[str, ...] = (".",)


IMAGES = Kind("image", (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp"))
# Speech Commands keeps "_background_noise_" beside its classes.
RECORDINGS = Kind("recording", (".wav", ".flac", ".ogg"), skipped=(".", "_"))


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


def find_root(path: str, folders: DataFolders, source: str) -> Path:
    """The user's folder: `path` is absolute, or below a search folder or the current one.

    Where it is an archive (zip or tar.gz; found by its last part too), the folder that it was unpacked into, or the
    only folder in that, as archives mostly hold one.

    Raises:
        MissingData: there is none (says where it was looked for, then `source`), or the archive is damaged.
    """
    asked = Path(path).expanduser()
    places = [folder / asked for folder in (*folders.search, Path.cwd())]  # an absolute path is itself, wherever
    for place in places:
        if place.is_dir():
            return place.resolve()
    for archive in (*places, *(folder / asked.name for folder in folders.search)):
        if archive.is_file():
            return _inner(folders.unpack(archive.resolve()))
    looked = ", ".join(dict.fromkeys(str(place) for place in places))
    raise MissingData(f"there is no folder or archive '{path}'", hint=f"looked at {looked}; {source}")


def _inner(folder: Path) -> Path:
    inside = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
    alone = len(inside) == 1 and inside[0].is_dir() and inside[0].name not in ("train", "test")
    return inside[0] if alone else folder


def list_folder(root: Path, kind: Kind) -> Listing:
    """The files of `root`: train/, test/ and maybe val/ or validation/, each with a folder per class; or such folders.

    Without a test folder, one file of five of each class is held out for testing, by a fixed seed.

    Raises:
        BadInput: there are no files, a class is empty, train/ or test/ is alone, or their classes differ.
    """
    folders = _subfolders(root, kind)
    if "train" not in folders and "test" not in folders:
        return Listing(root, _hold_out(files_by_class(root, root, kind), kind))
    for needed in ("train", "test"):
        if needed not in folders:
            raise BadInput(f"{root} has no folder '{needed}'", hint="give it train/ and test/, or only class folders")
    validation = next((name for name in ("validation", "val") if name in folders), None)
    parts = {"train": "train", "test": "test", **({"validation": validation} if validation else {})}
    splits = {split: files_by_class(root, root / part, kind) for split, part in parts.items()}
    for split, files in splits.items():
        only = sorted(set(files) ^ set(splits["train"]))
        if only:
            where = "train" if only[0] in splits["train"] else split
            raise BadInput(f"train and {split} of {root} differ in their classes: '{only[0]}' is only in {where}")
    return Listing(root, splits)


def files_by_class(root: Path, folder: Path, kind: Kind) -> dict[str, list[str]]:
    """Per class folder of `folder`, its files as paths below `root`, sorted.

    Raises:
        BadInput: there are none, or a class is empty.
    """
    files = {name: _files(root, folder / name, kind) for name in _subfolders(folder, kind)}
    if not any(files.values()):
        hint = f"it needs a folder per class, with {', '.join(kind.extensions)}"
        raise BadInput(f"there are no {kind.noun}s under {folder}", hint=hint)
    for name, paths in files.items():
        if not paths:
            raise BadInput(f"class folder {folder / name} holds no {kind.noun}", hint="fill it or remove it")
    return files


def _subfolders(folder: Path, kind: Kind) -> list[str]:
    return sorted(
        entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(kind.skipped)
    )


def _files(root: Path, folder: Path, kind: Kind) -> list[str]:
    found = []
    for parent, _, names in os.walk(folder, followlinks=True):
        relative = os.path.relpath(parent, root)
        found += [
            f"{relative}/{name}"
            for name in names
            if name.lower().endswith(kind.extensions) and not name.startswith(".")
        ]
    return sorted(found)


def _hold_out(files: Files, kind: Kind) -> dict[str, Files]:
    train, test = {}, {}
    for name, paths in files.items():
        if len(paths) < 2:
            raise BadInput(f"class '{name}' has a single {kind.noun} ({paths[0]}), so none can be held out for testing")
        held = set(random.Random(_SEED).sample(paths, max(1, len(paths) // _TEST_SHARE)))
        train[name] = [path for path in paths if path not in held]
        test[name] = [path for path in paths if path in held]
    return {"train": train, "test": test}
