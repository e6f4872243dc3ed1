"""What a block of code does to files, sockets and processes, told by Python's audit events."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import FrameType

_WORDS = {
    "open": "opens",
    "sqlite3.connect": "opens",
    "socket.connect": "connects to",
    "socket.getaddrinfo": "looks up",
    "socket.gethostbyname": "looks up",
    "subprocess.Popen": "starts",
    "os.system": "starts",
    "os.exec": "starts",
    "os.spawn": "starts",
    "os.posix_spawn": "starts",
    "os.fork": "forks",
    "os.forkpty": "forks",
}
_CODE = (".py", ".pyc", ".so", ".pyd")

_seen: list[str] | None = None  # None: nobody watches


@contextmanager
def watched() -> Iterator[list[str]]:
    """Gathers what is opened, connected to or started, but for Python code and what its imports open."""
    global _seen
    _install()
    outer, _seen = _seen, []
    try:
        yield _seen
    finally:
        _seen = outer


@cache
def _install() -> None:
    sys.addaudithook(_heard)  # there is no way to remove one, so it is there once and mostly does nothing


def _heard(event: str, arguments: tuple[object, ...]) -> None:
    if _seen is None or event not in _WORDS:
        return
    what = os.fsdecode(arguments[0]) if arguments and isinstance(arguments[0], str | bytes) else str(arguments[1:2])
    if event == "open" and (not isinstance(arguments[0], str | bytes) or what.endswith(_CODE) or _importing()):
        return
    _seen.append(f"{_WORDS[event]} {what}".strip())


def _importing() -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
