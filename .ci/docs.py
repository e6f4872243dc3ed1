"""Writes the generated parts of the documentation, or, with --check, exits 1 and names the pages where one is stale.

A part stands between `<!-- generated: NAME -->` and `<!-- /generated -->`; `PARTS` has the function that makes it anew
from the code, the same on every machine: one width, no colours, the built-in plugins alone.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from class_docs import fields, functions, keys, prose
from plugin_docs import architectures, methods, suites, tasks

ROOT = Path(__file__).parent.parent
PAGES = ("plugins/README.md", "suites/README.md", "results/README.md")
HELP_WIDTH = 100
# What the readers of each page type; together they must be all commands.
COMMANDS = {
    "commands of authors": ("new method", "new task", "new architecture", "check", "plugins", "list"),
    "commands that run": ("run", "plan", "data list", "data prepare", "data where", "doctor"),
    "commands that read": ("leaderboard", "verdict", "records", "compare", "report", "publish", "sync", "ui"),
}
_SECTIONS = {"suite": "kdbench.suite:Suite", "pair": "kdbench.recipe:Pair", "recipe": "kdbench.recipe:Recipe"}
_FIELDS = (
    "kdbench.method:Needs",
    "kdbench.method:Step",
    "kdbench.method:Method",
    "kdbench.own_loop:Loop",
    "kdbench.task:Metric",
    "kdbench.data:DataFile",
    "kdbench.splits:LoadedSplit",
    "kdbench.measuring.record:Record",
)
_FUNCTIONS = (
    "kdbench.method:Method",
    "kdbench.own_loop:OwnLoop",
    "kdbench.own_loop:Loop",
    "kdbench.task:Task",
    "kdbench.task:Split",
    "kdbench.data:DataFolders",
    "kdbench.architecture:Architecture",
)
_PART = re.compile(r"(<!-- generated: (?P<name>[\w ]+) -->\n).*?(<!-- /generated -->)", re.DOTALL)


def main(arguments: Sequence[str]) -> int:
    """Rewrites the stale pages; with --check only names them."""
    only_checks = "--check" in arguments
    pages = {ROOT / page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
    stale = {page: new for page, old in pages.items() if (new := renewed(old)) != old}
    for page, text in stale.items():
        print(f"{page.relative_to(ROOT)}: {'stale; run `make docs`' if only_checks else 'renewed'}")
        if not only_checks:
            page.write_text(text, encoding="utf-8")
    return 1 if stale and only_checks else 0


def renewed(page: str) -> str:
    """The page with every part made anew.

    Raises:
        KeyError: it asks for a part that nobody makes.
    """
    return _PART.sub(lambda part: f"{part[1]}{_made(part['name'])}\n{part[3]}", page)


def _made(name: str) -> str:
    kind, _, what = name.partition(" of ")
    return reason(what) if kind == "reason" else PARTS[name]()


@cache
def commands() -> Mapping[str, Any]:
    """Every command's context, by what is typed after `kdbench`."""
    import typer

    from kdbench.cli.app import app

    found: dict[str, Any] = {}

    def walk(command: Any, parent: Any, name: str) -> None:
        command.rich_markup_mode = None  # plain text
        widths = {"terminal_width": HELP_WIDTH, "max_content_width": HELP_WIDTH}
        context = command.context_class(command, info_name=name, parent=parent, **widths)
        children = getattr(command, "commands", {})
        for child, subcommand in children.items():
            walk(subcommand, context, child)
        if not children:
            found[context.command_path.removeprefix("kdbench ")] = context

    walk(typer.main.get_command(app), None, "kdbench")
    return found


def command_help(names: Sequence[str]) -> str:
    """What `--help` says of each.

    Raises:
        LookupError: some command is in no group of `COMMANDS`.
    """
    if homeless := commands().keys() - {name for group in COMMANDS.values() for name in group}:
        raise LookupError(f"in no group of COMMANDS: {', '.join(sorted(homeless))}")
    helps = (commands()[name].get_help() for name in names)
    return "\n\n".join("```text\n" + re.sub(r" +$", "", text, flags=re.MULTILINE) + "\n```" for text in helps)


def reason(name: str) -> str:
    """Why a conformance check matters, in its own words."""
    from kdbench.testing import CHECKS

    (found,) = (check.reason for check in CHECKS if check.name == name)
    return f"*{prose(found)}*"


def _of(show: Callable[[Any], str], where: str) -> str:
    """`show` of the class at "module:Class", imported when it is asked for."""
    module, _, name = where.partition(":")
    return show(getattr(importlib.import_module(module), name))


PARTS: dict[str, Callable[[], str]] = {
    **{name: partial(command_help, names) for name, names in COMMANDS.items()},
    **{f"keys of {name}": partial(_of, keys, where) for name, where in _SECTIONS.items()},
    **{f"fields of {where.partition(':')[2]}": partial(_of, fields, where) for where in _FIELDS},
    **{f"functions of {where.partition(':')[2]}": partial(_of, functions, where) for where in _FUNCTIONS},
    **{part.__name__: part for part in (methods, tasks, architectures, suites)},
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
