"""Turbofan: windows, remaining cycles, engines kept apart, and the networks made for it."""

from __future__ import annotations

import math
import os
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from kdbench import BadInput, Batch, Data, DataFolders, DataSpec, MissingData, Task, TensorSplit
from kdbench.execution.local import execute
from kdbench.measuring.record import Record
from kdbench.planner import make_plan
from kdbench.plugins import discover
from kdbench.spec import Spec
from kdbench.store.run_folder import RunFolder
from kdbench.suite_file import load_suite
from kdbench.training.observer import Observer

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


# --- the regression --------------------------------------------------------------------------------------------------


def normal_below(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


def cycles_batch(*cycles: float, dtype: torch.dtype = torch.float32) -> Batch:
    return Batch(torch.zeros(len(cycles), 15, 4), torch.tensor(cycles, dtype=dtype), torch.arange(len(cycles)))


def test_the_targets_of_the_regression_are_the_cycles_left_and_no_more_than_the_longest(folder: Path) -> None:
    data = load(folder, target="cycles", bins=6, test_windows="all")
    for split, left in (
        (data.train, dict.fromkeys(TRAIN, 0)),
        (data.validation, dict.fromkeys(TRAIN, 0)),
        (data.test, dict(zip(TEST, LEFT, strict=True))),
    ):
        cycles = TEST if split is data.test else TRAIN
        remaining = [cycles[engine] - last + left[engine] for engine, last in ends(split)]
        assert split.targets.tolist() == [min(cycle, 8) for cycle in remaining]
        assert split.targets.dtype == torch.float32
    assert data.spec == DataSpec((15, 4), 6, modality="sensor")
    assert len(data.class_names) == 6
    assert [split.inputs.tolist() for split in (data.train, data.test)] == [
        split.inputs.tolist() for split in (load(folder).train, load(folder, test_windows="all").test)
    ]


def test_bins_reach_three_standard_deviations_beyond_both_ends() -> None:
    histogram = create(target="cycles").histogram
    # 50 bins of w, of which 2 x 3 x 0.75 w lie beyond: 45.5 w = 125
    width = 125 / 45.5
    np.testing.assert_allclose(histogram.edges.numpy(), [-2.25 * width + i * width for i in range(51)], atol=1e-9)
    np.testing.assert_allclose(histogram.middles.numpy(), [-1.75 * width + i * width for i in range(50)], atol=1e-9)
    found = histogram.bin_of(torch.tensor([-100.0, 0.0, 0.75 * width - 0.01, 0.75 * width + 0.01, 125.0, 1000.0]))
    assert found.tolist() == [0, 2, 2, 3, 47, 49]
    assert found.dtype == torch.int64


@pytest.mark.parametrize("smoothing", [0.75, 0.3])
def test_the_loss_is_the_cross_entropy_to_the_gaussian_in_each_bin(smoothing: float) -> None:
    task = create(target="cycles", bins=9, longest=20, smoothing=smoothing)
    width = 20 / (9 - 6 * smoothing)
    edges = [-3 * smoothing * width + i * width for i in range(10)]
    cycles = [0.0, 7.3, 20.0]
    logits = torch.randn(3, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    losses = []
    for row, number in zip(logits.tolist(), cycles, strict=True):
        below = [normal_below((edge - number) / (smoothing * width)) for edge in edges]
        inside = below[-1] - below[0]
        shares = [(high - low) / inside for low, high in pairwise(below)]
        total = math.log(sum(math.exp(value) for value in row))
        losses.append(sum(share * (total - value) for share, value in zip(shares, row, strict=True)))
    batch = cycles_batch(*cycles, dtype=torch.float64)
    assert task.loss(logits, batch).item() == pytest.approx(sum(losses) / 3, rel=1e-12)
    single = task.loss(logits.float(), cycles_batch(*cycles))
    assert single.item() == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert task.labels(batch).tolist() == [max(i for i in range(9) if edges[i] <= number) for number in cycles]


def test_a_network_that_learnt_its_targets_predicts_them_exactly() -> None:
    """Both ends included, where a Gaussian that was cut off would pull the mean inwards."""
    task = create(target="cycles")
    cycles = [0.0, 1.3, 62.5, 124.0, 125.0]
    batch = cycles_batch(*cycles)
    logits = task.histogram.distribution(batch.targets.double()).clamp_min(1e-30).log()
    assert task.histogram.expected(logits).tolist() == pytest.approx(cycles, abs=0.02)
    answers = task.answers(logits, batch)
    assert task.metrics(DataSpec((15, 30), 50))[0].score(answers) < 0.02


def test_errors_and_the_score_of_phm08_by_hand() -> None:
    task = create(target="cycles")
    metrics = {metric.name: metric for metric in task.metrics(DataSpec((15, 30), 50))}
    assert list(metrics) == ["rmse_cycles", "phm08_score", "mae_cycles"]
    assert not any(metric.higher_is_better for metric in metrics.values())
    middles = task.histogram.middles.tolist()
    chosen = [2, 20, 40, 47]
    logits = torch.nn.functional.one_hot(torch.tensor(chosen), 50) * 1000.0
    late = [10.0, -13.0, 20.0, 0.0]  # predicted - true
    true = [middles[i] - d for i, d in zip(chosen, late, strict=True)]
    answers = task.answers(logits, cycles_batch(*true, dtype=torch.float64))
    assert metrics["rmse_cycles"].score(answers) == pytest.approx(math.sqrt((100 + 169 + 400) / 4), rel=1e-9)
    assert metrics["mae_cycles"].score(answers) == pytest.approx(43 / 4, rel=1e-9)
    # e^(10/10) - 1 for 10 too late, e^(13/13) - 1 for 13 too early
    assert metrics["phm08_score"].score(answers) == pytest.approx(2 * (math.e - 1) + math.e**2 - 1, rel=1e-9)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"bins": 4}, r"bins must be at least 5 where smoothing is 0.75, not 4"),
        ({"bins": 50, "smoothing": 10}, "bins must be at least 61 where smoothing is 10, not 50"),
        ({"smoothing": 0}, "smoothing"),
    ],
)
def test_bins_that_a_gaussian_does_not_fit_into_are_refused(params: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        create(target="cycles", **params)


@pytest.fixture(scope="module")
def every_method(tmp_path_factory: pytest.TempPathFactory, suite_text) -> dict[str, Record]:
    """A run of the regression, an epoch for each."""
    root = tmp_path_factory.mktemp("regression")
    write(root / "data")
    (root / "suite.yaml").write_text(
        suite_text(
            tasks="'turbofan[target=cycles,window=4,longest=8,bins=6,validation_engines=1]'",
            teachers="'conv1d[width=0.5]', 'conv1d[width=0.5]'",
            student="'conv1d[width=0.25]'",
            methods="kd, rkd, fitnets, attention_transfer, ensemble, dml, born_again, self_distillation",
            controls="scratch, label_smoothing",
            epochs="1",
        )
    )
    folders = DataFolders((root / "data",), root / "cache")
    plan = make_plan(load_suite(str(root / "suite.yaml")), discover(), folders)
    folder = RunFolder.create(root / "out", "run")
    ended = execute(plan, folder, root / "out", torch.device("cpu"), Observer())
    return {record.method: record for records in ended for record in records}


def test_every_method_runs_on_the_regression_unchanged(every_method: dict[str, Record]) -> None:
    assert len(every_method) == 10
    for record in every_method.values():
        assert (record.status, record.reason) == ("done", None)
        assert (record.primary, record.higher_is_better) == ("rmse_cycles", False)
        assert {"rmse_cycles", "phm08_score", "mae_cycles", "validation_rmse_cycles"} <= record.metrics.keys()
        assert all(math.isfinite(value) for value in record.metrics.values())


def test_several_teachers_are_scored_by_their_mean(every_method: dict[str, Record]) -> None:
    ensemble, kd = every_method["ensemble"].metrics, every_method["kd"].metrics
    assert kd["own_teacher_rmse_cycles"] == kd["teacher_rmse_cycles"]
    assert ensemble["teacher_rmse_cycles"] == kd["teacher_rmse_cycles"]
    assert ensemble["own_teacher_rmse_cycles"] not in (kd["teacher_rmse_cycles"], ensemble["rmse_cycles"])


# --- files that are no such table ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "train_FD001.txt",
            lambda text: text.replace("100.0", "hot", 1),
            r"train_FD001.txt, line 1: could not convert string to float: 'hot'",
        ),
        (
            "test_FD001.txt",
            lambda text: text.replace("1 2 -0.0007", "1 2", 1),
            r"test_FD001.txt, line 2: must have 26 numbers",
        ),
        (
            "train_FD001.txt",
            lambda text: text.replace("100.0", "100.0 1.0"),
            r"train_FD001.txt, line 1: must have 26 numbers",
        ),
        (
            "train_FD001.txt",
            lambda text: text.replace("100.0", "nan"),
            r"train_FD001.txt, line 1: must have 26 numbers",
        ),
        ("train_FD001.txt", lambda text: "", r"train_FD001.txt holds no rows"),
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
    with pytest.raises(BadInput, match=r"train_FD001.txt, line 1: not UTF-8"):
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
    assert create(target="cycles").load(folders).test.targets.tolist() == [min(cycles, 125) for cycles in left]
    prepared = data.prepare(data.train.inputs).double()
    # float32 holds 2388.06 to 0.0001, and that sensor varies by 0.07
    torch.testing.assert_close(prepared.mean(dim=(0, 2)), torch.zeros(15).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(prepared.std(dim=(0, 2), correction=0), torch.ones(15).double(), atol=1e-3, rtol=0)
