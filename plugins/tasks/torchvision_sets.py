"""CIFAR10, CIFAR100, FashionMNIST as torchvision knows them: found on this machine or downloaded once."""

from __future__ import annotations

import http.client
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from kdbench import Count, Data, DataFolders, DataSpec, MissingData, Task, TensorSplit

from ._cifar_files import read_pickled
from ._images import Normalise
from ._subset import nested_subset


@dataclass(frozen=True)
class _Pictures:
    """Of torchvision's data sets what is used. Shapes: `data` [N, height, width] or [N, height, width, 3]; bytes."""

    data: Any
    targets: Sequence[int]
    classes: Sequence[str]


@dataclass(frozen=True)
class _TorchvisionSet(Task):
    """Looks into the search folders (unpacked, then as archives) before it downloads; checksums are torchvision's.

    `train_examples`: a stratified part of the training images, nested; None: all.
    A subclass bears the name of torchvision's class.
    """

    title: ClassVar[str]

    train_examples: Count | None = None

    def load(self, folders: DataFolders) -> Data:
        """uint8 inputs [N, channels, height, width].

        Raises:
            MissingData: it is on none of the search folders and cannot be downloaded; says what to put where.
        """
        train, test = self._find(folders)
        used = nested_subset(_split(train), self.train_examples, self.title)
        return Data(
            spec=DataSpec(input_shape=tuple(used.inputs.shape[1:]), classes=len(train.classes)),
            train=used,
            test=_split(test),
            class_names=tuple(train.classes),
            prepare=Normalise.to(used.inputs),
        )

    def _find(self, folders: DataFolders) -> Sequence[_Pictures]:
        problems = []
        for root in folders.search:
            (folder,) = self.files
            if (root / folder).is_dir():
                try:
                    return self._read(root)
                except (OSError, RuntimeError, ValueError) as error:
                    problems.append(f"{root / folder}: {_first_line(error)}")
        try:
            unpacked = any(self._unpack(root, folders.cache) for root in folders.search)
            return self._read(folders.cache, download=not unpacked)
        except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
            problems.append(_first_line(error))
            raise MissingData(
                f"{self.title} is neither on this machine nor downloadable ({'; '.join(problems)})",
                hint=self._hint(folders),
            ) from error

    def _read(self, root: Path, *, download: bool = False) -> Sequence[_Pictures]:
        """Train and test."""
        return [self._dataset()(root, train=train, download=download and train) for train in (True, False)]

    def _unpack(self, root: Path, cache: Path) -> bool:
        """Unpacks the archives that lie in `root`, which may be read-only, into `cache`; False: not all are there."""
        from torchvision.datasets.utils import check_integrity, extract_archive

        archives = self._archives()
        if not all(check_integrity(root / path, md5) for path, md5 in archives.items()):
            return False
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as staging:
            for path in archives:
                folder = Path(staging, path).parent
                folder.mkdir(parents=True, exist_ok=True)
                extract_archive(str(root / path), str(folder))
            for file in [path for path in Path(staging).rglob("*") if path.is_file()]:
                target = cache / file.relative_to(staging)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)  # one by one, each whole: torchvision checks for some only that they exist
        return True

    def _hint(self, folders: DataFolders) -> str:
        wanted = ", ".join(f"{path} (MD5 {md5})" for path, md5 in self._archives().items())
        places = " or ".join(str(root) for root in folders.search)
        return f"put {wanted}, from {self._source()}, under {places}; KDBENCH_DATA adds folders"

    def _dataset(self) -> Any:
        import torchvision

        return getattr(torchvision.datasets, type(self).__name__)

    def _archives(self) -> dict[str, str]:
        """Path below a search folder, and MD5."""
        return {self._dataset().filename: self._dataset().tgz_md5}

    def _source(self) -> str:
        return str(self._dataset().url)


class _PickledSet(_TorchvisionSet):
    """CIFAR, which torchvision would unpickle; here no file can run anything, whatever its checksum."""

    label_key: ClassVar[str]

    def _read(self, root: Path, *, download: bool = False) -> Sequence[_Pictures]:
        from torchvision.datasets import cifar

        known = self._dataset()
        sums = dict([*known.train_list, *known.test_list, (known.meta["filename"], known.meta["md5"])])
        paths = {name: root / known.base_folder / name for name in sums}

        def are_whole() -> bool:
            return all(cifar.check_integrity(paths[name], md5) for name, md5 in sums.items())

        if download and not are_whole():
            cifar.download_and_extract_archive(known.url, root, filename=known.filename, md5=known.tgz_md5)
        if not are_whole():
            raise RuntimeError("Dataset not found or corrupted")
        classes = read_pickled(paths[known.meta["filename"]])[known.meta["key"]]
        parts = ([read_pickled(paths[name]) for name, _ in listed] for listed in (known.train_list, known.test_list))
        return [self._joined(part, classes) for part in parts]

    def _joined(self, parts: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> _Pictures:
        import numpy as np

        images = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32)
        return _Pictures(
            images.transpose(0, 2, 3, 1), [each for part in parts for each in part[self.label_key]], classes
        )


@dataclass(frozen=True)
class CIFAR10(_PickledSet):
    """60,000 colour photographs of 32x32 pixels, 10 classes, 10,000 for testing (Krizhevsky 2009)."""

    title = "CIFAR-10"
    files = ("cifar-10-batches-py",)
    label_key = "labels"


@dataclass(frozen=True)
class CIFAR100(_PickledSet):
    """60,000 colour photographs of 32x32 pixels, 100 classes, 10,000 for testing (Krizhevsky 2009)."""

    title = "CIFAR-100"
    files = ("cifar-100-python",)
    label_key = "fine_labels"


@dataclass(frozen=True)
class FashionMNIST(_TorchvisionSet):
    """70,000 grey pictures of clothes, 28x28 pixels, 10 classes, 10,000 for testing (Xiao, Rasul, Vollgraf 2017)."""

    title = "Fashion-MNIST"
    files = ("FashionMNIST",)

    def _archives(self) -> dict[str, str]:
        return {f"FashionMNIST/raw/{name}": md5 for name, md5 in self._dataset().resources}

    def _source(self) -> str:
        return str(self._dataset().mirrors[0])


def _split(dataset: _Pictures) -> TensorSplit:
    """[N, height, width] (grey) or [N, height, width, 3], array or tensor, to channels first."""
    import torch

    images = torch.as_tensor(dataset.data)
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return TensorSplit(images, torch.as_tensor(dataset.targets, dtype=torch.int64))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
