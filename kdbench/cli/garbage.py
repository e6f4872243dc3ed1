"""How often Python looks for garbage in cycles: hardly ever while a command loads and answers, as usual in training.

What a command has loaded stays until it ends. Looking through all of it again and again, and once more at the very end,
was a third of `list` and of planning a large suite.
"""

from __future__ import annotations

import atexit
import gc

_USUAL = gc.get_threshold()
_OBJECTS = 200_000  # made before young ones are looked at: 20 to 50 MB


def collect_seldom() -> None:
    """From now on, and nothing at the end: the memory goes with the process."""
    gc.set_threshold(_OBJECTS, *_USUAL[1:])
    atexit.register(gc.freeze)


def collect_as_usual() -> None:
    """From now on: what training leaves may be large."""
    gc.set_threshold(*_USUAL)
