"""Every error that kdbench raises on purpose.

KdbenchError              one clear message for a person; the command line prints it without a traceback
├── BadInput              what was asked for cannot be done as written; names file, line, key and choices
│   ├── UnknownName       no method, task, architecture, suite or run bears this name
│   ├── SuiteError        a suite file that cannot be read
│   └── NotApplicable     a method that has no meaning here: its trial is skipped, with this reason
├── BrokenPlugin          a plugin that was asked for did not import, or broke its contract
├── MissingData           a data set that is neither here nor downloadable; says what to put where
├── MissingExtra          an optional dependency; says which `pip install` brings it
└── StoreError            results that cannot be written or read back (disk full, read-only, damaged)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KdbenchError(Exception):
    """Base of all errors meant for people.

    `hint` is the one thing to do next; `exit_code` is what the command line ends with.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class BadInput(KdbenchError):
    """Something the user wrote cannot be done as written."""


class UnknownName(BadInput):
    """No `kind` bears the name; suggests the nearest ones."""

    def __init__(self, kind: str, name: str, choices: Iterable[str], *, hint: str | None = None) -> None:
        choices = sorted(choices)
        self.kind, self.name = kind, name
        super().__init__(f"unknown {kind} '{name}'", hint=hint or suggestion(name, choices))


class SuiteError(BadInput):
    """A suite file that cannot be read, with the file, the line and the key."""


class NotApplicable(BadInput):
    """A method has no meaning for this task or pair; raised before training, it makes the trial skipped."""


class BrokenPlugin(KdbenchError):
    """A plugin that was asked for did not import or broke its contract."""


class MissingData(KdbenchError):
    """A data set is neither on this machine nor downloadable."""


class MissingExtra(KdbenchError):
    """An optional dependency is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency", hint=f"pip install 'kdbench[{extra}]'")


class StoreError(KdbenchError):
    """Results cannot be written or read back."""


def suggestion(name: str, choices: Iterable[str]) -> str:
    """'did you mean ...?' for the nearest choices, or the list of all of them."""
    choices = list(choices)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(choice) for choice in near)}?"
    return f"choices: {', '.join(choices)}" if choices else "there are none"


class Terminated(SystemExit):
    """A signal asks this process to end. Unlike a plugin's own call of `sys.exit`, nobody may keep it from that."""
