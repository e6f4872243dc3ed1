"""No step of training waits for the device: every method, on a device whose every wait is seen."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import kdbench_plugins
from kdbench import IGNORED, Architecture, Batch, Data, DataSpec, Metric, Split, Task, TensorSplit
from kdbench.method import ALL, Method
from kdbench.plan import Cohort, LoadedTask, Trial
from kdbench.plugins import discover
from kdbench.recipe import Recipe
from kdbench.spec import Spec
from kdbench.splits import resident
from kdbench.task import unchanged
from kdbench.training.cohort import train
from kdbench.training.memory import DeviceMemory
from kdbench.training.observer import Observer
from kdbench.training.randomness import seeded
from kdbench.training.stored_answers import StoredAnswers
from kdbench_plugins.tasks._anchors import Level
from kdbench_plugins.tasks._ctc import SpeechToText
from kdbench_plugins.tasks._detection import Detection
from kdbench_plugins.tasks._frames import NormaliseUtterances
from kdbench_plugins.tasks._segmentation import Segmentation
from kdbench_plugins.tasks.bccd import BCCD
from kdbench_plugins.tasks.cose import CosE

from .remote_device import REMOTE, FromPython, Watch

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]
CODE = (ROOT / "kdbench", ROOT / "plugins")
EXAMPLES, BATCH = 12, 4

ROWS = "which positions count, and so how many rows there are, the data alone tell"
MASKS = "the gradient of what was taken by a mask is put back by it"
NATURE = {
    "pictures": {},
    "speech": {},
    "texts": {},
    "sentences": {
        "kdbench/task.py logits": ROWS,
        "plugins/tasks/cose.py labels": ROWS,
        "plugins/architectures/seq2seq.py forward": "nothing is computed for padding",
        "plugins/architectures/seq2seq.py _without_common_padding": "nothing is computed for padding",
        "the backward pass": MASKS,
    },
    "transcripts": {
        "kdbench/task.py logits": ROWS,
        "plugins/architectures/ctc.py forward": "torch wants the lengths of packed sequences on the host",
        "plugins/tasks/_ctc.py loss": "CTC is computed on the host: on CUDA its gradients differ from run to run",
        "the backward pass": MASKS,
    },
    "pixels": {"kdbench/task.py logits": ROWS, "kdbench/task.py labels": ROWS, "the backward pass": MASKS},
    "boxes": {
        "plugins/tasks/_anchors.py match": "how many objects an image has; once for a batch, whoever learns from it",
        "plugins/tasks/_anchors.py class_loss": "how many anchors count; a sum over all of them has other bits",
        "plugins/tasks/_anchors.py box_loss": "how many anchors match; a sum over all of them has other bits",
        "the backward pass": MASKS,
    },
}
OWN = {
    "kd[masked_class=0]": {
        "plugins/methods/kd.py losses": "how many rows it leaves out; a sum over all of them has other bits",
        "the backward pass": MASKS,
    },
}


class Letters(SpeechToText):
    """Utterances of two letters and silence."""

    alphabet: ClassVar[str] = " ab"


class Sentences(CosE):
    """Questions and reasons, which a teacher would tell in the same words."""

    _learnt: ClassVar[dict[str, Any]] = {"letters": [4, 5, 6]}  # type: ignore[misc]

    def relabelled(self, split: Split, data: Data, network: nn.Module, device: torch.device) -> Split:
        return split


class Boxes(Detection):
    """Objects in small images."""

    levels: ClassVar[tuple[Level, ...]] = BCCD.levels

    def image_shape(self) -> tuple[int, int]:
        return 32, 32

    def metrics(self, spec: DataSpec) -> tuple[Metric, ...]:
        return (Metric("boxes", lambda boxes: boxes.sum().item(), reads=("boxes",)),)


@dataclass(frozen=True)
class Scene:
    """A kind of task with made-up examples, and who learns from whom."""

    task: Task
    student: str
    teacher: str
    spec: DataSpec
    targets: Tensor
    prepare: Callable[[Tensor], Tensor] = unchanged

    def loaded(self) -> LoadedTask:
        drawn, words = torch.Generator().manual_seed(0), self.spec.vocabulary
        shape = (EXAMPLES, *self.spec.input_shape)
        inputs = (
            torch.randn(shape, generator=drawn) if words is None else torch.randint(1, words, shape, generator=drawn)
        )
        inputs[0, ..., -1] = 0  # shorter by one
        split = TensorSplit(inputs, self.targets)
        few = split.subset(torch.arange(2))
        return LoadedTask("made up", self.task, Data(self.spec, split, few, few, prepare=self.prepare), "")


def drawn(low: int, high: int, *shape: int, ignored: Any = ()) -> Tensor:
    """Classes [examples, *shape]; what `ignored` picks does not count."""
    found = torch.randint(low, high, (EXAMPLES, *shape), generator=torch.Generator().manual_seed(1))
    if ignored:
        found[ignored] = IGNORED
    return found


ANCHORS = len(Boxes().anchors())
TOKENS = DataSpec((2, 6), 20, "nlp", vocabulary=20, positions=(6,))
SCENES = {
    "pictures": Scene(Task(), "resnet8", "resnet14", DataSpec((1, 8, 8), 4), drawn(0, 4)),
    "speech": Scene(
        Task(), "conv_gru[width=0.125]", "conv_gru[width=0.25]", DataSpec((8, 16), 4, "speech"), drawn(0, 4)
    ),
    "texts": Scene(
        Task(),
        "bert[layers=2,width=24]",
        "bert[layers=4,width=24]",
        DataSpec((6,), 4, "nlp", vocabulary=20),
        drawn(0, 4),
    ),
    "sentences": Scene(
        Sentences(),
        "transformer[layers=1,width=8,heads=2]",
        "transformer[layers=2,width=8,heads=2]",
        TOKENS,
        drawn(4, 20, 3, 6, ignored=(slice(None), 0, slice(1, None))),  # a letter, the question, and the reason
    ),
    "transcripts": Scene(
        Letters(subsampling=2),
        "ctc_gru[width=6]",
        "ctc_gru[width=8]",
        DataSpec((3, 24), 4, "speech", positions=(12,)),
        drawn(1, 4, 3, ignored=(0, 2)),
        NormaliseUtterances(),
    ),
    "pixels": Scene(
        Segmentation(),
        "unet[width=2,depth=1]",
        "unet[width=4,depth=1]",
        DataSpec((3, 4, 4), 4, positions=(4, 4)),
        drawn(0, 4, 4, 4, ignored=(0,)),
    ),
    "boxes": Scene(
        Boxes(),
        "ssd[backbone=resnet8,width=0.25]",
        "ssd[backbone=resnet8,width=0.5]",
        DataSpec((3, 32, 32), 4, positions=(ANCHORS,), extras=4),
        torch.tensor([8.0, 8.0, 16.0, 16.0, 1.0]).expand(EXAMPLES, 1, 5).clone(),
    ),
}
METHODS = tuple(kdbench_plugins.kdbench_methods())
ONLY = {  # where a method has a meaning
    "data_free": "pictures",
    "explanation_guided": "pictures",
    "minilm": "texts",
    "sequence_kd": "sentences",
    "sp": "pictures",
    "step_by_step": "sentences",
}
CASES = (
    *((method, scene) for method in METHODS for scene in ("pictures", "sentences") if ONLY.get(method, scene) == scene),
    *(("kd", scene) for scene in SCENES if scene not in ("pictures", "sentences")),
    *((method, "texts") for method in ("minilm", "patient_kd", "distilbert")),
    ("kd[masked_class=0]", "pictures"),
)


def create(kind: str, text: str) -> Any:
    return discover().create(kind, Spec.parse(text))


def trial_of(method: str, scene: Scene, **recipe: Any) -> Trial:
    """A trial of three steps, in which progress is 0, 0.5 and 1; its teachers stay as they are built."""
    made: Method = create("method", method)
    needs, common = made.needs, ("made up", "pair", (scene.teacher,))
    short = Recipe(epochs=1, batch_size=BATCH, **recipe)
    teacher = scene.student if needs.teacher_architecture == "student" else scene.teacher
    student = teacher if needs.student_architecture == "teacher" else scene.student
    teachers = tuple(
        Trial(*common, teacher, "teacher", Method(), short, 0, "teacher", (), None, 1, 1, fingerprint=f"teacher {i}")
        for i in range(2 if needs.teachers == ALL else int(needs.teachers))
    )
    return Trial(*common, student, method, made, short, 0, "student", teachers, None, 1, 1, fingerprint="student")


def places(trial: Trial, scene: Scene, folder: Path, stays: bool = True) -> dict[str, set[str]]:
    """Where training waits at its steps, and with which operations. `stays`: the data stay on the device."""
    names = {trial.student, *(teacher.student for teacher in trial.teachers)}
    networks: dict[str, Architecture] = {name: create("architecture", name) for name in names}
    with FromPython(), Watch(CODE, "_epoch", but="_close") as watch:
        loaded = scene.loaded()
        loaded = replace(loaded, data=resident(loaded.data, REMOTE, lambda size: stays))
        with seeded(0):
            built = {each.fingerprint: networks[each.student].build(scene.spec) for each in trial.teachers}
        teachers = {fingerprint: network.to(REMOTE) for fingerprint, network in built.items()}
        saved = lambda trial: folder / trial.fingerprint / "checkpoint.safetensors"  # noqa: E731
        (ended,) = train(Cohort((trial,)), loaded, networks, teachers, saved, REMOTE, Observer())
    assert ended.status == "done", ended.error or ended.reason
    found: dict[str, set[str]] = {}
    for wait in watch.waits:
        found.setdefault(wait.place, set()).add(f"{wait.operation} at {wait.line}")
    return found


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which "meta" does not have


@pytest.mark.parametrize(("method", "scene"), CASES)
def test_steps_wait_for_nothing_but_what_their_nature_asks(method: str, scene: str, tmp_path: Path) -> None:
    found = places(trial_of(method, SCENES[scene]), SCENES[scene], tmp_path)
    expected = NATURE[scene] | OWN.get(method, {})
    assert found.keys() == expected.keys(), {place: found[place] for place in found.keys() - expected.keys()}


@pytest.mark.parametrize(
    "recipe",
    [
        {"optimizer": "adamw", "clip_grad_norm": 1.0},
        {"augmentation": ("crop[padding=1]", "flip")},
        {"speedups": ("stored_answers",)},
    ],
)
def test_nor_does_what_a_recipe_asks(recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeviceMemory, "fits_data", lambda memory, size: True)
    assert not places(trial_of("fitnets", SCENES["pictures"], **recipe), SCENES["pictures"], tmp_path)


def test_nor_do_data_that_come_from_the_host(tmp_path: Path) -> None:
    assert not places(trial_of("kd", SCENES["pictures"]), SCENES["pictures"], tmp_path, stays=False)


def test_stored_answers_are_the_same_on_the_device_and_on_disk() -> None:
    arrays = {"logits": np.random.default_rng(0).random((5, 3), "f4"), "stage1": np.ones((5, 2, 4), "f4")}
    disk = StoredAnswers(arrays, seconds=1.0)
    asked: list[int] = []
    assert disk.held_on(CPU, lambda size: bool(asked.append(size))) is disk  # type: ignore[func-returns-value]
    assert asked == [4 * (15 + 40)]
    batch = Batch(torch.zeros(2), torch.zeros(2), torch.tensor([4, 0]))
    answers = disk(batch)
    assert answers["logits"].tolist() == arrays["logits"][[4, 0]].tolist()
    held = disk.held_on(CPU, lambda size: True)
    assert held.seconds == 1.0
    assert all(answers[tap].equal(tensor) for tap, tensor in held(batch).items())
