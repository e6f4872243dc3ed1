"""Draws what a command prints in a terminal as an SVG: `.ci/picture.py FILE.svg kdbench run quickstart`.

The README's pictures are made so, and never by hand.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.text import Text

_WIDTH = 112  # columns: as many as a README page shows in letters that can still be read
# Rich's letters come from a server, which pictures in a README may not ask; these are on the reader's machine.
_FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_FRAME = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def picture(command: list[str]) -> str:
    """The SVG of a command's standard output, as wide as `_WIDTH`, with the command as its title.

    Raises:
        CalledProcessError: the command failed; it said why on standard error.
    """
    terminal = {"FORCE_COLOR": "1", "COLORTERM": "truecolor", "TERM": "xterm-256color", "COLUMNS": str(_WIDTH)}
    ended = subprocess.run(command, env={**os.environ, **terminal}, stdout=subprocess.PIPE, text=True, check=True)
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=_WIDTH, file=nowhere)
        console.print(Text.from_ansi(ended.stdout))
    frame = _FRAME.replace("Fira Code, monospace", _FONTS)
    return console.export_svg(title=shlex.join(command), code_format=frame, unique_id="kdbench")


if __name__ == "__main__":
    file, *command = sys.argv[1:]
    Path(file).write_text(picture(command), encoding="utf-8")
