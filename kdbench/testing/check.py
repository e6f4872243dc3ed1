"""One named check, and how what goes wrong in it becomes one message."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import SkipTest

from kdbench.method import Method
from kdbench.testing.state import restored, seeded

GUIDE = "https://github.com/kdbench/kdbench/blob/main/plugins/README.md"


@dataclass(frozen=True)
class Check:
    """One promise of the contract of `kdbench.method`.

    Attributes:
        name: how suites of tests, `expected_failed_checks` and the guide call it.
        reason: why it matters, in one line.
    """

    name: str
    reason: str
    _test: Callable[[Method], None] = field(repr=False)

    @property
    def link(self) -> str:
        """Where it is explained."""
        return f"{GUIDE}#{self.name}"

    def run(self, method: Method) -> None:
        """Tries it on a method; global state is afterwards what it was.

        Raises:
            AssertionError: the method breaks it; the message says in which situation and how.
            unittest.SkipTest: it has no meaning for this method; the message says why. pytest skips.
        """
        with restored(), seeded(0), named(""):
            self._test(method)


def check(test: Callable[[Method], None]) -> Check:
    """Makes a check of a function: its name is the check's, the first line of its docstring the reason."""
    return Check(test.__name__, (inspect.getdoc(test) or "").partition("\n")[0], test)


@contextmanager
def named(where: str) -> Iterator[None]:
    """Says, in every error, where it happened; whatever a method raises is a failure of the check."""
    place = f"{where}: " if where else ""
    try:
        yield
    except SkipTest:
        raise
    except AssertionError as error:
        raise AssertionError(f"{place}{error}") from error
    except Exception as error:
        raise AssertionError(f"{place}raised {type(error).__name__}: {error}") from error
