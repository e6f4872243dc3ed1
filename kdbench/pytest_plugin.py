"""`pytest --kdbench-method NAME`: one test for every check of an installed method.

It loads in every run of pytest, so torch is imported only where a method is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kdbench.errors import KdbenchError

if TYPE_CHECKING:
    from kdbench.method import Method
    from kdbench.testing import Check

_KIT = Path(__file__).parent / "testing"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option."""
    parser.getgroup("kdbench", "conformance of methods of knowledge distillation").addoption(
        "--kdbench-method",
        action="append",
        default=[],
        metavar="NAME",
        help="run kdbench's checks over the installed method NAME or NAME[key=value]; repeatable",
    )


@pytest.hookimpl(tryfirst=True)  # before -k and -m choose
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Adds the checks of the methods that are named to what was collected."""
    for name in config.getoption("--kdbench-method"):
        # brackets would be read as the parameters of a test
        place = f"kdbench::{name.translate({ord('['): '(', ord(']'): ')'})}"
        collector = MethodChecks.from_parent(session, name=name, nodeid=place, method=_installed(name))
        items.extend(session.genitems(collector))


def _installed(name: str) -> Method:
    from kdbench.plugins import discover
    from kdbench.spec import Spec

    try:
        method: Method = discover().create("method", Spec.parse(name))
    except KdbenchError as error:
        raise pytest.UsageError(str(error)) from error
    return method


class MethodChecks(pytest.Collector):
    """The checks of one method."""

    def __init__(self, *, method: Method, **rest: Any) -> None:
        super().__init__(**rest)
        self.method = method

    def collect(self) -> Iterator[CheckItem]:
        """One item a check."""
        from kdbench.testing.kit import CHECKS, expected_failures, expected_mark

        expected = expected_failures(self.method)
        for check in CHECKS:
            item = CheckItem.from_parent(self, name=check.name, method=self.method, check=check)
            if check.name in expected:
                item.add_marker(expected_mark(expected[check.name]))
            yield item


class CheckItem(pytest.Item):
    """One check of one method."""

    def __init__(self, *, method: Method, check: Check, **rest: Any) -> None:
        super().__init__(**rest)
        self.method, self.check = method, check

    def runtest(self) -> None:
        """Runs the check."""
        self.check.run(self.method)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *_: Any) -> Any:
        """What is wrong, why it matters and where to read on; behind it the method's own error, if it raised one."""
        message = f"{excinfo.value}\n{self.check.reason}\n{self.check.link}"
        cause = pytest.ExceptionInfo.from_exception(_origin(excinfo.value))
        cause.traceback = cause.traceback.filter(lambda entry: _KIT not in Path(entry.path).parents)
        return message if isinstance(cause.value, AssertionError) else f"{message}\n\n{super().repr_failure(cause)}"

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """How pytest heads a failure."""
        parent = self.parent.name if self.parent is not None else ""
        return self.path, None, f"{parent}: {self.name}"


def _origin(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
