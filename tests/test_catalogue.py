"""Listings are read from sources and say what the classes say."""

from __future__ import annotations

import dataclasses

import pytest

from kdbench.catalogue import Entry, catalogue
from kdbench.plugins import KINDS, Kind, discover

ENTRIES = [(kind, entry) for kind in KINDS for entry in catalogue(discover(), kind)]


@pytest.mark.parametrize(("kind", "entry"), ENTRIES, ids=[f"{kind} {entry.name}" for kind, entry in ENTRIES])
def test_an_entry_agrees_with_its_class(kind: Kind, entry: Entry) -> None:
    cls, presets = discover().plugins[kind][entry.name].load()
    fields = [field.name for field in dataclasses.fields(cls) if field.name not in presets]
    assert sorted(parameter.partition("=")[0] for parameter in entry.parameters) == sorted(fields)
    assert " ".join((cls.__doc__ or "").split()).startswith(entry.summary)
    assert entry.summary.endswith(".")
    if kind == "method":
        assert (entry.family, entry.paper) == (cls.family, cls.paper)
