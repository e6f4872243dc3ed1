"""The contract that every built-in method keeps."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
from pathlib import Path

import pytest

import kdbench_plugins
from kdbench import BadInput, Choices, hyperparameters
from kdbench.spec import Spec
from kdbench.testing import check_method

TARGETS = kdbench_plugins.kdbench_methods()
# Choices that a method offers besides its defaults: each must keep the contract as well.
VARIANTS = [
    *TARGETS,
    "fitnets[stages=joint]",
    "fitnets[hint=stage3,guided=stage1]",
    "born_again[generations=3]",
    "ensemble[average=logits]",
    "sequence_kd[word_weight=0.5]",
    "sequence_kd[word_weight=1]",
]


def method_class(name):
    module, _, cls = TARGETS[name].partition(":")
    return getattr(importlib.import_module(module), Spec.parse(cls).name)


def create(text):
    spec = Spec.parse(text)
    return hyperparameters.construct(method_class(spec.name), spec.params, where=text)


@pytest.mark.parametrize("text", VARIANTS)
def test_it_conforms(text):
    check_method(create(text))


@pytest.mark.parametrize("name", TARGETS)
def test_its_docstring_says_where_it_comes_from(name):
    cls = method_class(name)
    summary, _, rest = inspect.getdoc(cls).partition("\n")
    assert summary.endswith(".")
    assert len(summary) < 80
    author, year = (cls.paper.split()[0], cls.paper.partition(",")[0].split()[-1]) if cls.paper else ("", "")
    assert author in rest
    assert year in rest
    assert cls.paper or cls.family == "control"


@pytest.mark.parametrize("name", TARGETS)
def test_its_hyperparameters_survive_json(name):
    method = create(name)
    values = json.loads(json.dumps(hyperparameters.values(method), allow_nan=False))
    assert hyperparameters.construct(type(method), values, where=name) == method
    with pytest.raises(BadInput, match="no parameter 'nonsense'"):
        hyperparameters.construct(type(method), {"nonsense": 1}, where=name)


@pytest.mark.parametrize("name", TARGETS)
def test_it_is_frozen(name):
    method = create(name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.anything = 1


@pytest.mark.parametrize("name", TARGETS)
def test_what_a_listing_reads_without_importing_is_what_the_class_says(name):
    cls = method_class(name)
    tree = ast.parse(inspect.getsource(cls)).body[0]
    assigned = {ast.unparse(node.target): node.value for node in tree.body if isinstance(node, ast.AnnAssign)}
    assert ast.literal_eval(assigned["family"]) == cls.family
    assert ast.literal_eval(assigned["paper"]) == cls.paper
    fields = {field.name for field in dataclasses.fields(cls)}
    declared = {"controls", "search_space", "explains", "explains_fidelity", "without_dark_knowledge"}
    assert {"family", "paper", *fields} <= assigned.keys() <= {"family", "paper", *fields, *declared}


@pytest.mark.parametrize("name", TARGETS)
def test_its_search_space_is_of_values_that_it_takes_and_holds_its_defaults(name):
    method = create(name)
    own = hyperparameters.values(method)
    for key, space in method.search_space.items():
        assert own[key] in space
        assert key not in {"generations", "peers", "times", "sparsity"}, "the budget and the size are the suite's"
        bounds = space if isinstance(space, Choices) else (space.low, space.high)
        for value in bounds:
            assert getattr(hyperparameters.construct(type(method), {key: value}, where=name), key) == value
            assert type(value) is type(own[key])
            assert not isinstance(value, float) or value == float(f"{value:.3g}")


FILES = sorted(Path(kdbench_plugins.__file__).parent.glob("methods/*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_file_is_under_60_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.parametrize(
    "text",
    [
        "kd[temperature=0]",
        "kd[temperature=nan]",
        "kd[hard_weight=-1]",
        "label_smoothing[smoothing=1.5]",
        "fitnets[stages=three]",
        "fitnets[hint_fraction=2]",
        "attention_transfer[weight=-1]",
        "rkd[angle_weight=inf]",
        "self_distillation[soft_weight=1.1]",
        "born_again[generations=0]",
        "born_again[generations=1.5]",
        "ensemble[average=median]",
        "sequence_kd[word_weight=1.5]",
    ],
)
def test_values_out_of_range_are_refused(text):
    with pytest.raises(BadInput):
        create(text)
