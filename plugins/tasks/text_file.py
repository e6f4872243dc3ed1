"""TextFile, HubText: the user's own texts, in a file or as a data set of the Hugging Face hub."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kdbench import BadInput, DataFolders

from ._hub import check_names, load_from_hub
from ._text import Corpus, Labelled, TextTask
from ._text_table import Row, find_file, read_rows

_SPLITS = {"train": "train", "test": "test"} | dict.fromkeys(("validation", "valid", "val", "dev"), "validation")
_TEST_SHARE = 5  # one text of five
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class TextFile(TextTask):
    """Your own texts, a row each: a .csv or .tsv file with a header, or JSON lines (.jsonl), each maybe with .gz.

    Attributes:
        path: the file, absolute, or below a search folder or the current one.
        text: the column of the texts.
        label: the column of their classes: names or whole numbers.
        split: the column that says train, validation (or dev) or test, if there is one.
        test: a second file, for testing. With neither, one text of five of each class is held out.
    """

    path: str
    text: str = "text"
    label: str = "label"
    split: str = "split"
    test: str | None = None

    def corpus(self, folders: DataFolders) -> Corpus:
        rows = read_rows(find_file(self.path, folders))
        splits = self._by_column(rows)
        if self.test is not None and "test" in splits:
            raise BadInput(
                f"{self.path} has rows for testing, and so has test={self.test}", hint="leave out one of them"
            )
        if self.test is not None:
            splits["test"] = self._examples(read_rows(find_file(self.test, folders)))
        elif list(splits) == ["train"]:
            splits = _hold_out(splits["train"])
        return Corpus.of(splits, title=self.path)

    def _by_column(self, rows: Sequence[Row]) -> dict[str, Labelled]:
        if self.split == type(self).split and self.split not in rows[0].cells:
            return {"train": self._examples(rows)}
        parts: dict[str, list[Row]] = {}
        for row in rows:
            name = row.name(self.split)
            if name not in _SPLITS:
                raise row.mistake(f"'{name}' is no split", hint=f"choices: {', '.join(_SPLITS)}")
            parts.setdefault(_SPLITS[name], []).append(row)
        return {split: self._examples(members) for split, members in parts.items()}

    def _examples(self, rows: Sequence[Row]) -> Labelled:
        return [(row.text(self.text), row.name(self.label)) for row in rows]


@dataclass(frozen=True, kw_only=True)
class HubText(TextTask):
    """Any data set of the Hugging Face hub for classifying texts, loaded (and kept) by the library `datasets`.

    Attributes:
        path: its name on the hub, e.g. "fancyzhx/ag_news", or whatever else `datasets.load_dataset` takes.
        subset: the configuration, where it has several, e.g. "cola" of "nyu-mll/glue".
        revision: a commit of its repository; without one, the hub may give other data tomorrow.
        text: the column of the texts.
        label: the column of their classes.
        train: the split to train on.
        test: the split for testing: "validation" where the test labels are hidden. Another split of that name is used
            for validation; without one, it is cut from the training split.
    """

    path: str
    subset: str | None = None
    revision: str | None = None
    text: str = "text"
    label: str = "label"
    train: str = "train"
    test: str = "test"

    def corpus(self, folders: DataFolders) -> Corpus:
        instead = "save the texts as CSV or JSON lines and take text_file[path=...]"
        feature = f"hf_text[path={self.path}]"
        loaded = load_from_hub(feature, folders, instead, self.path, self.subset, self.revision)
        wanted = {"train": self.train, "test": self.test}
        if "validation" in loaded and "validation" not in wanted.values():
            wanted["validation"] = "validation"
        check_names(self.path, "split", wanted.values(), loaded)
        order = getattr(loaded[self.train].features.get(self.label), "names", None)
        splits = {ours: self._examples(loaded[theirs], theirs, order) for ours, theirs in wanted.items()}
        return Corpus.of(splits, title=self.path, order=order)

    def _examples(self, rows: Any, split: str, order: Sequence[str] | None) -> Labelled:
        check_names(self.path, "column", (self.text, self.label), rows.column_names)
        examples = []
        for number, (text, label) in enumerate(zip(rows[self.text], rows[self.label], strict=True)):
            where = f"{self.path}, row {number} of split '{split}'"
            if not isinstance(text, str):
                raise BadInput(f"{where}: '{self.text}' is no text")
            if label in (None, -1):
                raise BadInput(f"{where} has no label", hint="where test labels are hidden, take test=validation")
            if not isinstance(label, int if order else (int, str)) or (order and label not in range(len(order))):
                raise BadInput(f"{where}: {label!r:.40} is no class")
            examples.append((text, order[int(label)] if order else str(label)))
        return examples


def _hold_out(examples: Labelled) -> dict[str, Labelled]:
    """Cuts one example of five of each class off for testing, by a fixed seed."""
    members: dict[str, list[int]] = {}
    for position, (_, name) in enumerate(examples):
        members.setdefault(name, []).append(position)
    held: set[int] = set()
    for name, positions in members.items():
        if len(positions) < 2:
            raise BadInput(f"class '{name}' has a single example, so none can be held out for testing")
        held.update(random.Random(_SEED).sample(positions, max(1, len(positions) // _TEST_SHARE)))
    return {
        "train": [example for position, example in enumerate(examples) if position not in held],
        "test": [example for position, example in enumerate(examples) if position in held],
    }
