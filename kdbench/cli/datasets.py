"""The commands of `kdbench data`; what they do is in `data`, which is imported only when one of them runs."""

from __future__ import annotations

import typer

from kdbench.cli.options import JsonOption, SuiteArgument

data = typer.Typer(help="Find, fetch and check data sets.", no_args_is_help=True)


@data.command(name="list")
def data_list(json: JsonOption = False) -> None:
    """List every task's data: found (where), archive found, or missing (how to get it)."""
    from kdbench.cli.data import show_data_sets

    show_data_sets(json)


@data.command(name="prepare")
def data_prepare(suite: SuiteArgument) -> None:
    """Load every task of a suite once, so that it is downloaded, unpacked, checked and cached."""
    from kdbench.cli.data import prepare

    prepare(suite)


@data.command(name="where")
def data_where(json: JsonOption = False) -> None:
    """Show the folders that are searched, the cache, and the environment variables that set them."""
    from kdbench.cli.data import show_folders

    show_folders(json)
