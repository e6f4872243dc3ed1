"""A Ray worker unpacks what it is given beside other work of Ray's: nothing of ours must be imported there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbench.execution.channels import FolderChannel
from kdbench.execution.ray_task import call, name_of
from kdbench.execution.store_channel import StoreChannel
from kdbench.execution.supervisor import supervise
from kdbench.execution.units import units_to_run
from kdbench.execution.work import Work
from kdbench.execution.workplace import Workplace
from kdbench.training.observer import Observer


def test_a_function_is_found_by_its_name() -> None:
    assert name_of(supervise) == "kdbench.execution.supervisor:supervise"
    call("json:loads", "[1]")


def test_the_task_itself_imports_no_torch() -> None:
    code = "import sys, kdbench.execution.ray_task; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_arguments_are_plain_values(work: Callable[..., Work], tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="the extra 'ray' is not installed")
    here = work("here")
    (unit, *_) = units_to_run(here.plan, lambda trial: False)
    place = Workplace.of(here.run)
    for channel in (FolderChannel(place), StoreChannel(f"file://{tmp_path}/store", "", here, place, Observer())):
        _, arguments = channel.task("unit-0", unit)
        json.dumps(arguments)
