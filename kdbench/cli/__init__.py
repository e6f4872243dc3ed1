"""The command line: the only room that prints."""

from kdbench.cli.app import main

__all__ = ["main"]
