"""`pytest --kdbench-method NAME`: one item for every check of an installed method."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kdbench.plugins import Registry
from kdbench.testing import CHECKS

pytest_plugins = ["pytester"]

Ran = Callable[..., pytest.RunResult]
ZOO = Path(__file__).parent / "zoo"


@pytest.fixture
def ran(zoo: Registry, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """Runs pytest in an empty folder, with the zoo installed; pytester would forget it, were it imported by the run."""
    monkeypatch.setenv("KDBENCH_PLUGIN_DIR", str(ZOO))
    return lambda *arguments: pytester.runpytest_inprocess(*arguments)


def test_every_check_is_an_item_that_k_selects(ran: Ran) -> None:
    found = ran("--kdbench-method", "imitates", "--collect-only", "-q")
    found.stdout.fnmatch_lines([f"kdbench::imitates::{CHECKS[0].name}", f"{len(CHECKS)} tests collected*"])
    ran("--kdbench-method", "imitates", "-k", "teacher").assert_outcomes(passed=2, deselected=len(CHECKS) - 2)


def test_parameters_and_several_methods(ran: Ran) -> None:
    result = ran("--kdbench-method", "kd[temperature=2]", "--kdbench-method", "imitates", "-k", "scalar_terms", "-v")
    result.assert_outcomes(passed=2, deselected=2 * len(CHECKS) - 2)
    result.stdout.fnmatch_lines(
        ["kdbench::kd(temperature=2)::scalar_terms PASSED*", "kdbench::imitates::scalar_terms PASSED*"]
    )


def test_a_failure_shows_what_why_and_where_to_read_on(ran: Ran, pytester: pytest.Pytester) -> None:
    result = ran("--kdbench-method", "scalar_terms", "--junitxml", "report.xml")
    result.assert_outcomes(failed=1, skipped=2, passed=len(CHECKS) - 3)
    result.stdout.fnmatch_lines(
        [
            "*scalar_terms: scalar_terms*",
            "progress 0: the term 'match' must be a scalar, not of shape (1,)",
            "The terms are added up*",
            "https://*plugins/README.md#scalar_terms",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    cases = ElementTree.parse(pytester.path / "report.xml").iter("testcase")
    assert [case.get("name") for case in cases] == [check.name for check in CHECKS]


def test_what_a_method_raises_is_shown_with_its_lines(ran: Ran) -> None:
    result = ran("--kdbench-method", "channels_last", "-k", "channels_last and not autocast")
    result.stdout.fnmatch_lines(
        ["*raised RuntimeError: view size is not compatible*", "*.view(len(step.indices), -1)*"]
    )


def test_expected_failures_are_xfails(ran: Ran) -> None:
    ran("--kdbench-method", "dist", "-k", "temperature_scaling").assert_outcomes(xfailed=1, deselected=len(CHECKS) - 1)


def test_authors_make_every_check_a_test_of_their_own(ran: Ran, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from kdbench.testing import parametrize_with_checks
        from kdbench_plugins.methods.dist import DIST

        @parametrize_with_checks(DIST(), DIST(temperature=2.0))
        def test_it_keeps_the_contract(method, check):
            check.run(method)
        """
    )
    ran("-W", "error").assert_outcomes(passed=2 * (len(CHECKS) - 1), xfailed=2)


def test_an_unknown_method_is_a_usage_error(ran: Ran) -> None:
    result = ran("--kdbench-method", "imitate")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*unknown method 'imitate'*", "*did you mean 'imitates'*"])


def test_it_adds_nothing_where_no_method_is_named(ran: Ran, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_own(): pass")
    ran().assert_outcomes(passed=1)


def test_loading_it_imports_nothing_heavy() -> None:
    code = "import sys, kdbench.pytest_plugin; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
