"""From the command line to an exit status: how an error becomes one clear message.

Exit status: 0 done; 1 some requested trial failed, or a requirement is not met; 2 bad input; 70 a fault of kdbench
itself; 75 the run's time is over; 130 interrupted, 143 terminated. After the last three the same command goes on.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from kdbench.cli.app import app
from kdbench.cli.garbage import collect_seldom
from kdbench.cli.options import global_options_first
from kdbench.errors import KdbenchError

_STOPPED = (130, 143)  # what Typer makes of Ctrl-C, and `run` of SIGTERM


def main() -> None:
    """Runs a command; a person sees one message, and a traceback only with --debug."""
    collect_seldom()
    sys.argv[1:] = global_options_first(sys.argv[1:])
    debug = "--debug" in sys.argv
    try:
        app()
    except KdbenchError as error:
        if debug:
            raise
        _fail(error.message, error.hint, error.exit_code)
    except SystemExit as end:
        if end.code in _STOPPED:
            _fail("stopped", "everything finished is kept; the same command goes on from here", int(end.code))
        raise
    except Exception as error:
        if debug:
            raise
        _fail(f"kdbench itself failed: {type(error).__name__}: {error}", "run again with --debug and report it", 70)


def _fail(message: str, hint: str | None, status: int) -> NoReturn:
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("[bold red]error:[/] ", end="")
    console.print(message, markup=False)
    if hint:
        console.print(hint, markup=False, style="dim" if console.is_terminal else None)
    raise SystemExit(status)
