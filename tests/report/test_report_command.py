"""`kdbench report`: where it writes, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdbench.store.run_folder import RunFolder

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def stored(run: Any, tmp_path: Path) -> RunFolder:
    folder = RunFolder.create(tmp_path, "first run")
    trials = {f"trial {place}": f"{place:064x}" for place, _ in enumerate(run.records)}
    for fingerprint, record in zip(trials.values(), run.records, strict=True):
        folder.trial(fingerprint).save(record.model_copy(update={"fingerprint": fingerprint}))
    folder.update(run.manifest.model_copy(update={"trials": trials}))
    return folder


def test_it_lands_beside_the_run(kdbench: Command, stored: RunFolder, tmp_path: Path) -> None:
    status, said, _ = kdbench("report", "latest", "--out", str(tmp_path))
    written = stored.path / "report.html"
    assert status == 0
    assert f"written: {written}" in said
    assert written.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(("form", "ending", "start"), [("markdown", "md", "**cifar100"), ("latex", "tex", "% \\use")])
def test_other_formats(kdbench: Command, stored: RunFolder, tmp_path: Path, form: str, ending: str, start: str) -> None:
    assert kdbench("report", "--out", str(tmp_path), "--format", form)[0] == 0
    text = (stored.path / f"report.{ending}").read_text(encoding="utf-8")
    assert text.startswith(start)
    status, said, _ = kdbench("report", "--out", str(tmp_path), "--format", form, "-o", "-")
    assert (status, said) == (0, text)


def test_a_file_of_ones_own(kdbench: Command, stored: RunFolder, tmp_path: Path) -> None:
    target = tmp_path / "new" / "mine.html"
    assert kdbench("report", str(stored.path), "-o", str(target))[0] == 0
    assert target.is_file()
    assert not (stored.path / "report.html").exists()


def test_what_cannot_be_written_is_said(kdbench: Command, stored: RunFolder, tmp_path: Path) -> None:
    status, _, said = kdbench("report", "--out", str(tmp_path), "--format", "pdf")
    assert status == 2
    assert "there is no format 'pdf'" in said
    assert "html, markdown, latex" in said
    status, _, said = kdbench("report", "--out", str(tmp_path), "-o", str(tmp_path))
    assert status == 2
    assert "is a folder" in said
    assert "report.html" in said
