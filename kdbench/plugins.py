"""All plugins by name, and the broken ones kept apart.

A plugin that does not import, hangs, misspells a hook, takes a name that is taken, raises, or asks for a newer kdbench
is reported with its distribution and error; everything else goes on, and only a run that asks for it fails.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import EntryPoint
from typing import Any, Literal

import pluggy

from kdbench import __version__, hookspecs
from kdbench.discovery import PATIENCE, Origin, Selection, candidates
from kdbench.errors import BadInput, BrokenPlugin, UnknownName
from kdbench.hyperparameters import construct
from kdbench.isolation import Outcome, call_apart
from kdbench.provenance import source_digest
from kdbench.spec import Spec

Kind = Literal["method", "task", "architecture"]
KINDS: tuple[Kind, ...] = ("method", "task", "architecture")
Offers = dict[Kind, dict[str, str | type]]


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
        except (Exception, SystemExit) as error:
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
    """A plugin, or one of its names, that could not be used; `error` and `advice` are one line, `trace` many."""

    origin: Origin
    error: str
    advice: str = ""
    trace: str = ""
    cause: BaseException | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Note:
    """Something odd about a plugin that works."""

    origin: Origin
    text: str


@dataclass
class Registry:
    """All plugins by kind and name, the broken ones, and notes on odd ones."""

    plugins: dict[Kind, dict[str, Plugin]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    broken: list[Broken] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
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


def discover() -> Registry:
    """Finds the plugins that the environment selects (see `kdbench.discovery`), the built-ins among them.

    Raises:
        BadInput: the selection names what is not there.
        BrokenPlugin: one is broken, and the selection is strict.
    """
    return _discovered(Selection.from_environment())


@cache
def _discovered(selection: Selection) -> Registry:
    registry = collect(candidates(selection), selection.patience)
    if selection.strict and registry.broken:
        first, *others = registry.broken
        more = f" (and {len(others)} more: see `kdbench plugins`)" if others else ""
        hint = "\n".join(filter(None, [first.advice, f"to be rid of it: {first.origin.removal}"]))
        raise BrokenPlugin(f"plugin {first.origin} is broken: {first.error}{more}", hint=hint) from first.cause
    return registry


def collect(found: list[tuple[Origin, EntryPoint]], patience: float = PATIENCE) -> Registry:
    """Loads each entry point by itself, so that one that fails or hangs harms no other."""
    registry = Registry()
    for origin, entry in found:
        outcome = call_apart(partial(_offers, entry), patience)
        if outcome.printed_bytes:
            registry.notes.append(Note(origin, _printed(outcome)))
        if outcome.value is None:
            registry.broken.append(_broken(origin, outcome.error))
            continue
        registry.origins.append(origin)
        if not outcome.value:
            registry.notes.append(Note(origin, "implements no hook; is @hookimpl missing?"))
        _register(registry, origin, outcome.value)
    return registry


def _register(registry: Registry, origin: Origin, offers: Offers) -> None:
    for kind, names in offers.items():
        for name, target in names.items():
            taken = registry.plugins[kind].get(name)
            if taken is None:
                registry.plugins[kind][name] = Plugin(kind, name, target, origin)
            else:
                error = f"{kind} '{name}' is already the name of one by {taken.origin}"
                registry.broken.append(Broken(origin, error, "its other names can be used"))


def _offers(entry: EntryPoint) -> Offers:
    """What one entry point's hooks return, each checked to be a mapping of names.

    Raises:
        BrokenPlugin: it breaks the contract.
        Exception: whatever its import or its hooks raise.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(_module(entry))
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        hooks = ", ".join(f"kdbench_{kind}s" for kind in KINDS)
        raise BrokenPlugin(str(error), hint=f"the hooks are {hooks}") from error
    offers: Offers = {}
    for kind in KINDS:
        for offer in getattr(manager.hook, f"kdbench_{kind}s")():
            offers[kind] = _checked(f"kdbench_{kind}s", offer)
    return offers


def _module(entry: EntryPoint) -> Any:
    """Imports a plugin and looks at the version of the hooks that it is written for, `kdbench_api`."""
    try:
        module = entry.load()
    except Exception as error:
        # a plugin for a newer kdbench may import what this one lacks, below the line that says so
        frames = [frame.f_globals for frame, _ in traceback.walk_tb(error.__traceback__)]
        asked = [names["kdbench_api"] for names in frames if "kdbench_api" in names]
        _check_api(asked[-1] if asked else hookspecs.API_VERSION, entry)
        raise
    _check_api(getattr(module, "kdbench_api", hookspecs.API_VERSION), entry)
    return module


def _check_api(asked: object, entry: EntryPoint) -> None:
    has = hookspecs.API_VERSION
    if not isinstance(asked, int) or asked < 1:
        raise BrokenPlugin(f"kdbench_api = {asked!r:.80} is no version", hint=f"this kdbench has version {has}")
    if asked > has:
        requirements = (entry.dist.requires if entry.dist else None) or []
        named = [line.partition(";")[0].strip() for line in requirements if re.match(r"kdbench(?![\w.-])", line)]
        raise BrokenPlugin(
            f"asks for version {asked} of the plugin API; kdbench {__version__} has version {has}",
            hint=f"it needs a newer kdbench: pip install --upgrade '{named[0] if named else 'kdbench'}'",
        )


def _checked(hook: str, offer: object) -> dict[str, str | type]:
    if not isinstance(offer, Mapping) or not all(isinstance(name, str) for name in offer):
        raise BrokenPlugin(f"{hook} returned {type(offer).__name__}, not a mapping from name to plugin")
    for name, target in offer.items():
        if not isinstance(target, type) and not (isinstance(target, str) and re.fullmatch(r"[\w.]+:\w+.*", target)):
            raise BrokenPlugin(
                f"{hook} returned {target!r:.80} for '{name}'",
                hint='a plugin is a class, "module:Class" or "module:Class[key=value]"',
            )
    return dict(offer)


def _broken(origin: Origin, error: BaseException | None) -> Broken:
    if isinstance(error, BrokenPlugin):
        return Broken(origin, error.message, error.hint or "", cause=error)
    # these survive exceptions that cannot be written as text; a SyntaxError's last line lacks the place
    lines = traceback.format_exception_only(error)
    place = f" ({error.filename}, line {error.lineno})" if isinstance(error, SyntaxError) else ""
    line = " ".join(lines[-1 if place else 0].split())
    trace = "".join(traceback.format_exception(error))
    return Broken(origin, f"{line:.500}{place}", _advice(origin, error), trace[-20_000:], error)


def _advice(origin: Origin, error: BaseException | None) -> str:
    if isinstance(error, TimeoutError):
        return "is it only slow? KDBENCH_PLUGIN_TIMEOUT=60 waits longer"
    if isinstance(error, ModuleNotFoundError) and not origin.file:
        return f"a dependency is missing: `pip install {origin.distribution}` brings those that it declares"
    return ""


def _printed(outcome: Outcome[Any]) -> str:
    """One line about what a plugin printed."""
    beginning = " ".join(outcome.printed.split())
    cut = (
        f"{beginning[:200]} ..." if len(beginning) > 200 or outcome.printed_bytes > len(outcome.printed) else beginning
    )
    return f"printed {outcome.printed_bytes:,} bytes while it was loaded: {cut}"


def _base(kind: Kind) -> type:
    module = importlib.import_module(f"kdbench.{kind}")
    return getattr(module, kind.capitalize())
