"""What the engine is timed on: teacher-student pairs of the literature, on made-up data of the right shapes.

Values do not matter to the time of a step, so inputs are noise, and teachers are as their initialisation leaves them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from kdbench import Data, DataFolders, DataSpec, Task, TensorSplit
from kdbench.plan import Cohort, LoadedTask, Plan, Trial
from kdbench.planner import make_plan
from kdbench.plugins import Origin, Plugin, Registry, discover
from kdbench.suite import Suite
from kdbench.task import Split
from kdbench.training.cohort import train
from kdbench.training.observer import Observer
from kdbench.training.randomness import seeded
from kdbench.training.trained import Trained

LEARNING_RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4


@dataclass(frozen=True)
class Workload:
    """A teacher and a student, and the kind of data they are for; `steps` make a lap that is long enough to time."""

    teacher: str
    student: str
    kind: str = "images"
    optimizer: str = "sgd"
    steps: int = 1

    def __str__(self) -> str:
        return f"{self.teacher} -> {self.student}"


WORKLOADS = {
    "resnet20": Workload("resnet20", "resnet8", steps=4),
    "resnet56": Workload("resnet56", "resnet20"),
    "resnet32x4": Workload("resnet32x4", "resnet8x4"),
    "wrn_40_2": Workload("wrn_40_2", "wrn_16_2"),
    "conv_gru": Workload("conv_gru[width=2]", "conv_gru[width=0.5]", "sound", steps=20),
    "bert": Workload("bert[layers=4,width=256,heads=4]", "bert[layers=2,width=128,heads=2]", "text", "adamw"),
}

_SPECS = {
    "images": DataSpec((3, 32, 32), classes=100),
    "sound": DataSpec((40, 101), classes=12, modality="speech"),
    "text": DataSpec((64,), classes=2, modality="nlp", vocabulary=8000),
}


@dataclass(frozen=True)
class MadeUp(Task):
    """Noise of a kind, as networks take it, with random labels."""

    kind: str = "images"
    examples: int = 64

    def load(self, folders: DataFolders) -> Data:
        """`examples` for training, a batch of 8 for validation and for testing."""
        spec = _SPECS[self.kind]
        random = torch.Generator().manual_seed(0)
        train, validation, test = (_noise(spec, count, random) for count in (self.examples, 8, 8))
        return Data(spec, train, test, validation)


def _noise(spec: DataSpec, examples: int, random: torch.Generator) -> TensorSplit:
    shape = (examples, *spec.input_shape)
    inputs: Tensor
    if spec.vocabulary is None:
        inputs = torch.randn(shape, generator=random)
    else:
        inputs = torch.randint(1, spec.vocabulary, shape, generator=random)
    return TensorSplit(inputs, torch.randint(0, spec.classes, (examples,), generator=random))


@dataclass(frozen=True)
class Bench:
    """A workload planned and ready: its trials by method, its data, and its teacher. `streams`: of CUDA, on which the
    engine advances students at once."""

    workload: Workload
    plan: Plan
    trials: Mapping[str, Trial]
    loaded: LoadedTask
    teacher: nn.Module
    device: torch.device
    streams: int = 1

    def student(self, method: str) -> nn.Module:
        """A student as the engine begins with it."""
        trial = self.trials[method]
        with seeded(trial.seed, trial.stream, "weights", trial.student, 0):
            return self.plan.architectures[trial.student].build(self.loaded.data.spec).to(self.device)

    def example(self, size: int) -> Tensor:
        """The inputs of a batch, on the device."""
        return next(self.loaded.data.train.batches([torch.arange(size)])).inputs.to(self.device)

    def _network(self, teacher: Trial) -> nn.Module:
        """The workload's teacher, or one that looks like the student (born-again networks)."""
        if teacher.student == self.workload.teacher:
            return self.teacher
        return self.plan.architectures[teacher.student].build(self.loaded.data.spec).to(self.device)

    def train(self, methods: Sequence[str], split: Split) -> list[Trained]:
        """The engine's own training of these methods in one cohort, on the examples of `split`.

        Raises:
            RuntimeError: a trial did not get to its end, so that there is nothing to time.
        """
        cohort = Cohort(tuple(self.trials[method] for method in methods))
        loaded = replace(self.loaded, data=replace(self.loaded.data, train=split))
        teachers = {teacher.fingerprint: self._network(teacher) for teacher in cohort.teachers}
        with TemporaryDirectory() as folder:
            ended = list(
                train(
                    cohort,
                    loaded,
                    self.plan.architectures,
                    teachers,
                    lambda trial: Path(folder, trial.fingerprint, "checkpoint.safetensors"),
                    self.device,
                    Observer(),
                    streams=self.streams,
                )
            )
        for trained in ended:
            if trained.status != "done":
                raise RuntimeError(f"{trained.trial.method_name} {trained.status}: {trained.error or trained.reason}")
        return ended


def planned(workload: Workload, methods: Sequence[str], examples: int, batch_size: int) -> Plan:
    """A suite of the workload with these methods, as suites write them, for one epoch."""
    suite = Suite.model_validate(
        {
            "suite": "benchmark@1.0",
            "tasks": [f"made_up[kind={workload.kind},examples={examples}]"],
            "pairs": [{"teacher": [workload.teacher], "student": workload.student}],
            "methods": [method for method in methods if method != "scratch"],
            "add_controls": False,
            "seeds": 1,
            "recipe": {
                "epochs": 1,
                "batch_size": batch_size,
                "optimizer": workload.optimizer,
                "learning_rate": LEARNING_RATE,
                "momentum": MOMENTUM,
                "weight_decay": DECAY,
                "decay_biases_and_norms": True,
                "schedule": "constant",
            },
        }
    )
    with TemporaryDirectory() as folder:
        return make_plan(suite, _registry(), DataFolders((), Path(folder)))


def bench(workload: Workload, methods: Sequence[str], examples: int, batch_size: int, device: torch.device) -> Bench:
    """The workload planned and ready."""
    plan = planned(workload, methods, examples, batch_size)
    if plan.skipped:
        raise RuntimeError(f"{workload}: {plan.skipped[0].trial.method_name} skipped: {plan.skipped[0].reason}")
    head = plan.cohorts[0].head
    assert head.reference is not None
    loaded = plan.tasks[head.task]
    torch.manual_seed(1)
    teacher = plan.architectures[head.reference.student].build(loaded.data.spec).to(device).eval()
    trials = dict(zip(["scratch", *(each for each in methods if each != "scratch")], plan.trials, strict=True))
    return Bench(workload, plan, trials, loaded, teacher.requires_grad_(False), device)


def _registry() -> Registry:
    """The built-in plugins and the made-up data."""
    found = discover()
    tasks = {**found.plugins["task"], "made_up": Plugin("task", "made_up", MadeUp, Origin("benchmarks", "0", __name__))}
    return Registry({**found.plugins, "task": tasks})
