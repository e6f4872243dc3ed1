"""AudioFolder: the user's own recordings, one folder per class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from kdbench import Count, Data, DataFolders, DataSpec, Positive, Task, TensorSplit

from ._folder_listing import RECORDINGS, Listing, find_root, list_folder


@dataclass(frozen=True)
class AudioFolder(Task):
    """Your own recordings (wav, flac, ogg), a folder per class.

    Attributes:
        path: the folder, or an archive of it (zip, tar.gz; unpacked once), absolute, or below a search folder or the
            current one. It holds train/, test/ and maybe val/ or validation/, each with a folder per class; or the
            class folders alone, of which one recording of five of each is then held out for testing. It does not know
            speakers: to keep those apart, give it train/ and test/.
        sample_rate: Hz, which all recordings must have: nothing is resampled.
        seconds: length that recordings are brought to, around their middle.
        max_per_class: only the first so many training files of each class, by name, and the same share (rounded up)
            of its test and validation files.
        features: "log_mel" (see `_audio.LogMel`), or "waveform" for the samples themselves.
    """

    modality: ClassVar[str] = "speech"

    path: str
    sample_rate: Annotated[int, Ge(4000)] = 16000
    seconds: Positive = 1.0
    max_per_class: Count | None = None
    features: Literal["log_mel", "waveform"] = "log_mel"

    def load(self, folders: DataFolders) -> Data:
        """float16 inputs [N, 40 mel bands, frames of 10 ms]; waveforms: int16 [N, 1, samples].

        Raises:
            MissingData: there is no such folder or archive (says where it was looked for), or the archive is damaged.
            BadInput: it has no recordings, an empty class, differing classes, or a recording that cannot be used.
        """
        import torch

        from ._audio import FRONT_ENDS
        from ._signals import NormaliseChannels
        from ._white_noise import WhiteNoise

        listing = self.listing(find_root(self.path, folders, self.source))
        if self.max_per_class is not None:
            listing = listing.limited(self.max_per_class)
        front_end = FRONT_ENDS[self.features](self.sample_rate, self.seconds)
        recordings = {split: [listing.root / file for file in listing.files(split)] for split in listing.splits}
        splits = {
            split: TensorSplit(
                front_end.features_of(recordings[split]),
                torch.tensor(listing.labels(split)),
            )
            for split in listing.splits
        }
        return Data(
            spec=DataSpec(input_shape=front_end.shape, classes=len(listing.classes), modality="speech"),
            train=splits["train"],
            test=splits["test"],
            validation=splits.get("validation"),
            class_names=listing.classes,
            prepare=NormaliseChannels.to(splits["train"].inputs),
            corruptions={"white_noise": WhiteNoise(front_end, recordings["test"])},
        )

    def listing(self, root: Path) -> Listing:
        """Which files of `root` belong to which split and class.

        Raises:
            BadInput: there are no recordings, a class is empty, train/ or test/ is alone, or their classes differ.
        """
        return list_folder(root, RECORDINGS)

    @property
    def source(self) -> str:
        """How to get the data, for the message that they are not here."""
        return "KDBENCH_DATA adds folders"
