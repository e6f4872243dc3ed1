"""The contract that every built-in method keeps."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
from pathlib import Path

import pytest

import kdbench_plugins
from kdbench import BadInput, hyperparameters
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
    "ofa[gamma=1]",
    "dist[temperature=1]",
    "dkd[warmup=0]",
    "logit_standardization[temperature=1]",
    "vid[weight=0.01]",
    "crd[negatives=64,features=16,momentum=0]",
    "reviewkd[warmup=0]",
    "cc[gamma=2,order=1]",
    "pkt[weight=100]",
    "sp[student_stage=stage1,teacher_stage=stage2]",
    "tf_kd[temperature=1,correct=1]",
    "dml[peers=3]",
    "patient_kd[temperature=1,patience_weight=1]",
    "minilm[student_layer=1,teacher_layer=6,relation_heads=2]",
    "distilbert[start=fresh]",
    "explanation_guided[student_stage=stage2,teacher_stage=stage1,hard_weight=1]",
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
def test_what_a_listing_reads_without_importing_is_what_the_class_says(name):
    cls = method_class(name)
    tree = ast.parse(inspect.getsource(cls)).body[0]
    assigned = {ast.unparse(node.target): node.value for node in tree.body if isinstance(node, ast.AnnAssign)}
    assert ast.literal_eval(assigned["family"]) == cls.family
    assert ast.literal_eval(assigned["paper"]) == cls.paper
    fields = {field.name for field in dataclasses.fields(cls)}
    about_controls = {"controls", "explains", "explains_fidelity", "without_dark_knowledge"}
    declared = {*about_controls, "search_space", "batch_coupled", "expected_failed_checks"}
    assert {"family", "paper", *fields} <= assigned.keys() <= {"family", "paper", *fields, *declared}


@pytest.mark.parametrize("name", TARGETS)
def test_its_budget_and_its_size_are_not_tuned(name):
    assert not {"generations", "peers", "times", "sparsity"} & method_class(name).search_space.keys()


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
        "ofa[gamma=0.5]",
        "dist[temperature=0]",
        "dist[intra_weight=-1]",
        "dkd[warmup=2]",
        "dkd[other_weight=-1]",
        "logit_standardization[temperature=0]",
        "vid[weight=-1]",
        "crd[negatives=0]",
        "crd[momentum=1.5]",
        "reviewkd[warmup=-0.1]",
        "cc[gamma=0]",
        "cc[order=0]",
        "pkt[weight=inf]",
        "sp[weight=-1]",
        "tf_kd[weight=2]",
        "tf_kd[correct=1.1]",
        "dml[peers=1]",
        "dml[mutual_weight=-1]",
        "patient_kd[patience_weight=-1]",
        "minilm[relation_heads=0]",
        "minilm[teacher_layer=0]",
        "distilbert[start=random]",
        "distilbert[cosine_weight=-1]",
    ],
)
def test_values_out_of_range_are_refused(text):
    with pytest.raises(BadInput):
        create(text)
