"""`kdbench new`: the package of a new method, task or architecture, ready to be edited, tested and published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kdbench.plugins import Kind

new = typer.Typer(
    help="Begin a plugin of your own: a package that installs and passes its tests.", no_args_is_help=True
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="What suites will call it, e.g. my-method.")]
DirOption = Annotated[Path, typer.Option("--dir", metavar="D", help="Where its folder kdbench-NAME is made.")]


@new.command()
def method(
    name: NameArgument,
    family: Annotated[
        str,
        typer.Option(
            "--family",
            metavar="[response|feature|relation|online|self|ensemble]",
            help="What it learns from: the teacher's answers, its features, how examples lie to each other, other "
            "students, itself, several teachers.",
        ),
    ] = "response",
    parent: DirOption = Path(),
) -> None:
    """Write the package of a distillation method, with a first working loss of its family."""
    _write("method", name, parent, family)


@new.command()
def task(name: NameArgument, parent: DirOption = Path()) -> None:
    """Write the package of a task, which reads a table; until you bring one, scikit-learn's wine data."""
    _write("task", name, parent)


@new.command()
def architecture(name: NameArgument, parent: DirOption = Path()) -> None:
    """Write the package of an architecture: a small image network with its taps named."""
    _write("architecture", name, parent)


def _write(kind: Kind, name: str, parent: Path, family: str = "") -> None:
    from kdbench.cli.console import out
    from kdbench.plugins import discover
    from kdbench.scaffold.naming import Names
    from kdbench.scaffold.package import write_package

    names = Names.of(kind, name)
    names.check_free(discover())
    files = write_package(names, parent, family)
    folder = parent / names.distribution
    run = f"quickstart --method {names.plugin}" if kind == "method" else "./suite.yaml"
    lines = [
        f"{folder}: the {kind} '{names.plugin}', {len(files)} files; begin with {next(iter(files))}",
        "",
        f"cd {folder}",
        "pip install -e '.[test]'",
        "pytest",
        *([f"kdbench check {names.plugin}"] if kind == "method" else []),
        f"kdbench run {run}",
    ]
    out.print("\n".join(lines), markup=False, soft_wrap=True)
