"""What makes training faster: the same answers but for rounding, said in the recipe, under the engine's guarantees."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdbench import Batch, Data, DataSpec, TensorSplit
from kdbench.errors import StoreError
from kdbench.plan import LoadedTask
from kdbench.recipe import Recipe
from kdbench.task import Task
from kdbench.training import stored_answers as module
from kdbench.training.stored_answers import StoredAnswers, stored_answers

CPU = torch.device("cpu")

# --- stored answers -------------------------------------------------------------------------------------------------


def loaded(examples: int = 11) -> LoadedTask:
    drawn = torch.Generator().manual_seed(0)
    split = TensorSplit(torch.randn(examples, 4, generator=drawn), torch.zeros(examples, dtype=torch.long))
    return LoadedTask("task", Task(), Data(DataSpec((4,), 2), split, split), "")


class Counting:
    """Doubles its inputs, and counts how often it is asked."""

    def __init__(self, rows: int = 1) -> None:
        self.asked, self.rows = 0, rows

    def __call__(self, batch: Batch) -> Mapping[str, Tensor]:
        self.asked += 1
        return {"logits": (2 * batch.inputs).repeat(self.rows, 1), "stage1": batch.inputs[:, :, None] + 1}


def test_they_are_those_of_the_teacher_in_any_order_and_computed_once(tmp_path: Path) -> None:
    task, teacher = loaded(), Counting()
    found = stored_answers(teacher, task, CPU, tmp_path, "teacher")
    assert found is not None
    rows = torch.tensor([7, 0, 3])
    (batch,) = task.data.train.batches([rows])
    answers = found(batch)
    assert answers["logits"].equal(2 * batch.inputs)
    assert answers["stage1"].equal(batch.inputs[:, :, None] + 1)
    again = Counting()
    same = stored_answers(again, task, CPU, tmp_path, "teacher")
    assert same is not None
    assert again.asked == 1  # for the shapes alone
    assert same.seconds == found.seconds
    assert same(batch)["logits"].equal(answers["logits"])


def test_another_teacher_or_other_data_are_other_answers(tmp_path: Path) -> None:
    for identity, examples in (("teacher", 11), ("other", 11), ("teacher", 10)):
        stored_answers(Counting(), loaded(examples), CPU, tmp_path, identity)
    assert len(list(tmp_path.iterdir())) == 3


def test_rows_that_are_no_examples_are_not_stored(tmp_path: Path) -> None:
    assert stored_answers(Counting(rows=3), loaded(), CPU, tmp_path, "teacher") is None
    assert not list(tmp_path.iterdir())


def test_what_exceeds_the_budget_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_needed = 11 * 8 * 4
    monkeypatch.setattr(module, "BUDGET", bytes_needed - 1)
    assert stored_answers(Counting(), loaded(), CPU, tmp_path, "teacher") is None
    monkeypatch.setattr(module, "BUDGET", bytes_needed)
    assert stored_answers(Counting(), loaded(), CPU, tmp_path, "teacher") is not None


def test_a_kill_while_they_are_written_costs_only_time(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    class Dying(Counting):
        def __call__(self, batch: Batch) -> Mapping[str, Tensor]:
            if self.asked:
                raise Killed
            return super().__call__(batch)

    with pytest.raises(Killed):
        stored_answers(Dying(), loaded(), CPU, tmp_path, "teacher")
    found = stored_answers(Counting(), loaded(), CPU, tmp_path, "teacher")
    assert found is not None
    assert np.isfinite(found.arrays["logits"]).all()
    (folder,) = tmp_path.iterdir()
    left = {path.name for path in folder.iterdir()}
    assert left == {".lock", "SHA256SUMS", "logits.npy", "seconds.json", "stage1.npy"}


def test_two_at_once_compute_them_once(tmp_path: Path) -> None:
    """As cohorts of other seeds do that learn from one teacher side by side."""
    asking, teachers = threading.Barrier(2), [Counting(), Counting()]

    def take(teacher: Counting) -> StoredAnswers | None:
        asking.wait()
        return stored_answers(teacher, loaded(), CPU, tmp_path, "teacher")

    with ThreadPoolExecutor() as pool:
        one, other = pool.map(take, teachers)
    assert one is not None
    assert other is not None
    assert one.seconds == other.seconds, "the one's are the other's"


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        stored_answers(Counting(), loaded(), CPU, tmp_path, "teacher")
    (folder,) = tmp_path.iterdir()
    assert [path.name for path in folder.iterdir()] == [".lock"]


def flipped(data: bytes) -> bytes:
    """With one bit changed near the end."""
    return data[:-2] + bytes([data[-2] ^ 1, data[-1]])


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"x" * 200, flipped])
@pytest.mark.parametrize("name", ["logits.npy", "seconds.json", "SHA256SUMS"])
def test_damaged_ones_are_named_and_computed_again(tmp_path: Path, damage: Callable[[bytes], bytes], name: str) -> None:
    stored_answers(Counting(), loaded(), CPU, tmp_path, "teacher")
    (folder,) = tmp_path.iterdir()
    written = (folder / "logits.npy").read_bytes()
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    said: list[str] = []
    assert stored_answers(Counting(), loaded(), CPU, tmp_path, "teacher", said.append) is not None
    assert len(said) == 1
    assert str(folder) in said[0]
    assert (folder / "logits.npy").read_bytes() == written


# --- in a suite -----------------------------------------------------------------------------------------------------


def run(kdbench: Callable[..., Any], suite: Path, out: Path) -> dict[str, dict[str, Any]]:
    status, _, said = kdbench("run", str(suite), "--out", str(out))
    assert status == 0, said
    _, said, _ = kdbench("records", "--json", "--out", str(out))
    return {record["method"]: record for record in map(json.loads, said.splitlines())}


def test_stored_answers_cost_one_pass_over_the_data(
    kdbench: Callable[..., Any], tiny_suite: Callable[..., Path], tmp_path: Path
) -> None:
    epochs = 3
    live = run(kdbench, tiny_suite(epochs=str(epochs)), tmp_path / "live")["kd"]["metrics"]
    suite = tiny_suite(epochs=str(epochs), recipe="  speedups: [stored_answers]")
    stored = run(kdbench, suite, tmp_path / "stored")["kd"]["metrics"]
    assert stored["teacher_flops"] == pytest.approx(live["teacher_flops"] / epochs)
    assert stored["training_flops"] - stored["teacher_flops"] == live["training_flops"] - live["teacher_flops"]
    assert stored["accuracy"] == pytest.approx(live["accuracy"], abs=0.05)
    folders = list((tmp_path / "stored" / "teachers").glob("*/answers/*"))
    assert len(folders) == 1
    assert [path.name for path in folders[0].glob("*.npy")] == ["logits.npy"]


def test_the_compute_matched_control_pays_for_what_is_really_asked(
    kdbench: Callable[..., Any], tiny_suite: Callable[..., Path], tmp_path: Path
) -> None:
    spent = {}
    for name, recipe in (("live", ""), ("stored", "  speedups: [stored_answers]")):
        suite = tiny_suite(teachers="'cnn[width=1]'", methods="kd, longer_scratch", epochs="4", recipe=recipe)
        records = run(kdbench, suite, tmp_path / name)
        spent[name] = {method: records[method]["metrics"]["training_flops"] for method in ("kd", "longer_scratch")}
    for each in spent.values():
        assert each["kd"] <= each["longer_scratch"] < 1.3 * each["kd"]
    assert spent["stored"]["longer_scratch"] < spent["live"]["longer_scratch"]


def test_images_that_change_have_no_stored_answers(
    kdbench: Callable[..., Any], tiny_suite: Callable[..., Path]
) -> None:
    suite = tiny_suite(recipe="  augmentation: ['crop[padding=1]']\n  speedups: [stored_answers]")
    status, _, said = kdbench("plan", str(suite))
    assert status == 2
    assert "stored_answers needs a recipe without augmentation" in " ".join(said.split())


def test_their_order_means_nothing() -> None:
    one, other = (Recipe(epochs=1, speedups=names) for names in (("channels_last", "bf16_teacher"),) * 2)
    reverse = Recipe(epochs=1, speedups=("bf16_teacher", "channels_last", "channels_last"))
    assert one == other == reverse
