"""The command line: the only room that prints."""

from kdbench.cli.entry import main

__all__ = ["main"]
