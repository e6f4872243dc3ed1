"""Corrupted inputs: pictures, speech and text get worse by severity, the same each time, and are scored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from kdbench import Data, DataFolders, DataSpec, Metric, Task, TensorSplit
from kdbench.measuring import corruption
from kdbench.measuring.corruption import SEVERITIES, CorruptedTests, corrupted
from kdbench.measuring.image_corruption import IMAGE_CORRUPTIONS
from kdbench.plan import LoadedTask
from kdbench.plugins import discover
from kdbench.spec import Spec
from kdbench_plugins.tasks._typos import Typos
from kdbench_plugins.tasks._white_noise import WhiteNoise

CPU = torch.device("cpu")


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(*shape: int, peak: int = 255) -> Tensor:
    """Smooth, so that blur and JPEG spoil little of them."""
    height, width = torch.meshgrid(torch.linspace(0, 3, shape[2]), torch.linspace(0, 3, shape[3]), indexing="ij")
    phases = torch.rand(*shape[:2], 1, 1, generator=random()) * 6
    waves = (height * 2 + phases).sin() * (width + phases).cos()
    return ((waves + 1) / 2 * peak).round().to(torch.uint8)


def vision(examples: int = 40, *, peak: int = 255, size: int = 16, positions: tuple[int, ...] = ()) -> Data:
    split = TensorSplit(pictures(examples, 1, size, size, peak=peak), torch.arange(examples) % 2)
    spec = DataSpec((1, size, size), 2, positions=positions)
    return Data(spec, train=split, test=split, prepare=Tensor.float)


def loaded(data: Data, task: Task | None = None) -> LoadedTask:
    return LoadedTask("pictures", task or Task(), data, digest="")


@pytest.mark.parametrize("kind", IMAGE_CORRUPTIONS)
@pytest.mark.parametrize(
    ("channels", "size", "peak"), [(1, 28, 255), (3, 32, 255), (1, 8, 16), (4, 16, 255), (3, 80, 255)]
)
def test_pictures_get_worse_with_severity(kind: str, channels: int, size: int, peak: int):
    images = pictures(6, channels, size, size + 2, peak=peak)
    original = images.clone()
    errors = []
    for severity in SEVERITIES:
        worse = IMAGE_CORRUPTIONS[kind](images, peak, severity, random())
        assert worse.dtype == torch.uint8
        assert worse.shape == images.shape
        assert worse.is_contiguous()
        assert int(worse.max()) <= peak
        assert torch.equal(worse, IMAGE_CORRUPTIONS[kind](images, peak, severity, random()))
        errors.append((worse.double() - images.double()).square().mean().item())
    assert torch.equal(images, original)
    assert errors[-1] > errors[0]
    if peak == 255:
        assert errors == sorted(errors)
        assert errors[0] > 0


def test_contrast_and_noise_by_hand():
    image = torch.tensor([[[[0, 100], [100, 200]]]], dtype=torch.uint8)
    assert IMAGE_CORRUPTIONS["contrast"](image, 255, 2, random()).flatten().tolist() == [50, 100, 100, 150]
    grey = torch.full((1, 1, 64, 64), 128, dtype=torch.uint8)
    noise = IMAGE_CORRUPTIONS["gaussian_noise"](grey, 255, 3, random()).double() - 128
    assert noise.std().item() == pytest.approx(0.08 * 255, rel=0.05)
    large = torch.full((1, 1, 65, 64), 128, dtype=torch.uint8)  # one pixel more, and ImageNet-C's constants hold
    noise = IMAGE_CORRUPTIONS["gaussian_noise"](large, 255, 1, random()).double() - 128
    assert noise.std().item() == pytest.approx(0.08 * 255, rel=0.05)


def test_blur_keeps_the_mean_and_flat_pictures():
    flat = torch.full((1, 1, 9, 9), 77, dtype=torch.uint8)
    assert torch.equal(IMAGE_CORRUPTIONS["gaussian_blur"](flat, 255, 5, random()), flat)
    point = torch.zeros(1, 1, 21, 21, dtype=torch.uint8)
    point[0, 0, 10, 10] = 255
    blurred = IMAGE_CORRUPTIONS["gaussian_blur"](point, 255, 5, random())
    assert int(blurred[0, 0, 10, 10]) == round(255 / (2 * np.pi))  # of a Gaussian of one pixel's deviation
    assert torch.equal(blurred, blurred.transpose(2, 3))


def test_the_sample_is_even_and_the_same_each_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(corruption, "MOST_EXAMPLES", 10)
    data = vision(40)
    first, second = corrupted(data), corrupted(data)
    assert list(first) == list(IMAGE_CORRUPTIONS)
    for kind, splits in first.items():
        assert len(splits) == 5
        for split, again in zip(splits, second[kind], strict=True):
            assert torch.equal(split.inputs, again.inputs)
            assert split.targets.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 1]  # of 0, 4, 8, 13, 17, 21, 26, 30, 34, 39
    monkeypatch.setattr(corruption, "MOST_NUMBERS", 20 * 16 * 16 * 3)
    assert len(corrupted(data)["jpeg"][0]) == 3


def test_scores_are_means_over_severities_and_kinds(monkeypatch: pytest.MonkeyPatch):
    class Mean(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            assert not self.training
            return torch.stack([inputs.flatten(1).std(1), torch.zeros(len(inputs))], dim=1)

    class Contrast(Task):
        def metrics(self, spec: DataSpec) -> tuple[Metric, ...]:
            return (Metric("deviation", lambda logits: logits[:, 0].double().mean().item(), reads=("logits",)),)

    data, made = vision(), []
    monkeypatch.setattr(corruption, "corrupted", lambda data: made.append(data) or corrupted(data))
    tests, network, state = CorruptedTests(), Mean().train(), torch.get_rng_state()
    found = tests.scores(network, loaded(data, Contrast()), CPU)
    assert tests.scores(network, loaded(data, Contrast()), CPU) == found
    assert len(made) == 1  # kept
    assert network.training
    assert torch.equal(torch.get_rng_state(), state)
    kinds = [found[f"corrupted_deviation/{kind}"] for kind in IMAGE_CORRUPTIONS]
    assert found["corrupted_deviation"] == pytest.approx(np.mean(kinds), rel=1e-12)
    original = data.test.inputs.float().flatten(1).std(1).mean().item()
    assert found["corrupted_deviation/contrast"] == pytest.approx(
        original * np.mean([0.75, 0.5, 0.4, 0.3, 0.15]), rel=0.02
    )
    tests.scores(network, loaded(vision(41), Contrast()), CPU)
    assert len(made) == 2


def test_where_nothing_is_measured():
    class Decoded(Task):
        def metrics(self, spec: DataSpec) -> tuple[Metric, ...]:
            return (Metric("bleu", lambda hypotheses: 0.0, reads=("hypotheses",), decoded=True),)

    tests, network = CorruptedTests(), nn.Identity()
    signals = TensorSplit(torch.zeros(4, 3, 9), torch.zeros(4))
    assert tests.scores(network, loaded(vision(), Decoded()), CPU) == {}
    assert tests.scores(network, loaded(vision(positions=(16, 16))), CPU) == {}
    assert tests.scores(network, loaded(vision(peak=0)), CPU) == {}
    assert tests.scores(network, loaded(Data(DataSpec((3, 9), 2, "sensor"), train=signals, test=signals)), CPU) == {}
    floats = TensorSplit(torch.rand(4, 1, 8, 8), torch.zeros(4))
    assert tests.scores(network, loaded(Data(DataSpec((1, 8, 8), 2), train=floats, test=floats)), CPU) == {}


# --- speech ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Tones of 8 kHz: 1000 samples each, a folder per class."""
    for number, (name, hertz) in enumerate([("low", 300), ("high", 1500)]):
        for part, count in (("train", 3), ("test", 2)):
            folder = tmp_path / "tones" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                wave = 0.25 * np.sin(2 * np.pi * (hertz + 10 * i + number) * np.arange(1000) / 8000)
                soundfile.write(folder / f"{i}.wav", wave, 8000)
    return tmp_path


def speech(folder: Path, **params: object) -> Data:
    asked = {"path": "tones", "sample_rate": 8000, "seconds": 0.25, **params}
    task = discover().create("task", Spec("audio_folder", asked))
    return task.load(DataFolders((folder,), folder / "cache"))


def test_noise_in_waveforms_has_the_ratio_it_should_have(recordings: Path):
    data = speech(recordings, features="waveform")
    noisy = data.corruptions["white_noise"]
    clean = data.test.inputs.double()
    for severity, ratio in zip(SEVERITIES, (20, 15, 10, 5, 0), strict=True):
        noise = noisy(torch.arange(4), severity, random()).double() - clean
        inside = slice(500, 1500)  # 1000 samples in the middle of 2000
        measured = 10 * torch.log10(clean[..., inside].square().mean() / noise[..., inside].square().mean())
        assert measured.item() == pytest.approx(ratio, abs=0.5)
        assert not noise[..., :500].any()


def test_noisy_speech_is_features_like_the_test_split(recordings: Path):
    data = speech(recordings)
    splits = corrupted(data)["white_noise"]
    assert len(splits) == 5
    distances = []
    for split in splits:
        assert split.inputs.dtype == data.test.inputs.dtype
        assert split.inputs.shape == data.test.inputs.shape
        assert torch.equal(split.targets, data.test.targets)
        distances.append((split.inputs.double() - data.test.inputs.double()).abs().mean().item())
    assert distances == sorted(distances)
    assert torch.equal(splits[2].inputs, corrupted(data)["white_noise"][2].inputs)


def test_silence_stays_silent(tmp_path: Path):
    from kdbench_plugins.tasks._audio import Waveform

    soundfile.write(tmp_path / "silence.wav", np.zeros(800), 8000)
    noisy = WhiteNoise(Waveform(8000, 0.1), [tmp_path / "silence.wav"])
    assert not noisy(torch.tensor([0]), 5, random()).any()


# --- text -----------------------------------------------------------------------------------------------------------

TEXT = "Съешь же ещё этих мягких булок, да выпей чаю. The quick brown fox jumps over the lazy dog."


def mistyped(kind: str, rate: float, text: str = TEXT) -> str:
    return Typos(kind, [text], None, 5)._mistyped(text, rate, random())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["swap", "delete", "insert", "replace"])
def test_typos_are_of_their_kind(kind: str):
    found = mistyped(kind, 0.2)
    assert found != TEXT
    assert found == mistyped(kind, 0.2)
    assert mistyped(kind, 0) == TEXT
    assert mistyped(kind, 0.2, "") == ""
    assert found.count(" ") == TEXT.count(" ")
    assert set(found) <= set(TEXT)
    change = len(found) - len(TEXT)
    assert {"swap": change == 0, "delete": change < 0, "insert": change > 0, "replace": change == 0}[kind]
    if kind == "swap":
        assert [sorted(word) for word in found.split()] == [sorted(word) for word in TEXT.split()]


def test_all_is_mistyped_at_rate_one():
    assert mistyped("delete", 1, "ab c") == " "
    assert len(mistyped("insert", 1, "ab c")) == 7


def test_mistyped_texts_are_tokens_like_the_test_split(tmp_path: Path):
    rows = [{"text": f"{word} word number {i}", "label": word} for i in range(20) for word in ("good", "bad")]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    task = discover().create("task", Spec("text_file", {"path": "texts.jsonl", "max_length": 12}))
    data = task.load(DataFolders((tmp_path,), tmp_path / "cache"))
    splits = corrupted(data)
    assert set(splits) == {"swap", "delete", "insert", "replace"}
    for each in splits.values():
        changed = [(split.inputs != data.test.inputs).any(dim=1).double().mean().item() for split in each]
        assert 0 < changed[-1] <= 1
        assert changed[0] < changed[-1]
        assert each[0].inputs.shape == data.test.inputs.shape
        assert int(each[4].inputs.max()) < data.spec.vocabulary
        assert torch.equal(each[4].targets, data.test.targets)
