"""The two consoles: results on standard output, everything else on standard error."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

from rich.console import Console

# where a terminal or a log knows only ASCII, a letter's number is better than no leaderboard
if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Strict JSON (no NaN), unstyled and unwrapped, for machines."""
    print_raw(json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False))


def print_raw(text: str) -> None:
    """Text as it is: no markup, no wrapping at the terminal's width."""
    out.print(text, markup=False, soft_wrap=True, end="" if text.endswith("\n") else "\n")
