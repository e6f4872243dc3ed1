"""AudioFolder: the user's own recordings, one folder per class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge

from kdbench import BadInput, Count, Data, DataFolders, DataSpec, MissingData, Positive, Task, TensorSplit

from ._folder_listing import Files, Listing

_TEST_SHARE = 0.2
_SEED = 0


@dataclass(frozen=True)
class AudioFolder(Task):
    """Your own recordings (wav, flac, ogg), a folder per class, as log-mel features: see `_audio.LogMel`.

    Attributes:
        path: the folder, absolute, or below a search folder or the current one. It holds train/, test/ and maybe val/
            or validation/, each with a folder per class; or the class folders alone, of which one recording of five is
            then held out for testing, stratified. It does not know speakers: to keep those apart, give it train/ and
            test/.
        sample_rate: Hz, which all recordings must have: nothing is resampled.
        seconds: length that recordings are brought to, around their middle.
        max_per_class: only the first so many training files of each class, by name, and the same share (rounded up)
            of its test and validation files.
    """

    modality: ClassVar[str] = "speech"

    path: str
    sample_rate: Annotated[int, Ge(4000)] = 16000
    seconds: Positive = 1.0
    max_per_class: Count | None = None

    def load(self, folders: DataFolders) -> Data:
        """float16 inputs [N, 40 mel bands, frames of 10 ms].

        Raises:
            MissingData: there is no such folder; says where it was looked for.
            BadInput: it has no recordings, an empty class, differing classes, or a recording that cannot be used.
        """
        import torch

        from ._audio import LogMel
        from ._signals import NormaliseChannels

        listing = self.listing(self._root(folders))
        if self.max_per_class is not None:
            listing = listing.limited(self.max_per_class)
        front_end = LogMel(self.sample_rate, self.seconds)
        splits = {
            split: TensorSplit(
                front_end.features_of([listing.root / file for file in listing.files(split)]),
                torch.tensor(listing.labels(split)),
            )
            for split in listing.splits
        }
        return Data(
            spec=DataSpec(input_shape=front_end.shape, classes=len(listing.classes), modality="speech"),
            train=splits["train"],
            test=splits["test"],
            validation=splits.get("validation"),
            class_names=listing.classes,
            prepare=NormaliseChannels.to(splits["train"].inputs),
        )

    def listing(self, root: Path) -> Listing:
        """Which files of `root` belong to which split and class.

        Raises:
            BadInput: there are no recordings, a class is empty, train/ or test/ is alone, or their classes differ.
        """
        parts = {part.name: part for part in folders_of(root)}
        if "train" not in parts and "test" not in parts:
            return Listing(root, _hold_out(recordings_by_class(root, root)))
        for needed in ("train", "test"):
            if needed not in parts:
                raise BadInput(
                    f"{root} has no folder '{needed}'", hint="give it train/ and test/, or only class folders"
                )
        validation = parts.get("validation", parts.get("val"))
        chosen = {"train": parts["train"], "test": parts["test"], **({"validation": validation} if validation else {})}
        splits = {split: recordings_by_class(root, folder) for split, folder in chosen.items()}
        for split, files in splits.items():
            for name in sorted(set(files) ^ set(splits["train"])):
                where = "train" if name in splits["train"] else split
                raise BadInput(f"train and {split} of {root} differ in their classes: '{name}' is only in {where}")
        return Listing(root, splits)

    def _root(self, folders: DataFolders) -> Path:
        places = [folder / Path(self.path).expanduser() for folder in (*folders.search, Path.cwd())]
        for place in places:  # an absolute path is itself, whatever stands before it
            if place.is_dir():
                return place.resolve()
        looked = ", ".join(dict.fromkeys(str(place) for place in places))
        raise MissingData(f"there is no folder '{self.path}'", hint=f"looked at {looked}; {self.source}")

    @property
    def source(self) -> str:
        """How to get the data, for the message that they are not here."""
        return "KDBENCH_DATA adds folders"


def folders_of(folder: Path) -> list[Path]:
    """Sorted; but for those that file managers (".") and Speech Commands ("_background_noise_") keep beside classes."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "_")))


def recordings_by_class(root: Path, folder: Path) -> dict[str, list[str]]:
    """Per class folder of `folder`, its recordings as paths below `root`, sorted.

    Raises:
        BadInput: there are none, or a class is empty.
    """
    from ._audio import EXTENSIONS

    files = {
        each.name: sorted(
            file.relative_to(root).as_posix()
            for file in each.rglob("*")
            if file.suffix.lower() in EXTENSIONS and not file.name.startswith(".")
        )
        for each in folders_of(folder)
    }
    if not any(files.values()):
        raise BadInput(
            f"there are no recordings under {folder}", hint=f"it needs a folder per class, with {', '.join(EXTENSIONS)}"
        )
    for name, paths in files.items():
        if not paths:
            raise BadInput(f"class folder {folder / name} holds no recording", hint="fill it or remove it")
    return files


def _hold_out(files: Files) -> Mapping[str, Files]:
    from sklearn.model_selection import train_test_split

    for name, paths in files.items():
        if len(paths) < 2:
            raise BadInput(f"class '{name}' has a single recording ({paths[0]}), so none can be held out for testing")
    cut = {name: train_test_split(paths, test_size=_TEST_SHARE, random_state=_SEED) for name, paths in files.items()}
    return {split: {name: sorted(parts[i]) for name, parts in cut.items()} for i, split in enumerate(("train", "test"))}
