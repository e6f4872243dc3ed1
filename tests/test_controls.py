"""The controls on the real road: who they learn from, and what they must come to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kdbench.data import DataFolders
from kdbench.execution.local import execute
from kdbench.planner import make_plan
from kdbench.plugins import discover
from kdbench.store.run_folder import RunFolder
from kdbench.suite_file import load_suite
from kdbench.training.observer import Observer

CONTROLS = "scratch, independent_pair, deep_supervision, int8, magnitude_pruning"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def records(suite_text: Callable[..., str], out: Path) -> dict[str, dict]:
    """The records of a run of kd and every control, by method."""
    suite = out / "tiny.yaml"
    suite.write_text(suite_text(controls=CONTROLS, add_controls="true", teachers="'cnn[width=1]'", epochs="6"))
    plan = make_plan(load_suite(str(suite)), discover(), DataFolders((out,), out))
    found = execute(plan, RunFolder(out / "run"), out, torch.device("cpu"), Observer())
    return {record.method: record.model_dump() for fresh in found for record in fresh}


def test_controls_run_and_mean_what_they_say(records: dict[str, dict], out: Path) -> None:
    assert {record["status"] for record in records.values()} == {"done"}
    metrics = {method: record["metrics"] for method, record in records.items()}
    # the pair's first student sees what a student alone sees, and nothing else
    assert metrics["independent_pair"]["accuracy"] == metrics["scratch"]["accuracy"]
    assert metrics["independent_pair"]["nll"] == metrics["scratch"]["nll"]
    # the placebo's teacher is the pair's, before its training: it cost nothing and knows nothing
    assert metrics["untrained_teacher"]["own_teacher_accuracy"] < metrics["kd"]["own_teacher_accuracy"]
    assert metrics["untrained_teacher"]["teacher_accuracy"] == metrics["kd"]["own_teacher_accuracy"]
    assert metrics["untrained_teacher"]["training_flops"] == metrics["kd"]["training_flops"]
    untrained = [
        record
        for record in (json.loads(path.read_text()) for path in out.glob("teachers/*/record.json"))
        if not record["curves"]
    ]
    assert [record["metrics"]["training_flops"] for record in untrained] == [0.0]


def test_as_much_compute_is_as_much_and_not_much_more(records: dict[str, dict]) -> None:
    kd, longer, scratch = (records[name]["metrics"]["training_flops"] for name in ("kd", "longer_scratch", "scratch"))
    assert kd <= longer < kd + scratch / 6, "at most one epoch more"


def test_an_independent_student_differs_from_scratch_by_chance_alone(records: dict[str, dict]) -> None:
    independent, scratch = records["independent_student"]["metrics"], records["scratch"]["metrics"]
    assert independent["training_flops"] == scratch["training_flops"]
    assert independent["nll"] != scratch["nll"]


def test_compressions_of_the_teacher_cost_what_they_say(records: dict[str, dict]) -> None:
    pruned, int8, kd = (records[name]["metrics"] for name in ("magnitude_pruning", "int8", "kd"))
    assert pruned["nonzero_parameters"] <= kd["parameters"] < pruned["parameters"] == kd["teacher_parameters"]
    assert pruned["macs"] == int8["macs"] == kd["teacher_macs"]
    assert int8["file_bytes"] < 0.5 * kd["teacher_file_bytes"]
    assert int8["accuracy"] == pytest.approx(kd["teacher_accuracy"], abs=0.02)
    assert int8["training_flops"] == 0
    assert int8["agreement"] > 0.95


def test_secondary_scores_look_at_other_epochs(records: dict[str, dict]) -> None:
    for method in ("kd", "scratch", "longer_scratch"):
        metrics = records[method]["metrics"]
        assert metrics["best_on_test_accuracy"] >= max(metrics["accuracy"], metrics["best_validation_accuracy"])
        assert metrics["optimism"] == metrics["best_on_test_accuracy"] - metrics["accuracy"]
    assert records["kd"]["metrics"]["selection_epochs"] == 6
    assert records["longer_scratch"]["metrics"]["selection_epochs"] == 10, "of more epochs, ten"
    assert "optimism" not in records["int8"]["metrics"]
