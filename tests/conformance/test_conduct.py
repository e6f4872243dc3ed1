"""How a method behaves among others: what it must not read, know or leave behind, and how that is found."""

from __future__ import annotations

import inspect
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch

from kdbench import Method, Step
from kdbench.testing import CHECKS
from kdbench.testing.state import ALL_SHARED

BY_NAME = {check.name: check for check in CHECKS}


@pytest.mark.parametrize("name", ["default_dtype", "thread_count", "grad_mode"])
def test_shared_state_is_put_back_after_a_check(name: str, animal: Callable[[str], Method]) -> None:
    before = [shared.read() for shared in ALL_SHARED], torch.get_rng_state()
    with pytest.raises(AssertionError, match="must not be changed"):
        BY_NAME[name].run(animal(name))
    assert [shared.read() for shared in ALL_SHARED] == before[0]
    assert torch.get_rng_state().equal(before[1])


def test_data_read_through_a_task_is_found(with_match: Callable[..., Method]) -> None:
    def peek(step: Any, right: Any) -> Any:
        from sklearn.datasets import load_digits

        return right + 0 * load_digits().data.sum()

    with pytest.raises(AssertionError, match=r"it opens .*digits\.csv\.gz"):
        BY_NAME["no_data_access"].run(with_match(peek))


def on_the_command_line(step: Step) -> bool:
    return "cifar100" in sys.argv


def in_a_callers_variables(step: Step) -> bool:
    callers = (caller.frame.f_locals for caller in inspect.stack(context=0))
    return any(getattr(names.get("task"), "name", "") == "cifar100" for names in callers)


def on_a_callers_architecture(step: Step) -> bool:
    callers = (caller.frame.f_locals for caller in inspect.stack(context=0))
    return any(getattr(names.get("architecture"), "name", "") == "resnet20" for names in callers)


def behind_the_tasks_loss(step: Step) -> bool:
    cells = getattr(step.task_loss, "__closure__", None) or ()
    return any(type(cell.cell_contents).__name__ == "CIFAR100" for cell in cells)


@pytest.mark.parametrize(
    "knows", [on_the_command_line, in_a_callers_variables, on_a_callers_architecture, behind_the_tasks_loss]
)
def test_special_cases_are_found_wherever_the_name_is_read(
    knows: Callable[[Step], bool], with_match: Callable[..., Method]
) -> None:
    with pytest.raises(AssertionError, match="'match' at progress 1 is another for the task"):
        BY_NAME["no_special_cases"].run(with_match(lambda step, right: right * (2 if knows(step) else 1)))


def test_a_network_must_not_be_known_by_its_class(changed: Callable[..., Method]) -> None:
    def prepare(self: Method, student: torch.nn.Module, parameters: int) -> None:
        if type(student).__module__.endswith(".cifar_resnet"):
            student[0].weight.data.mul_(2)

    with pytest.raises(AssertionError, match=r"prepared 0\.weight is another for .* 'resnet"):
        BY_NAME["no_special_cases"].run(changed(prepare=prepare))


@pytest.mark.parametrize(
    ("reach_out", "said"),
    [
        (lambda: socket.create_connection(("127.0.0.1", 9), timeout=0.1), "looks up 127.0.0.1|connects to"),
        (lambda: subprocess.run(["true"], check=True), "starts .*true"),
        (lambda: sqlite3.connect(":memory:").close(), "opens :memory:"),
    ],
)
def test_sockets_processes_and_databases_are_no_better_than_files(
    reach_out: Callable[[], object], said: str, with_match: Callable[..., Method]
) -> None:
    def match(step: Step, right: torch.Tensor) -> torch.Tensor:
        with suppress(OSError):
            reach_out()
        return right

    with pytest.raises(AssertionError, match=said):
        BY_NAME["no_data_access"].run(with_match(match))


def test_imports_are_no_access_to_data(with_match: Callable[..., Method]) -> None:
    def match(step: Step, right: torch.Tensor) -> torch.Tensor:
        sys.modules.pop("colorsys", None)
        import colorsys

        return right * float(colorsys.rgb_to_hsv(1, 1, 1)[2])

    BY_NAME["no_data_access"].run(with_match(match))
