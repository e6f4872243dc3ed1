"""The zoo: for every check a plugin that breaks it, and two sound ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kdbench.method import Method
from kdbench.plugins import Registry, discover
from kdbench.spec import Spec

ZOO = Path(__file__).parent / "zoo"


@pytest.fixture(scope="session")
def zoo() -> Registry:
    """Its plugins beside the installed ones, found as `--plugin-dir` finds them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDBENCH_PLUGIN_DIR", str(ZOO))
        return discover()


@pytest.fixture(scope="session")
def animal(zoo: Registry) -> Callable[[str], Method]:
    """A method of the zoo, by its name."""
    return lambda name: zoo.create("method", Spec(name))


@pytest.fixture
def changed(animal: Callable[[str], Method]) -> Callable[..., Method]:
    """The sound method of a family, but for some attributes of its class."""

    def change(name: str = "imitates", **attributes: Any) -> Method:
        return dataclass(frozen=True)(type("Changed", (type(animal(name)),), attributes))()

    return change


@pytest.fixture
def with_match(changed: Callable[..., Method], animal: Callable[[str], Method]) -> Callable[..., Method]:
    """The sound method, but for the term "match", which `wrong(step, right)` replaces."""
    right = type(animal("imitates")).match
    return lambda wrong: changed(match=lambda self, step: wrong(step, right(self, step)))
