"""Speech to text with CTC: loss, searches, error rates, networks, tasks, and messages for people."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdbench import IGNORED, BadInput, Batch, Data, DataFolders, DataSpec, MissingData, TensorSplit
from kdbench.execution.local import execute
from kdbench.measuring.cost import deployed_cost
from kdbench.planner import make_plan
from kdbench.plugins import discover
from kdbench.spec import Spec
from kdbench.store.run_folder import RunFolder
from kdbench.suite_file import load_suite
from kdbench.training.observer import Observer
from kdbench.training.taps import TappedNetwork
from kdbench_plugins.tasks._audio import LogMel, read_mono
from kdbench_plugins.tasks._ctc import SpeechToText, Utterance
from kdbench_plugins.tasks._ctc_search import beam_search, collapsed
from kdbench_plugins.tasks._frames import NormaliseUtterances, lengths, padded, shortened
from kdbench_plugins.tasks.connected_digits import joined_waveform

FOLDERS = DataFolders.from_environment()
AN4 = FOLDERS.find("an4")
HAS_FSDD = any(map(FOLDERS.find, ("fsdd", "fsdd.zip", "speech/fsdd.zip")))
CPU = torch.device("cpu")
NETWORKS = ("ctc_gru[width=6,dropout=0]", "ctc_transformer[width=8,layers=2,heads=2,kernel=5,dropout=0]")


@dataclass(frozen=True)
class Letters(SpeechToText):
    """Utterances of an alphabet of three."""

    alphabet: ClassVar[str] = " ab"


def create(kind: str, text: str) -> object:
    return discover().create(kind, Spec.parse(text))


def spoken(transcripts: Mapping[str, int], channels: int = 3) -> list[Utterance]:
    """Random features, by transcript the number of frames."""
    random = torch.Generator().manual_seed(0)
    return [Utterance(torch.randn(channels, frames, generator=random), text) for text, frames in transcripts.items()]


SAID = {"ab a": 23, "b": 9, "aa bb": 30, "a b a": 24}


def made(subsampling: int = 2) -> tuple[Letters, Data]:
    task, utterances = Letters(subsampling=subsampling), spoken(SAID)
    return task, task.assemble(utterances, utterances[1:], utterances[2:])


def whole_batch(data: Data) -> Batch:
    (batch,) = data.train.batches([torch.arange(len(data.train))])
    return Batch(data.prepare(batch.inputs), batch.targets, batch.indices)


def random_output(data: Data, batch: int = 4, seed: int = 0) -> Tensor:
    shape = batch, data.spec.classes, *data.spec.positions
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- frames and padding -----------------------------------------------------------------------------------------------


def test_only_zeros_at_the_end_are_padding() -> None:
    signals = torch.zeros(4, 2, 6)
    signals[0, 1, 2] = 1  # zeros before it count
    signals[1] = 1
    signals[2, 0, 0] = -1
    assert lengths(signals).tolist() == [3, 6, 1, 1]
    assert shortened(torch.tensor([1, 4, 5, 8]), 4).tolist() == [1, 1, 2, 2]


def test_utterances_are_normalised_by_themselves_and_padding_stays_zero() -> None:
    short, long = (Utterance(3 + 5 * torch.randn(3, frames), "a").features for frames in (7, 20))
    short[2] = 4.0
    together = NormaliseUtterances()(padded([short, long], 24))
    for row, signal in zip(together, (short, long), strict=True):
        frames = signal.shape[1]
        expected = signal - signal.mean(1, keepdim=True)
        std = signal.std(1, correction=0, keepdim=True)
        expected = torch.where(std > 1e-6, expected / std, 0.0)
        torch.testing.assert_close(row[:, :frames], expected, rtol=1e-4, atol=1e-5)
        assert not row[:, frames:].any()


# --- rows and loss ----------------------------------------------------------------------------------------------------


def test_rows_are_the_valid_frames_of_each_utterance_in_order() -> None:
    task, data = made(subsampling=4)
    batch, output = whole_batch(data), random_output(data)
    assert (data.spec.input_shape, data.spec.positions) == ((3, 32), (8,))
    frames = [6, 3, 8, 6]
    assert task.frames(batch).tolist() == frames
    expected = torch.cat([each[:, :count].T for each, count in zip(output, frames, strict=True)])
    assert torch.equal(task.logits(output, batch), expected)
    assert task.labels(batch) is None


def test_the_loss_is_torchs_own_on_padded_tensors() -> None:
    task, data = made()
    batch = whole_batch(data)
    output = random_output(data).requires_grad_()
    loss = task.loss(task.logits(output, batch), batch)
    (gradient,) = torch.autograd.grad(loss, output)

    frames = torch.tensor([12, 5, 15, 12])
    known = batch.targets != IGNORED
    each = nn.functional.ctc_loss(
        output.permute(2, 0, 1).log_softmax(2), batch.targets.clamp(min=0), frames, known.sum(1), reduction="none"
    )
    expected = (each / torch.tensor([4.0, 1, 5, 5])).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, output)[0], rtol=1e-9, atol=1e-12)
    assert not gradient[1, :, 5:].any()
    assert loss.dtype == torch.float64


def probabilities(scores: Tensor) -> dict[tuple[int, ...], float]:
    """Of every labelling, by summing over all paths, from log-probabilities [frames, classes]."""
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(scores.shape[1]), repeat=len(scores)):
        merged = [symbol for place, symbol in enumerate(path) if place == 0 or symbol != path[place - 1]]
        labelling = tuple(symbol for symbol in merged if symbol != 0)
        found[labelling] += math.exp(sum(float(scores[frame, symbol]) for frame, symbol in enumerate(path)))
    return found


def test_the_loss_sums_over_all_alignments() -> None:
    task = Letters(subsampling=1)
    data = task.assemble(*[spoken({"aa": 5, "ab": 4})] * 3)
    batch, output = whole_batch(data), random_output(data, batch=2)
    rows = output.movedim(1, -1).log_softmax(2)
    expected = [
        -math.log(probabilities(rows[0])[2, 2]) / 2,
        -math.log(probabilities(rows[1][:4])[2, 3]) / 2,
    ]
    assert task.loss(task.logits(output, batch), batch).item() == pytest.approx(sum(expected) / 2, rel=1e-10)


def test_a_transcript_without_room_counts_nothing_and_training_refuses_it() -> None:
    task, data = made()
    targets = torch.full((4, 20), IGNORED)
    targets[:, :1] = 2
    targets[0] = 2  # twenty equal characters in twelve frames
    batch = Batch(whole_batch(data).inputs, targets, torch.arange(4))
    output = random_output(data).requires_grad_()
    loss = task.loss(task.logits(output, batch), batch)
    (gradient,) = torch.autograd.grad(loss, output)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert not gradient[0].any()
    assert gradient[1].any()
    with pytest.raises(BadInput, match=r"1 of 2 training transcripts .*'aa' in 4 frames, subsampling 2"):
        task.assemble(spoken({"aa": 4, "ab": 4}), spoken({"a": 4}), spoken({"a": 4}))


# --- searches ---------------------------------------------------------------------------------------------------------


scores_of_tiny_cases = st.tuples(st.integers(1, 5), st.integers(2, 3), st.integers(0, 10**6)).map(
    lambda drawn: 2 * torch.randn(drawn[0], drawn[1], generator=torch.Generator().manual_seed(drawn[2])).double()
)


@settings(max_examples=60, deadline=None)
@given(scores_of_tiny_cases)
def test_the_beam_finds_what_summing_over_all_alignments_finds(logits: Tensor) -> None:
    scores = logits.log_softmax(1)
    every = probabilities(scores)
    assert sum(every.values()) == pytest.approx(1)
    found = beam_search(scores.tolist(), beams=10**6, least=-math.inf)
    assert every[found] == pytest.approx(max(every.values()), rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(scores_of_tiny_cases)
def test_the_best_path_is_the_best_of_all_alignments(logits: Tensor) -> None:
    paths = itertools.product(range(logits.shape[1]), repeat=len(logits))
    best = max(paths, key=lambda path: sum(float(logits[frame, symbol]) for frame, symbol in enumerate(path)))
    assert collapsed(logits.argmax(1).tolist()) == collapsed(best)


def test_a_beam_sums_where_the_best_path_does_not() -> None:
    frames = [[math.log(0.6), math.log(0.4)]] * 2
    assert collapsed([0, 0]) == ()  # the best path, 0.36; 'a' has 0.4 * 0.4 + 2 * 0.6 * 0.4 = 0.64
    assert beam_search(frames, beams=2) == (1,)


@pytest.mark.parametrize(
    ("path", "labelling"),
    [([], ()), ([0, 0], ()), ([1, 1, 0, 1, 2, 2], (1, 1, 2)), ([0, 2, 2, 0, 0, 2], (2, 2)), ([1, 2, 1], (1, 2, 1))],
)
def test_repetitions_are_one_and_blanks_nothing(path: list[int], labelling: tuple[int, ...]) -> None:
    assert collapsed(path) == labelling


def test_unlikely_symbols_are_passed_over_without_harm() -> None:
    logits = 4 * torch.randn(60, 12, generator=torch.Generator().manual_seed(1))
    frames = logits.double().log_softmax(1).tolist()
    assert beam_search(frames, beams=8) == beam_search(frames, beams=8, least=-math.inf)


# --- error rates ------------------------------------------------------------------------------------------------------


def output_that_reads(task: SpeechToText, data: Data, texts: Sequence[str]) -> Tensor:
    """Logits whose best path is, with a blank after each character, one of `texts` an utterance."""
    output = torch.zeros(len(texts), data.spec.classes, *data.spec.positions)
    output[:, 0] = 5
    for row, text in zip(output, texts, strict=True):
        for place, character in enumerate(text):
            row[1 + task.alphabet.index(character), 2 * place] = 9
    return output


class Fixed(nn.Module):
    """Answers the same whatever it is asked."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, inputs: Tensor) -> Tensor:
        return self.output[: len(inputs)]


def test_error_rates_by_hand() -> None:
    task, utterances = Letters(subsampling=1), spoken({"ab a": 12, "b": 12, "aa bb": 12, "a b a": 12})
    data = task.assemble(utterances, utterances, utterances)
    batch = whole_batch(data)
    # right; 'a' for 'b'; nothing at all; 'a b' and a word less, of which one is another
    output = output_that_reads(task, data, ["ab a", "a", "", "a a"])
    answers = {**task.answers(output, batch), **task.decode(Fixed(output), batch)}
    assert answers["word_errors"].tolist() == [0, 1, 2, 1]
    assert answers["words"].tolist() == [2, 1, 2, 3]
    assert answers["character_errors"].tolist() == [0, 1, 5, 2]
    assert answers["characters"].tolist() == [4, 1, 5, 5]
    scores = {metric.name: metric.score(answers) for metric in task.metrics(data.spec)}
    assert scores == pytest.approx({"wer": 4 / 8, "cer": 8 / 15, "beam_wer": 4 / 8, "beam_cer": 8 / 15})
    metrics = task.metrics(data.spec)
    assert [(metric.name, metric.decoded) for metric in metrics] == [
        ("wer", False),
        ("cer", False),
        ("beam_wer", True),
        ("beam_cer", True),
    ]
    assert not any(metric.higher_is_better for metric in metrics)


def test_samples_show_what_was_said_and_what_was_understood() -> None:
    task, data = made(subsampling=1)
    output = output_that_reads(task, data, ["a b", "ab"])
    assert task.samples(Fixed(output), data, CPU) == (
        "reference: aa bb | hypothesis: a b",
        "reference: a b a | hypothesis: ab",
    )


def test_relabelled_utterances_bear_what_the_teacher_understands() -> None:
    task, data = made(subsampling=1)
    output = output_that_reads(task, data, ["b", "a a a a a", "", "ab"])
    split = task.relabelled(data.train, data, Fixed(output), CPU)
    assert isinstance(split, TensorSplit)
    assert [task.text(row) for row in split.targets.tolist()] == ["b", "a a a", "", "ab"]
    assert split.inputs is data.train.inputs
    batch = Batch(data.prepare(split.inputs), split.targets, torch.arange(4))
    assert task.loss(task.logits(output, batch), batch).isfinite()


# --- networks ---------------------------------------------------------------------------------------------------------


def network_for(text: str, spec: DataSpec) -> nn.Module:
    torch.manual_seed(0)
    return create("architecture", text).build(spec).double()


@pytest.mark.parametrize("text", [*NETWORKS, "ctc_gru[width=6,layers=1,bidirectional=false,dropout=0]"])
@pytest.mark.parametrize("subsampling", [1, 2, 3, 4, 6, 8])
def test_padding_changes_no_row(text: str, subsampling: int) -> None:
    spoken_frames = {"a": 29, "b": 9, "ab": 48, "aba": 33}
    task, utterances = Letters(subsampling=subsampling), spoken(spoken_frames)
    data = task.assemble(utterances, utterances, utterances)
    batch, network = whole_batch(data), network_for(text, data.spec)
    together = task.logits(network(batch.inputs.double()), batch).split(task.frames(batch).tolist())
    assert [len(rows) for rows in together] == [-(-frames // subsampling) for frames in spoken_frames.values()]
    for place, frames in enumerate(spoken_frames.values()):
        short = -(-frames // subsampling) * subsampling
        one = Batch(batch.inputs[place : place + 1, :, :short], batch.targets[:1], torch.zeros(1))
        torch.testing.assert_close(
            task.logits(network(one.inputs.double()), one), together[place], rtol=1e-9, atol=1e-10
        )


@pytest.mark.parametrize("text", NETWORKS)
def test_taps_are_zero_beyond_the_end_and_the_embedding_is_the_mean_before_it(text: str) -> None:
    task, data = made(subsampling=4)
    batch, network = whole_batch(data), network_for(text, data.spec)
    taps = create("architecture", text).taps(network)
    stages = [name for name in taps if name.startswith("stage")]
    seen = TappedNetwork(network, taps, taps, task)(Batch(batch.inputs.double(), batch.targets, batch.indices)).taps
    assert stages == ["stage1", "stage2", "stage3"]
    for place, frames in enumerate([6, 3, 8, 6]):
        for name in stages:
            assert seen[name].shape[2] == 8
            assert seen[name][place, :, :frames].any(dim=0).all()
            assert not seen[name][place, :, frames:].any()
        torch.testing.assert_close(seen["embedding"][place], seen["stage3"][place, :, :frames].mean(1))


@pytest.mark.parametrize("text", NETWORKS)
def test_costs_are_counted_alike_from_graph_and_from_kernels(text: str) -> None:
    spec = DataSpec((13, 64), 28, "speech", positions=(16,))
    cost = deployed_cost(create("architecture", text).build(spec), spec)
    assert cost["macs_disagreement"] == 0
    assert cost["macs"] > 16 * cost["parameters"] * 0.5


def test_the_macs_of_a_gru_network_by_hand() -> None:
    spec = DataSpec((13, 64), 28, "speech", positions=(16,))
    network = create("architecture", "ctc_gru[width=6,layers=2]").build(spec)
    convolutions = 32 * 6 * 13 * 5 + 16 * 6 * 6 * 5
    recurrent = 16 * 2 * 3 * (6 * 6 + 6 * 6 + 6 * 12 + 6 * 6)
    assert deployed_cost(network, spec)["macs"] == convolutions + recurrent + 16 * 12 * 28


@pytest.mark.parametrize("name", ["ctc_gru", "ctc_transformer"])
@pytest.mark.parametrize(
    "spec",
    [
        DataSpec((40, 100), 10),
        DataSpec((40, 100), 10, positions=(33,)),
        DataSpec((1, 8, 8), 10, positions=(8, 8)),
        DataSpec((12,), 5, vocabulary=50, positions=(12,)),
    ],
)
def test_other_tasks_are_refused(name: str, spec: DataSpec) -> None:
    with pytest.raises(BadInput, match=r"answers at every n-th frame"):
        create("architecture", name).build(spec)


@pytest.mark.parametrize("text", ["ctc_transformer[width=10,heads=4]", "ctc_transformer[kernel=4]"])
def test_impossible_sizes_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="must be"):
        create("architecture", text)


# --- AN4 on generated files -------------------------------------------------------------------------------------------


HEADER = "utt_id\tsplit\tspeaker\tstart_frame\tn_frames\twav\ttranscript"
WORDS = ("YES", "NO", "A B", "GO ON", "ONE")


def write_an4(root: Path, speakers: int = 8) -> DataFolders:
    """Utterances by so many speakers, the last two for testing; each letter is a pattern, held for eight frames."""
    random = np.random.default_rng(0)
    patterns = {letter: random.normal(size=13) for letter in " ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
    rows, features, start = [HEADER], [], 0
    for speaker in range(speakers):
        for number, word in enumerate(WORDS):
            frames = [patterns[letter] for letter in word for _ in range(8)]
            features.append(np.stack(frames) + 0.1 * random.normal(size=(len(frames), 13)))
            split = "test" if speaker >= speakers - 2 else "train"
            rows.append(f"u{speaker}{number}\t{split}\ts{speaker}\t{start}\t{len(frames)}\t\t{word}")
            start += len(frames)
    folder = root / "an4"
    folder.mkdir(parents=True)
    (folder / "utterances.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    np.save(folder / "mfcc.npy", np.concatenate(features).astype(np.float32))
    return DataFolders((root,), root / "cache")


@pytest.fixture
def an4(tmp_path: Path) -> DataFolders:
    return write_an4(tmp_path)


def test_an4_holds_speakers_out_and_keeps_features_with_their_transcripts(an4: DataFolders) -> None:
    task = create("task", "an4[validation_speakers=2]")
    data = task.load(an4)
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 10, 10)
    assert data.spec == DataSpec((13, 40), 28, "speech", positions=(10,))
    assert data.class_names[:3] == ("<blank>", "<space>", "A")
    assert json.loads(data.assets["alphabet.json"]) == list(data.class_names)
    assert [task.text(row) for row in data.test.targets.tolist()] == [*WORDS, *WORDS]
    cepstra = np.load(an4.search[0] / "an4" / "mfcc.npy")
    words = data.test.inputs[5]
    assert torch.equal(words[:, :24], torch.from_numpy(cepstra[-8 * 16 :][:24].T).half())
    assert not words[:, 24:].any()
    assert task.load(an4).train.digest() == data.train.digest()


def replaced(line: int, column: int, value: str) -> Callable[[list[str]], str]:
    def change(lines: list[str]) -> str:
        cells = lines[line - 1].split("\t")
        cells[column] = value
        return "\n".join([*lines[: line - 1], "\t".join(cells), *lines[line:]])

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: "\n".join(["utt_id\tsplit", *lines[1:]]), r"line 2: there is no 'speaker'"),
        (lambda lines: "\n".join([*lines[:3], lines[3][:12]]), r"line 4: there is no 'start_frame'"),
        (replaced(3, 3, "soon"), r"line 3: invalid literal .*'soon'"),
        (replaced(4, 3, "999999"), r"line 4: of \d+ frames, 24 from 999999 on are not there"),
        (replaced(4, 4, "0"), r"line 4: of \d+ frames, 0 from"),
        (replaced(5, 1, "dev"), r"line 5: there is no split 'dev'"),
        (replaced(6, 6, "Ünder"), r"line 6: the transcript has the character 'd'"),
        (replaced(6, 6, ""), r"line 6: the transcript is empty"),
        (lambda lines: HEADER, r"cannot hold out 2 of 0 training speakers"),
        (lambda lines: "\n".join(line for line in lines if "\ttest\t" not in line), r"has no test utterances"),
    ],
)
def test_a_damaged_table_is_named_with_its_line(
    an4: DataFolders, damage: Callable[[list[str]], str], message: str
) -> None:
    table = an4.search[0] / "an4" / "utterances.tsv"
    table.write_text(damage(table.read_text(encoding="utf-8").splitlines()), encoding="utf-8")
    with pytest.raises(BadInput, match=message) as caught:
        create("task", "an4[validation_speakers=2]").load(an4)
    assert "line" not in message or str(table) in str(caught.value)


def test_a_table_that_is_not_utf8_is_named(an4: DataFolders) -> None:
    table = an4.search[0] / "an4" / "utterances.tsv"
    table.write_bytes(table.read_bytes().replace(b"YES", b"Y\xc9S", 1))
    with pytest.raises(BadInput, match=r"utterances\.tsv is not UTF-8"):
        create("task", "an4").load(an4)


@pytest.mark.parametrize("damage", ["truncated", "pickled", "not finite", "missing"])
def test_damaged_features_are_named(an4: DataFolders, damage: str) -> None:
    path = an4.search[0] / "an4" / "mfcc.npy"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "pickled":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif damage == "not finite":
        np.save(path, np.full((4, 13), np.nan, np.float32))
    else:
        path.unlink()
    with pytest.raises(BadInput, match=r"mfcc\.npy"):
        create("task", "an4").load(an4)


def test_an4_that_is_not_here_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"(?s)an4.*put speech/an4\.zip"):
        create("task", "an4").load(DataFolders((tmp_path,), tmp_path / "cache"))


# --- connected digits on generated recordings -------------------------------------------------------------------------

DIGITS = "connected_digits[held_out=dan,validation_speaker=bob,shortest=2,longest=3]"


def write_digits(root: Path) -> DataFolders:
    """Two recordings of every digit by four speakers, all different: a tone each, 0.1 s."""
    for number, (speaker, digit, take) in enumerate(itertools.product(("ann", "bob", "cat", "dan"), range(10), (0, 5))):
        path = root / "fsdd" / "recordings" / f"{digit}_{speaker}_{take}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = 0.5 * np.sin(2 * np.pi * (200 + 40 * number) * np.arange(800) / 8000)
        soundfile.write(path, wave, 8000, subtype="PCM_16")
    return DataFolders((root,), root / "cache")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DataFolders:
    return write_digits(tmp_path_factory.mktemp("digits"))


def test_every_recording_is_in_one_string_of_its_speakers(digits: DataFolders) -> None:
    task = create("task", DIGITS)
    data = task.load(digits)
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    for split, times in ((data.train, 8), (data.validation, 2), (data.test, 2)):
        strings = [task.text(row).split(" ") for row in split.targets.tolist()]
        said = [word for string in strings for word in string]
        assert {word: said.count(word) for word in words} == dict.fromkeys(words, times)
        assert {len(string) for string in strings} <= {1, 2, 3}
    assert data.train.inputs.dtype == torch.float16
    assert data.spec.classes == 1 + len(set("".join(words)) | {" "})


def test_strings_are_the_same_each_time_and_no_two_alike(digits: DataFolders) -> None:
    first, again = (create("task", DIGITS).load(digits) for _ in range(2))
    assert first.train.digest() == again.train.digest()
    everything = torch.cat([first.train.inputs, first.validation.inputs, first.test.inputs])
    assert len({each.numpy().tobytes() for each in everything}) == len(everything)


def test_features_end_where_the_string_does(digits: DataFolders) -> None:
    task = create("task", DIGITS)
    data = task.load(digits)
    seconds = lengths(data.test.inputs) / 100
    spoken = torch.tensor([len(task.text(row).split(" ")) for row in data.test.targets.tolist()]) * 0.1
    pauses = torch.tensor([len(task.text(row).split(" ")) for row in data.test.targets.tolist()]) + 1
    assert (seconds >= spoken + 0.05 * pauses - 0.02).all()
    assert (seconds <= spoken + 0.25 * pauses + 0.02).all()


def test_a_joined_waveform_is_its_parts_with_faint_pauses() -> None:
    parts = [np.full(400, 0.5, np.float32), np.full(300, -0.5, np.float32)]
    joined = joined_waveform(parts, np.random.default_rng(0))
    loud = np.abs(joined) > 0.25
    (edges,) = np.nonzero(np.diff(loud.astype(int)))
    assert edges[1] - edges[0] == 400
    assert edges[3] - edges[2] == 300
    assert len(edges) == 4
    gaps = [edges[0] + 1, edges[2] - edges[1], len(joined) - 1 - edges[3]]
    assert all(400 <= gap <= 2000 for gap in gaps)
    assert 0.5e-3 < np.abs(joined[~loud]).mean() < 1.5e-3
    shorter, longer = (LogMel(8000, len(joined) / 8000)(torch.from_numpy(joined)[None])[0] for _ in range(2))
    assert torch.equal(shorter, longer)
    assert shorter.shape == (40, len(joined) // 80)


def test_a_truncated_recording_is_named(tmp_path: Path) -> None:
    folders = write_digits(tmp_path)
    path = tmp_path / "fsdd" / "recordings" / "3_cat_5.wav"
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(BadInput, match=r"3_cat_5\.wav is cut short by 744 bytes"):
        create("task", DIGITS).load(folders)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("held_out=eve,validation_speaker=bob", "there is no speaker 'eve'"),
        ("held_out=bob,validation_speaker=bob", "both the test and the validation strings"),
        ("shortest=4,longest=3", r"shortest \(4\) must not be above longest \(3\)"),
    ],
)
def test_impossible_strings_are_refused(digits: DataFolders, params: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        create("task", f"connected_digits[{params}]").load(digits)


# --- the real road ----------------------------------------------------------------------------------------------------


def test_every_method_runs_on_frames(tmp_path: Path, tiny_suite: Callable[..., Path]) -> None:
    folders = write_an4(tmp_path)
    suite = tiny_suite(
        tasks="'an4[validation_speakers=2]'",
        teachers="'ctc_gru[width=10]', 'ctc_transformer[width=8,heads=2,layers=2]'",
        student="'ctc_gru[width=6,layers=1]'",
        methods="kd, 'kd[masked_class=0,temperature=1]', rkd, fitnets, attention_transfer, ensemble, dml,"
        " self_distillation, sequence_kd",
        epochs="1",
    )
    plan = make_plan(load_suite(str(suite)), discover(), folders)
    records = [
        record for found in execute(plan, RunFolder(tmp_path / "run"), tmp_path, CPU, Observer()) for record in found
    ]
    reasons = {record.method: record.reason for record in records if record.status != "done"}
    assert reasons == {"self_distillation": "early exits need a task with one answer per example"}
    assert len(records) == 10
    for record in records:
        if record.status == "done":
            assert all(np.isfinite(list(record.metrics.values()))), record.method
            assert {"wer", "cer", "beam_wer", "beam_cer", "validation_wer", "agreement"} <= record.metrics.keys()
            assert len(record.samples) == 5


def test_what_is_said_is_learnt(tmp_path: Path) -> None:
    task = create("task", "an4[validation_speakers=2]")
    data = task.load(write_an4(tmp_path))
    torch.manual_seed(0)
    network = create("architecture", "ctc_gru[width=16,layers=1,dropout=0]").build(data.spec)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.02)
    batch = whole_batch(data)
    for _ in range(80):
        loss = task.loss(task.logits(network(batch.inputs), batch), batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    (unheard,) = data.test.batches([torch.arange(len(data.test))])
    unheard = Batch(data.prepare(unheard.inputs), unheard.targets, unheard.indices)
    answers = task.answers(network.eval()(unheard.inputs), unheard)
    assert answers["word_errors"].sum() <= 2
    assert answers["words"].sum() == 14


# --- the real data ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(AN4 is None, reason="the folder an4 is not under $KDBENCH_DATA")
def test_an4_is_whole() -> None:
    task = create("task", "an4")
    data = task.load(FOLDERS)
    assert len(data.train) + len(data.validation) == 948
    assert 0.08 < len(data.validation) / 948 < 0.14
    assert len(data.test) == 130
    assert sum(len(task.text(row).split(" ")) for row in data.test.targets.tolist()) == 773
    assert data.spec == DataSpec((13, 640), 28, "speech", positions=(160,))


@pytest.mark.skipif(AN4 is None, reason="the folder an4 is not under $KDBENCH_DATA")
def test_an4s_recordings_and_features_agree_in_length() -> None:
    assert AN4 is not None
    lines = (AN4 / "utterances.tsv").read_text(encoding="utf-8").splitlines()
    rows = [dict(zip(HEADER.split("\t"), line.split("\t"), strict=True)) for line in lines[1:]]
    recorded = [row for row in rows if row["wav"]]
    assert len(recorded) == 76
    for row in recorded:
        samples = len(read_mono(AN4 / row["wav"], 16000))
        assert abs(LogMel(16000, samples / 16000).frames - int(row["n_frames"])) <= 6, row["utt_id"]


@pytest.mark.skipif(not HAS_FSDD, reason="neither fsdd nor fsdd.zip is under $KDBENCH_DATA")
def test_connected_digits_are_whole() -> None:
    task = create("task", "connected_digits[passes=1]")
    data = task.load(FOLDERS)
    for split, recordings in ((data.train, 2000), (data.validation, 500), (data.test, 500)):
        assert sum(len(task.text(row).split(" ")) for row in split.targets.tolist()) == recordings
