"""All checks, and running them: in one call, or as one test each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from unittest import SkipTest

from kdbench.method import Method
from kdbench.testing import conduct, declaration, gradients, losses, principles
from kdbench.testing.check import Check

if TYPE_CHECKING:
    import pytest

CHECKS: tuple[Check, ...] = (
    *declaration.CHECKS,
    *conduct.CHECKS,
    *losses.CHECKS,
    *principles.CHECKS,
    *gradients.CHECKS,
)
_NAMES = frozenset(check.name for check in CHECKS)


@dataclass(frozen=True)
class Outcome:
    """What one check found: `message` says how a method fails, and why a check is skipped or a failure expected."""

    check: Check
    status: Literal["ok", "failed", "skipped", "expected"]
    message: str = ""


def check_method(method: Method) -> None:
    """Runs `method` through what the engine may do to it.

    Raises:
        AssertionError: it breaks the contract of `kdbench.method`; the message says in which situation and how, and
            names the other checks that it fails.
    """
    failed = [outcome for outcome in run_checks(method) if outcome.status == "failed"]
    if failed:
        first, *others = failed
        more = f"; it fails too: {', '.join(outcome.check.name for outcome in others)}" if others else ""
        raise AssertionError(f"{type(method).__name__}: {first.check.name}: {first.message}{more} ({first.check.link})")


def run_checks(method: Method) -> list[Outcome]:
    """What each check finds.

    Raises:
        AssertionError: it is no method, or its `expected_failed_checks` are not to be understood.
    """
    expected = expected_failures(method)
    return [_outcome(check, method, expected.get(check.name)) for check in CHECKS]


def _outcome(check: Check, method: Method, expected: str | None) -> Outcome:
    try:
        check.run(method)
    except SkipTest as skip:
        return Outcome(check, "skipped", str(skip))
    except AssertionError as error:
        return Outcome(check, "failed", str(error)) if expected is None else Outcome(check, "expected", expected)
    if expected is not None:
        return Outcome(check, "failed", f"it passes, though it is expected to fail: {expected}")
    return Outcome(check, "ok")


def expected_failures(method: Method) -> Mapping[str, str]:
    """The method's `expected_failed_checks`, of which each name is a check's and each reason says something.

    Raises:
        AssertionError: they are not, or it is no method.
    """
    assert isinstance(method, Method), f"{type(method).__name__}: it must derive from kdbench.Method"
    for name, reason in method.expected_failed_checks.items():
        where = f"{type(method).__name__}: expected_failed_checks: '{name}'"
        assert name in _NAMES, f"{where} is no check; see `kdbench check --list`"
        assert reason.strip(), f"{where} needs its reason"
    return method.expected_failed_checks


def parametrize_with_checks(*methods: Method) -> pytest.MarkDecorator:
    """Makes a test of (method, check) one test for every check of every method; its body is `check.run(method)`.

    An expected failure is an xfail (strict) with its reason; where a check has no meaning it is skipped.
    """
    import pytest

    parameters = [
        pytest.param(method, check, id=f"{type(method).__name__}-{check.name}", marks=_marks(reason))
        for method in methods
        for expected in [expected_failures(method)]
        for check, reason in ((check, expected.get(check.name)) for check in CHECKS)
    ]
    return pytest.mark.parametrize(("method", "check"), parameters)


def _marks(expected: str | None) -> Sequence[pytest.MarkDecorator]:
    return () if expected is None else (expected_mark(expected),)


def expected_mark(reason: str) -> pytest.MarkDecorator:
    """The mark of a failure that is expected: a pass, or any other error, is then a failure."""
    import pytest

    return pytest.mark.xfail(reason=reason, strict=True, raises=AssertionError)
