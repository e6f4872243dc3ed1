"""Files that are small and would become large: refused with a line, before they have grown."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbench import archives
from kdbench.archives import unpack
from kdbench.errors import BadInput, MissingData
from kdbench.spec import Spec

Run = Callable[..., tuple[int, str, str]]

LAUGHS = "a: &a [ha, ha]\n" + "".join(
    f"{name}: &{name} [*{before}, *{before}]\n" for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "suite.yaml:1: a: anchors (&) and aliases (*) are refused here"),
        ("a: !!python/object/apply:os.system ['true']\n", "suite.yaml:1: a: tags (!) are refused here"),
        ("a: " + "[" * 100_000, "nested deeper than 16 levels"),
        ("a: " + "9" * 100_000, "a number of more than 100 digits"),
        ("a: x\n" * 100_000, "is larger than 256 KiB"),
    ],
    ids=["billion laughs", "object", "depth", "digits", "size"],
)
def test_a_suite(kdbench: Run, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    status, printed, message = kdbench("run", str(path), "--out", str(tmp_path / "out"))
    assert (status, printed) == (2, "")
    assert said in message
    assert not (tmp_path / "out").exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("before", ["", "a=", "a ", '"', "a='", "a=1,"])
@pytest.mark.parametrize("unit", [" ", "a", "a ", '"', '""', "''", "=", "a=", "\n", "é"])
@pytest.mark.parametrize("after", ["[]", '"]', ",,]", " x y"])
def test_a_spec_is_read_once(before: str, unit: str, after: str) -> None:
    """1,600 spaces took ten seconds, and eight times as long with twice as many."""
    with pytest.raises(BadInput):
        Spec.parse("kd[" + before + unit * 50_000 + after)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 100 kB were much."""
    monkeypatch.setattr(archives, "SMALL", 10**5)


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"set/{number}", b"\0" * 10**6)


def overlapping(path: Path) -> None:
    """Many names for the same few bytes, as in zip bombs that need no nesting."""
    zipped(path)
    content = path.read_bytes()
    directory = content.index(b"PK\x01\x02")
    entry = content[directory : content.index(b"PK\x01\x02", directory + 4)]
    copies = b"".join(entry.replace(b"set/0", b"set/%c" % letter) for letter in range(ord("a"), ord("z")))
    count = (25).to_bytes(2, "little")
    end = b"PK\x05\x06\0\0\0\0" + count * 2 + len(copies).to_bytes(4, "little") + directory.to_bytes(4, "little")
    path.write_bytes(content[:directory] + copies + end + b"\0\0")


def tarred(path: Path) -> None:
    info = tarfile.TarInfo("set/zeros")
    info.size = 4 * 10**6
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(info, io.BytesIO(b"\0" * info.size))


def long_header(path: Path) -> None:
    """A header that says to be a gigabyte long, which tarfile would hold in memory."""
    info = tarfile.TarInfo("set/x")
    info.type, info.size = tarfile.XHDTYPE, 10**9
    path.write_bytes(gzip.compress(info.tobuf() + b"\0" * 10**6))


def far_away(path: Path) -> None:
    """A member whose successor stands behind a terabyte."""
    info = tarfile.TarInfo("set/x")
    info.type, info.size = tarfile.DIRTYPE, 0
    link = tarfile.TarInfo("set/y")
    link.type, link.size = b"V", 10**12  # a volume header, which is passed over
    path.write_bytes(gzip.compress(info.tobuf() + link.tobuf() + b"\0" * 10**6))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("make", [zipped, overlapping, tarred, long_header, far_away])
def test_an_archive(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "set.archive"
    make(path)
    assert path.stat().st_size < 20_000
    with pytest.raises(MissingData, match=r"set\.archive is not unpacked|set\.archive is damaged"):
        unpack(path, tmp_path / "target")
    written = sum(file.stat().st_size for file in (tmp_path / "target").rglob("*") if file.is_file())
    assert written <= 10**6


def test_text_that_packs_well_is_no_bomb(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    zipped(path)
    unpack(path, tmp_path / "target")
    assert len(list((tmp_path / "target" / "set").iterdir())) == 4
