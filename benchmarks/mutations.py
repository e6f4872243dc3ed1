"""Inputs near to sound ones: scalars that surprise, contents with places changed, bytes that are mangled."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

_ODD = [
    "",
    "kd",
    "kd[temperature=2]",
    "kd[",
    "a b",
    "x@1.0",
    "1e-4",
    ".nan",
    "../..",
    "<b>",
    "\0",
    "é",
    "a: b",
    "9" * 40,
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(_ODD) | st.text(max_size=8)
MARKS = st.text(alphabet="abk01_:-?,[]{}#&*!|>'\"%@`=. \t\n\\/~<e\x00\ufeffé", max_size=60)


def nested(keys: SearchStrategy[str]) -> SearchStrategy[Any]:
    """Scalars, lists and mappings within each other."""
    return st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
    )


@st.composite
def changed(draw: st.DrawFn, content: Any, keys: SearchStrategy[str]) -> Any:
    """The content with up to three places replaced, dropped or added."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        container, key = draw(st.sampled_from(_places(content) or [(content, "")]))
        change = draw(st.sampled_from(["replace", "drop", "add"]))
        if change == "add" and isinstance(container, dict):
            container[draw(keys)] = draw(nested(keys))
        elif key not in (container if isinstance(container, dict) else range(len(container))):
            continue  # dropped before
        elif change == "drop":
            del container[key]
        else:
            container[key] = draw(nested(keys))
    return content


def _places(content: Any) -> list[tuple[Any, Any]]:
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [place for key, value in entries for place in ((content, key), *_places(value))]


@st.composite
def mangled(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes with a part cut out, doubled or overwritten, or with some bits flipped."""
    start = draw(st.integers(0, len(content)))
    length = draw(st.integers(0, 64))
    how = draw(st.sampled_from(["cut", "double", "overwrite", "truncate", "flip"]))
    if how == "truncate":
        return content[:start]
    if how == "flip":
        flipped = bytearray(content)
        for place in draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
            flipped[place] ^= 1 << draw(st.integers(0, 7))
        return bytes(flipped)
    middle = {"cut": b"", "double": content[start : start + length] * 2}.get(how) or draw(st.binary(max_size=length))
    return content[:start] + middle + content[start + length :]
