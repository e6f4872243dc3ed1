"""Odd places: a path with spaces and other alphabets, a terminal of ASCII alone, a home that cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Told = Callable[[str, str, str], None]
Results = Callable[[Path], dict[str, Any]]


def test_all_at_once(begun: Path, tmp_path: Path, unharmed: Path, results: Results, told: Told) -> None:
    """With MLflow, its report and a fresh process, in which the locale is set before anything is imported."""
    place = tmp_path / "zwei Läufe, 日本 & 'mehr'"
    place.mkdir()
    out = begun.rename(place / "out put")
    suite = place / "süß.yaml"
    text = (unharmed / "tiny.yaml").read_text(encoding="utf-8").replace("title: Tiny", "title: Größe → 大")
    suite.write_text(text, encoding="utf-8")
    home = tmp_path / "a file, no folder"
    home.write_text("")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "XDG_", "PYTHON"))}
    odd = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0", "HOME": str(home)}
    ended = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-m", "kdbench", "run", str(suite), "--out", str(out)],
        env={**kept, **odd},
        capture_output=True,
        check=False,
    )
    said = ended.stderr.decode("ascii")
    assert ended.returncode == 0, said
    printed = ended.stdout.decode("ascii")
    assert "Verdict" in printed
    assert "was not updated" not in said
    mine = [line for line in said.splitlines() if "EncodingWarning" in line and "site-packages" not in line]
    assert not mine, "a file is opened in the locale's encoding"
    assert results(out) == results(unharmed)
    assert (out / "mlflow.db").exists()
    assert home.read_text() == ""
    title = next(line for line in printed.splitlines() if "run " in line)
    told("a path with spaces and unicode", "out and suite in it", title)
    told("a locale that is not UTF-8", "LC_ALL=C, PYTHONIOENCODING=ascii", title)
    told("a home that cannot be written", "HOME is a file", title)
