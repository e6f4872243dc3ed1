"""SST2, AGNews, CoLA: the classics of sentence classification, from files on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from kdbench import DataFile, DataFolders, DataSpec, Metric

from ._text import Corpus, TextTask
from ._text_table import read_rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class _TextSet(TextTask):
    """A file with a row per text; `names` of the labels 0, 1, ...; `parts` says which of its splits make up ours."""

    names: ClassVar[tuple[str, ...]]
    parts: ClassVar[Mapping[str, tuple[str, ...]]]

    def corpus(self, folders: DataFolders) -> Corpus:
        (file,) = self.data_files
        rows = read_rows(folders.provide(file))
        known = {str(label): name for label, name in enumerate(self.names)}
        examples: dict[str, list[tuple[str, str]]] = {}
        for row in rows:
            label = row.name("label")
            if label not in known:
                raise row.mistake(f"label {label} is not one of 0 to {len(known) - 1}")
            examples.setdefault(row.name("split"), []).append((row.text("text"), known[label]))
        splits = {
            ours: [example for part in theirs for example in examples.get(part, [])]
            for ours, theirs in self.parts.items()
        }
        return Corpus.of(splits, title=file.name, order=self.names)


@dataclass(frozen=True, kw_only=True)
class SST2(_TextSet):
    """Sentiment of 9613 sentences from film reviews, 2 classes (Socher et al. 2013), 1821 of them for testing.

    Whole sentences only (6920 for training), where GLUE's version adds 60,000 phrases; and the test labels are public.
    Validation is the source's own (872). Caveat: 2 test sentences occur in training too, 9 training ones twice.
    """

    data_files = (
        DataFile(
            name="nlp/sst2.jsonl.gz",
            sha256="5bb76708aca928d8768d4409e3b1c2613fb265ee4e3247591fd72dcac21d0a02",
            source="a packed copy of https://github.com/AcademiaSinicaNLPLab/sentiment_dataset; without it, take"
            " hf_text[path=stanfordnlp/sst2,text=sentence,test=validation] from the hub",
        ),
    )
    names = ("negative", "positive")
    parts: ClassVar = {"train": ("train",), "validation": ("dev",), "test": ("test",)}


@dataclass(frozen=True, kw_only=True)
class AGNews(_TextSet):
    """Topic of news, 4 classes (Zhang, Zhao, LeCun 2015): 10,000 of the 120,000 training texts, 7600 for testing.

    Titles with descriptions, brought to lower case without digits by the source of this copy. For research only.
    Caveats: training texts are of a few weeks of 2004 (the Olympic games of Athens), test texts of a longer time, so
    scores are higher on validation; 2 test texts occur in training too, and 62 training texts twice.
    """

    data_files = (
        DataFile(
            name="nlp/ag_news_10k.jsonl.gz",
            sha256="e643eb55a9de46962c859c2d7989876ed2a49ef461a6b0793e21a289737f85fa",
            source="a packed copy of https://github.com/PKUAI-LINGroup/PAS (an early commit); without it, take"
            " hf_text[path=fancyzhx/ag_news] from the hub",
        ),
    )
    names = ("World", "Sports", "Business", "Sci/Tech")
    parts: ClassVar = {"train": ("train",), "test": ("test",)}

    max_length: Annotated[int, Ge(3)] = 64


@dataclass(frozen=True, kw_only=True)
class CoLA(_TextSet):
    """Which of 9594 English sentences are grammatical, 2 classes (Warstadt et al. 2018); by Matthews correlation.

    The labels of the real test set are not public: the 1043 sentences for testing are those that GLUE calls validation,
    half of them from publications that no training sentence is from. Validation is cut from the 8551 training ones.
    Caveat: 18 test sentences occur in training too. 70 % are acceptable, so accuracy alone says little.
    """

    data_files = (
        DataFile(
            name="nlp/cola.jsonl.gz",
            sha256="d7ead683ea362a11196abd3f64244544b8c93662d629db7d86b3aec536a8aeb2",
            source="a packed copy of https://github.com/nyu-mll/CoLA-baselines; without it, take"
            " hf_text[path=nyu-mll/glue,subset=cola,text=sentence,test=validation] from the hub",
        ),
    )
    names = ("unacceptable", "acceptable")
    parts: ClassVar = {"train": ("train",), "test": ("dev", "dev_ood")}

    def metrics(self, spec: DataSpec) -> tuple[Metric, ...]:
        return (Metric("matthews_correlation", matthews_correlation, unit=""), *super().metrics(spec))


def matthews_correlation(logits: Tensor, targets: Tensor) -> float:
    """The correlation of predicted and true classes, in [-1, 1]: 0 for chance, and where all answers are the same."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(targets.cpu().numpy(), logits.argmax(dim=1).cpu().numpy()))
