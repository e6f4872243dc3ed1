"""What a new plugin, its distribution, its module and its class are called, and whether these names are free."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass

import kdbench
from kdbench.errors import BadInput
from kdbench.plugins import Kind, Registry

# Narrower than PEP 508: it also becomes part of a module's and of a class's name.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_.]+[A-Za-z0-9]+)*")
_LONGEST = 32  # so that no generated line is too long
_PREFIX = re.compile(r"kdbench[-_.]+", re.IGNORECASE)
# What generated modules import besides kdbench's public names, and what no class can be called.
_TAKEN = {"ClassVar", "Mapping", "Tensor", "True", "False", "None", *kdbench.__all__}


@dataclass(frozen=True)
class Names:
    """All the names of one new plugin: `my_method`, of class `MyMethod`, in kdbench-my-method."""

    kind: Kind
    plugin: str
    class_name: str

    @classmethod
    def of(cls, kind: Kind, text: str) -> Names:
        """The names that follow from what a person wrote: my-method, my_method, kdbench-my-method, MyMethod.

        Raises:
            BadInput: no distribution, module and class can bear it.
        """
        given = _PREFIX.sub("", text.strip(), count=1)
        if not _NAME.fullmatch(given) or len(given) > _LONGEST:
            raise BadInput(
                f"a {kind} cannot be called {text!r:.80}",
                hint=f"take a letter first, then letters and digits, words joined by - or _, {_LONGEST} characters at "
                "most: my-method",
            )
        words = re.split(r"[-_.]+", given)
        class_name = "".join(word[0].upper() + word[1:] for word in words)
        suffix = kind.capitalize() if class_name in _TAKEN else ""
        return cls(kind, "_".join(words).lower(), class_name + suffix)

    @property
    def distribution(self) -> str:
        """What `pip install` takes, and the name of the folder."""
        return f"kdbench-{self.plugin.replace('_', '-')}"

    @property
    def module(self) -> str:
        """What Python imports."""
        return f"kdbench_{self.plugin}"

    def check_free(self, registry: Registry) -> None:
        """Refuses names that are taken on this machine.

        Raises:
            BadInput: an installed plugin or module bears it already; the message says whose it is.
        """
        holder = registry.plugins[self.kind].get(self.plugin)
        if holder is not None:
            raise BadInput(
                f"{self.kind} '{self.plugin}' is already the name of one by {holder.origin}",
                hint=f"choose another name; `kdbench list {self.kind}s` shows those taken",
            )
        if importlib.util.find_spec(self.module) is not None:
            raise BadInput(f"a module '{self.module}' is installed already", hint="choose another name")
