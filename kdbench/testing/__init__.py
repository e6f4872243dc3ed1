"""The conformance kit that authors of methods run: named checks, each with its reason and its explanation.

`check_method(MyMethod())` in a test of their own, `parametrize_with_checks(MyMethod())` for a test a check,
`pytest --kdbench-method NAME` or `kdbench check NAME` for what is installed.
"""

from kdbench.testing.check import Check
from kdbench.testing.example import example_step
from kdbench.testing.kit import CHECKS, Outcome, check_method, parametrize_with_checks, run_checks

__all__ = ["CHECKS", "Check", "Outcome", "check_method", "example_step", "parametrize_with_checks", "run_checks"]
