"""Another Python that finds the modules that this one finds."""

from __future__ import annotations

import os
import sys


def command(module: str, *arguments: str) -> list[str]:
    """How it is told to run a module; nothing is imported from the folder where it is started."""
    return [sys.executable, "-P", "-m", module, *arguments]


def import_path() -> str:
    """The PYTHONPATH that it takes."""
    return os.pathsep.join(map(os.path.abspath, sys.path))
