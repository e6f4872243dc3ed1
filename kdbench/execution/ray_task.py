"""What a Ray worker is given: a name and plain values, so that it imports nothing of ours while Ray unpacks them.

An import that is broken off there leaves a module half imported, and every later task of that process fails by it.
"""

from __future__ import annotations

from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any


def name_of(function: Callable[..., None]) -> str:
    """Where any process finds the function."""
    return f"{function.__module__}:{function.__qualname__}"


def call(function: str, *arguments: Any) -> None:
    """Calls the function of that name."""
    resolve_name(function)(*arguments)
