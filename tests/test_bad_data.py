"""Data that cannot be used, from the command line: one message that names file and line, and no traceback."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from kdbench.plugins import discover
from kdbench.spec import Spec

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def refused(kdbench: Run, given: Path, tiny_suite: Callable[..., Path]) -> Callable[[str], str]:
    """What `kdbench data prepare` says of a suite with this task, which it must refuse; and `kdbench run` likewise."""

    def said(task: str) -> str:
        suite = str(tiny_suite(tasks=f"'{task}'"))
        status, printed, prepared = kdbench("data", "prepare", suite)
        assert (status, printed) == (2, "")
        assert prepared.startswith(f"error: 1 of 1 tasks of tiny@1.0 cannot be loaded\n{task}: ")
        status, printed, ran = kdbench("run", suite, "--out", str(given.parent / "results"))
        assert (status, printed) == (2, "")
        assert "Traceback" not in prepared + ran
        message = prepared.split(f"\n{task}: ", 1)[1]
        assert ran == f"error: {message}"
        return message

    return said


def images(root: Path, *folders: str) -> Path:
    for seed, folder in enumerate(folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(2):
            pixels = np.random.default_rng(10 * seed + i).integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{i}.png")
    return root


def recordings(root: Path, *files: str) -> Path:
    for seed, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / file, np.random.default_rng(seed).uniform(-0.5, 0.5, 4000), 8000)
    return root


def packed(root: Path, archive: Path) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for file in sorted(path for path in root.rglob("*") if path.is_file()):
            target.write(file, str(file.relative_to(root.parent)))
    return archive


def test_a_damaged_archive_of_your_own(refused: Callable[[str], str], given: Path, tmp_path: Path) -> None:
    archive = packed(images(tmp_path / "photos", "ant", "bee"), given / "photos.zip")
    content = bytearray(archive.read_bytes())
    content[60] ^= 0xFF  # within the first picture
    archive.write_bytes(content)
    said = refused("image_folder[path=photos.zip]")
    assert said.startswith(f"{archive} is damaged: ")
    assert "pack it anew, or unpack it yourself" in said
    archive.write_bytes(content[: len(content) // 2])
    assert refused("image_folder[path=photos.zip]").startswith(f"{archive} is damaged: File is not a zip file\n")


def test_a_damaged_archive_of_a_published_data_set(refused: Callable[[str], str], given: Path) -> None:
    (given / "fsdd.zip").write_bytes(b"PK and then no more")
    said = refused("spoken_digits")
    found = hashlib.sha256(b"PK and then no more").hexdigest()
    assert said.startswith(f"{given / 'fsdd.zip'} is another file: its sha256 is {found}, expected 16cfefbc5553")
    assert "put speech/fsdd.zip (sha256 16cfefbc5553" in said
    assert str(given) in said.splitlines()[1]


def test_a_truncated_recording(refused: Callable[[str], str], given: Path) -> None:
    root = recordings(given / "words", *(f"{word}/{i}.wav" for word in ("no", "yes") for i in range(3)))
    file = root / "yes" / "1.wav"
    file.write_bytes(file.read_bytes()[:-1000])
    said = refused("audio_folder[path=words,sample_rate=8000]")
    assert said == f"the recording {file} is cut short by 1000 bytes\nreplace it or remove it\n"


def test_a_truncated_image(refused: Callable[[str], str], given: Path) -> None:
    file = images(given / "photos", "ant", "bee") / "bee" / "1.png"
    file.write_bytes(file.read_bytes()[:50])
    assert refused("image_folder[path=photos]").startswith(f"cannot read the image {file}: ")


def test_a_text_that_is_not_utf8(refused: Callable[[str], str], given: Path) -> None:
    (given / "own.csv").write_bytes("text,label\ngood,1\nschön,0\n".encode("latin-1"))
    said = refused("text_file[path=own.csv]")
    assert said == f"{given / 'own.csv'}, line 3: not UTF-8 (invalid start byte)\nsave the file as UTF-8\n"


def test_a_list_that_is_not_utf8(refused: Callable[[str], str], given: Path) -> None:
    root = recordings(given / "speech_commands", *(f"{word}/{i}.wav" for word in ("no", "yes") for i in range(3)))
    (root / "validation_list.txt").write_text("no/0.wav\n")
    (root / "testing_list.txt").write_bytes("no/1.wav\nschön/1.wav\n".encode("latin-1"))
    said = refused("speech_commands")
    assert said.startswith(f"{root / 'testing_list.txt'}, line 2: not UTF-8")


@pytest.mark.parametrize(("task", "noun"), [("image_folder", "image"), ("audio_folder", "recording")])
def test_an_empty_class_folder(refused: Callable[[str], str], given: Path, task: str, noun: str) -> None:
    images(given / "own", "ant", "bee")
    recordings(given / "own", *(f"{name}/{i}.wav" for name in ("ant", "bee") for i in range(2)))
    (given / "own" / "cat").mkdir()
    said = refused(f"{task}[path=own]")
    assert said == f"class folder {given / 'own' / 'cat'} holds no {noun}\nfill it or remove it\n"


def test_a_digit_out_of_range(refused: Callable[[str], str], given: Path) -> None:
    (given / "fsdd").mkdir()
    table = given / "fsdd" / "metadata.tsv"
    table.write_text(
        "file\tdigit\tspeaker\tindex\nrecordings/1_ann_0.wav\t1\tann\t0\nrecordings/10_ann_0.wav\t10\tann\t0\n"
    )
    assert refused("spoken_digits").startswith(f"{table}, line 3: digit '10' is not one of 0 to 9")


def test_a_label_out_of_range(refused: Callable[[str], str], given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"split": "train", "label": label, "text": "fine"} for label in (0, 1, 2)]
    path = given / "sst2.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    cls = type(discover().create("task", Spec("sst2")))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(cls, "data_files", (dataclasses.replace(cls.data_files[0], sha256=sha256),))
    assert refused("sst2").startswith(f"{path}, line 3: label 2 is not one of 0 to 1")


def test_a_class_that_only_test_examples_have(refused: Callable[[str], str], given: Path) -> None:
    (given / "own.csv").write_text("text,label,split\na,0,train\nb,1,train\nc,0,test\nd,7,test\n")
    said = refused("text_file[path=own.csv]")
    assert said.startswith("own.csv: class '7' is in the test split, but not in the training split\nclasses: 0, 1")


def test_a_table_of_numbers_with_a_word(refused: Callable[[str], str], given: Path) -> None:
    (given / "CMAPSS").mkdir()
    for part in ("train", "test"):
        rows = [" ".join(["1", str(cycle), *["0.5"] * 24]) for cycle in range(1, 40)]
        (given / "CMAPSS" / f"{part}_FD001.txt").write_text("\n".join(rows).replace("1 3 0.5", "1 3 hot"))
    said = refused("turbofan[target=cycles]")
    assert said == f"{given / 'CMAPSS' / 'train_FD001.txt'}, line 3: could not convert string to float: 'hot'\n"
