"""Listing, help and plain imports stay free of the heavy libraries."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbench.cli import garbage

HEAVY = ("torch", "mlflow", "torchvision", "pandas", "scipy", "sklearn", "torchmetrics", "fvcore")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["list"], ["list", "methods", "--json"], ["plugins"]], ids=" ".join
)
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['kdbench', *{arguments!r}]\n"
        "from kdbench.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"found = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not found, found\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, kdbench; assert not [name for name in {HEAVY!r} if name in sys.modules]"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_garbage_is_collected_as_usual_once_networks_are_trained(
    kdbench: Callable[..., tuple[int, str, str]], tiny_suite: Callable[..., Path], tmp_path: Path
) -> None:
    assert kdbench("list", "suites")[0] == 0
    assert gc.get_threshold() > garbage._USUAL
    assert kdbench("run", str(tiny_suite(methods="kd")), "--out", str(tmp_path))[0] == 0
    assert gc.get_threshold() == garbage._USUAL
