"""Turbofan: how long an aircraft engine will still run, from its sensors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from kdbench import BadInput, Count, Data, DataFile, DataFolders, DataSpec, Metric, MissingData, Task, TensorSplit

if TYPE_CHECKING:
    from torch import Tensor

_COLUMNS = 26  # engine, cycle, 3 settings, 21 sensors
_CONSTANT = (6, 10, 15, 21, 23, 24)  # sensors that say nothing in FD001, as columns counted from 1
_SENSORS = [column - 1 for column in range(6, _COLUMNS + 1) if column not in _CONSTANT]
_SEED = 0

Array = NDArray[np.float64]
Runs = dict[int, Array]  # by engine: its sensors [cycles, 15], from its first recorded cycle to its last


@dataclass(frozen=True)
class Turbofan(Task):
    """Remaining useful life of simulated aircraft engines (NASA C-MAPSS, FD001), as bins of cycles.

    100 engines that ran until they failed, and 100 others cut off before, for testing. Source: Saxena, Goebel, Simon
    and Eklund, Damage propagation modeling for aircraft engine run-to-failure simulation, PHM 2008.

    An input is a window of the 15 sensors that are not constant, its target the bin of the cycles left after its last
    one: bins of equal width up to `longest`, and the last takes all above (5 bins: from 0, 25, 50, 75 and 100 on).
    No engine is in two splits: the task brings its own validation split, whatever the suite's `validation_fraction`.
    This is the classification form; the usual one, regression of the cycles, is not here yet.

    Attributes:
        window: cycles per input.
        bins: classes.
        longest: cycles that count as healthy, as usual in the literature on this data set.
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
    bins: Count = 5
    longest: Count = 125
    stride: Count = 1
    validation_engines: Count = 20
    test_windows: Literal["last", "all"] = "last"

    def __post_init__(self) -> None:
        if not 2 <= self.bins <= self.longest:
            raise ValueError(f"bins must be between 2 and longest ({self.longest}), not {self.bins}")

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
            spec=DataSpec(input_shape=(len(_SENSORS), self.window), classes=self.bins, modality="sensor"),
            train=fitted,
            validation=self._split({engine: train[engine] for engine in sorted(held_out)}, failed, self.stride),
            test=self._split(test, dict(zip(test, left, strict=True)), 1 if self.test_windows == "all" else None),
            class_names=self._class_names(),
            prepare=NormaliseChannels.to(fitted.inputs),
        )

    def metrics(self, spec: DataSpec) -> tuple[Metric, ...]:
        """Those of a classification, and the error in cycles, from the middles of the bins."""
        width = self.longest / self.bins
        error = partial(rmse_cycles, middles=tuple(width * (label + 0.5) for label in range(self.bins)))
        return (*super().metrics(spec), Metric("rmse_cycles", error, higher_is_better=False))

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
        edges = np.linspace(0, self.longest, self.bins + 1)[1:-1]
        targets = np.digitize(np.concatenate(remaining), edges)
        return TensorSplit(torch.from_numpy(np.concatenate(windows)), torch.from_numpy(targets))

    def _class_names(self) -> tuple[str, ...]:
        edges = [f"{self.longest * label / self.bins:g}" for label in range(self.bins)]
        return (
            *(f"{low} to {high} cycles" for low, high in pairwise(edges)),
            f"{edges[-1]} or more",
        )


def rmse_cycles(logits: Tensor, targets: Tensor, middles: tuple[float, ...]) -> float:
    """The root of the mean squared difference, in cycles, of the expected middle and the middle of the target's bin.

    Targets are bins, so the cycles within a bin are lost: this is no published RMSE, which needs the regression.
    """
    import torch

    cycles = torch.tensor(middles, dtype=torch.float64)
    expected = logits.cpu().double().softmax(dim=1) @ cycles
    return (expected - cycles[targets.cpu()]).square().mean().sqrt().item()


def _table(path: Path, columns: int) -> Array:
    import pandas as pd

    try:
        table = pd.read_csv(path, sep=r"\s+", header=None).to_numpy(dtype=np.float64)
    except FileNotFoundError as error:
        raise MissingData(f"{path} is missing", hint="remove its folder, so that it is unpacked again") from error
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise BadInput(f"{path} cannot be read as a table of numbers: {error}") from error
    if table.shape[1] != columns or not np.isfinite(table).all():
        raise BadInput(f"{path} must have {columns} numbers in each line")
    return table


def _runs(table: Array) -> Runs:
    engines = table[:, 0].astype(int)
    return {int(engine): table[engines == engine][:, _SENSORS] for engine in np.unique(engines)}
