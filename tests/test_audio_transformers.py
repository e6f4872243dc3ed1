"""Transformers for sound: their taps, their cost, pretrained ones, and the waveforms that they are given."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from kdbench import Architecture, BadInput, Batch, Data, DataFolders, DataSpec, MissingData, MissingExtra, Task
from kdbench.execution.local import execute
from kdbench.measuring.cost import deployed_cost
from kdbench.plan import Plan
from kdbench.planner import make_plan
from kdbench.plugins import discover
from kdbench.spec import Spec
from kdbench.store.run_folder import RunFolder
from kdbench.suite_file import load_suite
from kdbench.training.observer import Observer
from kdbench.training.taps import TappedNetwork
from kdbench_plugins.architectures.audio_transformers import resized_positions

CLASSES = 5
SPECTROGRAM = DataSpec((40, 100), CLASSES, "speech")
WAVEFORM = DataSpec((1, 2000), CLASSES, "speech")
SMALL = {
    "ast": (SPECTROGRAM, "ast[layers=3,width=16,heads=4,patch=8,stride=6]"),
    "wav2vec2": (WAVEFORM, "wav2vec2[layers=3,width=24,heads=4,channels=8]"),
}
both = pytest.mark.parametrize("name", SMALL)


def create(text: str) -> Architecture:
    return discover().create("architecture", Spec.parse(text))


def built(text: str, spec: DataSpec) -> nn.Module:
    torch.manual_seed(0)
    return create(text).build(spec)


def inputs(spec: DataSpec, batch: int = 3) -> Tensor:
    return torch.randn(batch, *spec.input_shape, generator=torch.Generator().manual_seed(1))


def tapped(text: str, network: nn.Module, given: Tensor) -> dict[str, Tensor]:
    taps = create(text).taps(network)
    found = TappedNetwork(network, taps, taps, Task())
    batch = Batch(given, torch.zeros(len(given), dtype=torch.long), torch.arange(len(given)))
    seen = found(batch).taps
    found.detach_hooks()
    return seen


# --- networks ---------------------------------------------------------------------------------------------------------


@both
def test_taps_are_where_the_docstrings_say(name: str) -> None:
    spec, text = SMALL[name]
    network = built(text, spec).eval()
    seen = tapped(text, network, inputs(spec))
    width, positions = (16, 2 + 6 * 16) if name == "ast" else (24, 6)
    assert seen.keys() == {
        "logits",
        "embedding",
        *(f"{tap}{n}" for tap in ("stage", "query", "key", "value", "attention") for n in (1, 2, 3)),
    }
    for number in (1, 2, 3):
        assert {seen[f"{tap}{number}"].shape for tap in ("stage", "query", "key", "value")} == {(3, width, positions)}
        assert seen[f"attention{number}"].shape == (3, 4, positions, positions)
        torch.testing.assert_close(seen[f"attention{number}"].sum(-1), torch.ones(3, 4, positions))
    last = seen["stage3"].movedim(1, -1)
    if name == "ast":
        normed = network.model.audio_spectrogram_transformer.layernorm(last)
        expected = (normed[:, 0] + normed[:, 1]) / 2
    else:
        expected = network.model.projector(last).mean(1)
    torch.testing.assert_close(seen["embedding"], expected)
    torch.testing.assert_close(seen["logits"], network.model.classifier(seen["embedding"]))


@both
def test_queries_and_keys_make_the_attention(name: str) -> None:
    spec, text = SMALL[name]
    seen = tapped(text, built(text, spec).eval(), inputs(spec))
    query, key = (seen[tap].unflatten(1, (4, -1)) for tap in ("query2", "key2"))
    expected = (query.transpose(2, 3) @ key / query.shape[2] ** 0.5).softmax(-1)
    torch.testing.assert_close(seen["attention2"], expected)


@both
def test_it_answers_what_the_librarys_own_network_answers(name: str) -> None:
    import transformers

    spec, text = SMALL[name]
    network = built(text, spec).eval()
    network.model.config._attn_implementation = "eager"
    kind = transformers.ASTForAudioClassification if name == "ast" else transformers.Wav2Vec2ForSequenceClassification
    own = kind(network.model.config).eval()
    own.load_state_dict(network.model.state_dict(), strict=False)
    given = inputs(spec)
    if name == "ast":
        expected = own(given.transpose(1, 2)).logits
    else:
        extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
        prepared = extractor(list(given[:, 0].numpy()), sampling_rate=16000, return_tensors="pt")["input_values"]
        expected = own(prepared).logits
    torch.testing.assert_close(built(text, spec).eval()(given), expected)


@both
def test_both_counters_agree_with_the_cost_by_hand(name: str) -> None:
    spec, text = SMALL[name]
    cost = deployed_cost(built(text, spec), spec)
    if name == "ast":
        width, tokens = 16, 98
        before, after = 6 * 16 * 8 * 8 * width, width * CLASSES
    else:
        width, channels = 24, 8
        frames, samples = [], 2000
        for kernel, stride in zip((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), strict=True):
            samples = (samples - kernel) // stride + 1
            frames.append(samples * kernel)
        tokens = samples
        convolutions = frames[0] * channels + sum(frames[1:]) * channels**2
        places = (tokens + 1) * 128 * width * width // 8  # in 8 groups; the last one is cut off
        before = convolutions + tokens * channels * width + places
        after = tokens * width * width + width * CLASSES
    layer = 12 * tokens * width**2 + 2 * tokens**2 * width
    assert cost["macs"] == before + 3 * layer + after
    assert cost["macs_disagreement"] == 0


@both
def test_training_draws_from_torch_alone_and_leaves_no_tap_out(name: str) -> None:
    """LayerDrop would leave taps out; masks of features are drawn from numpy, which no trial keeps for itself."""
    spec, text = SMALL[name]
    network, given = built(text.replace("]", ",dropout=0.3]"), spec).train(), inputs(spec)
    before = np.random.get_state()[1].tolist()
    outcomes = []
    for seed in (1, 1, *range(2, 12)):
        torch.manual_seed(seed)
        outcomes.append(tapped(text, network, given))
    assert np.random.get_state()[1].tolist() == before
    assert {len(seen) for seen in outcomes} == {2 + 5 * 3}
    assert outcomes[0]["logits"].equal(outcomes[1]["logits"])
    assert not outcomes[0]["logits"].equal(outcomes[2]["logits"])


def test_ast_can_tell_its_two_marks_apart() -> None:
    embeddings = built("ast[width=16]", SPECTROGRAM).model.audio_spectrogram_transformer.embeddings
    assert not embeddings.cls_token.equal(embeddings.distillation_token)
    for drawn in (embeddings.cls_token, embeddings.distillation_token, embeddings.position_embeddings):
        assert 0 < drawn.abs().max() < 0.1


def test_loudness_and_offset_change_nothing() -> None:
    network = built(SMALL["wav2vec2"][1], WAVEFORM).eval()
    given = inputs(WAVEFORM)
    torch.testing.assert_close(network(7 * given - 3), network(given), rtol=1e-3, atol=1e-4)
    assert network(torch.zeros(1, 1, 2000)).isfinite().all()


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("ast", DataSpec((3, 32, 32), 2), r"takes sound features \[bands, frames\], not inputs of shape \[3, 32, 32\]"),
        ("ast", DataSpec((12, 100), 2), "patches of 16x16 do not fit 12 bands, 100 frames"),
        ("wav2vec2", SPECTROGRAM, r"takes waveforms \[1, samples\], not .*\[40, 100\]\n.*features=waveform"),
        ("wav2vec2", DataSpec((1, 399), 2), "399 samples are too few"),
        ("ast[width=10,heads=3]", SPECTROGRAM, "width must be a multiple of heads, not 10 for 3"),
        ("wav2vec2[width=10,heads=3]", WAVEFORM, "width must be a multiple of heads, not 10 for 3"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, spec: DataSpec, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        built(text, spec)


def test_the_least_waveform_is_taken() -> None:
    assert built("wav2vec2[width=16]", DataSpec((1, 400), 2)).eval()(torch.randn(2, 1, 400)).shape == (2, 2)


@both
def test_a_missing_library_is_named_with_its_cure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = create(name)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=rf"'{name}'.*\n.*kdbench\[speech\]"):
        made.build(SMALL[name][0])


# --- pretrained -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny networks as published ones are: of other sizes and classes, with LayerDrop and masks, the head another."""
    create("ast")  # a plugin is loaded through the registry, which makes torchvision importable
    import transformers

    folder = tmp_path_factory.mktemp("pretrained")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    ast = transformers.ASTConfig(**sizes, patch_size=8, num_mel_bins=48, max_length=128, num_labels=9)
    wav2vec2 = transformers.Wav2Vec2Config(**sizes, conv_dim=(8,) * 7, vocab_size=11, layerdrop=0.9, mask_time_prob=0.9)
    torch.manual_seed(7)
    transformers.ASTForAudioClassification(ast).save_pretrained(folder / "ast")
    transformers.Wav2Vec2ForCTC(wav2vec2).save_pretrained(folder / "wav2vec2")
    return {name: folder / name for name in SMALL}


@both
def test_pretrained_weights_are_loaded_without_a_word(
    name: str, pretrained: dict[str, Path], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    import transformers

    library = transformers.ASTForAudioClassification if name == "ast" else transformers.Wav2Vec2ForCTC
    published = library.from_pretrained(pretrained[name]).state_dict()
    spec = DataSpec((48, 128), CLASSES, "speech") if name == "ast" else WAVEFORM
    text = f"{name}[pretrained={pretrained[name]}]"
    capfd.readouterr()
    with caplog.at_level(logging.DEBUG):
        network = built(text, spec)
    assert all(module.training for module in network.modules())
    loaded = network.model.state_dict()
    new = {"classifier.weight", "classifier.bias", "projector.weight", "projector.bias"}
    new |= {"classifier.dense.weight", "classifier.dense.bias"}
    assert loaded.keys() - published.keys() <= new
    assert published.keys() - loaded.keys() <= {"lm_head.weight", "lm_head.bias", "wav2vec2.masked_spec_embed"}
    shared = (published.keys() & loaded.keys()) - new
    assert len(shared) > 30
    assert all(torch.equal(published[key], loaded[key]) for key in shared)
    seen = [tapped(text, network, inputs(spec)) for _ in range(5)]  # LayerDrop at 0.9 would leave some taps out
    assert {len(each) for each in seen} == {2 + 5 * 2}
    assert seen[0]["logits"].shape == (3, CLASSES)
    assert capfd.readouterr() == ("", "")
    assert "transformers" not in {record.name.partition(".")[0] for record in caplog.records}
    assert create(text).digest() != create(name).digest() == ""


def test_pretrained_positions_are_interpolated(pretrained: dict[str, Path]) -> None:
    text = f"ast[pretrained={pretrained['ast']}]"
    network, same = built(text, SPECTROGRAM), built(text, DataSpec((48, 128), CLASSES, "speech"))
    small, large = (each.model.audio_spectrogram_transformer.embeddings.position_embeddings for each in (network, same))
    assert (small.shape, large.shape) == ((1, 2 + 4 * 10, 16), (1, 2 + 5 * 13, 16))
    assert small.requires_grad
    assert small[:, :2].equal(large[:, :2])
    assert network.eval()(inputs(SPECTROGRAM)).shape == (3, CLASSES)
    again = built(text, SPECTROGRAM)  # a stored student is put back into such a network
    again.load_state_dict(network.state_dict())
    assert again.eval()(inputs(SPECTROGRAM)).equal(network(inputs(SPECTROGRAM)))


def test_positions_on_another_grid() -> None:
    positions = torch.tensor([90.0, 91.0, 0.0, 8.0, 4.0, 12.0]).reshape(1, 6, 1)  # two marks, then a grid of 2x2
    assert resized_positions(positions, (2, 2), (2, 2)).equal(positions)
    wider = resized_positions(positions, (2, 2), (2, 4)).flatten().tolist()
    assert wider == [90, 91, 0, 2, 6, 8, 4, 6, 10, 12]
    narrower = resized_positions(positions, (2, 2), (1, 2)).flatten().tolist()
    assert narrower == [90, 91, 2, 10]


@both
def test_pretrained_networks_that_do_not_fit_are_refused(
    name: str, pretrained: dict[str, Path], tmp_path: Path
) -> None:
    spec, other = SMALL[name][0], next(each for each in SMALL if each != name)
    with pytest.raises(BadInput, match=f"is no {'WAV2VEC2' if name == 'wav2vec2' else 'AUDIO-SPECTROGRAM'}"):
        built(f"{name}[pretrained={pretrained[other]}]", spec)
    (tmp_path / "config.json").write_bytes((pretrained[name] / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((pretrained[name] / "model.safetensors").read_bytes()[:500])
    with pytest.raises(BadInput, match="cannot read the pretrained model"):
        built(f"{name}[pretrained={tmp_path}]", spec)
    few = DataSpec((6, 100) if name == "ast" else (1, 300), 2)
    with pytest.raises(BadInput, match=r"patches of 8x8 do not fit|300 samples are too few"):
        built(f"{name}[pretrained={pretrained[name]}]", few)


@both
def test_a_pretrained_model_out_of_reach(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", offline)
    with pytest.raises(MissingData, match=r"no pretrained model 'someone/model' on this machine"):
        built(f"{name}[pretrained=someone/model]", SMALL[name][0])


# --- waveforms --------------------------------------------------------------------------------------------------------


def write_voices(root: Path, recordings: int = 12, rate: int = 8000) -> DataFolders:
    """Two classes of recordings, of a high and of a low tone in noise, 0.2 s of 16 bits."""
    times, rng = np.arange(round(0.2 * rate)) / rate, np.random.default_rng(0)
    for name, hertz in (("high", 1500), ("low", 300)):
        (root / "voices" / name).mkdir(parents=True)
        for i in range(recordings):
            wave = 0.5 * np.sin(2 * np.pi * hertz * times + i) + 0.1 * rng.standard_normal(len(times))
            soundfile.write(root / "voices" / name / f"{i:02}.wav", wave, rate, subtype="PCM_16")
    return DataFolders((root,), root / "cache")


def load(text: str, folders: DataFolders) -> Data:
    return discover().create("task", Spec.parse(text)).load(folders)


def test_waveforms_are_the_samples_themselves(tmp_path: Path) -> None:
    folders = write_voices(tmp_path)
    data = load("audio_folder[path=voices,sample_rate=8000,seconds=0.25,features=waveform]", folders)
    assert data.spec == DataSpec((1, 2000), 2, "speech")
    assert data.train.inputs.dtype == torch.int16
    kept = {each[0, 200:1800].numpy().tobytes() for split in (data.train, data.test) for each in split.inputs}
    files = (tmp_path / "voices").rglob("*.wav")
    assert kept == {soundfile.read(file, dtype="int16")[0].tobytes() for file in files}
    assert not data.train.inputs[:, :, [*range(200), *range(1800, 2000)]].any()
    prepared = data.prepare(data.train.inputs)
    assert prepared.dtype == torch.float32
    assert prepared.mean().item() == pytest.approx(0, abs=1e-5)
    assert prepared.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_full_scale_stays_within_16_bits(tmp_path: Path) -> None:
    from kdbench_plugins.tasks._audio import Waveform

    path = tmp_path / "loud.wav"
    soundfile.write(path, np.array([1.5, -1.5, 0.5, 0.0], dtype=np.float32), 8000, subtype="FLOAT")
    assert Waveform(8000, 4 / 8000).features_of([path]).tolist() == [[[32767, -32768, 16384, 0]]]
    with pytest.raises(BadInput, match="shorter than one sample"):
        Waveform(8000, 0.00001)


@pytest.fixture
def planned(tiny_suite: Callable[..., Path], tmp_path: Path) -> Callable[..., Plan]:
    def plan(features: str, **changes: str) -> Plan:
        folders = write_voices(tmp_path)
        task = f"'audio_folder[path=voices,sample_rate=8000,seconds=0.2,features={features}]'"
        return make_plan(load_suite(str(tiny_suite(tasks=task, epochs="1", **changes))), discover(), folders)

    return plan


METHODS = """kd, rkd, fitnets, attention_transfer, ensemble, dml, self_distillation, patient_kd,
    'minilm[student_layer=1, teacher_layer=2, relation_heads=2]',
    'minilm[student_layer=1, teacher_layer=2, relation_heads=3]'"""


@both
def test_every_method_runs_on_them(name: str, planned: Callable[..., Plan], tmp_path: Path) -> None:
    sizes = "patch=8,stride=8" if name == "ast" else "channels=8"
    parts: dict[str, Any] = {
        "teachers": ", ".join(f"'{name}[width={width},layers=2,{sizes}]'" for width in (24, 32)),
        "student": f"'{name}[width=16,layers=2,{sizes}]'",
        "methods": METHODS,
    }
    plan = planned("log_mel" if name == "ast" else "waveform", **parts)
    cpu = torch.device("cpu")
    records = [each for some in execute(plan, RunFolder(tmp_path / "run"), tmp_path, cpu, Observer()) for each in some]
    assert len(records) == 11
    refused = [record for record in records if record.status != "done"]
    assert [(each.status, each.reason) for each in refused] == [
        ("skipped", "16 channels cannot be cut into 3 relation heads")
    ]
    for record in records:
        assert all(np.isfinite(list(record.metrics.values())))
        assert record.status == "skipped" or record.metrics["macs_disagreement"] == 0
