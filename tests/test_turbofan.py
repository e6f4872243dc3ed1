"""Turbofan: windows, remaining cycles, engines kept apart, and the networks made for it."""

from __future__ import annotations

import math
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from kdbench import BadInput, Data, DataFolders, DataSpec, MissingData, Task, TensorSplit
from kdbench.plugins import discover
from kdbench.spec import Spec

SENSORS = [2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21]  # of 21, those that are not constant
TRAIN = {1: 9, 2: 12, 3: 8, 4: 10}  # engine -> cycles
TEST = {1: 7, 2: 5}
LEFT = [6, 20]
SMALL = {"window": 4, "bins": 4, "longest": 8, "validation_engines": 1}


def reading(engine: int, cycle: int, sensor: int, part: str) -> float:
    """A number that tells where it stood."""
    return (1000 if part == "test" else 0) + 100 * engine + cycle + sensor / 100


def lines(engines: dict[int, int], part: str) -> str:
    """As NASA writes them: engine, cycle, 3 settings, 21 sensors, and blanks at the end of each line."""
    rows = []
    for engine, cycles in engines.items():
        for cycle in range(1, cycles + 1):
            sensors = [f"{reading(engine, cycle, sensor, part):.2f}" for sensor in range(1, 22)]
            rows.append(" ".join([str(engine), str(cycle), "-0.0007", "0.0003", "100.0", *sensors]) + "  \n")
    return "".join(rows)


def write(root: Path) -> Path:
    folder = root / "CMAPSS"
    folder.mkdir(parents=True)
    (folder / "train_FD001.txt").write_text(lines(TRAIN, "train"))
    (folder / "test_FD001.txt").write_text(lines(TEST, "test"))
    (folder / "RUL_FD001.txt").write_text("".join(f"{cycles} \n" for cycles in LEFT))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "data")


def create(**params: object) -> Task:
    return discover().create("task", Spec("turbofan", params))


def load(folder: Path, **params: object) -> Data:
    return create(**{**SMALL, **params}).load(DataFolders((folder.parent,), folder.parent / "cache"))


def ends(split: TensorSplit) -> list[tuple[int, int]]:
    """The engine and last cycle of each window, read off the first of the sensors."""
    return [divmod(math.floor(float(value)) % 1000, 100) for value in split.inputs[:, 0, -1]]


def test_windows_are_those_of_the_table(folder: Path) -> None:
    data = load(folder)
    assert data.spec == DataSpec((15, 4), 4, modality="sensor")
    for split, part in ((data.train, "train"), (data.validation, "train"), (data.test, "test")):
        assert split.inputs.dtype == torch.float32
        expected = [
            [[reading(engine, cycle, sensor, part) for cycle in range(last - 3, last + 1)] for sensor in SENSORS]
            for engine, last in ends(split)
        ]
        np.testing.assert_allclose(split.inputs.numpy(), np.array(expected), atol=1e-4)


def test_targets_are_the_bins_of_the_cycles_left(folder: Path) -> None:
    data = load(folder, test_windows="all")
    for split, left in (
        (data.train, dict.fromkeys(TRAIN, 0)),
        (data.validation, dict.fromkeys(TRAIN, 0)),
        (data.test, dict(zip(TEST, LEFT, strict=True))),
    ):
        cycles = TEST if split is data.test else TRAIN
        remaining = [cycles[engine] - last + left[engine] for engine, last in ends(split)]
        assert split.targets.tolist() == [min(cycle // 2, 3) for cycle in remaining]  # bins of 8 / 4 = 2 cycles
        assert split.targets.dtype == torch.int64
    assert data.class_names == ("0 to 2 cycles", "2 to 4 cycles", "4 to 6 cycles", "6 or more")


def test_no_engine_is_in_two_splits_and_every_window_is_in_one(folder: Path) -> None:
    data = load(folder, validation_engines=2)
    fitted, held_out = (ends(split) for split in (data.train, data.validation))
    assert len({engine for engine, _ in held_out}) == 2
    assert not {engine for engine, _ in fitted} & {engine for engine, _ in held_out}
    every = [(engine, last) for engine, cycles in TRAIN.items() for last in range(4, cycles + 1)]
    assert sorted(fitted + held_out) == every
    assert load(folder, validation_engines=2).validation.digest() == data.validation.digest()


def test_testing_is_where_each_engine_was_cut_off_or_everywhere(folder: Path) -> None:
    last, every = load(folder), load(folder, test_windows="all")
    assert ends(last.test) == [(1, 7), (2, 5)]
    assert last.test.targets.tolist() == [3, 3]
    assert ends(every.test) == [(1, 4), (1, 5), (1, 6), (1, 7), (2, 4), (2, 5)]
    assert every.train.digest() == last.train.digest()


def test_a_stride_keeps_the_failure_and_counts_back_from_it(folder: Path) -> None:
    data = load(folder, stride=3)
    by_engine = {
        engine: [last for each, last in ends(data.train) + ends(data.validation) if each == engine] for engine in TRAIN
    }
    assert by_engine == {1: [6, 9], 2: [6, 9, 12], 3: [5, 8], 4: [4, 7, 10]}
    assert ends(data.test) == [(1, 7), (2, 5)]


def test_preparation_is_fitted_to_the_training_engines(folder: Path) -> None:
    data = load(folder)
    values = data.train.inputs.double().transpose(0, 1).reshape(15, -1).numpy()
    expected = (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)
    prepared = data.prepare(data.train.inputs)
    assert prepared.dtype == torch.float32
    np.testing.assert_allclose(prepared.transpose(0, 1).reshape(15, -1).numpy(), expected, atol=1e-4)


def test_a_constant_sensor_is_not_scaled(folder: Path) -> None:
    from kdbench_plugins.tasks._signals import NormaliseChannels

    windows = torch.full((3, 2, 4), 7.0)
    windows[:, 1] = torch.arange(4.0)
    prepared = NormaliseChannels.to(windows)(windows)
    assert prepared[:, 0].tolist() == [[0.0] * 4] * 3
    assert prepared[:, 1].std(correction=0).item() == pytest.approx(1)


def test_the_error_in_cycles_is_that_of_the_expected_middle() -> None:
    task = create(bins=5, longest=125)
    metric = task.metrics(DataSpec((15, 30), 5))[-1]
    assert (metric.name, metric.higher_is_better) == ("rmse_cycles", False)
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    targets = [0, 1, 2, 3, 4, 4, 0]
    middles = [12.5, 37.5, 62.5, 87.5, 112.5]
    squares = []
    for row, target in zip(logits.double().tolist(), targets, strict=True):
        total = sum(math.exp(value) for value in row)
        expected = sum(math.exp(value) / total * middle for value, middle in zip(row, middles, strict=True))
        squares.append((expected - middles[target]) ** 2)
    assert metric.compute(logits, torch.tensor(targets)) == pytest.approx(math.sqrt(sum(squares) / 7), rel=1e-12)
    certain = torch.nn.functional.one_hot(torch.tensor(targets), 5) * 1000.0
    assert metric.compute(certain, torch.tensor(targets)) == 0
    assert metric.compute(certain.roll(1, dims=1)[:4], torch.tensor(targets[:4])) == 25


def test_it_is_ranked_as_a_classification() -> None:
    assert [metric.name for metric in create().metrics(DataSpec((15, 30), 5))] == [
        "accuracy",
        "macro_f1",
        "rmse_cycles",
    ]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("train_FD001.txt", lambda text: text.replace("100.0", "hot", 1), r"train_FD001.txt cannot be read as a table"),
        (
            "test_FD001.txt",
            lambda text: text.replace("1 2 -0.0007", "1 2", 1),
            r"test_FD001.txt must have 26 numbers in each line",
        ),
        ("train_FD001.txt", lambda text: text.replace("100.0", "100.0 1.0"), r"train_FD001.txt must have 26 numbers"),
        ("train_FD001.txt", lambda text: "", r"train_FD001.txt cannot be read as a table of numbers: No columns"),
        ("RUL_FD001.txt", lambda text: "6\n", r"has 2 test engines, but the remaining cycles of 1"),
    ],
)
def test_files_that_are_no_such_table_are_named(folder: Path, file: str, change, message: str) -> None:
    path = folder / file
    path.write_text(change(path.read_text()))
    with pytest.raises(BadInput, match=message):
        load(folder)


def test_a_table_that_is_not_text_is_named(folder: Path) -> None:
    (folder / "train_FD001.txt").write_bytes(random.Random(0).randbytes(400))
    with pytest.raises(BadInput, match=r"train_FD001.txt (cannot be read as a table|must have 26 numbers)"):
        load(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "RUL_FD001.txt").unlink()
    with pytest.raises(MissingData, match=r"RUL_FD001.txt is missing"):
        load(folder)


def test_a_missing_data_set_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"cmapss_fd001.zip.*NASA") as caught:
        create().load(DataFolders((tmp_path,), tmp_path / "cache"))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"window": 6}, "engine 2 ran for 5 cycles, less than a window of 6"),
        ({"validation_engines": 4}, "cannot hold out 4 of 4 training engines"),
        ({"bins": 1}, "bins must be between 2 and longest"),
        ({"bins": 9}, r"bins must be between 2 and longest \(8\), not 9"),
        ({"stride": 0}, "stride"),
        ({"test_windows": "some"}, "test_windows"),
    ],
)
def test_parameters_that_cannot_be_are_refused(folder: Path, params: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load(folder, **params)


# --- the networks ---------------------------------------------------------------------------------------------------


def build(written: str, spec: DataSpec) -> torch.nn.Module:
    return discover().create("architecture", Spec.parse(written)).build(spec)


@pytest.mark.parametrize("name", ["conv1d", "gru"])
@pytest.mark.parametrize(
    "spec", [DataSpec((1, 8, 8), 2), DataSpec((12,), 2, vocabulary=9), DataSpec((3, 12), 2, vocabulary=9)]
)
def test_inputs_that_are_no_sequences_are_refused(name: str, spec: DataSpec) -> None:
    with pytest.raises(BadInput, match=r"takes sequences \[channels, positions\], not inputs of shape"):
        build(name, spec)


def test_a_gru_is_torchs_own_read_at_the_last_position() -> None:
    network = build("gru[width=6,layers=2]", DataSpec((3, 5), 4)).double()
    whole = torch.nn.GRU(3, 6, num_layers=2, batch_first=True).double()
    state = {
        f"{name}_l{layer}": getattr(network.layers[layer].gru, f"{name}_l0")
        for layer in (0, 1)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    whole.load_state_dict(state)
    inputs = torch.randn(2, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(network(inputs), network.classifier(whole(inputs.transpose(1, 2))[1][-1]))


@pytest.mark.parametrize(("positions", "expected"), [(30, [30, 15, 7, 3]), (5, [5, 2, 2, 2]), (1, [1, 1, 1, 1])])
def test_stages_halve_the_positions_as_long_as_two_are_left(positions: int, expected: list[int]) -> None:
    network = build("conv1d[width=0.5,stages=4]", DataSpec((15, positions), 5)).eval()
    features, shapes = torch.randn(2, 15, positions), []
    for i in range(1, 5):
        features = network.get_submodule(f"stage{i}")(features)
        shapes.append(features.shape[1:])
    assert [tuple(shape) for shape in shapes] == [(8 * 2**i, expected[i]) for i in range(4)]


# --- the published data set -----------------------------------------------------------------------------------------

GIVEN = DataFolders.from_environment()
REAL = bool(os.environ.get("KDBENCH_DATA")) and GIVEN.find(
    "sensor/cmapss_fd001.zip", "cmapss_fd001.zip", "CMAPSS", "sensor/CMAPSS"
)


@pytest.mark.skipif(not REAL, reason="neither sensor/cmapss_fd001.zip nor CMAPSS is under $KDBENCH_DATA")
def test_the_published_data_are_read_as_they_are(tmp_path: Path) -> None:
    folders = DataFolders((*GIVEN.search[:-1], tmp_path), tmp_path)
    data = create(test_windows="all").load(folders)
    last = create().load(folders)
    assert len(data.train) + len(data.validation) == 20631 - 100 * 29
    assert len(data.test) == 13096 - 100 * 29
    assert len(last.test) == 100
    left = [int(line) for line in (folders.provide(create().data_files[0]) / "RUL_FD001.txt").read_text().split()]
    assert last.test.targets.tolist() == [min(cycles // 25, 4) for cycles in left]
    assert all(split.targets.unique().tolist() == [0, 1, 2, 3, 4] for split in (data.train, data.validation, data.test))
    prepared = data.prepare(data.train.inputs).double()
    # float32 holds 2388.06 to 0.0001, and that sensor varies by 0.07
    torch.testing.assert_close(prepared.mean(dim=(0, 2)), torch.zeros(15).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(prepared.std(dim=(0, 2), correction=0), torch.ones(15).double(), atol=1e-3, rtol=0)
