"""Discovery of plugins, look-up by name, and broken plugins kept apart.

A plugin that does not import, misspells a hook, takes a name that is taken or raises is reported with its
distribution and exception; everything else goes on, and only a run that asks for it fails.
"""

from __future__ import annotations

import dataclasses
import importlib
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

import pluggy

from kdbench import hookspecs
from kdbench.errors import BadInput, BrokenPlugin, UnknownName
from kdbench.hyperparameters import construct
from kdbench.provenance import source_digest
from kdbench.spec import Spec

Kind = Literal["method", "task", "architecture"]
KINDS: tuple[Kind, ...] = ("method", "task", "architecture")


@dataclass(frozen=True)
class Origin:
    """The installed distribution and module that a plugin comes from."""

    distribution: str
    version: str
    module: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class Plugin:
    """One named method, task or architecture; its module is imported only by `load`."""

    kind: Kind
    name: str
    target: str | type
    origin: Origin

    def load(self) -> tuple[type, dict[str, Any]]:
        """The plugin's dataclass, and the parameters that its name stands for.

        Raises:
            BrokenPlugin: its module does not import, or holds no such class.
        """
        from kdbench import torchvision_ops

        torchvision_ops.ensure()
        try:
            cls, presets = self._resolve()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise BrokenPlugin(f"{self.kind} '{self.name}' of {self.origin} does not load: {reason}") from error
        if not (dataclasses.is_dataclass(cls) and issubclass(cls, _base(self.kind))):
            base = _base(self.kind).__name__
            raise BrokenPlugin(f"{self.kind} '{self.name}' of {self.origin} is not a dataclass derived from {base}")
        return cls, presets

    def _resolve(self) -> tuple[type, dict[str, Any]]:
        if isinstance(self.target, type):
            return self.target, {}
        module, _, rest = self.target.partition(":")
        spec = Spec.parse(rest)
        return getattr(importlib.import_module(module), spec.name), dict(spec.params)

    @property
    def module(self) -> str:
        """The module that defines the plugin, known without importing it."""
        return self.target.__module__ if isinstance(self.target, type) else self.target.partition(":")[0]


@dataclass(frozen=True)
class Broken:
    """A plugin, or one of its names, that could not be used; `error` is one line, `trace` the traceback."""

    origin: Origin
    error: str
    trace: str = ""


@dataclass
class Registry:
    """All plugins by kind and name, and the broken ones."""

    plugins: dict[Kind, dict[str, Plugin]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    broken: list[Broken] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)

    def find(self, kind: Kind, name: str) -> Plugin:
        """The plugin of that name; for `torchvision:resnet18` the one called `torchvision`.

        Raises:
            UnknownName: none bears it; suggests the nearest, and names broken plugins that might have brought it.
        """
        known = self.plugins[kind]
        family = name.partition(":")[0]
        if name not in known and family not in known:
            error = UnknownName(kind, name, known)
            if self.broken:
                culprits = ", ".join(sorted({str(broken.origin) for broken in self.broken}))
                error.hint = f"{error.hint}\nbroken plugins: {culprits} (see `kdbench plugins`)"
            raise error
        return known.get(name) or known[family]

    def create(self, kind: Kind, spec: Spec) -> Any:
        """An instance of the plugin that `spec` asks for, with checked parameters.

        Raises:
            UnknownName, BadInput: the name or a parameter is wrong.
            BrokenPlugin: the plugin does not load.
        """
        plugin = self.find(kind, spec.name)
        if spec.flags:
            raise BadInput(f"{kind} '{spec}': '{spec.flags[0]}' is not key=value")
        cls, presets = plugin.load()
        _, colon, variant = spec.name.partition(":")
        if colon:
            presets["variant"] = variant
        fixed = presets.keys() & spec.params.keys()
        if fixed:
            raise BadInput(f"{kind} '{spec.name}' already fixes '{min(fixed)}'")
        return construct(cls, {**presets, **spec.params}, where=f"{kind} '{spec.name}'")

    def provenance(self, kind: Kind, name: str) -> dict[str, str]:
        """Distribution, version and source digest of the plugin: part of every fingerprint."""
        plugin = self.find(kind, name)
        return {
            "distribution": plugin.origin.distribution,
            "version": plugin.origin.version,
            "source": source_digest(plugin.module),
        }


@cache
def discover() -> Registry:
    """Finds every plugin installed under the entry-point group `kdbench`, the built-ins among them."""
    found = sorted(
        entry_points(group=hookspecs.PROJECT), key=lambda entry: (_origin(entry).distribution != "kdbench", entry.name)
    )
    return collect([(_origin(entry), entry) for entry in found])


def collect(found: list[tuple[Origin, EntryPoint]]) -> Registry:
    """Loads each entry point by itself, so that one that fails harms no other."""
    registry = Registry()
    for origin, entry in found:
        try:
            offers = _offers(entry)
        except (Exception, SystemExit) as error:
            registry.broken.append(_broken(origin, error))
            continue
        registry.origins.append(origin)
        for kind, names in offers.items():
            for name, target in names.items():
                taken = registry.plugins[kind].get(name)
                if taken is not None:
                    registry.broken.append(
                        Broken(origin, f"{kind} '{name}' is already the name of one by {taken.origin}")
                    )
                else:
                    registry.plugins[kind][name] = Plugin(kind, name, target, origin)
    return registry


def _offers(entry: EntryPoint) -> dict[Kind, Mapping[str, str | type]]:
    """What one entry point's hooks return, each checked to be a mapping of names."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(entry.load())
    manager.check_pending()
    offers: dict[Kind, Mapping[str, str | type]] = {}
    for kind in KINDS:
        for offer in getattr(manager.hook, f"kdbench_{kind}s")():
            if not isinstance(offer, Mapping) or not all(isinstance(name, str) for name in offer):
                raise TypeError(f"kdbench_{kind}s returned {type(offer).__name__}, not a mapping from name to plugin")
            offers[kind] = offer
    return offers


def _broken(origin: Origin, error: BaseException) -> Broken:
    return Broken(origin, f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))


def _origin(entry: EntryPoint) -> Origin:
    name, version = (entry.dist.name, entry.dist.version) if entry.dist else ("unknown", "0")
    return Origin(name, version, entry.value)


def _base(kind: Kind) -> type:
    module = importlib.import_module(f"kdbench.{kind}")
    return getattr(module, kind.capitalize())
