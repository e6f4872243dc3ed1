"""Tables of texts: CSV, TSV and JSON lines, read with the line of every mistake."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from kdbench import BadInput, DataFolders, MissingData


@dataclass(frozen=True)
class Row:
    """One row of a file, and the line on which it ends (counted from 1)."""

    path: Path
    line: int
    cells: Mapping[str, Any]

    def text(self, column: str) -> str:
        """A cell that holds text.

        Raises:
            BadInput: there is no such column, or the cell holds something else.
        """
        return self._cell(column, (str,), "text")

    def name(self, column: str) -> str:
        """A cell that names something, by text or by a whole number.

        Raises:
            BadInput: there is no such column, or the cell is empty or holds something else.
        """
        name = str(self._cell(column, (str, int), "a name or a whole number")).strip()
        if not name:
            raise self.mistake(f"'{column}' is empty")
        return name

    def mistake(self, what: str, hint: str | None = None) -> BadInput:
        """An error that begins with file and line."""
        return BadInput(f"{self.path}, line {self.line}: {what}", hint=hint)

    def _cell(self, column: str, types: tuple[type, ...], wanted: str) -> Any:
        if column not in self.cells:
            raise self.mistake(f"there is no column '{column}'", hint=f"choices: {', '.join(map(str, self.cells))}")
        cell = self.cells[column]
        if not isinstance(cell, types):
            raise self.mistake(f"'{column}' is {json.dumps(cell):.40}, not {wanted}")
        return cell


def find_file(path: str, folders: DataFolders) -> Path:
    """The user's file: `path` is absolute, or below a search folder or the current one.

    Raises:
        MissingData: there is no such file; says where it was looked for.
    """
    places = [folder / Path(path).expanduser() for folder in (*folders.search, Path.cwd())]
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(dict.fromkeys(map(str, places)))
    raise MissingData(f"there is no file '{path}'", hint=f"looked at {looked}; KDBENCH_DATA adds folders")


def read_rows(path: Path) -> list[Row]:
    """All rows of a UTF-8 file: .csv, .tsv (both with a header; TSV without quoting) or .jsonl, each maybe with .gz.

    Raises:
        BadInput: another format, not UTF-8, damaged or empty; says on which line.
    """
    suffix = PurePath(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in _READERS:
        raise BadInput(f"cannot tell the format of {path}", hint=f"its name must end in {', '.join(_READERS)} (.gz)")
    rows = list(_READERS[suffix](path, read_text(path)))
    if not rows:
        raise BadInput(f"{path} holds no rows")
    return rows


def read_text(path: Path) -> str:
    """The content of a UTF-8 file, line ends as they are; unpacked where its name ends in .gz.

    Raises:
        BadInput: not UTF-8 (says on which line), or damaged.
    """
    try:
        data = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"cannot read {path}: {error}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}, line {line}: not UTF-8 ({error.reason})", hint="save the file as UTF-8") from error


def _separated(path: Path, content: str, **dialect: Any) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(content, newline=""), strict=True, **dialect)
    header: list[str] = []
    try:
        for cells in reader:
            if not cells:
                continue
            here = Row(path, reader.line_num, dict(zip(header, cells, strict=False)))
            if not header:
                header = cells
                if len(set(header)) < len(header):
                    raise here.mistake(f"two columns have the same name: {', '.join(header)}")
            elif len(cells) != len(header):
                raise here.mistake(f"{len(cells)} cells, but the header has {len(header)}")
            else:
                yield here
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num}: {error}") from error


def _json_lines(path: Path, content: str) -> Iterator[Row]:
    for number, line in enumerate(content.split("\n"), start=1):  # JSON may hold what `splitlines` takes for an end
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except ValueError as error:
            raise BadInput(f"{path}, line {number}: not JSON ({error})") from error
        row = Row(path, number, cells)
        if not isinstance(cells, dict):
            raise row.mistake("not a JSON object")
        yield row


def _csv(path: Path, content: str) -> Iterator[Row]:
    return _separated(path, content)


def _tsv(path: Path, content: str) -> Iterator[Row]:
    return _separated(path, content, delimiter="\t", quoting=csv.QUOTE_NONE)


_READERS: dict[str, Callable[[Path, str], Iterator[Row]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}
