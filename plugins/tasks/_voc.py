"""Pascal VOC: lists of images, and the boxes of each in an XML file of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from kdbench import BadInput, MissingData

_CORNERS = ("xmin", "ymin", "xmax", "ymax")

Row = list[float]  # a box (x1, y1, x2, y2) and its class, counted from 1


def image_names(folder: Path, split: str) -> list[str]:
    """The names that ImageSets/Main lists for a split, without repetition.

    Raises:
        MissingData: there is no such list.
        BadInput: it is empty, names an image twice, or is no UTF-8.
    """
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    names = _read(path).split()
    if not names:
        raise BadInput(f"{path} names no image")
    if len(set(names)) < len(names):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise BadInput(f"{path} names {twice} twice")
    return names


def objects_of(path: Path, names: Sequence[str], size: tuple[int, int]) -> list[Row]:
    """The objects that an annotation holds, boxes in pixels as shares of the image's width and height.

    `names`: the classes, the first is 1; `size`: width and height of the image. Boxes of no area are left out.

    Raises:
        MissingData: there is no such file.
        BadInput: it is no XML, has no object, or one of an unknown class, without a box, or with a box that is turned
            inside out or reaches beyond the image; names file and object.
    """
    try:
        root = ElementTree.fromstring(_read(path))
    except ElementTree.ParseError as error:
        raise BadInput(f"{path} cannot be read as XML: {error}") from error
    found = root.findall("object")
    if not found:
        raise BadInput(f"{path} has no object")
    rows = [_row(each, names, size, f"{path}, object {number}") for number, each in enumerate(found, 1)]
    return [row for row in rows if row[0] < row[2] and row[1] < row[3]]


def _row(element: ElementTree.Element, names: Sequence[str], size: tuple[int, int], where: str) -> Row:
    name = (element.findtext("name") or "").strip()
    if name not in names:
        raise BadInput(f"{where}: unknown class '{name:.80}'", hint=f"choices: {', '.join(names)}")
    texts = [element.findtext(f"bndbox/{corner}") or "" for corner in _CORNERS]
    try:
        x1, y1, x2, y2 = map(float, texts)
    except ValueError as error:
        raise BadInput(f"{where}: its bndbox needs a number each for {', '.join(_CORNERS)}") from error
    width, height = size
    if not (0 <= x1 <= x2 <= width and 0 <= y1 <= y2 <= height):
        raise BadInput(f"{where}: its box {[x1, y1, x2, y2]} is not inside the image of {width}x{height}")
    return [x1 / width, y1 / height, x2 / width, y2 / height, float(names.index(name) + 1)]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MissingData(f"{path} is missing", hint="remove its folder, so that it is unpacked again") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read as UTF-8 text: {error}") from error
