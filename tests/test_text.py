"""Text: token ids from the training texts alone, tables with mistakes in them, and networks that see no padding."""

from __future__ import annotations

import dataclasses
import gzip
import json
import logging
import os
import random
import string
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdbench import Architecture, BadInput, Data, DataFolders, DataSpec, MissingData, MissingExtra, Tap
from kdbench.measuring.cost import deployed_cost
from kdbench.plugins import discover
from kdbench.spec import Spec
from kdbench_plugins.tasks import _wordpiece
from kdbench_plugins.tasks._wordpiece import encode, learnt_tokenizer
from kdbench_plugins.tasks.text_sets import matthews_correlation

REAL = DataFolders.from_environment()
PAD, UNK, CLS, SEP = 0, 1, 2, 3


@pytest.fixture
def folders(tmp_path: Path) -> DataFolders:
    return DataFolders((tmp_path, tmp_path / "cache"), tmp_path / "cache")


def words(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 7))) for _ in range(count)]


def load(folders: DataFolders, written: str, **params: Any) -> Data:
    asked = Spec.parse(written)
    return discover().create("task", dataclasses.replace(asked, params={**asked.params, **params})).load(folders)


def network(written: str, spec: DataSpec) -> tuple[nn.Module, dict[str, Tap]]:
    built: Architecture = discover().create("architecture", Spec.parse(written))
    torch.manual_seed(0)
    made = built.build(spec).eval()
    return made, dict(built.taps(made))


# --- tokens ---------------------------------------------------------------------------------------------------------


def test_the_same_texts_give_the_same_vocabulary_each_time(tmp_path: Path) -> None:
    texts = [" ".join(words(8, seed)) for seed in range(60)]
    made = [learnt_tokenizer(texts, 300, tmp_path / str(i)).get_vocab() for i in range(4)]
    assert made[0] == made[1] == made[2] == made[3]
    assert len(made[0]) == 300
    assert sorted(made[0].values()) == list(range(300))
    assert [made[0][token] for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")] == [PAD, UNK, CLS, SEP]


def test_texts_are_framed_cut_and_filled_up(tmp_path: Path) -> None:
    tokenizer = learnt_tokenizer(["the cat sat", "the cat ran"] * 5, 100, tmp_path)
    the, cat, ran = (tokenizer.token_to_id(word) for word in ("the", "cat", "ran"))
    ids = encode(tokenizer, ["The CAT ran", "the the the the the", "", "the cät"], 6)
    assert ids.dtype == torch.int64
    assert ids.tolist() == [
        [CLS, the, cat, ran, SEP, PAD],
        [CLS, the, the, the, the, SEP],
        [CLS, SEP, PAD, PAD, PAD, PAD],
        [CLS, the, cat, SEP, PAD, PAD],
    ]
    assert encode(tokenizer, [], 6).shape == (0, 6)


def test_no_text_can_forge_a_special_token(tmp_path: Path) -> None:
    tokenizer = learnt_tokenizer(["[pad] ##s [sep] # pads"], 100, tmp_path)
    (ids,) = encode(tokenizer, ["[PAD] ##s [SEP]"], 20).tolist()
    tokens = [tokenizer.id_to_token(number) for number in ids if number != PAD]
    assert ids.index(PAD) == len(tokens)
    assert tokens == ["[CLS]", "[", "pad", "]", "#", "#", "s", "[", "sep", "]", "[SEP]"]


def test_unseen_characters_are_unknown(tmp_path: Path) -> None:
    tokenizer = learnt_tokenizer(["abc"], 100, tmp_path)
    assert encode(tokenizer, ["abc xyz"], 5).tolist()[0] == [CLS, tokenizer.token_to_id("abc"), UNK, SEP, PAD]


def test_the_tokenizer_is_kept_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = words(50)
    first = learnt_tokenizer(texts, 80, tmp_path)
    (kept,) = tmp_path.iterdir()
    learnt_tokenizer(texts, 70, tmp_path)
    learnt_tokenizer(texts[1:], 80, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.setattr(_wordpiece, "_train", lambda *_: pytest.fail("trained again"))
    assert learnt_tokenizer(texts, 80, tmp_path).to_str() == first.to_str() == kept.read_text()


def test_a_damaged_tokenizer_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = learnt_tokenizer(words(50), 80, tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_text(kept.read_text()[:100])
    with caplog.at_level(logging.WARNING):
        assert learnt_tokenizer(words(50), 80, tmp_path).get_vocab() == first.get_vocab()
    assert f"{kept} cannot be read and is made anew" in caplog.text
    assert kept.read_text() == first.to_str()


def test_without_a_writable_cache_it_is_trained_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level(logging.WARNING):
        tokenizer = learnt_tokenizer(words(50), 80, tmp_path / "file" / "tokenizers")
    assert tokenizer.get_vocab_size() == 80
    assert "cannot be kept" in caplog.text


def test_the_environment_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for before in ("true", None):
        if before is None:
            monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
        else:
            monkeypatch.setenv("TOKENIZERS_PARALLELISM", before)
        learnt_tokenizer([f"so {before}"], 80, tmp_path)
        assert os.environ.get("TOKENIZERS_PARALLELISM") == before


# --- the user's own texts -------------------------------------------------------------------------------------------

ROWS = [(f"good fox {'very ' * i}", "yes") for i in range(10)] + [(f"bad fox {'very ' * i}", "no") for i in range(10)]


def write_csv(path: Path, rows: Sequence[Sequence[object]], header: str = "text,label") -> None:
    lines = [header, *(",".join(f'"{cell}"' for cell in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def content(data: Data) -> dict[str, list[tuple[tuple[int, ...], str]]]:
    splits = {"train": data.train, "test": data.test, "validation": data.validation}
    return {
        name: [
            (tuple(ids), data.class_names[target])
            for ids, target in zip(split.inputs.tolist(), split.targets.tolist(), strict=True)
        ]
        for name, split in splits.items()
        if split is not None
    }


def test_every_format_says_the_same(folders: DataFolders) -> None:
    root = folders.search[0]
    write_csv(root / "a.csv", ROWS)
    (root / "a.tsv").write_text("\n".join(["text\tlabel", *("\t".join(row) for row in ROWS)]), encoding="utf-8-sig")
    lines = [json.dumps({"text": text, "label": label, "more": None}) for text, label in ROWS]
    (root / "a.jsonl").write_text("\n\n".join(lines))
    for name in ("a.csv", "a.tsv", "a.jsonl"):
        (root / f"{name}.gz").write_bytes(gzip.compress((root / name).read_bytes()))
    loaded = [
        content(load(folders, "text_file", path=f"a.{kind}{packed}"))
        for kind in ("csv", "tsv", "jsonl")
        for packed in ("", ".gz")
    ]
    assert all(each == loaded[0] for each in loaded[1:])
    assert [len(loaded[0][split]) for split in ("train", "test")] == [16, 4]


def test_one_in_five_of_each_class_is_held_out(folders: DataFolders) -> None:
    write_csv(folders.search[0] / "a.csv", ROWS)
    data = load(folders, "text_file[path=a.csv]")
    assert data.class_names == ("no", "yes")
    assert data.validation is None
    assert torch.bincount(data.test.targets).tolist() == [2, 2]
    parts = content(data)
    assert not set(parts["train"]) & set(parts["test"])
    assert len({*parts["train"], *parts["test"]}) == 20
    assert content(load(folders, "text_file[path=a.csv]")) == parts


def test_a_split_column_is_followed(folders: DataFolders) -> None:
    names = ["train", "train", "dev", "test", "val"] * 4
    write_csv(
        folders.search[0] / "a.csv", [(*row, name) for row, name in zip(ROWS, names, strict=True)], "text,label,split"
    )
    parts = content(load(folders, "text_file[path=a.csv]"))
    assert {split: len(rows) for split, rows in parts.items()} == {"train": 8, "test": 4, "validation": 8}
    write_csv(folders.search[0] / "b.csv", [(*row, name) for row, name in zip(ROWS, names, strict=True)], "t,l,s")
    assert content(load(folders, "text_file[path=b.csv,text=t,label=l,split=s]")) == parts


def test_a_second_file_is_for_testing(folders: DataFolders) -> None:
    write_csv(folders.search[0] / "a.csv", ROWS)
    write_csv(folders.search[0] / "b.csv", ROWS[8:12])
    parts = content(load(folders, "text_file[path=a.csv,test=b.csv]"))
    assert [len(rows) for rows in parts.values()] == [20, 4]
    assert parts["test"] == parts["train"][8:12]


def test_the_vocabulary_is_that_of_the_training_texts_in_use(folders: DataFolders) -> None:
    rows = [(f"{letter * 3} fox", "yes" if number % 2 else "no") for number, letter in enumerate("abcdeghi")]
    write_csv(folders.search[0] / "a.csv", rows)
    write_csv(folders.search[0] / "b.csv", [("aaa qqq zzz", "no"), ("www", "yes")])
    data = load(folders, "text_file[path=a.csv,test=b.csv]")
    assert UNK not in data.train.inputs
    assert data.test.inputs[:, 2:4].tolist() == [[UNK, UNK], [SEP, PAD]]
    (cached,) = (folders.cache / "tokenizers").iterdir()
    learnt = json.loads(cached.read_text())["model"]["vocab"]
    assert {f"{letter * 3}" for letter in "abcdeghi"} < learnt.keys()
    assert not {"q", "z", "w"} & learnt.keys()
    few = load(folders, "text_file[path=a.csv,test=b.csv,train_examples=2]")
    assert few.spec.vocabulary == data.spec.vocabulary - 6 * 4  # "d", "##d", "dd" or "##dd", "ddd" of six letters


@pytest.mark.parametrize(
    ("labels", "names"),
    [([10, 9, 2], ("2", "9", "10")), (["10", "9", "b"], ("10", "9", "b")), ([True, False], ("False", "True"))],
)
def test_classes_are_sorted_names(folders: DataFolders, labels: list[object], names: tuple[str, ...]) -> None:
    rows = [{"text": f"fox {i}", "label": label} for i, label in enumerate(labels * 3)]
    (folders.search[0] / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = load(folders, "text_file[path=a.jsonl]")
    assert data.class_names == names
    assert data.spec.classes == len(names)


def test_fewer_training_examples_are_a_stratified_subset_of_more(folders: DataFolders) -> None:
    rows = [(word, "no" if i % 4 else "yes") for i, word in enumerate(sorted(set(words(120))))]
    write_csv(folders.search[0] / "a.csv", rows)
    write_csv(folders.search[0] / "b.csv", rows[:2])
    load(folders, "text_file[path=a.csv,test=b.csv]")
    (tokenizer,) = (folders.cache / "tokenizers").iterdir()
    asked = f"text_file[path=a.csv,test=b.csv,tokenizer={tokenizer}]"
    chosen = {}
    for count in (12, 40, len(rows)):
        data = load(folders, asked, train_examples=count)
        assert torch.bincount(data.train.targets).tolist() == [round(count * 0.75), round(count * 0.25)]
        chosen[count] = set(content(data)["train"])
        assert len(chosen[count]) == count
    assert chosen[12] < chosen[40] < chosen[len(rows)] == set(content(load(folders, asked))["train"])
    with pytest.raises(BadInput, match=rf"a\.csv has {len(rows)} training examples, not {len(rows) + 1}"):
        load(folders, asked, train_examples=len(rows) + 1)


MISTAKES = {
    "a.csv, line 2: there is no column 'text'\nchoices: words, label": ("a.csv", b"words,label\nfox,1\n"),
    "a.csv, line 3: not UTF-8": ("a.csv", b"text,label\nfox,1\nf\xf6x,0\n"),
    "a.csv holds no rows": ("a.csv", b""),
    "a.jsonl holds no rows": ("a.jsonl", b"\n\n"),
    "a.tsv holds no rows": ("a.tsv", b"text\tlabel\n"),
    "a.csv, line 3: 1 cells, but the header has 2": ("a.csv", b"text,label\nfox,1\nfox\n"),
    "a.csv, line 2: unexpected end of data": ("a.csv", b'text,label\n"fox,1\n'),
    "a.csv, line 3: 'label' is empty": ("a.csv", b"text,label\nfox,1\nfox, \n"),
    "a.csv, line 1: two columns have the same name: text, text": ("a.csv", b"text,text\nfox,1\n"),
    "a.csv, line 3: 'later' is no split\nchoices: train, test, validation": (
        "a.csv",
        b"text,label,split\nfox,1,train\nfox,0,later\n",
    ),
    "a.csv: the test split is empty": ("a.csv", b"text,label,split\nfox,1,train\nfox,0,train\nox,0,dev\n"),
    "a.csv: the train split is empty": ("a.csv", b"text,label,split\nfox,1,test\nfox,0,test\n"),
    "class '2' is in the test split, but not in the training split\nclasses: 0, 1": (
        "a.csv",
        b"text,label,split\nfox,1,train\nfox,0,train\nfox,2,test\n",
    ),
    "all training examples are of one class, '1'": ("a.csv", b"text,label\nfox,1\nox,1\n"),
    "class '0' has a single example": ("a.csv", b"text,label\nfox,1\nox,1\ncat,0\n"),
    "a.jsonl, line 2: not JSON": ("a.jsonl", b'{"text": "fox", "label": 1}\n{"text": "fox", "label"\n'),
    "a.jsonl, line 1: not a JSON object": ("a.jsonl", b'["fox", 1]\n'),
    "a.jsonl, line 1: 'text' is null, not text": ("a.jsonl", b'{"text": null, "label": 1}\n'),
    "a.jsonl, line 1: 'label' is 0.5, not a name or a whole number": ("a.jsonl", b'{"text": "fox", "label": 0.5}\n'),
    "cannot read": ("a.csv.gz", b"no archive"),
    "cannot tell the format of": ("a.xlsx", b"PK"),
}


@pytest.mark.parametrize(("message", "file"), MISTAKES.items(), ids=MISTAKES)
def test_mistakes_are_named_with_their_line(folders: DataFolders, message: str, file: tuple[str, bytes]) -> None:
    name, written = file
    (folders.search[0] / name).write_bytes(written)
    with pytest.raises(BadInput) as caught:
        load(folders, "text_file", path=name)
    assert message in str(caught.value)


def test_a_missing_file_says_where_it_was_looked_for(folders: DataFolders) -> None:
    with pytest.raises(MissingData, match=r"there is no file 'absent.csv'") as caught:
        load(folders, "text_file[path=absent.csv]")
    for place in (*folders.search, Path.cwd()):
        assert str(place / "absent.csv") in str(caught.value)


def test_two_test_sets_are_one_too_many(folders: DataFolders) -> None:
    write_csv(folders.search[0] / "a.csv", [(*ROWS[0], "train"), (*ROWS[10], "test")], "text,label,split")
    with pytest.raises(BadInput, match=r"a\.csv has rows for testing, and so has test=b\.csv"):
        load(folders, "text_file[path=a.csv,test=b.csv]")


@pytest.mark.parametrize("params", [{"max_length": 2}, {"vocab_size": 0}, {"train_examples": 0}])
def test_parameters_out_of_range(params: dict[str, int], folders: DataFolders) -> None:
    with pytest.raises(BadInput, match=next(iter(params))):
        load(folders, "text_file[path=a.csv]", **params)


def test_a_tokenizer_can_be_given(folders: DataFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(folders.search[0] / "a.csv", ROWS)
    learnt = load(folders, "text_file[path=a.csv]")
    (kept,) = (folders.cache / "tokenizers").iterdir()
    (folders.search[0] / "model").mkdir()
    (folders.search[0] / "model" / "tokenizer.json").write_bytes(kept.read_bytes())
    for given in (str(kept), "model"):
        assert content(load(folders, "text_file[path=a.csv]", tokenizer=given)) == content(learnt)
    (folders.search[0] / "model" / "tokenizer.json").write_text(kept.read_text().replace("[PAD]", "[FILL]"))
    with pytest.raises(BadInput, match=r"'model' has no \[PAD\] with id 0"):
        load(folders, "text_file[path=a.csv,tokenizer=model]")
    (folders.search[0] / "model" / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match=r"cannot read the tokenizer .*model/tokenizer.json"):
        load(folders, "text_file[path=a.csv,tokenizer=model]")

    def offline(name: str) -> None:
        raise RuntimeError(f"no network for {name}")

    hub = SimpleNamespace(Tokenizer=SimpleNamespace(from_pretrained=offline))
    monkeypatch.setattr(_wordpiece, "library", lambda: hub)
    with pytest.raises(MissingData, match=r"there is no tokenizer 'someone/model' on this machine.*no network for"):
        load(folders, "text_file[path=a.csv,tokenizer=someone/model]")


def test_without_the_library_the_extra_is_named(folders: DataFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(folders.search[0] / "a.csv", ROWS)
    for library, extra, asked in (
        ("tokenizers", "nlp", "text_file[path=a.csv]"),
        ("datasets", "hub", "hf_text[path=a/b]"),
    ):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(MissingExtra, match=rf"kdbench\[{extra}\]"):
            load(folders, asked)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"kdbench\[nlp\]"):
        network("bert", SPEC)


# --- the hub --------------------------------------------------------------------------------------------------------


class Rows:
    """What `datasets` gives for one split."""

    def __init__(self, columns: dict[str, list[object]], names: list[str] | None = None) -> None:
        self.columns, self.column_names = columns, list(columns)
        self.features = {name: SimpleNamespace(names=names) if name == "label" else object() for name in columns}

    def __getitem__(self, column: str) -> list[object]:
        return self.columns[column]


def hub(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[object, ...]]:
    """Lets `datasets.load_dataset` answer (or raise) that; the calls it gets."""
    calls: list[tuple[object, ...]] = []

    def load_dataset(path: str, subset: str | None, *, revision: str | None, cache_dir: str) -> Any:
        calls.append((path, subset, revision, cache_dir))
        if isinstance(answer, Exception):
            raise answer
        return answer

    library = ModuleType("datasets")
    library.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", library)
    return calls


NAMES = ["negative", "positive"]
TRAIN = Rows({"text": ["good fox", "bad fox", "fox"], "label": [1, 0, 1]}, NAMES)
VALIDATION = Rows({"text": ["good", "bad"], "label": [1, 0]}, NAMES)
HIDDEN = Rows({"text": ["fox"], "label": [-1]}, NAMES)


def test_a_hub_data_set_keeps_its_class_names(folders: DataFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub(monkeypatch, {"train": TRAIN, "validation": VALIDATION, "test": VALIDATION})
    data = load(folders, "hf_text[path=a/b,subset=c,revision=d]")
    assert calls == [("a/b", "c", "d", str(folders.cache / "huggingface"))]
    assert data.class_names == ("negative", "positive")
    assert data.train.targets.tolist() == [1, 0, 1]
    assert data.validation is not None
    assert data.validation.targets.tolist() == [1, 0]
    hub(monkeypatch, {"train": TRAIN, "validation": VALIDATION, "test": HIDDEN})
    data = load(folders, "hf_text[path=a/b,test=validation]")
    assert data.validation is None
    assert len(data.test) == 2


@pytest.mark.parametrize(
    ("answer", "params", "error", "message"),
    [
        ({"train": TRAIN, "test": HIDDEN}, {}, BadInput, "row 0 of split 'test' has no label\n.*test=validation"),
        ({"train": TRAIN}, {}, BadInput, "a/b has no split 'test'\nchoices: train"),
        ({"train": TRAIN, "test": TRAIN}, {"text": "words"}, BadInput, "no column 'words'\nchoices: text, label"),
        ({"train": TRAIN, "test": TRAIN}, {"label": "sort"}, BadInput, "no column 'sort'"),
        ({"train": TRAIN, "test": Rows({"text": ["a"], "label": [2]}, NAMES)}, {}, BadInput, "2 is no class"),
        ({"train": TRAIN, "test": Rows({"text": [None], "label": [1]}, NAMES)}, {}, BadInput, "'text' is no text"),
        (ConnectionError("no route"), {}, MissingData, "did not give 'a/b': no route\n.*text_file"),
        (FileNotFoundError("not there"), {}, MissingData, "did not give 'a/b': not there"),
        (ValueError("Config name is missing"), {}, BadInput, "Config name is missing\nsubset="),
    ],
)
def test_what_the_hub_cannot_give(folders, monkeypatch, answer: Any, params, error, message) -> None:
    hub(monkeypatch, answer)
    with pytest.raises(error, match=message):
        load(folders, "hf_text[path=a/b]", **params)


# --- the classics ---------------------------------------------------------------------------------------------------


def test_matthews_correlation_is_that_of_the_confusion_counts() -> None:
    targets = torch.tensor([1, 1, 1, 1, 0, 0, 0, 1])
    answers = torch.tensor([1, 1, 1, 0, 0, 1, 0, 1])
    tp, tn, fp, fn = 4, 2, 1, 1
    expected = (tp * tn - fp * fn) / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    assert matthews_correlation(nn.functional.one_hot(answers).double(), targets) == pytest.approx(expected, abs=1e-12)
    assert matthews_correlation(torch.tensor([[0.0, 1.0]]).expand(8, 2), targets) == 0.0


def test_cola_is_ranked_by_correlation() -> None:
    task = discover().create("task", Spec.parse("cola"))
    metrics = task.metrics(DataSpec((48,), 2, modality="nlp", vocabulary=10))
    assert [metric.name for metric in metrics] == ["matthews_correlation", "accuracy", "macro_f1"]


@pytest.mark.parametrize(
    ("name", "length", "counts"),
    [
        ("sst2", 48, {"train": [3310, 3610], "validation": [428, 444], "test": [912, 909]}),
        ("ag_news", 64, {"train": [2500] * 4, "test": [1900] * 4}),
        ("cola", 48, {"train": [2528, 6023], "test": [324, 719]}),
    ],
)
def test_the_real_ones(name: str, length: int, counts: dict[str, list[int]], tmp_path: Path) -> None:
    (file,) = discover().create("task", Spec.parse(name)).data_files
    if not REAL.packed(file):
        pytest.skip(f"{file.name} is not under $KDBENCH_DATA")
    data = load(DataFolders(REAL.search, tmp_path), name)
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    found = {split: torch.bincount(part.targets).tolist() for split, part in splits.items() if part is not None}
    assert found == counts
    assert data.spec == DataSpec((length,), len(data.class_names), modality="nlp", vocabulary=8000)
    assert (data.train.inputs[:, 0] == CLS).all()
    assert (data.train.inputs == UNK).double().mean() < 1e-3
    assert (data.test.inputs == UNK).double().mean() < 1e-3


# --- networks -------------------------------------------------------------------------------------------------------

SPEC = DataSpec((9,), 3, modality="nlp", vocabulary=40)
SENTENCE = torch.tensor([[2, 7, 31, 12, 3]])


def padded(tokens: Tensor, length: int) -> Tensor:
    return nn.functional.pad(tokens, (0, length - tokens.shape[1]))


@pytest.mark.parametrize("written", ["bert[layers=2,width=16]", "text_cnn[width=4,word_width=8]"])
def test_padding_changes_nothing(written: str) -> None:
    made, _ = network(written, SPEC)
    made.double()
    with torch.no_grad():
        torch.testing.assert_close(made(padded(SENTENCE, 9)), made(SENTENCE), rtol=0, atol=1e-12)
        assert not torch.allclose(made(padded(SENTENCE[:, :4], 9)), made(SENTENCE))


@pytest.mark.parametrize("written", ["bert", "bert[layers=5,width=24,heads=3]", "text_cnn", "text_cnn[width=1]"])
def test_both_counters_agree(written: str) -> None:
    made, _ = network(written, SPEC)
    assert deployed_cost(made, SPEC)["macs_disagreement"] == 0


@pytest.mark.parametrize("written", ["bert", "text_cnn"])
@pytest.mark.parametrize("spec", [DataSpec((3, 8, 8), 2), DataSpec((9,), 2, modality="sensor")])
def test_inputs_that_are_no_tokens_are_refused(written: str, spec: DataSpec) -> None:
    with pytest.raises(BadInput, match="takes token ids"):
        network(written, spec)


def tapped(made: nn.Module, taps: dict[str, Tap], tokens: Tensor) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}
    for name, tap in taps.items():
        module = made.get_submodule(tap.module)
        if tap.at == "input":
            module.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0]}))
        else:
            module.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
    with torch.no_grad():
        seen["logits"] = made(tokens)
    return seen


def test_taps_of_bert_are_what_transformers_calls_them() -> None:
    made, taps = network("bert[layers=5,width=24,heads=3]", SPEC)
    tokens = padded(SENTENCE, 9).repeat(2, 1)
    seen = tapped(made, taps, tokens)
    with torch.no_grad():
        expected = made.model.bert(tokens, attention_mask=(tokens != 0).long(), output_hidden_states=True)
    assert set(taps) == {
        "embedding",
        *(f"{kind}{i}" for kind in ("stage", "query", "key", "value", "attention") for i in range(1, 6)),
    }
    for number in range(1, 6):
        assert torch.equal(seen[f"stage{number}"], expected.hidden_states[number])
        assert {seen[f"{kind}{number}"].shape for kind in ("query", "key", "value")} == {(2, 9, 24)}
    assert torch.equal(seen["embedding"], expected.pooler_output)
    assert torch.equal(seen["logits"], made.model.classifier(expected.pooler_output))


def test_queries_and_keys_make_the_attention_of_the_layer() -> None:
    made, taps = network("bert[layers=1,width=24,heads=3]", SPEC)
    seen = tapped(made, taps, SENTENCE)
    with torch.no_grad():
        (expected,) = made.model.bert(SENTENCE, output_attentions=True).attentions
    query, key = (seen[name].unflatten(2, (3, 8)).transpose(1, 2) for name in ("query1", "key1"))
    torch.testing.assert_close((query @ key.transpose(2, 3) / 8**0.5).softmax(-1), expected)


def test_taps_of_the_sentence_cnn() -> None:
    made, taps = network("text_cnn[width=2,word_width=6]", SPEC)
    seen = tapped(made, taps, padded(SENTENCE, 9))
    words, features = seen["stage1"], seen["stage2"]
    assert words.shape == (1, 9, 6)
    assert features.shape == (1, 6, 9)
    assert not words[0, 5:].any()
    assert not features[0, :, 5:].any()
    three = made.features.convolutions[0]  # the window around the second token, by hand
    by_hand = (three.weight * words[0, :3].T).sum((1, 2)) + three.bias
    torch.testing.assert_close(features[0, :2, 1], by_hand.relu())
    torch.testing.assert_close(seen["embedding"], features.max(2).values)


def test_heads_must_share_the_width() -> None:
    with pytest.raises(BadInput, match="width must be a multiple of heads, not 10 for 3"):
        network("bert[width=10,heads=3]", SPEC)


# --- pretrained -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny masked language model, as published ones are: with a head of another kind, and without a classifier."""
    from transformers import BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(7)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForMaskedLM(BertConfig(vocab_size=40, max_position_embeddings=12, **sizes))
    model.save_pretrained(folder)
    return folder


def test_pretrained_weights_are_loaded_without_a_word(pretrained: Path, capfd, caplog) -> None:
    from safetensors.torch import load_file

    capfd.readouterr()
    with caplog.at_level(logging.DEBUG):
        made, taps = network(f"bert[pretrained={pretrained}]", SPEC)
    published = load_file(pretrained / "model.safetensors")
    loaded = made.model.state_dict()
    shared = published.keys() & loaded.keys()
    assert len(shared) == 5 + 3 * 16
    assert all(torch.equal(published[name], loaded[name]) for name in shared)
    assert made(SENTENCE).shape == (1, 3)
    assert {"stage3", "query3"} < taps.keys()
    assert "stage4" not in taps
    assert capfd.readouterr() == ("", "")
    assert "transformers" not in {record.name.partition(".")[0] for record in caplog.records}
    again = network(f"bert[pretrained={pretrained}]", SPEC)[0].model.state_dict()
    assert all(torch.equal(loaded[name], again[name]) for name in loaded)


def test_pretrained_networks_train_like_others(pretrained: Path) -> None:
    built: Architecture = discover().create("architecture", Spec.parse(f"bert[pretrained={pretrained}]"))
    made = built.build(SPEC)
    assert all(module.training for module in made.modules())
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in made.parameters())


def test_pretrained_networks_that_do_not_fit_are_refused(pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"knows 40 tokens, but the task has 41\n.*tokenizer="):
        network(f"bert[pretrained={pretrained}]", dataclasses.replace(SPEC, vocabulary=41))
    with pytest.raises(BadInput, match="takes 12 tokens at most, not 13"):
        network(f"bert[pretrained={pretrained}]", dataclasses.replace(SPEC, input_shape=(13,)))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(BadInput, match="is no BERT model, but gpt2"):
        network(f"bert[pretrained={tmp_path}]", SPEC)
    (tmp_path / "config.json").write_bytes((pretrained / "config.json").read_bytes())
    with pytest.raises(BadInput, match="cannot read the pretrained model"):
        network(f"bert[pretrained={tmp_path}]", SPEC)
    (tmp_path / "model.safetensors").write_bytes((pretrained / "model.safetensors").read_bytes()[:500])
    with pytest.raises(BadInput, match="cannot read the pretrained model"):
        network(f"bert[pretrained={tmp_path}]", SPEC)


def test_a_pretrained_model_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def offline(name: str, *, local_files_only: bool) -> None:
        assert not local_files_only
        raise OSError(f"no network for {name}")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", offline)
    with pytest.raises(MissingData, match=r"no pretrained model 'someone/model' on this machine.*no network for"):
        network("bert[pretrained=someone/model]", SPEC)
