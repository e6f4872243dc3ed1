"""Translation: texts and tokens, the network's masks, the search against brute force, and scores against sacrebleu."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import logging
import math
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdbench import IGNORED, BadInput, Batch, Data, DataFolders, DataSpec, MissingExtra
from kdbench.execution.local import execute
from kdbench.measuring.cost import deployed_cost
from kdbench.measuring.record import Record
from kdbench.plan import Cohort, Plan
from kdbench.planner import make_plan
from kdbench.plugins import discover
from kdbench.spec import Spec
from kdbench.store.run_folder import RunFolder
from kdbench.suite_file import load_suite
from kdbench.training.cohort import train
from kdbench.training.observer import Observer
from kdbench.training.taps import TappedNetwork
from kdbench.training.trained import Trained
from kdbench_plugins.tasks import _corpus_scores
from kdbench_plugins.tasks._byte_pairs import END, PADDING, START, learnt_byte_pairs, text_of, tokens_of
from kdbench_plugins.tasks._corpus_scores import bleu, chrf, sentence_statistics
from kdbench_plugins.tasks._search import BeamSearch
from kdbench_plugins.tasks._translation import TranslationTask
from kdbench_plugins.tasks.multi30k import Multi30k

CPU = torch.device("cpu")
REAL = DataFolders.from_environment()
FILES = Multi30k.data_files
HERE = any(map(REAL.packed, FILES))
SIZES = {"train": 400, "val": 20, "test_2016_flickr": 30}


def create(kind: str, written: str, **params: Any) -> Any:
    spec = Spec.parse(written)
    return discover().create(kind, Spec(spec.name, {**spec.params, **params}))


def reversals() -> list[dict[str, str]]:
    """Two to four letters, and the same in capitals from the last to the first."""
    rng = random.Random(0)
    every = [letters for n in (2, 3, 4) for letters in itertools.permutations("abcdef", n)]
    rng.shuffle(every)
    splits = (split for split, size in SIZES.items() for _ in range(size))
    return [
        {"split": split, "en": " ".join(letters), "de": " ".join(reversed(letters)).upper(), "fr": ""}
        for split, letters in zip(splits, every, strict=False)
    ]


def write(folder: Path, rows: list[dict[str, str]], patch: pytest.MonkeyPatch) -> DataFolders:
    """A file of the form of Multi30k, whose checksum its task is told."""
    (file,) = Multi30k.data_files
    path = folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode(), mtime=0))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    patch.setattr(Multi30k, "data_files", (replace(file, sha256=sha256),))
    return DataFolders((folder,), folder / "cache")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataFolders]:
    with pytest.MonkeyPatch.context() as patch:
        yield write(tmp_path_factory.mktemp("reversals"), reversals(), patch)


@pytest.fixture(scope="module")
def task() -> TranslationTask:
    return create("task", "multi30k[vocab_size=280,beam=2,teacher_beam=2]")


@pytest.fixture(scope="module")
def data(task: TranslationTask, folders: DataFolders) -> Data:
    return task.load(folders)


def network(spec: DataSpec, written: str = "transformer[layers=1,width=16,heads=2,dropout=0]", seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return create("architecture", written).build(spec).eval()


def only(split: Any) -> Batch:
    (batch,) = split.batches([torch.arange(len(split))])
    return batch


@pytest.fixture(scope="module")
def trained(task: TranslationTask, data: Data) -> nn.Module:
    """A network that has learnt to reverse."""
    model = network(data.spec, "transformer[layers=1,width=32,heads=2,dropout=0]").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(25):
        for batch in data.train.batches(torch.randperm(len(data.train), generator=generator).split(64)):
            optimizer.zero_grad()
            task.loss(task.logits(model(batch.inputs), batch), batch).backward()
            optimizer.step()
    return model.eval()


# --- texts and tokens ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    texts = [f"the {word} fox, größer als {word}" for word in ("quick", "slow", "brown", "white")] * 3
    return learnt_byte_pairs(texts, 330, tmp_path_factory.mktemp("cache"))


@settings(deadline=None, max_examples=200)
@given(text=st.text())
def test_every_text_comes_back_from_its_tokens(tokenizer: Any, text: str) -> None:
    (ids,) = tokens_of(tokenizer, [text])
    assert text_of(tokenizer, [START, *ids, END, PADDING, IGNORED]) == text
    assert all(END < number < tokenizer.get_vocab_size() for number in ids)


def test_no_text_can_forge_a_special_token(tmp_path: Path) -> None:
    texts = ["⟨pad⟩ ⟨start⟩ ⟨end⟩"] * 50
    forged = learnt_byte_pairs(texts, 400, tmp_path)
    (ids,) = tokens_of(forged, texts[:1])
    assert min(ids) > END
    assert text_of(forged, ids) == texts[0]


def test_the_same_texts_give_the_same_vocabulary_each_time(tmp_path: Path) -> None:
    rng = random.Random(0)
    texts = [" ".join("".join(rng.choices("abcdeäöü", k=3)) for _ in range(6)) for _ in range(60)]
    made = [learnt_byte_pairs(texts, 400, tmp_path / str(i)).to_str() for i in range(4)]
    assert made[0] == made[1] == made[2] == made[3]
    assert learnt_byte_pairs(texts, 400, tmp_path / "0").to_str() == made[0]  # from the cache, this time
    vocabulary = json.loads(made[0])["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(400))
    assert [token for token, number in vocabulary.items() if number <= END] == ["⟨pad⟩", "⟨start⟩", "⟨end⟩"]


def test_inputs_are_the_source_and_the_target_shifted_right(task: TranslationTask, data: Data) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(data.assets["tokenizer.json"].decode())
    assert data.spec.input_shape == (2, *data.spec.positions)
    rows = [row for row in reversals() if row["split"] == "test_2016_flickr"]
    for row, (source, shifted), target in zip(rows, data.test.inputs.tolist(), data.test.targets.tolist(), strict=True):
        assert text_of(tokenizer, source) == row["en"]
        assert text_of(tokenizer, target) == row["de"]
        length = target.index(END) + 1
        assert source[source.index(END) + 1 :] == [PADDING] * (len(source) - source.index(END) - 1)
        assert target[length:] == [IGNORED] * (len(target) - length)
        assert shifted == [START, *target[: length - 1], *[PADDING] * (len(target) - length)]
    assert [len(split) for split in (data.train, data.validation, data.test)] == list(SIZES.values())


def test_the_vocabulary_is_that_of_the_training_pairs_in_use(
    task: TranslationTask, folders: DataFolders, data: Data
) -> None:
    few, more = (replace(task, train_examples=count).load(folders) for count in (30, 100))
    assert (len(few.train), len(more.train)) == (30, 100)
    assert few.assets != more.assets
    assert len(few.test) == len(data.test)
    with pytest.raises(BadInput, match="Multi30k has 400 training examples, not 401"):
        replace(task, train_examples=401).load(folders)


def test_long_training_pairs_are_left_out_but_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    long = {"en": "x " * 40, "de": "y " * 40, "split": "train"}
    here = write(tmp_path, [*reversals(), long], monkeypatch)
    short = create("task", "multi30k[vocab_size=280,max_length=12]")
    with caplog.at_level(logging.INFO):
        data = short.load(here)
    assert len(data.train) == SIZES["train"]
    assert data.spec.positions[0] <= 12
    assert "1 of 401 training pairs are longer" in caplog.text
    here = write(tmp_path, [*reversals(), {**long, "split": "val"}], monkeypatch)
    with pytest.raises(BadInput, match=r"a sentence of the validation split takes \d\d tokens.*\n.*set max_length="):
        short.load(here)
    with pytest.raises(BadInput, match="every training pair takes more than max_length=2"):
        create("task", "multi30k[vocab_size=280,max_length=2]").load(write(tmp_path, reversals(), monkeypatch))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"de": " "}, r"multi30k.jsonl.gz, line 3: a sentence is empty"),
        ({"en": 7}, r"multi30k.jsonl.gz, line 3: 'en' is 7, not text"),
        ({"split": "test_2016_flickr"}, "there are no rows with the split 'val'"),
    ],
)
def test_mistakes_in_the_file_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    rows = [{"split": split, "en": "a b", "de": "B A"} for split in ("train", "test_2016_flickr", "val")]
    rows[2].update(change)
    with pytest.raises(BadInput, match=message):
        create("task", "multi30k").load(write(tmp_path, rows, monkeypatch))


def test_a_language_is_not_translated_into_itself() -> None:
    with pytest.raises(BadInput, match="source and target are both 'de'"):
        create("task", "multi30k[source=de]")


# --- the network -----------------------------------------------------------------------------------------------------

SPEC = DataSpec((2, 9), 20, "nlp", vocabulary=20, positions=(9,))
WRITTEN = ("transformer[layers=2,width=16,heads=2]", "transformer[layers=1,width=12,heads=1,positions=learnt]")


def tokens(lengths: tuple[int, int], batch: int = 3, size: int = 9, seed: int = 0) -> Tensor:
    """Random pairs of these lengths, zero-padded to `size`."""
    pairs = torch.zeros(batch, 2, size, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    for row, length in enumerate(lengths):
        pairs[:, row, :length] = torch.randint(3, 20, (batch, length), generator=generator)
    return pairs


@pytest.mark.parametrize("written", WRITTEN)
@torch.no_grad()
def test_later_tokens_of_the_target_change_no_earlier_logit(written: str) -> None:
    model, pairs = network(SPEC, written), tokens((9, 9))
    before = model(pairs)
    for position in range(1, 9):
        changed = pairs.clone()
        changed[:, 1, position:] = 3 + (changed[:, 1, position:] + 5) % 17
        after = model(changed)
        assert after[..., :position].equal(before[..., :position])
        assert not after[..., position].isclose(before[..., position]).all()


@pytest.mark.parametrize("written", WRITTEN)
@torch.no_grad()
def test_every_token_of_the_source_matters_but_padding_does_not(written: str) -> None:
    model, pairs = network(SPEC, written).double(), tokens((5, 6))
    logits = model(pairs)
    for position in range(5):
        changed = pairs.clone()
        changed[:, 0, position] = 3 + (changed[:, 0, position] + 5) % 17
        assert not model(changed)[:, :, 0].isclose(logits[:, :, 0]).all()
    tight = model(pairs[..., :6])
    assert tight.equal(logits[..., :6])  # columns that all lack are not computed
    assert not logits[..., 6:].any()
    among_longer = model(torch.cat([pairs, tokens((9, 9), seed=1)]))
    torch.testing.assert_close(among_longer[:3, :, :6], tight, rtol=1e-4, atol=1e-5)  # masks are float32


@pytest.mark.parametrize("written", WRITTEN)
def test_logits_are_the_same_bits_tapped_or_not_with_gradients_or_without(written: str) -> None:
    """A layer's fast path would be taken in some of these cases and left in others."""
    model, pairs = network(SPEC, written), tokens((5, 6))
    batch = Batch(pairs, torch.zeros(3, 9, dtype=torch.int64), torch.arange(3))
    with torch.no_grad():
        plain = model(pairs)
    assert model(pairs).equal(plain)
    architecture = create("architecture", written)
    taps = architecture.taps(model)
    tapped = TappedNetwork(model, taps, taps, create("task", "multi30k"))
    with torch.no_grad():
        seen = tapped(batch)
        assert seen.output.equal(plain)
    width, stages = architecture.width, 2 * architecture.layers
    assert [seen.taps[f"stage{i + 1}"].shape for i in range(stages)] == [
        *[(3, width, 5)] * architecture.layers,
        *[(3, width, 6)] * architecture.layers,
    ]
    memory = model.encode(pairs[:, 0, :5])
    torch.testing.assert_close(seen.taps["embedding"], memory.mean(dim=1))
    tapped.detach_hooks()


@torch.no_grad()
def test_the_search_sees_what_teacher_forcing_sees() -> None:
    model, pairs = network(SPEC), tokens((7, 9))
    logits, source = model(pairs), pairs[:, 0, :7]
    memory = model.encode(source)
    for length in range(1, 10):
        following = model.decode(pairs[:, 1, :length], memory, source)
        torch.testing.assert_close(following, logits[:, :, length - 1])


def test_an_empty_source_gives_no_nan() -> None:
    model = network(SPEC).train()
    output = model(torch.cat([tokens((0, 4)), tokens((5, 4))]))
    output.sum().backward()
    assert output.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("layers", [1, 2])
def test_its_cost_is_counted_alike_by_both_counters(layers: int) -> None:
    width, length, vocabulary = 16, 9, 20
    cost = deployed_cost(network(SPEC, f"transformer[layers={layers},width=16,heads=2]"), SPEC)
    projections = (4 + 8) + (4 + 4 + 8)  # of encoder and decoder, in squares of the width
    attention = 3 * 2 * length * length * width
    assert cost["macs"] == layers * (projections * width**2 * length + attention) + length * width * vocabulary
    assert cost["macs_disagreement"] == 0
    assert cost["parameters"] == vocabulary * width + 4 * width + layers * (28 * width**2 + 32 * width)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            DataSpec((12,), 2, "nlp", vocabulary=50),
            r"takes pairs of token sequences \[2, length\], not inputs of \[12\]",
        ),
        (DataSpec((2, 12), 2, "sensor"), "takes pairs of token sequences"),
        (DataSpec((2, 12), 2, "nlp", vocabulary=50), "answers with the next token at each position"),
    ],
)
def test_other_data_are_refused(spec: DataSpec, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        create("architecture", "transformer").build(spec)
    with pytest.raises(BadInput, match="width must be a multiple of heads"):
        create("architecture", "transformer[width=10,heads=4]")


# --- the search ------------------------------------------------------------------------------------------------------

TINY = DataSpec((2, 4), 6, "nlp", vocabulary=6, positions=(4,))  # three words beside the special tokens
WORDS = range(END + 1, 6)


class Sharp(nn.Module):
    """A tiny network with sharper logits, so that some sequences, of any length, are much likelier than others."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def encode(self, source: Tensor) -> Tensor:
        return self.inner.encode(source)

    def decode(self, prefix: Tensor, memory: Tensor, source: Tensor) -> Tensor:
        return 4 * self.inner.decode(prefix, memory, source) - 3 * (torch.arange(6) == END)


@pytest.fixture(scope="module")
def sharp() -> Sharp:
    return Sharp(network(TINY, seed=4)).eval()


SOURCES = torch.tensor(list(itertools.product(WORDS, repeat=2)))
SOURCES = torch.cat([SOURCES, torch.full((len(SOURCES), 1), END)], dim=1)


@torch.no_grad()
def gains(model: Sharp, source: Tensor, prefix: list[int]) -> list[float]:
    logits = model.decode(torch.tensor([[START, *prefix]]), model.encode(source[None]), source[None])
    return logits[0].log_softmax(0).tolist()


def log_probability(model: Sharp, source: Tensor, sequence: list[int]) -> float:
    return sum(gains(model, source, sequence[:i])[token] for i, token in enumerate(sequence))


def listed(row: Tensor) -> list[int]:
    return [token for token in row.tolist() if token != PADDING]


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
def test_a_beam_that_holds_everything_finds_the_best_of_all(sharp: Sharp, penalty: float) -> None:
    sources = SOURCES[:4]
    limits = torch.tensor([4, 2, 3, 1])
    found = BeamSearch(64, penalty)(sharp, sources, limits)
    lengths = set()
    for source, limit, row, score in zip(sources, limits.tolist(), found.tokens, found.scores.tolist(), strict=True):
        every = [[*words, END] for n in range(limit) for words in itertools.product(WORDS, repeat=n)]
        scores = {tuple(each): log_probability(sharp, source, each) / len(each) ** penalty for each in every}
        best = max(scores, key=lambda sequence: scores[sequence])
        assert tuple(listed(row)) == best
        assert score == pytest.approx(scores[best], abs=1e-4)
        lengths.add(len(best))
    assert len(lengths) > (penalty > 0)


def written_out(model: Sharp, source: Tensor, limit: int, beam: int, penalty: float) -> tuple[list[int], float]:
    """The same search in plain Python, of one sentence."""
    kept: list[tuple[list[int], float]] = [([], 0.0)]
    for length in range(1, limit + 1):
        candidates = []
        for sequence, total in kept:
            if sequence and sequence[-1] == END:
                candidates.append((sequence, total))
                continue
            allowed = [END] if length == limit else [END, *WORDS]
            following = gains(model, source, sequence)
            candidates += [([*sequence, token], total + following[token]) for token in allowed]
        kept = sorted(candidates, key=lambda each: -each[1] / len(each[0]) ** penalty)[:beam]
    return max(kept, key=lambda each: each[1] / len(each[0]) ** penalty)


@pytest.mark.parametrize(("beam", "penalty"), [(1, 1.0), (2, 1.0), (3, 0.0), (3, 1.5)])
def test_a_narrow_beam_is_the_textbooks(sharp: Sharp, beam: int, penalty: float) -> None:
    limits = torch.arange(len(SOURCES)) % 4 + 1
    found = BeamSearch(beam, penalty)(sharp, SOURCES, limits)
    for source, limit, row, score in zip(SOURCES, limits.tolist(), found.tokens, found.scores.tolist(), strict=True):
        sequence, total = written_out(sharp, source, limit, beam, penalty)
        assert listed(row) == sequence
        assert score == pytest.approx(total / len(sequence) ** penalty, abs=1e-4)


def test_a_wider_beam_finds_likelier_sequences(sharp: Sharp) -> None:
    limits = torch.full((len(SOURCES),), 4)
    means = [BeamSearch(beam, 0.0)(sharp, SOURCES, limits).scores.mean().item() for beam in (1, 2, 4, 64)]
    assert means == sorted(means)
    assert means[-1] > means[0]


def test_what_is_found_for_a_sentence_does_not_depend_on_its_company(sharp: Sharp) -> None:
    limits = torch.arange(len(SOURCES)) % 4 + 1
    together = BeamSearch(2)(sharp, SOURCES, limits)
    for i in range(len(SOURCES)):
        alone = BeamSearch(2)(sharp, SOURCES[i : i + 1], limits[i : i + 1])
        assert listed(alone.tokens[0]) == listed(together.tokens[i])


def test_a_network_that_cannot_be_searched_is_named(task: TranslationTask, data: Data) -> None:
    with pytest.raises(BadInput, match="Linear cannot translate: its network lacks the methods encode and decode"):
        task.decode(nn.Linear(2, 2), only(data.test))


# --- scores ----------------------------------------------------------------------------------------------------------

SENTENCES = st.lists(
    st.sampled_from(["ein", "Hund", "Hund,", "läuft", "schnell.", "3,5", "(gut)", "don't"]), max_size=9
)


@settings(deadline=None, max_examples=60)
@given(
    pairs=st.lists(st.tuples(SENTENCES, SENTENCES.filter(bool)), min_size=1, max_size=8),
    drawn=st.lists(st.integers(0, 7), min_size=1, max_size=12),
)
def test_scores_of_any_resampling_are_sacrebleus(pairs: list[tuple[list[str], list[str]]], drawn: list[int]) -> None:
    translations, references = ([" ".join(words) for words in side] for side in zip(*pairs, strict=True))
    statistics = sentence_statistics(translations, references)
    for chosen in (list(range(len(pairs))), [index % len(pairs) for index in drawn]):
        texts = [translations[i] for i in chosen], [[references[i] for i in chosen]]
        assert bleu(statistics["bleu_statistics"][chosen]) == sacrebleu.corpus_bleu(*texts).score
        assert chrf(statistics["chrf_statistics"][chosen]) == sacrebleu.corpus_chrf(*texts).score


def test_the_signatures_in_the_docstrings_are_sacrebleus() -> None:
    for metric, score in ((sacrebleu.metrics.BLEU(), bleu), (sacrebleu.metrics.CHRF(), chrf)):
        metric.corpus_score(["a b"], [["a b"]])
        signature = str(metric.get_signature()).rpartition("|version")[0]
        assert f"Signature: {signature} (" in str(score.__doc__)


def test_without_sacrebleu_nothing_is_loaded(
    task: TranslationTask, folders: DataFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    _corpus_scores._metric.cache_clear()
    with pytest.raises(MissingExtra, match=r"kdbench\[nlp\]"):
        task.load(folders)


def test_it_learns_to_reverse_and_is_scored_by_its_translations(
    task: TranslationTask, data: Data, trained: nn.Module
) -> None:
    batch = only(data.test)
    assert not trained.training
    with torch.no_grad():
        answers = {**task.answers(trained(batch.inputs), batch), **task.decode(trained, batch)}
    metrics = {metric.name: metric for metric in task.metrics(data.spec)}
    assert list(metrics) == ["bleu", "chrf", "perplexity", "accuracy"]
    assert [name for name, metric in metrics.items() if metric.decoded] == ["bleu", "chrf"]
    scores = {name: metric.score(answers) for name, metric in metrics.items()}
    assert scores["accuracy"] > 0.9
    assert scores["perplexity"] < 1.5

    rows = [row for row in reversals() if row["split"] == "test_2016_flickr"]
    samples = task.samples(trained, replace(data, test=data.test), CPU)
    assert samples == task.samples(trained, data, CPU)
    assert [sample.splitlines()[:2] for sample in samples] == [
        [f"source: {row['en']}", f"reference: {row['de']}"] for row in rows[:5]
    ]
    texts = [sample.splitlines()[2].removeprefix("translation: ") for sample in samples]
    first = task.decode(trained, only(data.test.subset(torch.arange(5))))
    references = [[row["de"] for row in rows[:5]]]
    assert metrics["chrf"].score(first) == sacrebleu.corpus_chrf(texts, references).score > 50
    assert metrics["bleu"].score(first) == sacrebleu.corpus_bleu(texts, references).score


def test_perplexity_counts_every_token_once(task: TranslationTask, data: Data) -> None:
    model, batch = network(data.spec), only(data.validation)
    with torch.no_grad():
        output = model(batch.inputs)
    answers = task.answers(output, batch)
    nll, count = 0.0, 0
    for example, targets in zip(output.double().log_softmax(1), batch.targets, strict=True):
        for position, target in enumerate(targets.tolist()):
            if target != IGNORED:
                nll, count = nll - example[target, position].item(), count + 1
    perplexity = next(metric for metric in task.metrics(data.spec) if metric.name == "perplexity")
    assert perplexity.score(answers) == pytest.approx(math.exp(nll / count), rel=1e-5)


# --- learning from the teacher's translations ------------------------------------------------------------------------


def test_relabelled_examples_are_the_teachers_translations_in_the_same_order(
    task: TranslationTask, data: Data, trained: nn.Module
) -> None:
    split = data.train.subset(torch.arange(40))
    found = task.relabelled(split, data, trained, CPU)
    assert found.digest() == task.relabelled(split, data, trained, CPU).digest()
    assert found.inputs.shape == split.inputs.shape
    assert found.inputs[:, 0].equal(split.inputs[:, 0])
    for i in range(40):
        source = split.inputs[i, 0]
        source = source[source != PADDING]
        limit = min(data.spec.positions[0], 2 * len(source) + 10)
        alone = listed(BeamSearch(2)(trained, source[None], torch.tensor([limit])).tokens[0])
        target = found.targets[i].tolist()
        assert target == [*alone, *[IGNORED] * (len(target) - len(alone))]
        assert found.inputs[i, 1].tolist() == [START, *alone[:-1], *[PADDING] * (len(target) - len(alone))]
    own = (found.targets == split.targets).all(dim=1).double().mean()
    assert own > 0.3  # it has learnt, so that most of its answers are the data's


METHODS = (
    "kd, rkd, fitnets, attention_transfer, ensemble, dml, self_distillation, sequence_kd"
    ", 'sequence_kd[word_weight=0.5]'"
)


@pytest.fixture(scope="module")
def plan(folders: DataFolders, suite_text: Any) -> Plan:
    text = suite_text(
        tasks="'multi30k[vocab_size=280,train_examples=64,beam=2,teacher_beam=2]'",
        teachers="'transformer[layers=1,width=16,heads=2]', 'transformer[layers=1,width=16,heads=2]'",
        student="'transformer[layers=1,width=8,heads=2]'",
        methods=METHODS,
        epochs="1",
        recipe="  optimizer: adamw",
    )
    path = folders.cache / "suite.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return make_plan(load_suite(str(path)), discover(), folders)


def by_method(plan: Plan, records: list[Record]) -> dict[str, Record]:
    return {
        str(Spec(record.method, {k: v for k, v in record.params.items() if k == "word_weight"})): record
        for record in records
    }


def test_every_method_translates_unchanged(plan: Plan, tmp_path: Path) -> None:
    ended = execute(plan, RunFolder.create(tmp_path / "out", "run"), tmp_path / "out", CPU, Observer())
    records = by_method(plan, [record for records in ended for record in records])
    assert len(records) == 10
    skipped = records.pop("self_distillation")
    assert (skipped.status, skipped.reason) == ("skipped", "early exits need a task with one answer per example")
    for record in records.values():
        assert (record.status, record.reason) == ("done", None)
        assert (record.primary, record.higher_is_better) == ("bleu", True)
        assert {"bleu", "chrf", "perplexity", "accuracy", "validation_perplexity"} <= record.metrics.keys()
        assert all(math.isfinite(value) for value in record.metrics.values())
        assert len(record.samples) == 5
    asset = next((tmp_path / "out").rglob("tokenizer.json"))
    assert asset.read_bytes() == next(iter(plan.tasks.values())).data.assets["tokenizer.json"]


def trained_alone(plan: Plan, method: str, folder: Path, **changes: Any) -> Trained:
    """One trial of the plan under random teachers, the same each time."""
    trial = next(trial for trial in plan.trials if trial.method_name == method)
    loaded = next(iter(plan.tasks.values()))
    loaded = replace(loaded, data=replace(loaded.data, **changes))
    (ended,) = train(
        Cohort((trial,)), loaded, plan.architectures, random_teachers(plan), lambda _: folder / "none", CPU, Observer()
    )
    (folder / "none").unlink()
    return ended


def random_teachers(plan: Plan) -> dict[str, nn.Module]:
    spec = next(iter(plan.tasks.values())).data.spec
    return {teacher.fingerprint: network(spec, teacher.student, seed) for seed, teacher in enumerate(plan.teachers)}


def weights(trained: Trained) -> dict[str, bytes]:
    assert trained.student is not None, trained.error or trained.reason
    return {name: value.numpy().tobytes() for name, value in trained.student.state_dict().items()}


def test_sequence_kd_is_training_on_what_the_teacher_translates(plan: Plan, tmp_path: Path) -> None:
    """Under one seed, with the same batches: bit for bit what plain training makes of the relabelled data."""
    loaded = next(iter(plan.tasks.values()))
    (teacher,) = next(trial.teachers for trial in plan.trials if trial.method_name == "sequence_kd")
    taught = trained_alone(plan, "sequence_kd", tmp_path)
    network_of_teacher = random_teachers(plan)[teacher.fingerprint]
    relabelled = loaded.task.relabelled(loaded.data.train, loaded.data, network_of_teacher, CPU)
    assert relabelled.digest() != loaded.data.train.digest()
    plain = trained_alone(plan, "scratch", tmp_path, train=relabelled)
    assert weights(taught) == weights(plain)
    assert taught.curves == plain.curves
    assert weights(plain) != weights(trained_alone(plan, "scratch", tmp_path))
    assert weights(taught) == weights(trained_alone(plan, "sequence_kd", tmp_path))


# --- the real data ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not HERE, reason="nlp/multi30k.jsonl.gz is not under $KDBENCH_DATA")
def test_the_real_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Multi30k, "data_files", FILES)  # not what other tests made of them
    folders = DataFolders((*REAL.search, tmp_path), tmp_path)
    data = create("task", "multi30k[train_examples=300,vocab_size=1000,max_length=120]").load(folders)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [300, 1014, 1000]
    tokenizer = learnt_byte_pairs([], 300, tmp_path)  # not the task's, but none changes a text
    texts = [text for pairs in Multi30k().corpus(folders).values() for pair in pairs[:500] for text in pair]
    assert [text_of(tokenizer, ids) for ids in tokens_of(tokenizer, texts)] == texts
    harder = create("task", "multi30k[source=fr,target=en,test=test_2017_mscoco]").corpus(folders)
    assert {split: len(pairs) for split, pairs in harder.items()} == {"train": 29000, "validation": 1014, "test": 461}
