"""Speech: the front end, the tasks on generated recordings, the networks for sound, and messages for people."""

from __future__ import annotations

import math
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from kdbench import BadInput, Batch, Data, DataFile, DataFolders, DataSpec, MissingData, MissingExtra, Task
from kdbench.flops import count_flops, traced_macs
from kdbench.plugins import discover
from kdbench.spec import Spec
from kdbench.training.taps import TappedNetwork
from kdbench_plugins.tasks import spoken_digits
from kdbench_plugins.tasks._audio import LogMel, centred, read_mono
from kdbench_plugins.tasks._signals import NormaliseChannels

HEADER = "file\tdigit\tspeaker\tindex\tsplit\tn_samples\tsample_rate\tgender\taccent"
SPEAKERS = ("ann", "bob", "theo")
HERE = any(map(DataFolders.from_environment().find, ("fsdd", "fsdd.zip", "speech/fsdd.zip")))


def create(kind: str, text: str, **params: object) -> object:
    spec = Spec.parse(text)
    return discover().create(kind, Spec(spec.name, {**spec.params, **params}))


def load(text: str, folders: DataFolders, **params: object) -> Data:
    return create("task", text, **params).load(folders)


def write_tone(path: Path, seed: int, rate: int = 8000, seconds: float = 0.3) -> Path:
    """A noisy tone, another one for each seed, 16 bits."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(rate * seconds)) / rate
    wave = 0.5 * np.sin(2 * np.pi * rng.uniform(200, 2000) * times) + 0.05 * rng.standard_normal(len(times))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, subtype="PCM_16")
    return path


def write_fsdd(root: Path, takes: tuple[int, ...] = (0, 4, 5)) -> Path:
    rows = [HEADER]
    for digit in range(10):
        for number, speaker in enumerate(SPEAKERS):
            for take in takes:
                name = f"recordings/{digit}_{speaker}_{take}.wav"
                write_tone(root / name, seed=1000 * digit + 100 * number + take)
                rows.append(
                    f"{name}\t{digit}\t{speaker}\t{take}\t{'test' if take < 5 else 'train'}\t2400\t8000\tmale\t"
                )
    (root / "metadata.tsv").write_text("\n".join([rows[0], *reversed(rows[1:])]) + "\n", encoding="utf-8")
    return root


def write_classes(root: Path, counts: dict[str, int], rate: int = 16000) -> Path:
    """Per folder below `root` so many recordings, all different."""
    for folder, count in counts.items():
        for i in range(count):
            write_tone(root / folder / f"{i:02}.wav", seed=zlib.crc32(folder.encode()) + i, rate=rate)
    return root


def contents(features: Tensor) -> set[bytes]:
    return {each.numpy().tobytes() for each in features}


@pytest.fixture
def folders(tmp_path: Path) -> DataFolders:
    return DataFolders((tmp_path, tmp_path / "cache"), tmp_path / "cache")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DataFolders:
    base = tmp_path_factory.mktemp("digits")
    write_fsdd(base / "fsdd")
    return DataFolders((base,), base / "cache")


# --- front end --------------------------------------------------------------------------------------------------------


def reference_log_mel(wave: np.ndarray, rate: int, bands: int, frames: int) -> np.ndarray:
    """The definition, written out in numpy: Hann window, discrete Fourier transform, HTK triangles, logarithm."""
    window, hop = round(0.025 * rate), round(0.010 * rate)
    size = next(2**i for i in range(20) if 2**i >= 2 * window)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    padded = np.concatenate([np.zeros(size), wave, np.zeros(size)])
    centres = size + hop * np.arange(frames)
    cut = np.stack([padded[centre - window // 2 :][:window] * hann for centre in centres])
    power = np.abs(np.fft.rfft(cut, n=size)) ** 2

    def mel(hertz: float | np.ndarray) -> np.ndarray:
        return 2595 * np.log10(1 + np.asarray(hertz) / 700)

    corners = 700 * (10 ** (np.linspace(mel(20.0), mel(rate / 2), bands + 2) / 2595) - 1)
    bins = np.arange(size // 2 + 1) * rate / size
    rising = (bins - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - bins) / (corners[2:] - corners[1:-1])[:, None]
    return np.log(np.clip(np.minimum(rising, falling), 0, None) @ power.T + 1e-6)


@pytest.mark.parametrize("rate", [8000, 16000])
def test_log_mel_is_what_its_docstring_says(rate: int) -> None:
    front_end = LogMel(rate, seconds=0.2)
    waves = torch.randn(3, front_end.samples, generator=torch.Generator().manual_seed(0)) * 0.1
    features = front_end(waves)
    assert features.shape == (3, *front_end.shape) == (3, 40, 20)
    for wave, found in zip(waves.double().numpy(), features, strict=True):
        torch.testing.assert_close(found, torch.from_numpy(reference_log_mel(wave, rate, 40, 20)), rtol=0, atol=1e-6)


def test_a_tone_is_loudest_in_its_own_band() -> None:
    front_end = LogMel(8000, seconds=0.5)
    times = torch.arange(front_end.samples) / 8000
    loudest = [
        front_end(torch.sin(2 * math.pi * hertz * times)[None])[0, :, 25].argmax() for hertz in (200, 1000, 3500)
    ]
    mels = [2595 * math.log10(1 + hertz / 700) for hertz in (20, 200, 1000, 3500, 4000)]
    expected = [(mel - mels[0]) / (mels[-1] - mels[0]) * 41 - 1 for mel in mels[1:-1]]
    assert all(abs(band - place) <= 1 for band, place in zip(loudest, expected, strict=True))


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (5, [1, 2, 3, 4, 5]),
        (3, [2, 3, 4]),
        (2, [3, 4]),
        (8, [0, 1, 2, 3, 4, 5, 0, 0]),
        (9, [0, 0, 1, 2, 3, 4, 5, 0, 0]),
    ],
)
def test_recordings_are_cut_and_padded_around_their_middle(samples: int, expected: list[int]) -> None:
    found = centred(torch.arange(1.0, 6.0), samples).tolist()
    assert found == expected


def test_channels_are_averaged(tmp_path: Path) -> None:
    stereo = np.stack([np.linspace(-0.5, 0.5, 64), np.full(64, 0.25)], axis=1)
    soundfile.write(tmp_path / "stereo.wav", stereo, 8000, subtype="FLOAT")
    np.testing.assert_allclose(read_mono(tmp_path / "stereo.wav", 8000).numpy(), stereo.mean(axis=1), atol=1e-7)


def test_normalisation_is_per_band_and_survives_constant_ones() -> None:
    features = torch.randn(300, 3, 5, generator=torch.Generator().manual_seed(0)).half()
    features[:, 1] = 2.0
    normalise = NormaliseChannels.to(features)
    exact = features.double().numpy()
    np.testing.assert_allclose(normalise.mean, exact.mean(axis=(0, 2)), rtol=1e-12)
    np.testing.assert_allclose(normalise.std, [exact[:, 0].std(), 1.0, exact[:, 2].std()], rtol=1e-12)
    assert normalise(features).dtype == torch.float32
    assert torch.equal(normalise(features)[:, 1], torch.zeros(300, 5))


def test_features_do_not_depend_on_the_number_of_threads(digits: DataFolders) -> None:
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(load("spoken_digits", digits).train.digest())
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


# --- recordings that cannot be used -----------------------------------------------------------------------------------


def test_a_truncated_wav_is_named(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "cut.wav", seed=0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert len(soundfile.read(path)[0]) == 2350  # the library says nothing
    with pytest.raises(BadInput, match=r"cut\.wav is cut short by 100 bytes"):
        read_mono(path, 8000)
    for left in (0, 3, 20):
        path.write_bytes(whole[:left])
        with pytest.raises(BadInput, match=r"cut\.wav"):
            read_mono(path, 8000)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_wav_from_a_stream_is_read(tmp_path: Path, size: int) -> None:
    path = write_tone(tmp_path / "streamed.wav", seed=0)
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + size.to_bytes(4, "little") + whole[8:])
    assert len(read_mono(path, 8000)) == 2400


def test_other_unusable_recordings_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"a\.wav has 8000 samples a second, not 16000"):
        read_mono(write_tone(tmp_path / "a.wav", seed=0), 16000)
    (tmp_path / "b.wav").write_bytes(b"no sound at all")
    with pytest.raises(BadInput, match=r"cannot read the recording .*b\.wav"):
        read_mono(tmp_path / "b.wav", 8000)
    soundfile.write(tmp_path / "c.wav", np.zeros(0), 8000)
    with pytest.raises(BadInput, match=r"c\.wav is empty"):
        read_mono(tmp_path / "c.wav", 8000)
    with pytest.raises(BadInput, match=r"cannot read the recording .*d\.wav"):
        read_mono(tmp_path / "d.wav", 8000)


@pytest.mark.parametrize("library", ["soundfile", "transformers.audio_utils"])
def test_a_missing_library_is_named_with_its_cure(
    library: str, digits: DataFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=r"pip install 'kdbench\[speech\]'"):
        load("spoken_digits", digits)


def test_less_than_a_frame_is_refused(digits: DataFolders) -> None:
    with pytest.raises(BadInput, match=r"0\.001 seconds are shorter than one frame"):
        load("spoken_digits[seconds=0.001]", digits)


# --- spoken digits ----------------------------------------------------------------------------------------------------


def test_the_official_split_is_by_take(digits: DataFolders) -> None:
    data = load("spoken_digits[seconds=0.5]", digits)
    assert data.spec == DataSpec((40, 50), classes=10, modality="speech")
    assert (len(data.train), len(data.test), data.validation) == (30, 60, None)
    assert torch.bincount(data.train.targets).tolist() == [3] * 10
    assert torch.bincount(data.test.targets).tolist() == [6] * 10
    front_end = LogMel(8000, 0.5)
    recordings = digits.search[0] / "fsdd" / "recordings"
    expected = front_end.features_of([recordings / f"{i}_{name}_5.wav" for i in range(10) for name in SPEAKERS])
    assert torch.equal(data.train.inputs, expected)
    assert data.prepare == NormaliseChannels.to(expected)


def test_the_speaker_split_keeps_a_voice_out(digits: DataFolders) -> None:
    data = load("spoken_digits[split=speaker,held_out=bob]", digits)
    assert (len(data.train), len(data.test)) == (60, 30)
    recordings = digits.search[0] / "fsdd" / "recordings"
    of_bob = LogMel(8000).features_of(sorted(recordings.glob("*_bob_*.wav")))
    assert torch.equal(data.test.inputs, of_bob)
    assert not contents(data.train.inputs) & contents(of_bob)


def test_an_unknown_speaker_is_refused_with_choices(digits: DataFolders) -> None:
    with pytest.raises(BadInput, match=r"no speaker 'eve'\nchoices: ann, bob, theo"):
        load("spoken_digits[split=speaker,held_out=eve]", digits)


def test_a_clone_without_the_table_gives_the_same_data(folders: DataFolders, digits: DataFolders) -> None:
    root = write_fsdd(folders.search[0] / "fsdd")
    (root / "metadata.tsv").unlink()
    one, other = load("spoken_digits", digits), load("spoken_digits", folders)
    assert one.train.digest() == other.train.digest()
    assert one.test.digest() == other.test.digest()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (b"file\tdigit\tspeaker\tindex\nrecordings/1_ann_0.wav\t1\tann\xe9\t0\n", r"metadata\.tsv, line 2: not UTF-8"),
        (
            b"file\tdigit\tspeaker\tindex\na.wav\t1\tann\t0\nb.wav\t12\tann\t1\n",
            r"tsv, line 3: digit '12' is not one of 0",
        ),
        (b"file\tdigit\tspeaker\tindex\na.wav\t-1\tann\t0\n", r"tsv, line 2: digit '-1' is not one of 0 to 9"),
        (b"file\tspeaker\tindex\na.wav\tann\t0\n", r"tsv, line 2: there is no 'digit'"),
        (b"file\tdigit\tspeaker\tindex\na.wav\t1\n", r"tsv, line 2: there is no 'speaker'"),
        (
            b"file\tdigit\tspeaker\tindex\ngone.wav\t1\tann\t0\ngone.wav\t1\tann\t5\n",
            r"cannot read the recording .*gone\.wav",
        ),
        (b"file\tdigit\tspeaker\tindex\n", r"there are no recordings under .*fsdd"),
        (b"", r"there are no recordings under .*fsdd"),
    ],
)
def test_a_damaged_table_is_told_by_line(folders: DataFolders, written: bytes, message: str) -> None:
    root = folders.search[0] / "fsdd"
    root.mkdir()
    (root / "metadata.tsv").write_bytes(written)
    with pytest.raises(BadInput, match=message):
        load("spoken_digits", folders)


def test_a_split_without_a_part_is_refused(folders: DataFolders) -> None:
    write_fsdd(folders.search[0] / "fsdd", takes=(0, 1))
    with pytest.raises(BadInput, match="all for testing"):
        load("spoken_digits", folders)


def test_absent_digits_say_what_to_put_where(folders: DataFolders) -> None:
    with pytest.raises(MissingData, match=r"16cfefbc5553.*Jakobovski/free-spoken-digit-dataset"):
        load("spoken_digits", folders)


def test_the_table_of_an_archive_is_found(tmp_path: Path, digits: DataFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib
    import shutil

    packed = Path(shutil.make_archive(str(tmp_path / "fsdd"), "zip", digits.search[0], "fsdd"))
    file = DataFile("speech/fsdd.zip", hashlib.sha256(packed.read_bytes()).hexdigest(), folder="fsdd")
    monkeypatch.setattr(spoken_digits, "FSDD", file)
    found = load("spoken_digits", DataFolders((tmp_path,), tmp_path / "cache"))
    assert found.test.digest() == load("spoken_digits", digits).test.digest()


@pytest.mark.skipif(not HERE, reason="fsdd is not under $KDBENCH_DATA")
def test_the_real_recordings_have_their_published_splits(tmp_path: Path) -> None:
    search = DataFolders.from_environment().search
    root = DataFolders(search, tmp_path).provide(spoken_digits.FSDD)
    recordings = spoken_digits.list_recordings(root)
    lines = (root / "metadata.tsv").read_text(encoding="utf-8").splitlines()[1:]
    assert len(recordings) == len(lines) == 3000
    official = {line.split("\t")[0] for line in lines if line.split("\t")[4] == "test"}
    held_out = create("task", "spoken_digits")._held_out(recordings)
    assert {each.file for each, out in zip(recordings, held_out, strict=True) if out} == official
    assert recordings == sorted(spoken_digits._named(root))
    assert LogMel(8000).features_of([root / each.file for each in recordings[::100]]).isfinite().all()


# --- folders of recordings --------------------------------------------------------------------------------------------


def test_class_folders_alone_are_cut_by_class(folders: DataFolders) -> None:
    write_classes(folders.search[0] / "words", {"no": 5, "yes": 10, ".cache": 1})
    data = load("audio_folder[path=words,seconds=0.5]", folders)
    assert data.spec == DataSpec((40, 50), classes=2, modality="speech")
    assert data.class_names == ("no", "yes")
    assert torch.bincount(data.train.targets).tolist() == [4, 8]
    assert torch.bincount(data.test.targets).tolist() == [1, 2]
    assert not contents(data.train.inputs) & contents(data.test.inputs)
    again = load("audio_folder[path=words,seconds=0.5]", folders)
    assert data.train.digest() == again.train.digest()


def test_given_parts_are_kept(folders: DataFolders) -> None:
    counts = {"train/no": 3, "train/yes": 2, "test/no": 1, "test/yes": 1, "val/no": 1, "val/yes": 1}
    root = write_classes(folders.search[0] / "words", counts, rate=8000)
    data = load(f"audio_folder[path={root},sample_rate=8000,max_per_class=2]", folders)
    assert data.train.targets.tolist() == [0, 0, 1, 1]
    assert data.test.targets.tolist() == [0, 1]
    assert data.validation is not None
    expected = LogMel(8000).features_of([root / "val" / "no" / "00.wav", root / "val" / "yes" / "00.wav"])
    assert torch.equal(data.validation.inputs, expected)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"no": 2, "yes": 0}, r"class folder .*yes holds no recording"),
        ({"no": 2, "yes": 1}, r"class 'yes' has a single recording \(yes/00\.wav\)"),
        ({"no": 0}, r"there are no recordings under .*words\nit needs a folder per class, with \.wav"),
        ({"train/no": 1}, r"has no folder 'test'"),
        ({"train/no": 1, "test/no": 1, "test/yes": 1}, r"differ in their classes: 'yes' is only in test"),
        ({"train/no": 1, "train/yes": 1, "test/no": 1}, r"differ in their classes: 'yes' is only in train"),
    ],
)
def test_folders_that_are_no_data_set(folders: DataFolders, counts: dict[str, int], message: str) -> None:
    root = write_classes(folders.search[0] / "words", counts)
    for folder in counts:
        (root / folder).mkdir(parents=True, exist_ok=True)
    with pytest.raises(BadInput, match=message):
        load("audio_folder[path=words]", folders)


def test_a_folder_that_is_not_there(folders: DataFolders) -> None:
    with pytest.raises(MissingData, match=r"no folder or archive 'words'\nlooked at .*words.*KDBENCH_DATA"):
        load("audio_folder[path=words]", folders)
    with pytest.raises(MissingData, match=r"speech_commands_v0\.02\.tar\.gz"):
        load("speech_commands", folders)


def test_a_wrong_sampling_rate_in_a_folder_names_the_file(folders: DataFolders) -> None:
    write_classes(folders.search[0] / "words", {"no": 2, "yes": 2}, rate=8000)
    with pytest.raises(BadInput, match=r"no/0[01]\.wav has 8000 samples a second, not 16000"):
        load("audio_folder[path=words]", folders)


# --- speech commands --------------------------------------------------------------------------------------------------


@pytest.fixture
def commands(folders: DataFolders) -> Path:
    root = write_classes(folders.search[0] / "speech_commands", {"no": 4, "yes": 5, "_background_noise_": 1})
    (root / "testing_list.txt").write_text("no/00.wav\nyes/01.wav\n", encoding="utf-8")
    (root / "validation_list.txt").write_text("yes/00.wav\n", encoding="utf-8")
    return root


def test_the_lists_are_the_split(commands: Path, folders: DataFolders) -> None:
    data = load("speech_commands", folders)
    assert data.class_names == ("no", "yes")
    assert data.train.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test.targets.tolist() == [0, 1]
    assert data.validation is not None
    assert data.validation.targets.tolist() == [1]
    front_end = LogMel(16000)
    assert torch.equal(data.test.inputs, front_end.features_of([commands / "no/00.wav", commands / "yes/01.wav"]))
    assert torch.equal(data.validation.inputs, front_end.features_of([commands / "yes/00.wav"]))


@pytest.mark.parametrize(
    ("name", "written", "message"),
    [
        ("testing_list.txt", b"no/99.wav\n", r"testing_list\.txt, line 1: there is no recording 'no/99\.wav'"),
        ("validation_list.txt", b"yes/\xff.wav\n", r"validation_list\.txt, line 1: not UTF-8"),
        ("validation_list.txt", b"", r"validation_list\.txt names no recording"),
        ("testing_list.txt", b"no/00.wav no/01.wav no/02.wav no/03.wav", r"word 'no' .* has no recording for training"),
        ("testing_list.txt", None, r"testing_list\.txt is missing"),
    ],
)
def test_damaged_lists(commands: Path, folders: DataFolders, name: str, written: bytes | None, message: str) -> None:
    if written is None:
        (commands / name).unlink()
    else:
        (commands / name).write_bytes(written)
    with pytest.raises(BadInput, match=message):
        load("speech_commands", folders)


# --- networks ---------------------------------------------------------------------------------------------------------

SPEC = DataSpec((40, 100), classes=10, modality="speech")


def tapped(text: str, inputs: Tensor) -> tuple[nn.Module, dict[str, Tensor]]:
    architecture = create("architecture", text)
    torch.manual_seed(0)
    network = architecture.build(SPEC).eval()
    taps = architecture.taps(network)
    return network, TappedNetwork(network, taps, taps, Task())(
        Batch(inputs, torch.zeros(len(inputs)), torch.arange(len(inputs)))
    ).taps


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("audio_cnn", {"stage1": (8, 20, 50), "stage2": (16, 10, 25), "stage3": (32, 5, 13), "embedding": (32,)}),
        ("audio_cnn[width=0.25]", {"stage1": (2, 20, 50), "stage3": (8, 5, 13), "embedding": (8,)}),
        ("ds_cnn", {"stage1": (64, 10, 25), "stage4": (64, 10, 25), "embedding": (64,)}),
        ("ds_cnn[width=0.5,blocks=2]", {"stage1": (32, 10, 25), "stage2": (32, 10, 25), "embedding": (32,)}),
        ("conv_gru", {"stage1": (32, 50), "stage2": (64, 25), "stage3": (64, 25), "embedding": (64,)}),
        ("conv_gru[width=0.5,layers=2]", {"stage2": (32, 25), "stage3": (32, 25), "stage4": (32, 25)}),
    ],
)
def test_taps_are_where_the_docstrings_say(text: str, shapes: dict[str, tuple[int, ...]]) -> None:
    _, seen = tapped(text, torch.randn(3, 40, 100))
    assert {name: tuple(seen[name].shape[1:]) for name in shapes} == shapes
    assert f"stage{len(seen) - 1}" not in seen  # logits and embedding beside the stages


@pytest.mark.parametrize("text", ["audio_cnn", "ds_cnn", "conv_gru[layers=2]"])
def test_the_embedding_is_the_mean_of_the_last_stage(text: str) -> None:
    network, seen = tapped(text, torch.randn(3, 40, 100))
    last = seen[f"stage{len(seen) - 2}"]
    torch.testing.assert_close(seen["embedding"], last.flatten(2).mean(2))
    torch.testing.assert_close(seen["logits"], network.get_submodule("classifier")(seen["embedding"]))


def test_recurrent_taps_are_those_of_torchs_own_stack() -> None:
    """Layers one by one must be what `nn.GRU(num_layers=2)` computes."""
    network, seen = tapped("conv_gru[width=0.5,layers=2]", torch.randn(3, 40, 100))
    stack = nn.GRU(32, 32, num_layers=2, batch_first=True)
    for depth, stage in enumerate(("stage3", "stage4")):
        for name, value in network.get_submodule(stage).gru.state_dict().items():
            getattr(stack, name.replace("_l0", f"_l{depth}")).data.copy_(value)
    torch.testing.assert_close(seen["stage4"], stack(seen["stage2"].transpose(1, 2))[0].transpose(1, 2))


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        # Convolutions without bias, 2 per channel of each norm, and the classifier, counted by hand.
        ("audio_cnn", 9 * (8 + 8 * 16 + 16 * 32) + 2 * (8 + 16 + 32) + 33 * 10),
        ("ds_cnn", 40 * 64 + 128 + 4 * (9 * 64 + 128 + 64 * 64 + 128) + 65 * 10),
        ("conv_gru", 5 * 40 * 32 + 64 + 5 * 32 * 64 + 128 + 3 * (2 * 64 * 64 + 2 * 64) + 65 * 10),
    ],
)
def test_parameters_are_those_of_the_definition(text: str, parameters: int) -> None:
    network, _ = tapped(text, torch.randn(2, 40, 100))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize(
    ("text", "macs"),
    [
        ("audio_cnn", 9 * (1000 * 8 + 250 * 8 * 16 + 65 * 16 * 32) + 320),
        ("ds_cnn", 250 * (40 * 64 + 4 * (9 * 64 + 64 * 64)) + 640),
        ("conv_gru", 50 * 5 * 40 * 32 + 25 * 5 * 32 * 64 + 25 * 3 * 2 * 64 * 64 + 640),
    ],
)
def test_both_counters_agree_with_the_cost_by_hand(text: str, macs: int) -> None:
    network = create("architecture", text).build(SPEC).eval()
    inputs = torch.randn(1, 40, 100)
    with torch.no_grad():
        assert count_flops(lambda: network(inputs)) == 2 * macs
    assert traced_macs(network, inputs) == macs


@pytest.mark.parametrize("text", ["audio_cnn", "ds_cnn", "conv_gru"])
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (DataSpec((1, 28, 28), 10), r"takes sound features \[bands, frames\], not inputs of shape \[1, 28, 28\]"),
        (DataSpec((16000,), 10, "speech"), r"not inputs of shape \[16000\]"),
        (DataSpec((40, 3), 10, "speech"), r"4 bands and frames or more, not 40 bands, 3 frames"),
    ],
)
def test_inputs_of_other_kinds_are_refused(text: str, spec: DataSpec, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        create("architecture", text).build(spec)


@pytest.mark.parametrize("text", ["audio_cnn", "ds_cnn", "conv_gru"])
@pytest.mark.parametrize("shape", [(4, 4), (5, 9), (80, 31)])
def test_small_and_odd_features_are_taken(text: str, shape: tuple[int, int]) -> None:
    network = create("architecture", text).build(DataSpec(shape, 3, "speech"))
    assert network(torch.randn(2, *shape)).shape == (2, 3)
