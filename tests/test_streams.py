"""Students on CUDA streams of their own: who waits for whom, and that no bit changes.

Here streams are pretended ones, which know what was done before them by vector clocks (Mattern 1989): what a stream
does comes surely after what it knows of, and after nothing else. The last test needs a card.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import dropwhile
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import torch
from torch import Tensor, nn

from kdbench import Method, Needs, Step, Task
from kdbench.data import DataFolders
from kdbench.errors import BadInput, Terminated
from kdbench.execution.limits import Limits
from kdbench.plan import Plan, Trial
from kdbench.planner import make_plan
from kdbench.plugins import Origin, Plugin, Registry, discover
from kdbench.suite_file import load_suite
from kdbench.training import cohort as cohort_module
from kdbench.training import streams as streams_module
from kdbench.training.cohort import train
from kdbench.training.learner import Learner
from kdbench.training.observer import Observer
from kdbench.training.streams import SideStreams
from kdbench.training.teachers import TeacherPanel
from kdbench.training.trained import Trained

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Pretended:
    """A stream that counts its works, and knows how many of each other one come before its next."""

    def __init__(self) -> None:
        self.done = 0
        self.known: dict[Pretended, int] = {}

    def wait_stream(self, other: Pretended) -> None:
        for stream, works in {**other.known, other: other.done}.items():
            self.known[stream] = max(self.known.get(stream, 0), works)


@dataclass
class Card:
    """Pretended streams, and what was done on them: which stream, what, and which works it does not come after."""

    main: Pretended = field(default_factory=Pretended)
    sides: list[Pretended] = field(default_factory=list)
    current: Pretended = field(init=False)
    log: list[tuple[Pretended, str, list[Pretended]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.current = self.main

    def make(self, device: torch.device) -> Pretended:
        self.sides.append(Pretended())
        return self.sides[-1]

    @contextmanager
    def on(self, stream: Pretended) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def work(self, what: str) -> None:
        here = self.current
        others = [each for each in (self.main, *self.sides) if each is not here]
        self.log.append((here, what, [each for each in others if here.known.get(each, 0) < each.done]))
        here.done += 1


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    """A machine whose CUDA streams are pretended."""
    pretended = Card()
    monkeypatch.setattr(streams_module.torch.cuda, "Stream", pretended.make)
    monkeypatch.setattr(streams_module.torch.cuda, "stream", pretended.on)
    monkeypatch.setattr(streams_module.torch.cuda, "current_stream", lambda device: pretended.main)
    return pretended


@dataclass(frozen=True)
class GivesUp(Method):
    """Raises in the midst of training."""

    family: ClassVar = "response"

    @property
    def needs(self) -> Needs:
        return Needs()

    def losses(self, step: Step) -> dict[str, Tensor]:
        if step.progress > 0.4:
            raise torch.OutOfMemoryError("the device is full")
        return {"task": step.task_loss(step.student["logits"])}


@pytest.fixture
def plan(tiny_suite: Callable[..., Path], tmp_path: Path) -> Callable[..., Plan]:
    def build(**changes: str) -> Plan:
        found, origin = discover(), Origin("tests", "0", __name__)
        methods = {**found.plugins["method"], "gives_up": Plugin("method", "gives_up", GivesUp, origin)}
        registry = Registry({**found.plugins, "method": methods})
        return make_plan(load_suite(str(tiny_suite(**changes))), registry, DataFolders((tmp_path,), tmp_path))

    return build


def ended(plan: Plan, folder: Path, streams: int = 1, device: torch.device = CPU) -> dict[str, Trained]:
    folder.mkdir(exist_ok=True)
    (cohort,) = plan.cohorts
    networks: dict[str, nn.Module] = {}
    for index, teacher in enumerate(cohort.teachers):
        torch.manual_seed(index)
        network = plan.architectures[teacher.student].build(plan.tasks[teacher.task].data.spec)
        networks[teacher.fingerprint] = network.to(device)
    found = train(
        cohort,
        plan.tasks[cohort.head.task],
        plan.architectures,
        networks,
        lambda trial: folder / f"{trial.fingerprint}.safetensors",
        device,
        Observer(),
        streams=streams,
    )
    return {trained.trial.method_name: trained for trained in found}


def weights(trained: Trained) -> dict[str, bytes]:
    assert trained.student is not None, trained.error
    return {name: value.cpu().numpy().tobytes() for name, value in trained.student.state_dict().items()}


def watch(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the works of training counted on the pretended card, though they are done on the CPU."""

    def counted(owner: Any, name: str, what: Callable[..., str]) -> None:
        original = getattr(owner, name)

        def work(*arguments: Any, **options: Any) -> Any:
            card.work(what(*arguments))
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, work)

    counted(TeacherPanel, "__call__", lambda panel, batch: "teachers")
    counted(Task, "labels", lambda task, batch: f"labels {batch.indices.tolist()}")
    for name in ("begin", "advance", "restore", "end_epoch", "deploy", "tensors"):
        counted(Learner, name, lambda learner, *_, name=name: f"{name} {learner.trial.method_name}")
    monkeypatch.setattr(cohort_module, "SideStreams", lambda device, most, trials: SideStreams(CUDA, most, trials))


def test_every_work_comes_after_all_that_it_reads(
    card: Card, plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = plan(methods="kd, gives_up, fitnets, rkd")
    usual = ended(here, tmp_path / "usual")
    watch(card, monkeypatch)
    found = ended(here, tmp_path / "side by side", streams=3)

    assert len(card.sides) == 3
    own: dict[str, set[Pretended]] = {}
    for stream, what, unknown in card.log:
        name, _, method = what.partition(" ")
        if stream is card.main:
            assert not unknown, f"{what} may begin before what students do is over"
            assert name in ("teachers", "labels", "end_epoch", "deploy", "tensors")
        else:
            assert card.main not in unknown, f"{what} may begin before the batch and its answers are there"
            assert name in ("begin", "advance", "restore", "labels")
            if name != "labels":
                own.setdefault(method, set()).add(stream)
    assert set(own) == {"scratch", "kd", "gives_up", "fitnets", "rkd"}
    assert [card.sides.index(*streams) for streams in own.values()] == [0, 1, 2, 0, 1]  # type: ignore[arg-type]
    assert found["gives_up"].out_of_memory
    steps = [what for _, what, _ in card.log if what.startswith("advance")]
    assert steps.count("advance kd") > steps.count("advance gives_up") > 1
    del usual["gives_up"], found["gives_up"]
    assert {name: (weights(each), each.curves) for name, each in found.items()} == {
        name: (weights(each), each.curves) for name, each in usual.items()
    }


def test_what_a_task_remembers_of_a_batch_is_there_before_students_part(
    card: Card, plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = plan(methods="kd", epochs="1")
    watch(card, monkeypatch)
    ended(here, tmp_path / "out", streams=2)
    admitted = max(number for number, (_, what, _) in enumerate(card.log) if what.startswith("begin"))
    training = dropwhile(lambda work: work[0] is not card.main, card.log[admitted:])
    first: dict[str, Pretended] = {}
    for stream, what, _ in training:
        if what.startswith("labels"):
            first.setdefault(what, stream)
    assert len(first) > 3
    assert set(first.values()) == {card.main}


def test_a_resumed_student_is_restored_on_its_stream(
    card: Card, plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = plan(methods="kd", epochs="1")
    ended(here, tmp_path / "out")
    watch(card, monkeypatch)
    ended(here, tmp_path / "out", streams=2)
    restored = {what: stream for stream, what, _ in card.log if what.startswith("restore")}
    assert [card.sides.index(stream) for stream in restored.values()] == [0, 1]


def some(count: int) -> list[Trial]:
    """Trials of which only their identity matters."""
    return [cast(Trial, object()) for _ in range(count)]


def test_whatever_happens_the_main_stream_waits(card: Card) -> None:
    trials = some(2)
    sides = SideStreams(CUDA, 2, trials)

    def terminated() -> None:
        with sides.parted():
            for trial in trials:
                with sides.of(trial):
                    card.work("step")
            raise Terminated(143)

    with pytest.raises(Terminated):
        terminated()
    card.work("the next run's")
    assert card.log[-1] == (card.main, "the next run's", [])


@pytest.mark.parametrize(
    ("device", "most", "trials"), [(CUDA, 1, 5), (CUDA, 4, 1), (CPU, 4, 5), (torch.device("mps"), 4, 5)]
)
def test_there_are_none_where_nothing_could_overlap(device: torch.device, most: int, trials: int, card: Card) -> None:
    listed = some(trials)
    sides = SideStreams(device, most, listed)
    with sides.parted(), sides.of(listed[0]):
        card.work("step")
    assert not sides
    assert not card.sides
    assert card.log == [(card.main, "step", [])]


def test_there_are_no_more_than_trials(card: Card) -> None:
    assert SideStreams(CUDA, 16, some(3))
    assert len(card.sides) == 3


def test_only_cuda_has_streams(tiny_suite: Callable[..., Path], kdbench: Callable[..., tuple[int, str, str]]) -> None:
    Limits(streams=4).check(CUDA)
    Limits(streams=1).check(CPU)
    with pytest.raises(BadInput, match="--streams 0: must be above 0"):
        Limits(streams=0)
    status, _, messages = kdbench("run", str(tiny_suite()), "--streams", "4", "--device", "cpu")
    assert status == 2
    assert "--streams 4: cpu has none" in messages


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_streams_change_no_bit_on_a_card(
    plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    here = plan(methods="kd, fitnets, rkd, crd, dml, attention_transfer", teachers="resnet20", student="resnet8")
    one, several = (ended(here, tmp_path / str(streams), streams, CUDA) for streams in (1, 4))
    assert {name: (weights(each), each.curves) for name, each in several.items()} == {
        name: (weights(each), each.curves) for name, each in one.items()
    }
