"""Multi30k: translating the captions of photographs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kdbench import BadInput, DataFile, DataFolders

from ._text_table import read_rows
from ._translation import Sentences, TranslationTask

Language = Literal["en", "de", "fr"]


@dataclass(frozen=True, kw_only=True)
class Multi30k(TranslationTask):
    """Translation of 29,000 image captions, without the images (Elliott et al. 2016), 1000 or so for testing.

    Raw text: as written, neither tokenised nor lower-cased, so BLEU compares with published detokenised scores alone.
    Validation is the source's own (1014). For non-commercial research. Caveat: 9 English captions occur twice in
    training.

    Attributes:
        source, target: the languages, English, German or French.
        test: which of the test sets; those of mscoco and of 2018 are harder.
    """

    data_files = (
        DataFile(
            name="nlp/multi30k.jsonl.gz",
            sha256="a6f9aa680aeb420603170bb742b5f53bb635f140e63dfd34b1170b842e612635",
            source="a packed copy of data/task1/raw of https://github.com/multi30k/dataset",
        ),
    )

    source: Language = "en"
    target: Language = "de"
    test: Literal["test_2016_flickr", "test_2017_flickr", "test_2017_mscoco", "test_2018_flickr"] = "test_2016_flickr"

    def __post_init__(self) -> None:
        if self.source == self.target:
            raise ValueError(f"source and target are both '{self.source}'")

    def corpus(self, folders: DataFolders) -> Mapping[str, Sentences]:
        (file,) = self.data_files
        names = {"train": "train", "val": "validation", self.test: "test"}
        splits: dict[str, list[tuple[str, str]]] = {name: [] for name in names.values()}
        for row in read_rows(folders.provide(file)):
            split = names.get(row.name("split"))
            if split is None:
                continue
            pair = row.text(self.source), row.text(self.target)
            if not all(text.strip() for text in pair):
                raise row.mistake("a sentence is empty")
            splits[split].append(pair)
        for theirs, ours in names.items():
            if not splits[ours]:
                raise BadInput(f"{file.name}: there are no rows with the split '{theirs}'")
        return splits
