"""Every check finds the plugin that is broken for it, and no other check finds anything there.

As a table, in the order of the checks:

    names=$(kdbench check --list | awk '/^[a-z0-9_]+  /{print $1}')
    kdbench --plugin-dir tests/conformance/zoo check --markdown $names
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kdbench.method import Method
from kdbench.plugins import Registry
from kdbench.testing import CHECKS, run_checks

SOUND = {"imitates", "softens"}
# What cannot be broken without breaking more.
COMPANIONS = {
    "float32": {"bfloat16", "autocast"},  # what 32 bits are too narrow for, 16 are too
}


def test_there_is_a_broken_plugin_for_every_check(zoo: Registry) -> None:
    assert not zoo.broken
    loose = {name for name, plugin in zoo.plugins["method"].items() if plugin.origin.version == "loose"}
    assert sorted(loose - SOUND) == sorted(check.name for check in CHECKS)


@pytest.mark.parametrize("name", [check.name for check in CHECKS])
def test_it_fails_at_exactly_its_own_check(name: str, animal: Callable[[str], Method]) -> None:
    failed = {outcome.check.name for outcome in run_checks(animal(name)) if outcome.status == "failed"}
    assert failed == {name} | COMPANIONS.get(name, set())


@pytest.mark.parametrize("name", sorted(SOUND))
def test_the_sound_ones_fail_nowhere(name: str, animal: Callable[[str], Method]) -> None:
    assert {outcome.status for outcome in run_checks(animal(name))} <= {"ok", "skipped"}
