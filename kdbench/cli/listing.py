"""`kdbench list` and `kdbench plugins`: read from sources, without importing torch."""

from __future__ import annotations

from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from kdbench.catalogue import Entry, catalogue
from kdbench.cli.console import out, print_json
from kdbench.discovery import Origin
from kdbench.errors import UnknownName
from kdbench.plugins import Kind, Registry, discover

_KINDS: dict[str, Kind] = {"methods": "method", "tasks": "task", "architectures": "architecture"}


def show_list(what: str, as_json: bool) -> None:
    """Prints one section, or all of them."""
    sections = ["suites", *_KINDS]
    if what not in ("all", *sections):
        raise UnknownName("list", what, sections)
    wanted = sections if what == "all" else [what]
    registry = discover()
    if as_json:
        found = {section: _as_dicts(section, registry) for section in wanted}
        print_json(found if what == "all" else found[what])
        return
    for section in wanted:
        out.print(_suites() if section == "suites" else _plugins(section, catalogue(registry, _KINDS[section])))
    if registry.broken:
        out.print(f"[bold]{len(registry.broken)} broken[/] plugin(s): see `kdbench plugins`")


def _as_dicts(section: str, registry: Registry) -> list[dict[str, object]]:
    if section == "suites":
        from kdbench.suite_file import list_suites

        return [{**asdict(summary), "path": str(summary.path)} for summary in list_suites()]
    return [entry.as_dict() for entry in catalogue(registry, _KINDS[section])]


def _suites() -> Table:
    from kdbench.suite_file import list_suites

    table = _table("suites", "name", "what it asks")
    for summary in list_suites():
        table.add_row(summary.name, Text(summary.title))
    return table


def _plugins(section: str, entries: list[Entry]) -> Table:
    table = _table(section, "name", *(["family"] if section == "methods" else []), "what it is")
    for entry in entries:
        family = [entry.family] if section == "methods" else []
        about = Text(entry.summary)
        if entry.paper:
            about.append(f" ({entry.paper})", style="dim")
        if entry.parameters:
            about.append(f"\n{', '.join(entry.parameters)}", style="dim")
        table.add_row(entry.name, *family, about)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "family"))
    return table


def show_plugins(as_json: bool) -> None:
    """Prints each distribution with what it brings, then the broken ones with their errors."""
    registry = discover()
    if as_json:
        print_json(_plugins_as_dict(registry))
        return
    table = _table("plugins", "distribution", "module", "brings")
    for origin in registry.origins:
        brings = ", ".join(f"{len(names)} {section}" for section, names in _brought(registry, origin).items() if names)
        table.add_row(Text(str(origin)), Text(origin.module), brings or "nothing")
    out.print(table)
    for note in registry.notes:
        out.print(Text.assemble(("note", "bold"), f" {note.origin}: {note.text}"), soft_wrap=True)
    for each in registry.broken:
        out.print(Text.assemble(("broken", "bold red"), f" {each.origin} ({each.origin.module})"), soft_wrap=True)
        for line in filter(None, [each.error, each.advice]):
            out.print(Text(f"  {line}"), soft_wrap=True)
        out.print(Text(f"  to be rid of it: {each.origin.removal}", style="dim"), soft_wrap=True)


def _plugins_as_dict(registry: Registry) -> dict[str, list[dict[str, object]]]:
    return {
        "working": [{**_named(origin), **_brought(registry, origin)} for origin in registry.origins],
        "notes": [{**_named(note.origin), "note": note.text} for note in registry.notes],
        "broken": [
            {
                **_named(each.origin),
                "error": each.error,
                "advice": each.advice,
                "removal": each.origin.removal,
                "traceback": each.trace,
            }
            for each in registry.broken
        ],
    }


def _named(origin: Origin) -> dict[str, object]:
    return {
        "distribution": origin.distribution,
        "version": origin.version,
        "module": origin.module,
        "file": str(origin.file) if origin.file else None,
    }


def _brought(registry: Registry, origin: Origin) -> dict[str, list[str]]:
    return {
        section: [plugin.name for plugin in registry.plugins[kind].values() if plugin.origin == origin]
        for section, kind in _KINDS.items()
    }
