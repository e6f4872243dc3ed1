"""`NAME[key=value,...]`: read, written and read again; and nothing but `BadInput` for anything else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.errors import BadInput
from kdbench.spec import Spec

NAMES = st.from_regex(r"[A-Za-z0-9_][\w.:@+-]{0,12}", fullmatch=True)
KEYS = st.from_regex(r"[A-Za-z_]\w{0,8}", fullmatch=True)
FLAGS = st.from_regex(r"[A-Za-z_][\w-]{0,8}", fullmatch=True)
SYNTAX = st.text(alphabet="ab1_=,[]\"' .\n", max_size=20)
TEXTS = st.one_of(st.text(max_size=12), SYNTAX)
TYPED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("kd", Spec("kd")),
        (" kd[] ", Spec("kd")),
        ("kd[temperature=2]", Spec("kd", {"temperature": "2"})),
        ("kd[ temperature = 2 , hard_weight=0.5 ]", Spec("kd", {"temperature": "2", "hard_weight": "0.5"})),
        ("at[published]", Spec("at", {}, ("published",))),
        ("at[published,weight=1]", Spec("at", {"weight": "1"}, ("published",))),
        ("torchvision:resnet18[weights=IMAGENET1K_V1]", Spec("torchvision:resnet18", {"weights": "IMAGENET1K_V1"})),
        ('folder[path="/data/a,b [c]"]', Spec("folder", {"path": "/data/a,b [c]"})),
        ("folder[path='/data/\"x\"']", Spec("folder", {"path": '/data/"x"'})),
        ('folder[path="say ""hi"""]', Spec("folder", {"path": 'say "hi"'})),
        ('folder[path=""]', Spec("folder", {"path": ""})),
        ("folder[path=/my data/x=1]", Spec("folder", {"path": "/my data/x=1"})),
        ({"name": "kd", "temperature": 2, "layers": [1, 2]}, Spec("kd", {"temperature": 2, "layers": [1, 2]})),
    ],
)
def test_reading(text: str | dict[str, Any], spec: Spec) -> None:
    assert Spec.parse(text) == spec


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (Spec("kd", {"temperature": 2.5, "soft": True, "limit": None}), "kd[temperature=2.5,soft=true,limit=null]"),
        (Spec("kd", {"path": "a b"}, ("published",)), 'kd[published,path="a b"]'),
        (Spec("kd", {"layers": [1, 2]}), 'kd[layers="[1, 2]"]'),
        (Spec("kd", {"text": 'say "hi"'}), 'kd[text="say ""hi"""]'),
        (Spec("kd", {"text": ""}), 'kd[text=""]'),
    ],
)
def test_writing(spec: Spec, text: str) -> None:
    assert str(spec) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read ''"),
        ("kd[temperature=2", "cannot read 'kd[temperature=2'"),
        ("kd temperature=2", "cannot read 'kd temperature=2'"),
        ("kd[temperature=]", "cannot read 'temperature=' in 'kd[temperature=]'"),
        ("kd[a=1,,b=2]", "cannot read ',b=2' in 'kd[a=1,,b=2]'"),
        ("kd[a=1]]", "cannot read 'a=1]' in 'kd[a=1]]'"),
        ("kd[4]", "cannot read '4' in 'kd[4]'"),
        ('kd["a"]', "cannot read '\"a\"' in 'kd[\"a\"]'"),
        ("kd[a=1,a=2]", "'a' is given twice in 'kd[a=1,a=2]'"),
        ("kd[published,published]", "'published' is given twice"),
        ({"temperature": 2}, "a mapping needs a plain 'name'"),
        ({"name": "kd[a=1]"}, "a mapping needs a plain 'name'"),
        ({"name": "kd", "a b": 1}, "kd: 'a b' cannot be the name of a parameter"),
        (5, "cannot read 5"),
        (None, "cannot read None"),
        (["kd"], "cannot read ['kd']"),
    ],
)
def test_refusals(text: Any, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        Spec.parse(text)
    assert caught.value.message.startswith(message)


@given(NAMES, st.dictionaries(KEYS, TEXTS, max_size=4), st.lists(FLAGS, max_size=2, unique=True))
@settings(deadline=None)
def test_text_parameters_survive_writing_and_reading(name: str, params: dict[str, str], flags: list[str]) -> None:
    spec = Spec(name, params, tuple(flags))
    assert Spec.parse(str(spec)) == spec


@given(NAMES, st.dictionaries(KEYS.filter(lambda key: key != "name"), TYPED, max_size=4))
@settings(deadline=None)
def test_typed_parameters_keep_their_text(name: str, params: dict[str, Any]) -> None:
    spec = Spec.parse({"name": name, **params})
    assert spec == Spec(name, params)
    assert str(Spec.parse(str(spec))) == str(spec)


@given(st.one_of(st.text(), SYNTAX, SYNTAX.map(lambda inside: f"kd[{inside}]"), TYPED, st.dictionaries(TEXTS, TYPED)))
@settings(deadline=None, max_examples=300)
def test_garbage_is_bad_input_or_a_spec_that_can_be_read_again(written: Any) -> None:
    try:
        spec = Spec.parse(written)
    except BadInput:
        return
    assert str(Spec.parse(str(spec))) == str(spec)
