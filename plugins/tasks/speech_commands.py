"""SpeechCommands: Google's keywords, with the split that its authors published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdbench import BadInput

from ._folder_listing import RECORDINGS, Listing, files_by_class
from ._text_table import read_text
from .audio_folder import AudioFolder

_SOURCE = "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
_LISTS = {"test": "testing_list.txt", "validation": "validation_list.txt"}


@dataclass(frozen=True)
class SpeechCommands(AudioFolder):
    """Speech Commands v2 (Warden 2018, arXiv:1804.03209): 105,829 recordings of 35 words, or a folder laid out alike.

    `path` holds a folder per word, and testing_list.txt and validation_list.txt, which name their files as
    WORD/FILE.wav; all others are for training. The lists keep speakers apart. `_background_noise_` is left out. All
    words are classes: not the variant of ten words, "unknown" and "silence".
    """

    path: str = "speech_commands"

    def listing(self, root: Path) -> Listing:
        """See `AudioFolder.listing`.

        Raises:
            BadInput: a list is missing, is not UTF-8 or names a file that is not there; or a word is only in them.
        """
        words = files_by_class(root, root, RECORDINGS)
        files = {file for paths in words.values() for file in paths}
        listed = {split: _listed(root / name, files) for split, name in _LISTS.items()}
        listed["train"] = files.difference(*listed.values())
        splits = {
            split: {word: [path for path in paths if path in listed[split]] for word, paths in words.items()}
            for split in ("train", "test", "validation")
        }
        for word, paths in splits["train"].items():
            if not paths:
                raise BadInput(f"word '{word}' of {root} has no recording for training", hint="fill it or remove it")
        for split, name in _LISTS.items():
            if not listed[split]:
                raise BadInput(f"{root / name} names no recording", hint=self.source)
        return Listing(root, splits)

    @property
    def source(self) -> str:
        return f"unpack {_SOURCE} into one of them; KDBENCH_DATA adds folders"


def _listed(path: Path, files: set[str]) -> set[str]:
    if not path.exists():
        raise BadInput(f"{path} is missing: the split is that of its authors", hint="take audio_folder")
    named = set()
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        for name in line.split():
            if name not in files:
                said = f"{path}, line {number}: there is no recording '{name}'"
                raise BadInput(said, hint="unpack the data set anew")
            named.add(name)
    return named
