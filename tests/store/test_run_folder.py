"""The truth on disk: whole or absent, bit for bit, and never outside of its folder."""

from __future__ import annotations

import errno
import json
import math
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.errors import BadInput, StoreError, UnknownName
from kdbench.measuring.record import Record
from kdbench.store.run_folder import Manifest, RunFolder, now
from kdbench.store.trial_files import TrialFiles, teacher_files

WEIGHTS = {"conv.weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)}
PREDICTIONS = {"logits": torch.tensor([[0.1, -2.5], [3.0, 1e-30]]), "targets": torch.tensor([0, 1])}


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


@pytest.fixture
def files(tmp_path: Path) -> TrialFiles:
    return TrialFiles(tmp_path / "trial")


@pytest.fixture
def manifest(story: Any) -> Manifest:
    return story.manifest


def test_a_trial_comes_back_as_it_was_saved(files: TrialFiles, story: Any) -> None:
    files.save(story.records[0], WEIGHTS, PREDICTIONS)

    assert files.record() == story.records[0]
    weights, predictions = files.weights(), files.predictions()
    assert weights is not None
    assert predictions is not None
    assert weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(weights[name], WEIGHTS[name]) for name in WEIGHTS)
    assert all(isinstance(array, np.ndarray) for array in predictions.values())
    assert predictions["logits"].dtype == np.float32
    assert np.array_equal(predictions["logits"], PREDICTIONS["logits"].numpy())
    assert np.array_equal(predictions["targets"], PREDICTIONS["targets"].numpy())


def test_nothing_is_there_before_a_trial_has_ended(files: TrialFiles) -> None:
    assert files.record() is None
    assert files.weights() is None
    assert files.predictions() is None
    files.discard_checkpoint()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=20))
def test_numbers_keep_every_bit(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    record = _record(metrics={"accuracy": values[0]}, curves={"loss": values})
    files = TrialFiles(tmp_path_factory.mktemp("trial"))

    files.save(record)

    read = files.record()
    assert read is not None
    assert bits(read.metrics["accuracy"]) == bits(values[0])
    assert [bits(value) for value in read.curves["loss"]] == [bits(value) for value in values]


def test_what_is_not_finite_survives_in_strict_json(files: TrialFiles) -> None:
    files.save(_record(status="diverged", curves={"loss": [1.0, math.nan, math.inf, -math.inf, -0.0]}))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads((files.folder / "record.json").read_text(), parse_constant=refuse)
    read = files.record()
    assert read is not None
    one, nan, infinity, minus, zero = read.curves["loss"]
    assert (one, infinity, minus) == (1.0, math.inf, -math.inf)
    assert math.isnan(nan)
    assert bits(zero) == bits(-0.0)


def test_tied_and_strided_weights_are_stored(files: TrialFiles) -> None:
    tied = torch.arange(6.0).reshape(2, 3)
    files.save(_record(), {"encoder": tied, "decoder": tied, "transposed": tied.T})

    weights = files.weights()
    assert weights is not None
    assert torch.equal(weights["decoder"], tied)
    assert torch.equal(weights["transposed"], tied.T)


def test_a_second_attempt_leaves_nothing_of_the_first(files: TrialFiles) -> None:
    files.save(_record(), WEIGHTS, PREDICTIONS)
    files.save(_record(status="failed", reason="out of memory"))

    assert files_below(files.folder) == ["SHA256SUMS", "record.json"]


@pytest.mark.parametrize("broken", ["replace", "fsync"])
@pytest.mark.parametrize("successes", [0, 1, 2])
def test_a_full_disk_leaves_no_record_and_no_temporary_file(
    files: TrialFiles, monkeypatch: pytest.MonkeyPatch, broken: str, successes: int
) -> None:
    """The order is weights, predictions, record: after n successes the next write fails."""
    working: Callable[..., Any] = getattr(os, broken)
    calls = 0

    def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > successes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return working(*arguments)

    monkeypatch.setattr(os, broken, failing)
    with pytest.raises(StoreError, match="No space left on device"):
        files.save(_record(), WEIGHTS, PREDICTIONS)

    assert files_below(files.folder) == sorted(["student.safetensors", "predictions.safetensors"][:successes])
    assert files.record() is None


def test_a_full_disk_while_replacing_takes_the_old_record_first(
    files: TrialFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.save(_record(status="failed", reason="first attempt"))

    def failing(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(StoreError):
        files.save(_record(), WEIGHTS)

    assert files_below(files.folder) == []


def test_only_old_orphans_of_a_killed_process_are_removed(files: TrialFiles) -> None:
    files.folder.mkdir()
    old, young = files.folder / ".checkpoint.safetensors.abc", files.folder / ".checkpoint.safetensors.xyz"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (0, 0))

    files.save(_record())

    assert files_below(files.folder) == [young.name, "SHA256SUMS", "record.json"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "damaged"),
        (b'{"schema_version": 1, "finger', "damaged"),
        (b"\xff\xfe\x00", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b"[]", "damaged"),
        (b'{"schema_version": 1, "fingerprint": 3}', "fields are wrong"),
        (b'{"schema_version": 99}', "has schema 99; this kdbench reads 1"),
    ],
)
def test_a_damaged_record_is_told_not_taken_for_missing(files: TrialFiles, content: bytes, reason: str) -> None:
    files.folder.mkdir()
    (files.folder / "record.json").write_bytes(content)

    with pytest.raises(StoreError, match=reason) as caught:
        files.record()
    assert str(files.folder / "record.json") in caught.value.message


@pytest.mark.parametrize("name", ["student", "predictions"])
@pytest.mark.parametrize("content", [b"", b"\xff" * 64, "truncated"])
def test_damaged_tensors_are_told(files: TrialFiles, name: str, content: bytes | str) -> None:
    files.save(_record(), WEIGHTS, PREDICTIONS)
    path = files.folder / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-5] if isinstance(content, str) else content)

    with pytest.raises(StoreError, match=f"{name}.safetensors is damaged"):
        files.weights() if name == "student" else files.predictions()


@pytest.mark.parametrize("name", ["quickstart", "first run", "cifar10@1.0", "a", "_x", "läufe-2", "x" * 100])
def test_a_plain_name_is_its_folder(tmp_path: Path, name: str) -> None:
    run = RunFolder.create(tmp_path / "results", name)

    assert run.path == tmp_path / "results" / name
    assert run.path.is_dir()
    assert files_below(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "a/b", "a\\b", "/etc", "a\0b", "a\nb", "-rf", ".hidden", " a", "a ", "a.", "x" * 101),
        *("it's", 'a"b', "a`b", "a:b", "$HOME", "latest", "Teachers", "mlartifacts", "mlflow.db", "mlflow.db-journal"),
    ],
)
def test_a_hostile_name_makes_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="a run cannot be named"):
        RunFolder.create(tmp_path / "out", name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file, not a folder")

    with pytest.raises(StoreError, match=r"cannot write in .*out"):
        RunFolder.create(tmp_path / "out", "run")


def test_a_folder_that_the_locale_cannot_name_is_refused(tmp_path: Path) -> None:
    """As Python reads a path of UTF-8 where it was told to speak ASCII alone."""
    folder = tmp_path / "L\udcc3\udca4ufe"

    with pytest.raises(BadInput, match="the locale cannot tell") as caught:
        RunFolder.create(folder, "run")
    str(caught.value).encode("ascii")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fingerprint", ["", "..", "a/b", "../../x", "a\0"])
def test_a_hostile_fingerprint_opens_nothing(tmp_path: Path, fingerprint: str) -> None:
    with pytest.raises(StoreError, match="is no fingerprint"):
        RunFolder(tmp_path).trial(fingerprint)
    with pytest.raises(StoreError, match="is no fingerprint"):
        teacher_files(tmp_path, fingerprint)


def test_teachers_are_shared_by_all_runs(tmp_path: Path) -> None:
    assert teacher_files(tmp_path, "abc").folder == tmp_path / "teachers" / "abc"
    assert RunFolder.create(tmp_path, "run").trial("abc").folder == tmp_path / "run" / "trials" / "abc"


def test_the_latest_run_is_the_last_one_updated(tmp_path: Path, manifest: Manifest) -> None:
    for name in ("b", "a", "c"):
        RunFolder.create(tmp_path, name).update(manifest)
    RunFolder(tmp_path / "a").update(manifest)

    assert RunFolder.open("latest", tmp_path).path == tmp_path / "a"


def test_a_damaged_run_is_the_latest_only_where_there_is_no_other(tmp_path: Path, manifest: Manifest) -> None:
    damaged = RunFolder.create(tmp_path, "damaged")
    (damaged.path / "manifest.json").write_text("{")

    with pytest.raises(StoreError, match="damaged"):
        RunFolder.open("latest", tmp_path).manifest()
    RunFolder.create(tmp_path, "sound").update(manifest)
    assert RunFolder.open("latest", tmp_path).path.name == "sound"


def test_a_run_is_opened_by_name_or_path(tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.create(tmp_path / "results", "first")
    run.update(manifest)
    elsewhere = tmp_path / "elsewhere"

    assert RunFolder.open("first", tmp_path / "results").path == run.path
    assert RunFolder.open(str(run.path), elsewhere).path == run.path
    monkeypatch.chdir(run.path)
    assert RunFolder.open(".", elsewhere).path.name == "first"


def test_an_unknown_run_gets_a_suggestion(tmp_path: Path, manifest: Manifest) -> None:
    with pytest.raises(UnknownName, match="there are no runs in"):
        RunFolder.open("latest", tmp_path)
    RunFolder.create(tmp_path, "quickstart").update(manifest)
    with pytest.raises(UnknownName, match="did you mean 'quickstart'"):
        RunFolder.open("quikstart", tmp_path)


def test_the_manifest_comes_back_with_a_new_time(tmp_path: Path, manifest: Manifest) -> None:
    run = RunFolder.create(tmp_path, "run")
    before = now()
    run.update(manifest)

    read = run.manifest()
    assert read.updated >= before
    assert read == manifest.model_copy(update={"updated": read.updated})


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "damaged"), ('{"schema_version": 1}', "fields are wrong"), ('{"schema_version": 2}', "has schema 2")],
)
def test_a_damaged_manifest_is_told_without_advice_to_delete_the_run(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "manifest.json").write_text(content)

    with pytest.raises(StoreError, match=reason) as caught:
        RunFolder(tmp_path).manifest()
    assert "delete" not in str(caught.value)


def test_a_folder_without_manifest_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no run"):
        RunFolder(tmp_path).manifest()


def test_records_come_in_the_order_of_the_manifest_without_those_still_to_run(tmp_path: Path, story: Any) -> None:
    run = RunFolder.create(tmp_path, "run")
    run.update(story.manifest)
    for index in (5, 0, 2):
        run.trial(story.records[index].fingerprint).save(story.records[index])
    run.trial("not-of-this-run").save(story.records[1])

    assert run.records() == [story.records[index] for index in (0, 2, 5)]


def _record(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "fingerprint": "f", "status": "done", "suite": "s@1.0", "task": "digits", "pair": "a -> b",
        "teachers": ("a",), "student": "b", "method": "kd", "params": {}, "family": "response", "seed": 0,
        "primary": "accuracy",
    }  # fmt: skip
    return Record(**{**values, **changes})
