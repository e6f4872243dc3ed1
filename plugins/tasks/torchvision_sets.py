"""CIFAR10, CIFAR100, FashionMNIST: read by torchvision, found on this machine or downloaded once."""

from __future__ import annotations

import http.client
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from kdbench import Count, Data, DataFolders, DataSpec, MissingData, Task, TensorSplit

from ._images import Normalise
from ._subset import nested_subset


@dataclass(frozen=True)
class _TorchvisionSet(Task):
    """Looks into the search folders (unpacked, then as archives) before it downloads; checksums are torchvision's.

    `train_examples`: a stratified part of the training images, nested; None: all.
    A subclass bears the name of torchvision's class. Before torchvision unpickles a file (CIFAR) it checks its sum.
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

    def _find(self, folders: DataFolders) -> Sequence[Any]:
        problems = []
        for root in folders.search:
            (folder,) = self.files
            if (root / folder).is_dir():
                try:
                    return self._read(root)
                except (OSError, RuntimeError) as error:
                    problems.append(f"{root / folder}: {_first_line(error)}")
        try:
            unpacked = any(self._unpack(root, folders.cache) for root in folders.search)
            return self._read(folders.cache, download=not unpacked)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            problems.append(_first_line(error))
            raise MissingData(
                f"{self.title} is neither on this machine nor downloadable ({'; '.join(problems)})",
                hint=self._hint(folders),
            ) from error

    def _read(self, root: Path, *, download: bool = False) -> Sequence[Any]:
        from numpy.exceptions import VisibleDeprecationWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VisibleDeprecationWarning)  # the CIFAR files were pickled by an old numpy
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


@dataclass(frozen=True)
class CIFAR10(_TorchvisionSet):
    """60,000 colour photographs of 32x32 pixels, 10 classes, 10,000 for testing (Krizhevsky 2009)."""

    title = "CIFAR-10"
    files = ("cifar-10-batches-py",)


@dataclass(frozen=True)
class CIFAR100(_TorchvisionSet):
    """60,000 colour photographs of 32x32 pixels, 100 classes, 10,000 for testing (Krizhevsky 2009)."""

    title = "CIFAR-100"
    files = ("cifar-100-python",)


@dataclass(frozen=True)
class FashionMNIST(_TorchvisionSet):
    """70,000 grey pictures of clothes, 28x28 pixels, 10 classes, 10,000 for testing (Xiao, Rasul, Vollgraf 2017)."""

    title = "Fashion-MNIST"
    files = ("FashionMNIST",)

    def _archives(self) -> dict[str, str]:
        return {f"FashionMNIST/raw/{name}": md5 for name, md5 in self._dataset().resources}

    def _source(self) -> str:
        return str(self._dataset().mirrors[0])


def _split(dataset: Any) -> TensorSplit:
    """[N, height, width] (grey) or [N, height, width, 3], array or tensor, to channels first."""
    import torch

    images = torch.as_tensor(dataset.data)
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return TensorSplit(images, torch.as_tensor(dataset.targets, dtype=torch.int64))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
