"""`NAME[key=value,...]`: how a plugin and its parameters are written, in suites and on the command line.

A bare word in the brackets is a flag: `attention_transfer[published]`. Values with commas, brackets or quotes are
quoted, a quote inside is doubled: `image_folder[path="/data/a,b"]`. Suites may also write a mapping:
`{name: kd, temperature: 2}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kdbench.errors import BadInput

_NAME = re.compile(r"[A-Za-z0-9_][\w.:@+-]*")
_KEY = re.compile(r"[A-Za-z_]\w*")
_FLAG = re.compile(r"[A-Za-z_][\w-]*")
_UNQUOTED = re.compile(r"""[^,\[\]"'\s]+""")
# Every repetition is possessive, so that no text, however odd, is read twice.
_ARGUMENT = re.compile(
    r"""\s*+(?:(?P<key>[A-Za-z_]\w*+)\s*+=\s*+)?"""
    r"""(?P<value>"(?:[^"]|"")*+"|'(?:[^']|'')*+'|[^,\[\]"'\s]++(?:\s++[^,\[\]"'\s]++)*+)\s*+(?:,|\Z)"""
)


@dataclass(frozen=True)
class Spec:
    """One plugin as asked for: its name, its parameters as written (not yet typed), and its flags."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str | Mapping[str, Any]) -> Spec:
        """Reads `NAME[key=value,flag]` or `{name: NAME, key: value}`.

        Raises:
            BadInput: the text has another form, or gives a key twice.
        """
        if isinstance(text, Mapping):
            return cls._from_mapping(text)
        head, bracket, rest = text.strip().partition("[") if isinstance(text, str) else ("", "", "")
        if not _NAME.fullmatch(head) or (bracket and not rest.endswith("]")):
            raise BadInput(
                f"cannot read {text!r:.80}", hint="write NAME or NAME[key=value,...], e.g. kd[temperature=2]"
            )
        params, flags = _arguments(rest[:-1], text) if bracket else ({}, ())
        return cls(head, params, flags)

    @classmethod
    def _from_mapping(cls, mapping: Mapping[str, Any]) -> Spec:
        params = dict(mapping)
        name = params.pop("name", None)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadInput("a mapping needs a plain 'name'", hint="e.g. {name: kd, temperature: 2}")
        for key in params:
            if not isinstance(key, str) or not _KEY.fullmatch(key):
                raise BadInput(
                    f"{name}: {key!r:.80} cannot be the name of a parameter", hint="e.g. {name: kd, temperature: 2}"
                )
        return cls(name, params)

    def __str__(self) -> str:
        arguments = [*self.flags, *(f"{key}={_written(value)}" for key, value in self.params.items())]
        return f"{self.name}[{','.join(arguments)}]" if arguments else self.name


def _arguments(text: str, whole: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    params: dict[str, Any] = {}
    flags: dict[str, None] = {}  # an ordered set
    position = 0
    while position < len(text):
        match = _ARGUMENT.match(text, position)
        if match is None or (match["key"] is None and not _FLAG.fullmatch(match["value"])):
            raise BadInput(f"cannot read {text[position:]!r:.80} in {whole!r:.80}", hint="write key=value,key=value")
        key, value = match["key"], match["value"]
        if key in params or (key is None and value in flags):
            raise BadInput(f"'{key or value}' is given twice in {whole!r:.80}")
        if key is None:
            flags[value] = None
        else:
            params[key] = _unquoted(value)
        position = match.end()
    return params, tuple(flags)


def _unquoted(value: str) -> str:
    quote = value[0]
    return value[1:-1].replace(quote * 2, quote) if quote in "\"'" else value


def _written(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if _UNQUOTED.fullmatch(text) else '"' + text.replace('"', '""') + '"'
