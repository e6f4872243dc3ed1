"""The hooks that a plugin may implement, found through the entry-point group `kdbench`.

Each returns a mapping from name to plugin: a dataclass, or, so that listing stays fast, the string
"module:Class" or "module:Class[key=value]" that leads to it.

A plugin's module may say which version of these hooks it is written for, above its imports: `kdbench_api = 1`.
"""

from collections.abc import Mapping

import pluggy

PROJECT = "kdbench"
API_VERSION = 1  # grows with every change that a plugin can depend on

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def kdbench_methods() -> Mapping[str, str | type]:  # type: ignore[empty-body]
    """Distillation methods and controls, by name: subclasses of `kdbench.Method`."""


@hookspec
def kdbench_tasks() -> Mapping[str, str | type]:  # type: ignore[empty-body]
    """Tasks, by name: subclasses of `kdbench.Task`."""


@hookspec
def kdbench_architectures() -> Mapping[str, str | type]:  # type: ignore[empty-body]
    """Network architectures, by name: subclasses of `kdbench.Architecture`."""
