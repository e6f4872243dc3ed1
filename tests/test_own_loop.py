"""Methods that own their loop: alone, within the engine's budget, and under its guarantees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from kdbench import Batch, Loop, Method, Needs, OwnLoop, Step
from kdbench.data import DataFolders
from kdbench.errors import BrokenPlugin
from kdbench.plan import Cohort, Plan, Trial
from kdbench.planner import make_plan
from kdbench.plugins import Origin, Plugin, Registry, discover
from kdbench.suite_file import load_suite
from kdbench.training.cohort import train
from kdbench.training.observer import Observer
from kdbench.training.trained import Trained

CPU = torch.device("cpu")
SEEN: list[Loop] = []


@dataclass(frozen=True)
class Watchful(OwnLoop):
    """Does what KD's soft term does, by asking the networks itself, and notes what it was given."""

    family: ClassVar[str] = "response"
    paper: ClassVar[str] = "none"
    data: str = "train"

    @property
    def needs(self) -> Needs:
        return Needs(student=("logits", "stage1"), teacher=("embedding",), data=self.data)  # type: ignore[arg-type]

    def loop_losses(self, loop: Loop) -> dict[str, Tensor]:
        SEEN.append(loop)
        if loop.batch is None:
            inputs = torch.randn(loop.size, *loop.spec.input_shape)
            own, other = loop.ask(loop.students[0], inputs), loop.ask(loop.teachers[0], inputs)
        else:
            student, teacher = loop.students[0](loop.batch), loop.teachers[0](loop.batch)
            assert set(student) == {"logits", "stage1"}
            assert set(teacher) == {"logits", "embedding"}
            own, other = student["logits"], teacher["logits"]
        return {"match": (own - other).square().mean()}


@dataclass(frozen=True)
class Abstinent(Method):
    """Wants no data, and has no loop to do without."""

    @property
    def needs(self) -> Needs:
        return Needs(data="none")


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    SEEN.clear()


def plan_of(suite: Path, cache: Path) -> Plan:
    found = discover()
    origin = Origin("tests", "0", __name__)
    own = {"watchful": Watchful, "abstinent": Abstinent}
    methods = {name: Plugin("method", name, cls, origin) for name, cls in own.items()}
    registry = Registry({**found.plugins, "method": {**found.plugins["method"], **methods}})
    return make_plan(load_suite(str(suite)), registry, DataFolders((cache,), cache))


@dataclass
class Passes:
    """How often each of some networks was run."""

    networks: dict[str, nn.Module]
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, network in self.networks.items():
            network.register_forward_hook(
                lambda *_, name=name: self.counts.update({name: self.counts.get(name, 0) + 1})
            )


def trained(plan: Plan, cohort: Cohort, folder: Path, observer: Observer | None = None) -> tuple[Trained, Passes]:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    task = plan.tasks[cohort.head.task]
    passes = Passes(
        {each.fingerprint: plan.architectures[each.student].build(task.data.spec) for each in cohort.teachers}
    )

    def checkpoint(trial: Trial) -> Path:
        return folder / f"{trial.fingerprint}.safetensors"

    (ended,) = train(cohort, task, plan.architectures, passes.networks, checkpoint, CPU, observer or Observer())
    return ended, passes


def cohort_of(plan: Plan, name: str) -> Cohort:
    (found,) = [cohort for cohort in plan.cohorts if cohort.head.method_name == name]
    return found


def weights(ended: Trained) -> dict[str, bytes]:
    assert ended.student is not None, ended.error
    return {name: value.numpy().tobytes() for name, value in ended.student.state_dict().items()}


def test_it_runs_alone_and_asks_its_teacher_itself(tiny_suite: Callable[..., Path], tmp_path: Path) -> None:
    plan = plan_of(tiny_suite(methods="kd, watchful", epochs="1"), tmp_path)
    cohort = cohort_of(plan, "watchful")
    assert len(plan.cohorts) == 2
    assert len(cohort.trials) == 1
    ended, passes = trained(plan, cohort, tmp_path / "checkpoints")
    assert ended.status == "done", ended.error
    assert list(passes.counts.values()) == [len(SEEN)]
    assert [loop.index for loop in SEEN] == list(range(len(SEEN)))
    assert (SEEN[0].progress, SEEN[-1].progress) == (0, 1)


def test_no_training_data_means_none(tiny_suite: Callable[..., Path], tmp_path: Path) -> None:
    plan = plan_of(tiny_suite(methods="'watchful[data=none]'", epochs="1"), tmp_path)
    ended, _ = trained(plan, cohort_of(plan, "watchful"), tmp_path / "checkpoints")
    assert ended.status == "done", ended.error
    assert SEEN
    assert all(loop.batch is None for loop in SEEN)


def test_its_teachers_stay_as_they_are(tiny_suite: Callable[..., Path], tmp_path: Path) -> None:
    plan = plan_of(tiny_suite(methods="data_free", epochs="1"), tmp_path)
    cohort = cohort_of(plan, "data_free")
    ended, passes = trained(plan, cohort, tmp_path / "once")
    assert ended.status == "done", ended.error
    torch.manual_seed(0)
    task = plan.tasks[cohort.head.task]
    fresh = {each.fingerprint: plan.architectures[each.student].build(task.data.spec) for each in cohort.teachers}
    for name, network in passes.networks.items():
        assert all(parameter.grad is None for parameter in network.parameters())
        assert not network.training
        before = fresh[name].state_dict()
        assert all(value.equal(before[key]) for key, value in network.state_dict().items())


class Killed(BaseException):
    pass


class KillAfterOne(Observer):
    def epoch_ended(self, cohort: Cohort, epochs: int, curves: Any) -> None:
        if epochs == 1:
            raise Killed


def test_killed_equals_unharmed(tiny_suite: Callable[..., Path], tmp_path: Path) -> None:
    plan = plan_of(tiny_suite(methods="data_free", epochs="2"), tmp_path)
    cohort = cohort_of(plan, "data_free")
    unharmed, _ = trained(plan, cohort, tmp_path / "unharmed")
    with pytest.raises(Killed):
        trained(plan, cohort, tmp_path / "killed", KillAfterOne())
    resumed, _ = trained(plan, cohort, tmp_path / "killed")
    assert weights(resumed) == weights(unharmed)
    assert resumed.curves == unharmed.curves


def test_only_methods_that_own_their_loop_go_without_data(tiny_suite: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(BrokenPlugin, match="abstinent wants no training data, and does not own its loop"):
        plan_of(tiny_suite(methods="abstinent"), tmp_path)


@pytest.mark.parametrize(
    ("method", "reason"), [("step_by_step", "Digits has no rationales to learn from"), ("data_free", "tokens")]
)
def test_where_it_has_no_meaning_it_is_skipped(
    tiny_suite: Callable[..., Path], tmp_path: Path, method: str, reason: str
) -> None:
    changes = {"methods": method}
    if method == "data_free":
        (tmp_path / "texts.csv").write_text("text,label\n" + "good,yes\nbad,no\n" * 20, encoding="utf-8")
        task = f"'text_file[path={tmp_path}/texts.csv]'"
        changes |= {"tasks": task, "teachers": "text_cnn", "student": "text_cnn"}
    plan = plan_of(tiny_suite(**changes), tmp_path)
    ended, _ = trained(plan, cohort_of(plan, method), tmp_path / "checkpoints")
    assert ended.status == "skipped"
    assert reason in str(ended.reason)


def test_the_first_contract_is_closed_to_it() -> None:
    step = Step([], [], lambda logits: logits, torch.arange(1))
    for asked in (Watchful().losses, Watchful().build_auxiliary):
        with pytest.raises(NotImplementedError, match="Watchful owns its loop"):
            asked(step)


def test_inputs_that_are_no_examples_have_no_place_in_the_data() -> None:
    given: list[Batch] = []

    def network(batch: Batch) -> dict[str, Tensor]:
        given.append(batch)
        return {"logits": batch.inputs}

    loop = Loop([], [], None, lambda *_: torch.zeros(()), lambda batch: batch, None, 4)  # type: ignore[arg-type]
    inputs = torch.randn(3, 2)
    assert loop.ask(network, inputs) is inputs
    assert given[0].indices.tolist() == [-1, -1, -1]
