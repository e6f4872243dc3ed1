"""CIFAR's files as their authors wrote them, which is pickled: taken apart without a pickle's power to run code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np


class _Array:
    """Stands for an array: keeps what numpy would be told, and does nothing."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


class _Type(_Array):
    """Stands for the type of an array's numbers."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code


_STAND_INS = {
    "_reconstruct": _Array,  # numpy.core.multiarray, as of 2009, or numpy._core.multiarray
    "ndarray": _Array,
    "dtype": _Type,
}


class _Inert(pickle.Unpickler):
    """Makes texts, numbers, lists, mappings and the classes above; whatever else a file asks for is refused.

    Source: "Restricting Globals" in the documentation of pickle.
    """

    def find_class(self, module: str, name: str) -> type[_Array]:
        if module.partition(".")[0] != "numpy" or name not in _STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _STAND_INS[name]


def read_pickled(path: Path) -> dict[str, Any]:
    """The mapping in a file, its arrays of bytes as uint8 arrays.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds anything else.
    """
    with path.open("rb") as file:
        try:
            content = _Inert(file, encoding="latin1").load()
            return {key: _whole(value) if isinstance(value, _Array) else value for key, value in content.items()}
        except OSError:
            raise
        except Exception as error:  # pickle raises whatever it stumbles over
            raise ValueError(f"{path} is no file of CIFAR's: {error}") from error


def _whole(array: _Array) -> np.ndarray[Any, np.dtype[np.uint8]]:
    _, shape, kind, by_column, content = array.state
    if kind.code != "u1" or by_column:
        raise ValueError("its numbers are no bytes in rows")
    data = content.encode("latin1") if isinstance(content, str) else content  # a text to Python 2
    return np.frombuffer(data, np.uint8).reshape(shape).copy()
