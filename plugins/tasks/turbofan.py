"""Turbofan: how long an aircraft engine will still run, from its sensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from kdbench import (
    BadInput,
    Batch,
    Count,
    Data,
    DataFile,
    DataFolders,
    DataSpec,
    Metric,
    MissingData,
    Positive,
    Task,
    TensorSplit,
)

from ._text_table import read_text

if TYPE_CHECKING:
    from torch import Tensor

    from ._histogram import Histogram

_COLUMNS = 26  # engine, cycle, 3 settings, 21 sensors
_CONSTANT = (6, 10, 15, 21, 23, 24)  # sensors that say nothing in FD001, as columns counted from 1
_SENSORS = [column - 1 for column in range(6, _COLUMNS + 1) if column not in _CONSTANT]
_SEED = 0
_BINS = {"bins": 5, "cycles": 50}  # where none are asked for

Array = NDArray[np.float64]
Runs = dict[int, Array]  # by engine: its sensors [cycles, 15], from its first recorded cycle to its last


@dataclass(frozen=True)
class Turbofan(Task):
    """Remaining useful life of simulated aircraft engines (NASA C-MAPSS, FD001), in cycles or as bins of them.

    100 engines that ran until they failed, and 100 others cut off before, for testing. Source: Saxena, Goebel, Simon
    and Eklund, Damage propagation modeling for aircraft engine run-to-failure simulation, PHM 2008.

    An input is a window of the 15 sensors that are not constant, its target the cycles left after its last one. No
    engine is in two splits: the task brings its own validation split, whatever the suite's `validation_fraction`.

    `target=cycles` is the usual regression, scored by the root mean squared error. Networks answer it with logits over
    bins, whose expectation is the prediction (see `Histogram`): a student learns from a teacher's whole distribution,
    and every distillation method, made for logits, works on it unchanged.

    `target=bins` is a classification: bins of equal width up to `longest`, and the last takes all above (5 bins: from
    0, 25, 50, 75 and 100 on).

    Attributes:
        window: cycles per input.
        target: "bins" or "cycles".
        bins: classes, or bins of the regression's answer; None: 5, or 50.
        longest: cycles that count as healthy, as usual in the literature on this data set; a target is never above.
        smoothing: of the regression's targets: the standard deviation of their Gaussian, in bin widths.
        stride: every how many cycles a training or validation window ends; neighbours overlap almost wholly.
        validation_engines: held out of the 100 training engines, chosen by a fixed seed.
        test_windows: "last": one per test engine, where it was cut off (as published, 100 examples); "all": every
            window of these engines. Those of one engine are alike, so intervals over examples are then too narrow.
    """

    modality: ClassVar[str] = "sensor"
    data_files: ClassVar[tuple[DataFile, ...]] = (
        DataFile(
            "sensor/cmapss_fd001.zip",
            "62853dd2a6d9c790ef5d28c7111b832e8a87dbd435e9d29d1eabcae6db15b08c",
            folder="CMAPSS",
            source="the NASA prognostics data repository, where train_FD001.txt, test_FD001.txt and RUL_FD001.txt "
            "belong to the turbofan engine degradation set",
        ),
    )

    window: Count = 30
    target: Literal["bins", "cycles"] = "bins"
    bins: Count | None = None
    longest: Count = 125
    smoothing: Positive = 0.75
    stride: Count = 1
    validation_engines: Count = 20
    test_windows: Literal["last", "all"] = "last"

    def __post_init__(self) -> None:
        if self.target == "cycles":
            _ = self.histogram  # which refuses too few bins
        elif not 2 <= self.classes <= self.longest:
            raise ValueError(f"bins must be between 2 and longest ({self.longest}), not {self.classes}")

    @property
    def classes(self) -> int:
        """Bins, of either kind."""
        return self.bins or _BINS[self.target]

    @property
    def histogram(self) -> Histogram:
        """What the logits of the regression are."""
        from ._histogram import Histogram

        return Histogram(0.0, float(self.longest), self.classes, self.smoothing)

    def load(self, folders: DataFolders) -> Data:
        """float32 inputs [N, 15, window].

        Raises:
            MissingData: it is neither here nor downloadable.
            BadInput: a file is no such table, or an engine ran for less than a window.
        """
        from ._signals import NormaliseChannels

        folder = folders.provide(self.data_files[0])
        train, test = (_runs(_table(folder / f"{part}_FD001.txt", _COLUMNS)) for part in ("train", "test"))
        left = _table(folder / "RUL_FD001.txt", 1)[:, 0]
        if len(left) != len(test):
            raise BadInput(f"{folder} has {len(test)} test engines, but the remaining cycles of {len(left)}")
        held_out = self._held_out(list(train))
        failed = dict.fromkeys(train, 0.0)
        fitted = self._split(
            {engine: run for engine, run in train.items() if engine not in held_out}, failed, self.stride
        )
        return Data(
            spec=DataSpec(input_shape=(len(_SENSORS), self.window), classes=self.classes, modality="sensor"),
            train=fitted,
            validation=self._split({engine: train[engine] for engine in sorted(held_out)}, failed, self.stride),
            test=self._split(test, dict(zip(test, left, strict=True)), 1 if self.test_windows == "all" else None),
            class_names=self._class_names(),
            prepare=NormaliseChannels.to(fitted.inputs),
        )

    def labels(self, batch: Batch) -> Tensor:
        """The bin of each target."""
        return batch.targets if self.target == "bins" else self.histogram.bin_of(batch.targets)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy to the bin, or, of the regression, to the smoothed histogram of the cycles."""
        from torch.nn.functional import cross_entropy

        targets = batch.targets if self.target == "bins" else self.histogram.distribution(batch.targets)
        return cross_entropy(logits, targets)

    def metrics(self, spec: DataSpec) -> tuple[Metric, ...]:
        """Of the regression the errors in cycles and the score of PHM 2008; else those of a classification, and the
        error in cycles from the middles of the bins.

        All of them read logits, not predicted cycles: so the mean answer of several teachers has a score too.
        """
        if self.target == "cycles":
            scores = {"rmse_cycles": (rmse, "cycles"), "phm08_score": (phm08_score, ""), "mae_cycles": (mae, "cycles")}
            return tuple(
                Metric(name, partial(_of_cycles, score, self.histogram), higher_is_better=False, unit=unit)
                for name, (score, unit) in scores.items()
            )
        width = self.longest / self.classes
        error = partial(rmse_of_bins, middles=tuple(width * (label + 0.5) for label in range(self.classes)))
        return (*super().metrics(spec), Metric("rmse_cycles", error, higher_is_better=False, unit="cycles"))

    def _held_out(self, engines: list[int]) -> set[int]:
        if self.validation_engines >= len(engines):
            raise BadInput(f"cannot hold out {self.validation_engines} of {len(engines)} training engines")
        return set(np.random.default_rng(_SEED).permutation(engines)[: self.validation_engines].tolist())

    def _split(self, runs: Runs, left: dict[int, float], stride: int | None) -> TensorSplit:
        """The windows that end at every `stride`-th cycle back from the last one (None: at the last one only)."""
        import torch

        windows, remaining = [], []
        for engine, run in runs.items():
            if len(run) < self.window:
                raise BadInput(f"engine {engine} ran for {len(run)} cycles, less than a window of {self.window}")
            every = np.lib.stride_tricks.sliding_window_view(run, self.window, axis=0)
            chosen = np.arange(len(every))[:: -(stride or len(every))][::-1]
            windows.append(every[chosen].astype(np.float32))
            remaining.append(left[engine] + len(every) - 1 - chosen)
        targets = self._targets(np.concatenate(remaining))
        return TensorSplit(torch.from_numpy(np.concatenate(windows)), torch.from_numpy(targets))

    def _targets(self, remaining: Array) -> NDArray[np.float32] | NDArray[np.int64]:
        if self.target == "cycles":
            return np.minimum(remaining, self.longest).astype(np.float32)
        edges = np.linspace(0, self.longest, self.classes + 1)[1:-1]
        return np.digitize(remaining, edges)

    def _class_names(self) -> tuple[str, ...]:
        if self.target == "cycles":
            edges = [f"{edge:.3g}" for edge in self.histogram.edges.tolist()]
            return tuple(f"{low} to {high} cycles" for low, high in pairwise(edges))
        edges = [f"{self.longest * label / self.classes:g}" for label in range(self.classes)]
        return (
            *(f"{low} to {high} cycles" for low, high in pairwise(edges)),
            f"{edges[-1]} or more",
        )


def rmse(predicted: Tensor, true: Tensor) -> float:
    """The root of the mean squared difference."""
    return (predicted - true).square().mean().sqrt().item()


def mae(predicted: Tensor, true: Tensor) -> float:
    """The mean absolute difference."""
    return (predicted - true).abs().mean().item()


def phm08_score(predicted: Tensor, true: Tensor) -> float:
    """The sum of exp(d / 10) - 1 for d = predicted - true cycles above 0, and of exp(-d / 13) - 1 below: a failure
    foretold too late costs more (Saxena et al. 2008). A few bad misses decide it."""
    late = predicted - true
    return ((late / 10).expm1().where(late >= 0, (-late / 13).expm1())).sum().item()


def _of_cycles(
    score: Callable[[Tensor, Tensor], float], histogram: Histogram, logits: Tensor, targets: Tensor
) -> float:
    return score(histogram.expected(logits), targets.cpu().double())


def rmse_of_bins(logits: Tensor, targets: Tensor, middles: tuple[float, ...]) -> float:
    """The root of the mean squared difference, in cycles, of the expected middle and the middle of the target's bin.

    Targets are bins, so the cycles within a bin are lost: this is no published RMSE, which `target=cycles` gives.
    """
    import torch

    cycles = torch.tensor(middles, dtype=torch.float64)
    expected = logits.cpu().double().softmax(dim=1) @ cycles
    return rmse(expected, cycles[targets.cpu()])


def _table(path: Path, columns: int) -> Array:
    if not path.exists():
        raise MissingData(f"{path} is missing", hint="remove its folder, so that it is unpacked again")
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        try:
            row = [float(cell) for cell in line.split()]
        except ValueError as error:
            raise BadInput(f"{path}, line {number}: {error}") from error
        if len(row) != columns or not all(map(math.isfinite, row)):
            raise BadInput(f"{path}, line {number}: must have {columns} numbers")
        rows.append(row)
    if not rows:
        raise BadInput(f"{path} holds no rows")
    return np.array(rows)


def _runs(table: Array) -> Runs:
    engines = table[:, 0].astype(int)
    return {int(engine): table[engines == engine][:, _SENSORS] for engine in np.unique(engines)}
