"""Data sets of the Hugging Face hub, by the library `datasets`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kdbench import BadInput, DataFolders, MissingData, MissingExtra


def load_from_hub(
    feature: str, folders: DataFolders, instead: str, path: str, subset: str | None, revision: str | None
) -> Any:
    """All splits of a data set, by name; kept in the cache folder once they were loaded.

    `feature` is what asks for it, `instead` what to do without a network.

    Raises:
        MissingExtra: the library is not installed.
        MissingData: the hub does not give it.
        BadInput: it has no such configuration.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra(feature, "hub") from error
    cache = str(folders.cache / "huggingface")
    try:
        return datasets.load_dataset(path, subset, revision=revision, cache_dir=cache)
    except OSError as error:  # the library's own errors of absence and of the network are among them
        raise MissingData(
            f"the hub did not give '{path}': {error}",
            hint=f"check the name and the network; once loaded it stays in {cache}. Without a network, {instead}",
        ) from error
    except ValueError as error:
        raise BadInput(f"cannot load '{path}': {error}", hint="subset= names one of its configurations") from error


def check_names(path: str, kind: str, wanted: Iterable[str], there: Iterable[str]) -> None:
    """Raises BadInput where one of the `wanted` splits or columns is not `there`."""
    for name in wanted:
        if name not in there:
            raise BadInput(f"{path} has no {kind} '{name}'", hint=f"choices: {', '.join(there)}")
