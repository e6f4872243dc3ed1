"""`kdbench data`: which data sets are here, where they are looked for, and fetching them ahead of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from kdbench.cli.console import err, out, print_json
from kdbench.data import DataFile, DataFolders
from kdbench.errors import BadInput, BrokenPlugin, KdbenchError, MissingData
from kdbench.plugins import Plugin, Registry, discover
from kdbench.provenance import digest

if TYPE_CHECKING:
    from kdbench.spec import Spec
    from kdbench.suite import Suite
    from kdbench.task import Task

_VARIABLES = ("KDBENCH_DATA", "KDBENCH_CACHE", "XDG_CACHE_HOME")


@dataclass(frozen=True)
class DataState:
    """One file of a task, or the task where it declares none; `where` is its place, or how to get it."""

    task: str
    file: str
    state: Literal["found", "packed", "missing", "none", "broken"]
    where: str


def data_states(registry: Registry, folders: DataFolders) -> list[DataState]:
    """What is here of every task's data, going by names: checksums are verified at the first use."""
    return [state for name, plugin in registry.plugins["task"].items() for state in _states(name, plugin, folders)]


def _states(name: str, plugin: Plugin, folders: DataFolders) -> Iterator[DataState]:
    try:
        task = plugin.load()[0]
    except BrokenPlugin as error:
        yield DataState(name, "", "broken", error.message)
        return
    data_files: tuple[DataFile, ...] = task.data_files  # type: ignore[attr-defined]
    files: tuple[str, ...] = task.files  # type: ignore[attr-defined]
    for file in data_files:
        yield _state(name, file, folders)
    if data_files:
        return
    found = folders.find(*files)
    if not files:
        yield DataState(name, "", "none", "needs none, or your own")
    elif found:
        yield DataState(name, files[0], "found", str(found))
    else:
        yield DataState(name, files[0], "missing", "downloaded at its first use")


def _state(task: str, file: DataFile, folders: DataFolders) -> DataState:
    packed = folders.packed(file)
    place = folders.unpacked(file) if file.folder else next(iter(packed), None)
    if place:
        return DataState(task, file.name, "found", str(place))
    if packed:
        return DataState(task, file.name, "packed", f"{packed[0]}, unpacked at its first use")
    download = f"downloaded at its first use from {file.url}, or " if file.url else ""
    return DataState(task, file.name, "missing", download + folders.advice(file))


def show_data_sets(as_json: bool) -> None:
    """Prints a line per task and file, then how to get what is missing."""
    states = data_states(discover(), DataFolders.from_environment())
    if as_json:
        print_json([asdict(each) for each in states])
        return
    table = _table("task", "file", "state", "where", folded=("file", "where"))
    for each in states:
        where = "see below" if each.state == "missing" else each.where
        table.add_row(*map(Text, (each.task, each.file, each.state, where)))
    out.print(table)
    for each in states:
        if each.state == "missing":
            out.print(f"{each.task}: {each.where}", markup=False, soft_wrap=True)


def show_folders(as_json: bool) -> None:
    """Prints the folders in the order in which they are searched, the cache last, and what sets them."""
    folders = DataFolders.from_environment()
    places = [
        {
            "folder": str(folder),
            "use": "cache" if folder == folders.cache else "search",
            "exists": folder.is_dir(),
            "writable": _writable(folder),
        }
        for folder in dict.fromkeys(folders.search)
    ]
    variables = {name: os.environ.get(name) for name in _VARIABLES}
    if as_json:
        print_json({"folders": places, "variables": variables})
        return
    table = _table("folder", "use", "exists", "writable", folded=("folder",))
    for place in places:
        table.add_row(*(Text(_yes_no(value)) for value in place.values()))
    out.print(table)
    for name, value in variables.items():
        out.print(f"{name}: {value or 'not set'}", markup=False, soft_wrap=True)
    if not variables["KDBENCH_DATA"]:
        out.print("set KDBENCH_DATA to the folders that hold your data sets, separated as in PATH", style="dim")


def prepare(reference: str) -> None:
    """Loads every task of the suite, prints what it holds, and what the others lack.

    Raises:
        BadInput, UnknownName: the suite or a task in it cannot be read; nothing is loaded then.
        MissingData: some task could not be loaded; the others are.
    """
    from kdbench.suite_file import load_suite

    suite, registry = load_suite(reference), discover()
    tasks = {str(spec): _created(registry, suite, spec) for spec in suite.tasks}
    table = _table("task", "train", "validation", "test", "classes", "digest", folded=("task",))
    lacking: dict[str, KdbenchError] = {}
    with data_folders() as folders:
        for name, task in tasks.items():
            try:
                table.add_row(Text(name), *_contents(task, suite, folders))
            except KdbenchError as error:
                lacking[name] = error
    if table.row_count:
        out.print(table)
    if lacking:
        raise MissingData(
            f"{len(lacking)} of {len(tasks)} tasks of {suite.id} cannot be loaded",
            hint="\n".join(f"{name}: {error}" for name, error in lacking.items()),
        )


def _created(registry: Registry, suite: Suite, spec: Spec) -> Task:
    try:
        return cast("Task", registry.create("task", spec))
    except BadInput as error:
        raise suite.located(spec, error) from error


def _contents(task: Task, suite: Suite, folders: DataFolders) -> list[str]:
    from kdbench.splits import with_validation

    data = with_validation(task.load(folders), suite.validation_fraction)
    assert data.validation is not None
    splits = (data.train, data.validation, data.test)
    content = digest([split.digest() for split in splits])
    return [*(f"{len(split):,}" for split in splits), str(data.spec.classes), content[:16]]


@contextmanager
def data_folders() -> Iterator[DataFolders]:
    """The folders of this machine, which show on standard error what they download and unpack."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bars:
        started: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int | None) -> None:
            if what not in started:
                started[what] = bars.add_task(what, total=total)
                if not err.is_terminal:
                    err.print(what, markup=False, soft_wrap=True)
            bars.update(started[what], completed=done, total=total)

        yield DataFolders.from_environment(show)


def _writable(folder: Path) -> bool:
    """Whether files can be put there; a folder that does not exist is made in the nearest parent that does."""
    nearest = next((each for each in (folder, *folder.absolute().parents) if each.exists()), folder)
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


def _yes_no(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _table(*columns: str, folded: tuple[str, ...]) -> Table:
    """With the columns that may take several lines where space is short: `folded`."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column not in folded)
    return table
