"""Which controls a plan runs beside its methods, and what each of them may explain."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from kdbench.catalogue import catalogue
from kdbench.errors import BrokenPlugin
from kdbench.method import Method
from kdbench.plugins import Registry
from kdbench.spec import Spec

Named = tuple[str, Method]  # a method under its plugin's name


class Controls:
    """The installed controls, by what they declare to explain (`Method.explains`)."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        names = [entry.name for entry in catalogue(registry, "method") if entry.family == "control"]
        self._classes: dict[str, Any] = {}
        for name in names:
            with suppress(BrokenPlugin):  # `kdbench plugins` names it; a suite that lists it says so
                self._classes[name] = registry.find("method", name).load()[0]

    def of(self, method: Method) -> tuple[str, ...]:
        """The controls that may explain the score of `method`: those it names, or those of its family."""
        return self._explaining("explains", method) if method.controls is None else method.controls

    def of_fidelity(self, method: Method) -> tuple[str, ...]:
        """The controls that may explain how much a student of `method` resembles the teacher."""
        return self._explaining("explains_fidelity", method)

    def _explaining(self, what: str, method: Method) -> tuple[str, ...]:
        return tuple(name for name, cls in self._classes.items() if method.family in getattr(cls, what))

    def added(self, methods: Sequence[Named]) -> list[Named]:
        """The controls that apply to some of `methods` and are not among them.

        Each once, at the settings that it shares with the first method that it applies to: a placebo of KD has the
        temperature and the weights of that KD.
        """
        listed = {name for name, _ in methods}
        found: dict[str, Method] = {}
        for _, method in methods:
            for name in (*self.of(method), *self.of_fidelity(method)):
                if name not in listed and name not in found:
                    found[name] = self._like(name, method)
        return list(found.items())

    def _like(self, name: str, method: Method) -> Method:
        cls, presets = self._registry.find("method", name).load()
        shared = {field.name for field in dataclasses.fields(cls)} & {
            field.name for field in dataclasses.fields(method)
        }
        params = {field: getattr(method, field) for field in shared - presets.keys()}
        created: Method = self._registry.create("method", Spec(name, params))
        return created
