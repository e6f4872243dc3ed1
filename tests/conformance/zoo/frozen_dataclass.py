"""Its hyper-parameters can be changed while it runs: a plain class below a dataclass."""

from __future__ import annotations

from collections.abc import Mapping

from kdbench import hookimpl

from .sound import Imitates


class FrozenDataclass(Imitates):
    scale = 2.0


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"frozen_dataclass": FrozenDataclass}
