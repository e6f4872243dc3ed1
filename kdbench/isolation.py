"""Strangers' code run apart: what it raises and prints is kept, and kdbench goes on where it never returns."""

from __future__ import annotations

import ctypes
import io
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any, BinaryIO, Generic, TypeVar, cast

T = TypeVar("T")

_LOOK = 0.05  # seconds between two looks at a thread
_KEPT = 4096  # bytes of what was printed


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What became of a call: its value or its error, the beginning of what it printed, and the bytes of it all."""

    value: T | None
    error: BaseException | None
    printed: str
    printed_bytes: int


def call_apart(work: Callable[[], T], patience: float) -> Outcome[T]:
    """Calls `work` in a thread that cannot stop this one, whatever it raises (`SystemExit` too) or prints.

    `patience`: seconds in which no further module arrives before it counts as hung and its error is a `TimeoutError`.
    """
    values: list[T] = []
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            values.append(work())
        except BaseException as error:
            errors.append(error)

    # a daemon, so that kdbench can exit while it hangs
    thread = threading.Thread(target=attempt, name="kdbench-apart", daemon=True)
    sink = _Sink()
    stream = io.TextIOWrapper(cast(BinaryIO, sink), "utf-8", errors="backslashreplace", write_through=True)
    with redirect_stdout(stream), redirect_stderr(stream):
        thread.start()
        hung = not _ends(thread, patience)
        if hung:
            _stop(thread)
    sink.passes_on = True
    if hung:
        late = TimeoutError(f"not done after {patience:g} s without a further import")
        return Outcome(None, late, sink.text(), sink.length)
    return Outcome(values[0] if values else None, errors[0] if errors else None, sink.text(), sink.length)


def _ends(thread: threading.Thread, patience: float) -> bool:
    """Waits for the thread while it goes on importing: a first `import torch` may take long on a slow disk.

    Looks are counted, not seconds: a native library holds the interpreter while it loads, and is not to blame.
    """
    looks, modules = 0, len(sys.modules)
    while looks * _LOOK < patience:
        thread.join(_LOOK)
        if not thread.is_alive():
            return True
        looks = looks + 1 if len(sys.modules) == modules else 0
        modules = len(sys.modules)
    return False


def _stop(thread: threading.Thread) -> None:
    """Ends an endless loop, which would slow all that is measured later; a thread asleep ends when it wakes."""
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    thread.join(_LOOK)


class _Sink(io.RawIOBase):
    """Counts what is written and keeps its beginning.

    With `passes_on`, what still holds it (a log handler made at import) writes to standard error.
    """

    def __init__(self) -> None:
        self.kept = bytearray()
        self.length = 0
        self.passes_on = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        written = bytes(data)
        if self.passes_on:
            sys.stderr.write(written.decode(errors="replace"))
        else:
            self.kept += written[: _KEPT - len(self.kept)]
            self.length += len(written)
        return len(written)

    def text(self) -> str:
        return self.kept.decode(errors="replace")
