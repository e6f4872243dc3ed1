"""CoS-E: questions, letters and reasons as tokens; step by step learns both."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench import IGNORED, BadInput, Batch, Data, DataFolders
from kdbench.execution.local import execute
from kdbench.plan import Plan
from kdbench.planner import make_plan
from kdbench.plugins import discover
from kdbench.spec import Spec
from kdbench.store.run_folder import RunFolder
from kdbench.suite_file import load_suite
from kdbench.training.observer import Observer
from kdbench_plugins.tasks._byte_pairs import END, PADDING, START, text_of
from kdbench_plugins.tasks.cose import CosE

CPU = torch.device("cpu")
REAL = DataFolders.from_environment()
SUITE = """
suite: reasons@1.0
tasks: ["cose[vocab_size=300,max_length=24]"]
pairs:
  - teacher: transformer[layers=1,width=32,heads=2,dropout=0]
    student: transformer[layers=1,width=16,heads=2,dropout=0]
methods: [kd, step_by_step]
add_controls: false
seeds: 1
recipe: {epochs: 2, batch_size: 32, optimizer: adamw, learning_rate: 0.003}
"""


def rows(train: int = 90, dev: int = 20) -> list[dict[str, Any]]:
    """The right choice is the one that the question names."""
    animals = ["cat", "dog", "owl"]
    return [
        {
            "split": "train" if index < train else "dev",
            "id": str(index),
            "question": f"which is the {animals[index % 3]}?",
            "choices": animals[index % 2 :] + animals[: index % 2],
            "label": (index % 3 - index % 2) % 3,
            "rationale": f"a {animals[index % 3]} is a {animals[index % 3]}",
            "selected": "",
        }
        for index in range(train + dev)
    ]


def write(folder: Path, table: list[dict[str, Any]], patch: pytest.MonkeyPatch) -> DataFolders:
    (file,) = CosE.data_files
    path = folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, table)).encode(), mtime=0))
    patch.setattr(CosE, "data_files", (replace(file, sha256=hashlib.sha256(path.read_bytes()).hexdigest()),))
    return DataFolders((folder,), folder / "cache")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataFolders:
    return write(tmp_path, rows(), monkeypatch)


@pytest.fixture
def task() -> CosE:
    created: CosE = discover().create("task", Spec.parse("cose[vocab_size=300,max_length=24]"))
    return created


@pytest.fixture
def data(task: CosE, folders: DataFolders) -> Data:
    return task.load(folders)


def first(data: Data, count: int = 6) -> Batch:
    (batch,) = data.train.batches([torch.arange(count)])
    return batch


def test_the_letter_is_all_that_is_to_be_written(task: CosE, data: Data) -> None:
    batch, tokenizer = first(data), task._learnt["tokenizer"]
    assert text_of(tokenizer, batch.inputs[1, 0].tolist()) == "[label] which is the dog? A) dog B) owl C) cat"
    assert batch.inputs[:, 1, 0].eq(START).all()
    assert not batch.inputs[:, 1, 1:].any()
    assert task.valid(batch).sum(dim=1).tolist() == [1] * 6
    expected = ["ABC"[row["label"]] for row in rows()[:6]]
    assert [text_of(tokenizer, [token]) for token in task.labels(batch).tolist()] == expected


def test_asked_for_reasons_it_is_to_write_them(task: CosE, data: Data) -> None:
    batch, tokenizer = first(data), task._learnt["tokenizer"]
    asked = task.rationales(batch)
    assert text_of(tokenizer, asked.inputs[1, 0].tolist()) == "[rationale] which is the dog? A) dog B) owl C) cat"
    assert text_of(tokenizer, asked.targets[1, 0].tolist()) == "a dog is a dog"
    assert text_of(tokenizer, asked.inputs[1, 1].tolist()) == "a dog is a dog"
    length = int(task.valid(asked)[1].sum())
    assert asked.targets[1, 0, length - 1] == END
    assert asked.inputs[1, 1, 0] == START
    assert asked.inputs[1, 1, 1:length].equal(asked.targets[1, 0, : length - 1])
    assert asked.inputs[1, 1, length:].eq(PADDING).all()
    assert asked.indices.equal(batch.indices)
    again = task.rationales(asked)
    assert again.inputs.equal(asked.inputs)


def test_a_long_reason_is_cut_with_its_end(folders: DataFolders) -> None:
    task = CosE(vocab_size=300, max_length=6)
    batch = task.rationales(first(task.load(folders)))
    assert task.valid(batch).sum(dim=1).tolist() == [6] * 6
    assert batch.targets[:, 0, 5].eq(END).all()


def test_it_is_scored_among_the_three_letters(task: CosE, data: Data) -> None:
    batch = first(data)
    output = torch.zeros(6, data.spec.classes, *data.spec.positions)
    output[:, PADDING] = 9.0  # no letter: it does not count
    output[torch.arange(6), batch.targets[:, 0, 0], 0] = 1.0
    answers = task.answers(output, batch)
    assert answers["logits"].shape == (6, 3)
    assert [metric.score(answers) for metric in task.metrics(data.spec)] == [1.0, 1.0]
    assert answers["targets"].tolist() == [row["label"] for row in rows()[:6]]


def test_logits_and_labels_are_one_row_a_question(task: CosE, data: Data) -> None:
    batch = first(data)
    output = torch.randn(6, data.spec.classes, *data.spec.positions)
    assert task.logits(output, batch).equal(output[:, :, 0])
    assert (task.valid(batch) == (batch.targets[:, 0] != IGNORED)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choices": ["one", "two"]}, "line 3: 'choices' must be a list of 3 texts"),
        ({"label": 3}, "line 3: label 3 is not one of 0 to 2"),
        ({"rationale": None}, "line 3: 'rationale' is null, not text"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = rows()
    table[2] |= change
    with pytest.raises(BadInput, match=message):
        CosE(vocab_size=300).load(write(tmp_path, table, monkeypatch))


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_split_without_questions_is_said(split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [row for row in rows() if row["split"] != split]
    with pytest.raises(BadInput, match="no questions"):
        CosE(vocab_size=300).load(write(tmp_path, kept, monkeypatch))


def planned(folders: DataFolders, tmp_path: Path) -> Plan:
    path = tmp_path / "reasons.yaml"
    path.write_text(SUITE, encoding="utf-8")
    return make_plan(load_suite(str(path)), discover(), folders)


def test_a_student_learns_answers_and_reasons(folders: DataFolders, tmp_path: Path) -> None:
    plan = planned(folders, tmp_path)
    out = tmp_path / "out"
    ended = execute(plan, RunFolder.create(out, "run"), out, CPU, Observer())
    records = {record.method: record for cohort in ended for record in cohort}
    taught = records["step_by_step"]
    assert taught.status == "done", taught.error
    assert taught.curves["loss/rationale"][1] < taught.curves["loss/rationale"][0]
    assert taught.metrics["training_flops"] > 1.5 * records["scratch"].metrics["training_flops"]
    assert set(taught.metrics) >= {"accuracy", "macro_f1"}
    assert len(taught.samples) == 5
    assert "people: a dog is a dog" in "\n".join(taught.samples)


@pytest.mark.skipif(not any(map(REAL.packed, CosE.data_files)), reason="cose is not under $KDBENCH_DATA")
def test_the_real_file() -> None:
    task = CosE(vocab_size=1000, train_examples=50)
    data = task.load(REAL)
    assert (len(data.train), len(data.test)) == (50, 950)
    texts = [text_of(task._learnt["tokenizer"], row.tolist()) for row in first(data, 50).inputs[:, 0]]
    assert all(text.startswith("[label] ") and "A) " in text and "C) " in text for text in texts)
