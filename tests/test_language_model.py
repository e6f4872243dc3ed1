"""Language modelling: windows of a text, bits per character, GPT-2, attention maps, pretrained weights by content."""

from __future__ import annotations

import copy
import dataclasses
import gzip
import json
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdbench import (
    IGNORED,
    Architecture,
    BadInput,
    Batch,
    Data,
    DataFolders,
    DataSpec,
    Family,
    Method,
    MissingData,
    Needs,
    Step,
    Tap,
    full_precision,
)
from kdbench.execution.local import execute
from kdbench.measuring.cost import deployed_cost
from kdbench.measuring.record import Record
from kdbench.planner import make_plan
from kdbench.plugins import discover
from kdbench.spec import Spec
from kdbench.store.run_folder import RunFolder
from kdbench.suite_file import load_suite
from kdbench.testing import check_method
from kdbench.training.observer import Observer
from kdbench_plugins.tasks.shakespeare import CharacterTask, Shakespeare, TextLM, bits_per_character

REAL = DataFolders.from_environment()
CPU = torch.device("cpu")
WORDS = "the fox saw the dog and the dog ran to the fox.\n" * 20  # 960 characters


@pytest.fixture
def folders(tmp_path: Path) -> DataFolders:
    return DataFolders((tmp_path,), tmp_path / "cache")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given(CharacterTask):
    """A text that is given."""

    content: str

    def text(self, folders: DataFolders) -> tuple[str, str]:
        return "the text", self.content


def load(content: str, **parameters: Any) -> Data:
    return Given(content=content, **parameters).load(DataFolders((), Path("nowhere")))


def written(data: Data, ids: Tensor) -> str:
    return "".join(data.class_names[each] for each in ids.tolist())


# --- the task -------------------------------------------------------------------------------------------------------


def test_windows_by_hand() -> None:
    data = load("abcdefghij" * 9 + "cab" + "bac" + "dada", context=4, stride=3)  # 100 characters: 90, 5 and 5
    assert data.spec == DataSpec((4,), 12, modality="nlp", vocabulary=12, positions=(4,))
    assert data.class_names == ("[PAD]", "[UNK]", *"abcdefghij")
    assert [written(data, ids) for ids in data.train.inputs[:3]] == ["abcd", "defg", "ghij"]
    assert [written(data, ids) for ids in data.train.targets[:3]] == ["bcde", "efgh", "hija"]
    assert data.validation is not None
    assert data.validation.inputs.tolist() == [[4, 2, 3, 3]]  # caba|b: the rest of "cabba" after its first window
    assert data.validation.targets.tolist() == [[2, 3, 3, 2]]
    assert written(data, data.test.inputs[0]) == "cdad"
    assert written(data, data.test.targets[0]) == "dada"


def test_a_last_window_is_filled_up() -> None:
    data = load("ab" * 50, context=3)
    assert data.test.inputs.tolist() == [[3, 2, 3], [2, 0, 0]]  # babab, of which the first is not scored
    assert data.test.targets.tolist() == [[2, 3, 2], [3, IGNORED, IGNORED]]


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=40, max_size=300), st.integers(2, 40), st.integers(1, 50))
def test_every_character_but_the_first_of_a_part_is_scored_once(text: str, context: int, stride: int) -> None:
    stride = min(stride, context)
    data = load(text, context=context, stride=stride)
    ends = (0, len(text) * 90 // 100, len(text) * 95 // 100, len(text))
    known = sorted(set(text[: ends[1]]))
    assert data.class_names == ("[PAD]", "[UNK]", *known)
    numbers = {character: number for number, character in enumerate(data.class_names)}
    assert data.validation is not None
    for split, begin, end in ((data.validation, ends[1], ends[2]), (data.test, ends[2], ends[3])):
        expected = [numbers.get(character, 1) for character in text[begin:end]]
        valid = split.targets != IGNORED
        assert split.targets[valid].tolist() == expected[1:]
        assert split.inputs[valid].tolist() == expected[:-1]
        assert not split.inputs[~valid].any()
    ids = [numbers[character] for character in text[: ends[1]]]
    for window, (inputs, targets) in enumerate(zip(data.train.inputs, data.train.targets, strict=True)):
        valid, start = targets != IGNORED, window * stride
        assert inputs[valid].tolist() == ids[start : start + context][: int(valid.sum())]
        assert targets[valid].tolist() == ids[start + 1 : start + 1 + context]
        assert valid.any()
    assert start + context >= len(ids) - 1 > start  # the last window, and no other, reaches the end


def test_only_the_training_part_makes_the_vocabulary() -> None:
    data = load("ab" * 45 + "abéab" + "aaüaa", context=4)
    assert data.class_names == ("[PAD]", "[UNK]", "a", "b")
    assert data.validation is not None
    assert data.validation.targets.tolist() == [[3, 1, 2, 3]]
    assert data.test.inputs.tolist() == [[2, 2, 1, 2]]


def test_characters_beyond_the_basic_plane_are_one_each() -> None:
    data = load("🦊𝄞" * 50, context=4)
    assert data.class_names[2:] == ("𝄞", "🦊")
    assert len(data.train) == 23


def test_fewer_windows_are_the_first_ones_and_change_no_network() -> None:
    few, all_of_them = load(WORDS, context=8, train_examples=5), load(WORDS, context=8)
    assert torch.equal(few.train.inputs, all_of_them.train.inputs[:5])
    assert few.spec == all_of_them.spec
    with pytest.raises(BadInput, match="the text has 108 training windows, not 109"):
        load(WORDS, context=8, train_examples=109)


def test_overlapping_windows_take_no_memory_of_their_own() -> None:
    split = load(WORDS, context=50, stride=1).train
    assert len(split) == 864 - 50
    assert split.inputs.untyped_storage().nbytes() < 8 * 1000


def test_the_table_of_characters_leads_back_to_the_text() -> None:
    data = load(WORDS, context=16)
    table = json.loads(data.assets["characters.json"])
    assert table == {name: number for number, name in enumerate(data.class_names)}
    character = {number: name for name, number in table.items()}
    assert "".join(character[number] for number in data.train.inputs[:3].flatten().tolist()) == WORDS[:48]


def test_scores_are_those_of_the_definition() -> None:
    task, spec = Shakespeare(), DataSpec((3,), 4, modality="nlp", vocabulary=4, positions=(3,))
    output = torch.zeros(2, 4, 3)
    output[0, :, 0] = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    targets = torch.tensor([[1, 0, 2], [3, IGNORED, IGNORED]])
    answers = task.answers(output, Batch(torch.zeros(2, 3), targets, torch.arange(2)))
    metrics = task.metrics(spec)
    assert [(metric.name, metric.higher_is_better) for metric in metrics] == [
        ("bits_per_character", False),
        ("perplexity", False),
        ("accuracy", True),
    ]
    found = [metric.score(answers) for metric in metrics]
    assert found == pytest.approx([2.0, 4.0, 0.25], rel=1e-6)  # 2 bits each; of equal logits the first is told


def test_bits_are_a_mean_over_characters_not_over_windows() -> None:
    nll, positions = torch.tensor([8.0, 1.0]).double(), torch.tensor([2.0, 1.0]).double()
    assert bits_per_character(nll * math.log(2), positions) == pytest.approx(3.0, rel=1e-12)


class Alphabet(nn.Module):
    """Sure that the next token's number is one higher; [batch, 30, length]."""

    def __init__(self, certainty: float) -> None:
        super().__init__()
        self.certainty = certainty
        self.lengths: list[int] = []

    def forward(self, tokens: Tensor) -> Tensor:
        self.lengths.append(int((tokens != 0).sum()))
        return self.certainty * nn.functional.one_hot((tokens + 1) % 30, 30).float().movedim(2, 1)


def test_students_write_texts_the_same_each_time() -> None:
    data = load("abcdefghijklmnopqrstuvwxyz{|" * 10, context=5)
    task = Given(content="", prompt="ef", sample_length=9, context=5)
    network, state = Alphabet(1000.0), torch.get_rng_state()
    assert task.samples(network, data, CPU) == ("efghijklmno",)
    assert network.lengths == [2, 3, 4, 5, 5, 5, 5, 5, 5]
    unsure = Alphabet(0.0)
    texts = [dataclasses.replace(task, sample_length=400).samples(unsure, data, CPU)[0] for _ in range(2)]
    assert texts[0] == texts[1]
    assert set(texts[0]) == set(data.class_names[2:])  # padding and unknown are never drawn
    assert torch.equal(torch.get_rng_state(), state)


def test_a_lower_temperature_is_surer() -> None:
    data = load("abcdefghijklmnopqrstuvwxyz{|" * 10, context=5)

    def steps(temperature: float) -> int:
        (text,) = Given(content="", prompt="a", temperature=temperature).samples(Alphabet(2.0), data, CPU)
        return sum(ord(b) - ord(a) == 1 for a, b in pairwise(text))

    assert steps(0.2) > 2 * steps(2.0)


def test_the_users_own_text(folders: DataFolders, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("é\r\n" * 100, encoding="utf-8", newline="")
    (tmp_path / "own.txt.gz").write_bytes(gzip.compress("é\r\n".encode() * 100))
    plain, packed = (TextLM(path=name, context=16).load(folders) for name in ("own.txt", "own.txt.gz"))
    assert plain.class_names[2:] == ("\n", "\r", "é")
    assert plain.train.digest() == packed.train.digest()


def test_texts_that_cannot_be_used_are_refused(folders: DataFolders, tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"fox\nd\xf6g\n" * 50)
    (tmp_path / "short.txt").write_text("fox")
    (tmp_path / "half.gz").write_bytes(gzip.compress(WORDS.encode())[:50])
    with pytest.raises(BadInput, match=r"latin\.txt, line 2: not UTF-8"):
        TextLM(path="latin.txt").load(folders)
    with pytest.raises(BadInput, match=r"short\.txt has 3 characters: too few"):
        TextLM(path="short.txt").load(folders)
    with pytest.raises(BadInput, match=r"cannot read .*half\.gz"):
        TextLM(path="half.gz").load(folders)
    with pytest.raises(MissingData, match=r"there is no file 'none\.txt'"):
        TextLM(path="none.txt").load(folders)
    with pytest.raises(BadInput, match="prompt must hold a character"):
        discover().create("task", Spec("shakespeare", {"prompt": ""}))
    with pytest.raises(BadInput, match="a stride of 9 leaves out characters between windows of 8"):
        discover().create("task", Spec.parse("shakespeare[context=8,stride=9]"))


def test_tiny_shakespeare_is_what_it_is_known_to_be() -> None:
    (file,) = Shakespeare.data_files
    if not REAL.packed(file):
        pytest.skip(f"{file.name} is not under $KDBENCH_DATA")
    data = Shakespeare(context=64).load(REAL)
    assert data.spec.classes == 65 + 2
    assert data.validation is not None
    counts = [int((split.targets != IGNORED).sum()) for split in (data.train, data.validation, data.test)]
    assert [count + 1 for count in counts] == [1_003_854, 55_770, 55_770]
    assert written(data, data.train.inputs[0]).startswith("First Citizen:\nBefore we proceed any further")
    assert not any((split.inputs == 1).any() for split in (data.train, data.validation, data.test))


# --- networks -------------------------------------------------------------------------------------------------------

SPEC = DataSpec((9,), 40, modality="nlp", vocabulary=40, positions=(9,))
TEXTS = DataSpec((9,), 3, modality="nlp", vocabulary=40)
TOKENS = torch.tensor([[2, 7, 31, 12, 3, 8, 9, 2, 39], [5, 5, 1, 20, 6, 0, 0, 0, 0]])


def network(text: str, spec: DataSpec = SPEC) -> tuple[Any, dict[str, Tap]]:
    built: Architecture = discover().create("architecture", Spec.parse(text))
    torch.manual_seed(0)
    made = built.build(spec)
    return made, dict(built.taps(made))


def tapped(made: nn.Module, taps: Mapping[str, Tap], tokens: Tensor = TOKENS) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _, __, output: seen.update({name: output})

    handles = [made.get_submodule(tap.module).register_forward_hook(keep(name)) for name, tap in taps.items()]
    with torch.no_grad():
        seen["logits"] = made(tokens)
    for handle in handles:
        handle.remove()
    return seen


def test_no_position_looks_ahead() -> None:
    made, _ = network("gpt2[layers=2,width=16]")
    made.eval().double()
    changed = TOKENS.clone()
    changed[:, 5] = 17
    with torch.no_grad():
        before, after = made(TOKENS), made(changed)
    assert before.shape == (2, 40, 9)
    torch.testing.assert_close(before[:, :, :5], after[:, :, :5], rtol=0, atol=1e-14)
    assert (before - after).abs().amax((0, 1))[5:].min() > 1e-6
    with torch.no_grad():
        torch.testing.assert_close(before[1:, :, :5], made(TOKENS[1:, :5]), rtol=0, atol=1e-12)


def test_taps_of_gpt2_are_what_transformers_calls_them() -> None:
    made, taps = network("gpt2[layers=3,width=24,heads=3]")
    seen = tapped(made.eval(), taps)
    with torch.no_grad():
        expected = made.transformer(TOKENS, output_hidden_states=True, output_attentions=True)
    kinds = ("stage", "query", "key", "value", "attention")
    assert taps.keys() == {"embedding", *(f"{kind}{i}" for kind in kinds for i in (1, 2, 3))}
    assert torch.equal(seen["stage1"], expected.hidden_states[1])
    assert torch.equal(seen["stage2"], expected.hidden_states[2])
    assert torch.equal(made.transformer.ln_f(seen["stage3"]), expected.last_hidden_state)
    assert torch.equal(seen["logits"], (expected.last_hidden_state @ made.transformer.wte.weight.T).movedim(2, 1))
    means = torch.stack([expected.last_hidden_state[0].mean(0), expected.last_hidden_state[1, :5].mean(0)])
    torch.testing.assert_close(seen["embedding"], means)
    for number in (1, 2, 3):
        assert torch.equal(seen[f"attention{number}"], expected.attentions[number - 1])
        together = torch.cat([seen[f"{kind}{number}"] for kind in ("query", "key", "value")], dim=2)
        block = made.transformer.h[number - 1]
        before = seen[f"stage{number - 1}"] if number > 1 else expected.hidden_states[0]
        assert torch.equal(together, block.attn.c_attn(block.ln_1(before)))


@pytest.mark.parametrize(("text", "spec"), [("gpt2", SPEC), ("bert", TEXTS)])
def test_attention_maps_come_from_queries_and_keys(text: str, spec: DataSpec) -> None:
    made, taps = network(f"{text}[layers=2,width=24,heads=3,dropout=0.5]", spec)
    seen = tapped(made.train(), taps)  # in training too: what dropout leaves of the maps comes after the tap
    for number in (1, 2):
        maps = seen[f"attention{number}"]
        assert maps.shape == (2, 3, 9, 9)
        torch.testing.assert_close(maps.sum(3), torch.ones(2, 3, 9))
        query, key = (seen[f"{kind}{number}"].unflatten(2, (3, 8)).transpose(1, 2) for kind in ("query", "key"))
        scores = query @ key.transpose(2, 3) / math.sqrt(8)
        hidden = torch.ones(9, 9).triu(1).bool() if text == "gpt2" else (TOKENS == 0)[:, None, None]
        torch.testing.assert_close(maps, scores.masked_fill(hidden, -math.inf).softmax(3))


@dataclasses.dataclass(frozen=True)
class AttentionMaps(Method):
    """Follows the teacher's attention.

    Wang et al. 2020, section 3.1: CE + mean over rows of KL(teacher || student), as in MiniLM.
    """

    family: ClassVar[Family] = "relation"
    paper: ClassVar[str] = "Wang et al. 2020, arXiv:2002.10957"

    @property
    def needs(self) -> Needs:
        return Needs(student=("logits", "attention2"), teacher=("attention4",))

    def losses(self, step: Step) -> dict[str, Tensor]:
        own, goal = full_precision(step.student["attention2"]), full_precision(step.teacher["attention4"])
        torch.testing.assert_close(own.sum(3), torch.ones_like(own[..., 0]), rtol=0.02, atol=0)
        maps = (goal * (goal.log() - own.log())).sum(3).mean()
        return {"task": step.task_loss(step.student["logits"]), "maps": maps}


def test_methods_on_attention_maps_can_be_checked() -> None:
    check_method(AttentionMaps())


@pytest.mark.parametrize(("text", "spec"), [("gpt2", SPEC), ("bert", TEXTS)])
@pytest.mark.parametrize("watched", [False, True])
def test_attention_is_the_librarys_own_bit_for_bit(text: str, spec: DataSpec, watched: bool) -> None:
    made, taps = network(f"{text}[layers=2,width=16,dropout=0.2]", spec)
    plain = copy.deepcopy(made)
    (plain.transformer if text == "gpt2" else plain.model).set_attn_implementation("eager")
    for tap in taps.values() if watched else ():
        made.get_submodule(tap.module).register_forward_hook(lambda *_: None)
    answers = []
    for each in (made, plain):
        torch.manual_seed(3)
        answers.append(each(TOKENS))
        answers[-1].square().sum().backward()
    assert torch.equal(*answers)
    gradients = [[parameter.grad for parameter in each.parameters()] for each in (made, plain)]
    assert all(torch.equal(own, other) for own, other in zip(*gradients, strict=True))
    assert made.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("text", ["gpt2", "gpt2[layers=3,width=24,heads=3]"])
def test_both_counters_agree(text: str) -> None:
    assert deployed_cost(network(text)[0], SPEC)["macs_disagreement"] == 0


def test_tasks_that_do_not_fit_are_refused() -> None:
    for spec in (TEXTS, DataSpec((9,), 5, modality="nlp", vocabulary=40, positions=(9,))):
        with pytest.raises(BadInput, match="answers with a token at each position"):
            network("gpt2", spec)
    with pytest.raises(BadInput, match="takes token ids"):
        network("gpt2", DataSpec((3, 8, 8), 2))
    for text in ("bert", "text_cnn"):
        with pytest.raises(BadInput, match=r"answers once for each text, not at positions \[9\]"):
            network(text, SPEC)
    with pytest.raises(BadInput, match="width must be a multiple of heads, not 10 for 3"):
        network("gpt2[width=10,heads=3]")


# --- pretrained weights ---------------------------------------------------------------------------------------------


def save_gpt2(folder: Path, seed: int = 7, **settings: Any) -> Path:
    """A tiny GPT-2 with its head, as published ones are; of the 20 tokens that `WORDS` has, if not told otherwise."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 20, "n_positions": 16, "n_embd": 8, "n_layer": 2, "n_head": 2}
    torch.manual_seed(seed)
    config = GPT2Config(**{**sizes, "bos_token_id": None, "eos_token_id": None, **settings})
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_pretrained_weights_are_loaded_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file

    folder = save_gpt2(tmp_path / "gpt2", vocab_size=40)
    capfd.readouterr()
    made, taps = network(f"gpt2[pretrained={folder}]")
    assert capfd.readouterr() == ("", "")
    published = load_file(folder / "model.safetensors")
    loaded = {name: value for name, value in made.state_dict().items() if name in published}
    assert loaded.keys() == made.state_dict().keys()
    assert all(torch.equal(value, published[name]) for name, value in loaded.items())
    assert {"stage2", "query2", "attention2"} < taps.keys()
    assert all(module.training for module in made.modules())


def test_pretrained_networks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = save_gpt2(tmp_path / "gpt2")
    with pytest.raises(BadInput, match="knows 20 tokens, but the task has 40"):
        network(f"gpt2[pretrained={folder}]")
    with pytest.raises(BadInput, match="is no BERT model, but gpt2"):
        network(f"bert[pretrained={folder}]", TEXTS)
    untied = save_gpt2(tmp_path / "untied", vocab_size=40, tie_word_embeddings=False)
    with pytest.raises(BadInput, match="its output layer is not its embedding"):
        network(f"gpt2[pretrained={untied}]")
    short = save_gpt2(tmp_path / "short", vocab_size=40, n_positions=8)
    with pytest.raises(BadInput, match="takes 8 tokens at most, not 9"):
        network(f"gpt2[pretrained={short}]")


def digest(text: str) -> str:
    return discover().create("architecture", Spec.parse(text)).digest()


def test_a_pretrained_model_is_known_by_its_content(tmp_path: Path) -> None:
    first, copied, other = (save_gpt2(tmp_path / name, seed) for name, seed in (("a", 7), ("b", 7), ("c", 8)))
    digests = [digest(f"gpt2[pretrained={folder}]") for folder in (first, copied, other)]
    assert digests[0] == digests[1] != digests[2]
    assert digest(f"bert[pretrained={first}]") == digests[0]
    (first / "README.md").write_text("what this is")
    assert digest(f"gpt2[pretrained={first}]") == digests[0]
    config = (first / "config.json").read_text()
    (first / "config.json").write_text(config.replace("gelu_new", "relu"))
    assert digest(f"gpt2[pretrained={first}]") not in digests
    assert digest("gpt2") == digest("bert[layers=3]") == digest("text_cnn") == ""


def test_a_model_of_the_hub_is_known_by_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    monkeypatch.setattr(
        transformers.AutoConfig, "from_pretrained", lambda name, **_: SimpleNamespace(_commit_hash=f"commit of {name}")
    )
    assert digest("bert[pretrained=someone/model]") == "commit of someone/model"

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", offline)
    with pytest.raises(MissingData, match=r"no pretrained model 'someone/model' on this machine.*no network"):
        digest("gpt2[pretrained=someone/model]")


def test_other_weights_under_the_same_path_are_other_trials(tmp_path: Path, suite_text: Callable[..., str]) -> None:
    (tmp_path / "own.txt").write_text(WORDS)
    vocabulary = len(set(WORDS)) + 2

    def fingerprints(seed: int) -> dict[str, str]:
        save_gpt2(tmp_path / "teacher", seed, vocab_size=vocabulary)
        teacher = f"'gpt2[pretrained={tmp_path / 'teacher'}]'"
        plan = planned(tmp_path, suite_text, teachers=teacher, methods="kd, distilbert")
        return {trial.method_name: trial.fingerprint for trial in (*plan.trials, *plan.teachers)}

    first, again, other = fingerprints(1), fingerprints(1), fingerprints(2)
    assert first == again
    assert first.keys() == {"scratch", "kd", "distilbert", "teacher"}
    assert all(first[name] != other[name] for name in first)  # scratch is compared with the teacher


# --- the whole road -------------------------------------------------------------------------------------------------

METHODS = (
    "kd, rkd, fitnets, attention_transfer, ensemble, dml, self_distillation, distilbert, minilm, "
    "'patient_kd[patience_weight=1]'"
)


def planned(folder: Path, suite_text: Callable[..., str], **changes: str) -> Any:
    text = suite_text(
        **{
            "tasks": "'text_lm[path=own.txt,context=16,sample_length=12]'",
            "student": "'gpt2[layers=2,width=8]'",
            "epochs": "1",
            **changes,
        }
    )
    (folder / "suite.yaml").write_text(text)
    return make_plan(load_suite(str(folder / "suite.yaml")), discover(), DataFolders((folder,), folder))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory, suite_text: Callable[..., str]) -> dict[str, Record]:
    """Every method, an epoch each."""
    root = tmp_path_factory.mktemp("language")
    (root / "own.txt").write_text(WORDS)
    teacher = "'gpt2[layers=4,width=8]'"
    plan = planned(root, suite_text, teachers=f"{teacher}, {teacher}", methods=METHODS)
    ended = execute(plan, RunFolder.create(root / "out", "run"), root / "out", CPU, Observer())
    return {record.method: record for found in ended for record in found}


def test_every_method_trains_on_language_unchanged(records: dict[str, Record]) -> None:
    found = dict(records)
    assert found.pop("self_distillation").reason == "early exits need a task with one answer per example"
    assert len(found) == 10
    for name, record in found.items():
        assert (record.status, record.reason) == ("done", None), name
        assert (record.primary, record.higher_is_better) == ("bits_per_character", False)
        assert {"perplexity", "accuracy", "agreement", "teacher_bits_per_character"} <= record.metrics.keys()
        assert all(math.isfinite(value) for value in record.metrics.values()), name
        assert record.metrics["perplexity"] == pytest.approx(2 ** record.metrics["bits_per_character"], rel=1e-9)
        assert record.metrics["macs_disagreement"] == 0
        (text,) = record.samples
        assert text.startswith("\n")
        assert len(text) == 13


def test_starting_from_the_teacher_is_no_handicap(records: dict[str, Record]) -> None:
    # after so short a training the start is all there is: the teacher has had its epoch before
    assert records["distilbert"].metrics["bits_per_character"] < records["kd"].metrics["bits_per_character"]
