"""The engine's guarantees, each shown bit for bit on a tiny suite."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest
import torch
from torch import Tensor, nn

from kdbench import Batch, Method, Needs, Step
from kdbench.data import DataFolders
from kdbench.method import NO_TEACHER
from kdbench.plan import Cohort, Plan, Trial
from kdbench.planner import make_plan
from kdbench.plugins import Origin, Plugin, Registry, discover
from kdbench.recipe import Speedup
from kdbench.suite_file import load_suite
from kdbench.training.cohort import train
from kdbench.training.observer import Observer
from kdbench.training.teachers import TeacherPanel
from kdbench.training.trained import Trained

CPU = torch.device("cpu")
ALL_METHODS = "kd, fitnets, attention_transfer, rkd, self_distillation, born_again, ensemble, noisy, watchful"


@dataclass(frozen=True)
class Noisy(Method):
    """Draws from the global generator at every step: company must not change what it draws."""

    family: ClassVar[str] = "response"

    @property
    def needs(self) -> Needs:
        return NO_TEACHER

    def losses(self, step: Step) -> dict[str, Tensor]:
        logits = step.student["logits"]
        return {"task": step.task_loss(logits + 0.1 * torch.randn_like(logits))}


@dataclass(frozen=True)
class Watchful(Method):
    """Sees only the taps that it asked for, whatever its company asks for."""

    family: ClassVar[str] = "response"

    @property
    def needs(self) -> Needs:
        return Needs(student=("embedding",), teacher=("embedding",))

    def losses(self, step: Step) -> dict[str, Tensor]:
        assert set(step.student) == {"logits", "embedding"}
        assert set(step.teacher) == {"logits", "embedding"}
        assert not any(tap.requires_grad for tap in step.teacher.values())
        return {"task": step.task_loss(step.student["logits"])}


@dataclass(frozen=True)
class Faulty(Method):
    """Raises, or turns to NaN, once training is past `at`."""

    at: float = 0.6
    how: str = "raises"
    family: ClassVar[str] = "response"

    @property
    def needs(self) -> Needs:
        return Needs()

    def losses(self, step: Step) -> dict[str, Tensor]:
        loss = step.task_loss(step.student["logits"])
        if step.progress < self.at:
            return {"task": loss}
        if self.how == "raises":
            raise RuntimeError("the method gave up")
        if self.how == "exits":
            sys.exit("enough")
        if self.how == "starves":
            raise torch.OutOfMemoryError("the device is full")
        return {"task": loss * float("nan")}


def registry() -> Registry:
    """The built-ins and the methods above."""
    found = discover()
    extra = {"noisy": Noisy, "watchful": Watchful, "faulty": Faulty}
    origin = Origin("tests", "0", __name__)
    methods = {name: Plugin("method", name, cls, origin) for name, cls in extra.items()}
    return Registry({**found.plugins, "method": {**found.plugins["method"], **methods}})


def plan_of(suite: Path, cache: Path) -> Plan:
    return make_plan(load_suite(str(suite)), registry(), DataFolders((cache,), cache))


@dataclass
class Lab:
    """Trains cohorts of a plan in a folder of checkpoints; teachers are random networks, the same for all."""

    plan: Plan
    folder: Path

    def teachers(self, cohort: Cohort) -> dict[str, nn.Module]:
        networks = {}
        for index, teacher in enumerate(cohort.teachers):
            torch.manual_seed(index)
            spec = self.plan.tasks[teacher.task].data.spec
            networks[teacher.fingerprint] = self.plan.architectures[teacher.student].build(spec)
        return networks

    def train(
        self, trials: Sequence[Trial], observer: Observer | None = None, teachers: Mapping[str, nn.Module] | None = None
    ) -> dict[str, Trained]:
        self.folder.mkdir(exist_ok=True)
        # the teachers of the whole cohort, so that a trial alone has the same ones as in company
        networks = teachers or self.teachers(self.plan.cohorts[0])
        ended = train(
            Cohort(tuple(trials)),
            self.plan.tasks[trials[0].task],
            self.plan.architectures,
            networks,
            lambda trial: self.folder / f"{trial.fingerprint}.safetensors",
            CPU,
            observer or Observer(),
        )
        return {trained.trial.method_name: trained for trained in ended}

    @property
    def trials(self) -> tuple[Trial, ...]:
        return self.plan.cohorts[0].trials


@pytest.fixture
def lab(tiny_suite: Callable[..., Path], tmp_path: Path) -> Callable[..., Lab]:
    def build(folder: str = "checkpoints", **changes: str) -> Lab:
        return Lab(plan_of(tiny_suite(**changes), tmp_path), tmp_path / folder)

    return build


def outcome(trained: Trained) -> tuple[Any, ...]:
    """All that must not depend on company or interruption, as bits."""
    assert trained.student is not None, trained.error
    weights = {name: value.numpy().tobytes() for name, value in trained.student.state_dict().items()}
    return trained.status, dict(trained.curves), weights, trained.examples


def test_alone_equals_together(lab: Callable[..., Lab]) -> None:
    together = lab(methods=ALL_METHODS, recipe="  augmentation: ['crop[padding=1]']")
    in_company = together.train(together.trials)
    assert len(in_company) == 10
    for trial in together.trials:
        alone = dataclasses.replace(together, folder=together.folder / trial.method_name)
        assert outcome(alone.train([trial])[trial.method_name]) == outcome(in_company[trial.method_name])


@pytest.mark.parametrize("speedup", sorted({*get_args(Speedup)} - {"compiled"}))  # which test_compiled.py is about
def test_speedups_keep_the_guarantees(lab: Callable[..., Lab], speedup: str) -> None:
    changes = {"methods": "kd, fitnets", "epochs": "2", "recipe": f"  speedups: [{speedup}]"}
    together = lab("together", **changes)
    in_company = together.train(together.trials)
    alone = dataclasses.replace(together, folder=together.folder / "alone")
    (trial,) = (trial for trial in together.trials if trial.method_name == "kd")
    assert outcome(alone.train([trial])["kd"]) == outcome(in_company["kd"])
    killed = lab("killed", **changes)
    with pytest.raises(Killed):
        killed.train(killed.trials, KillAfter(1))
    assert outcome(killed.train(killed.trials)["kd"]) == outcome(in_company["kd"])


def test_the_methods_name_does_not_enter_the_seed(lab: Callable[..., Lab]) -> None:
    """Paired: `watchful` minimises what `scratch` does, so under one seed both come to the same student."""
    here = lab(methods="watchful")
    ended = here.train(here.trials)
    assert outcome(ended["watchful"]) == outcome(ended["scratch"])


def test_another_seed_is_another_student(lab: Callable[..., Lab]) -> None:
    here = lab(seeds="2")
    first, second = ({t.method_name: t for t in cohort.trials}["scratch"] for cohort in here.plan.cohorts)
    networks = here.teachers(here.plan.cohorts[0]) | here.teachers(here.plan.cohorts[1])
    curves = [here.train([trial], teachers=networks)["scratch"].curves for trial in (first, second)]
    assert curves[0] != curves[1]


class Killed(BaseException):
    """As abrupt as a kill that Python can stage: no handler for exceptions sees it."""


class KillAfter(Observer):
    """Kills training when `epochs` epochs are done."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def epoch_ended(self, cohort: Cohort, epochs: int, curves: Any) -> None:
        if epochs == self.epochs:
            raise Killed


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_killed_equals_unharmed(lab: Callable[..., Lab], optimizer: str) -> None:
    changes = {"methods": ALL_METHODS, "epochs": "3", "recipe": f"  optimizer: {optimizer}\n  schedule: cosine"}
    unharmed = lab("unharmed", **changes)
    killed = lab("killed", **changes)
    for epochs in (1, 2):
        with pytest.raises(Killed):
            killed.train(killed.trials, KillAfter(epochs))
    resumed = killed.train(killed.trials)
    for name, trained in unharmed.train(unharmed.trials).items():
        assert outcome(resumed[name]) == outcome(trained)


def test_trials_that_a_kill_left_at_different_epochs_catch_up(lab: Callable[..., Lab]) -> None:
    unharmed, killed = lab("unharmed", methods="kd, rkd", epochs="3"), lab("killed", methods="kd, rkd", epochs="3")
    for trials, epochs in ((killed.trials[:1], 2), (killed.trials[1:], 1)):
        with pytest.raises(Killed):
            killed.train(trials, KillAfter(epochs))
    resumed = killed.train(killed.trials)
    for name, trained in unharmed.train(unharmed.trials).items():
        assert outcome(resumed[name]) == outcome(trained)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * 100])
def test_a_damaged_checkpoint_costs_only_time(lab: Callable[..., Lab], damage: Callable[[bytes], bytes]) -> None:
    unharmed, harmed = lab("unharmed"), lab("harmed")
    with pytest.raises(Killed):
        harmed.train(harmed.trials, KillAfter(1))
    for path in harmed.folder.iterdir():
        path.write_bytes(damage(path.read_bytes()))
    resumed = harmed.train(harmed.trials)
    assert outcome(resumed["kd"]) == outcome(unharmed.train(unharmed.trials)["kd"])


def test_one_that_runs_out_of_memory_leaves_alone(lab: Callable[..., Lab]) -> None:
    here = lab(methods="kd, 'faulty[how=starves]'")
    ended = here.train(here.trials)
    assert {name: trained.out_of_memory for name, trained in ended.items()} == {
        "scratch": False,
        "kd": False,
        "faulty": True,
    }


def test_a_teacher_that_runs_out_of_memory_ends_the_company(
    lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Batch] = []

    def full(panel: TeacherPanel, batch: Batch) -> dict[str, dict[str, Tensor]]:
        asked.append(batch)
        if len(asked) > 3:
            raise torch.OutOfMemoryError("the device is full")
        return answer(panel, batch)

    answer = TeacherPanel.__call__
    monkeypatch.setattr(TeacherPanel, "__call__", full)
    here = lab(methods="kd")
    ended = here.train(here.trials)
    assert {trained.out_of_memory for trained in ended.values()} == {True}
    assert len(ended) == 2


def test_a_method_that_exits_ends_its_own_trial(lab: Callable[..., Lab]) -> None:
    here = lab(methods="kd, 'faulty[how=exits]'")
    ended = here.train(here.trials)
    assert ended["faulty"].reason == "RuntimeError: it called sys.exit('enough')"
    assert {name: trained.status for name, trained in ended.items()} == {
        "scratch": "done",
        "kd": "done",
        "faulty": "failed",
    }


@pytest.mark.parametrize(("how", "status"), [("raises", "failed"), ("diverges", "diverged")])
def test_a_faulty_method_leaves_and_the_others_go_on(lab: Callable[..., Lab], how: str, status: str) -> None:
    company = lab("company", methods=f"kd, 'faulty[how={how}]'")
    ended = company.train(company.trials)
    faulty = ended["faulty"]
    assert (faulty.status, faulty.student) == (status, None)
    if how == "raises":
        assert faulty.reason == "RuntimeError: the method gave up"
        assert "Traceback" in str(faulty.error)
    else:
        assert "nan in epoch 2" in str(faulty.reason)
    without = lab("without", methods="kd")
    assert outcome(ended["kd"]) == outcome(without.train(without.trials)["kd"])


def test_one_teacher_pass_per_batch_and_cohort(lab: Callable[..., Lab]) -> None:
    here = lab(methods="kd, fitnets, attention_transfer, rkd", epochs="2")
    networks = here.teachers(here.plan.cohorts[0])
    passes: dict[str, int] = dict.fromkeys(networks, 0)
    modes = set()
    for fingerprint, network in networks.items():

        def count(module: nn.Module, _: object, __: object, fingerprint: str = fingerprint) -> None:
            passes[fingerprint] += 1
            modes.add(module.training)

        network.register_forward_hook(count)
    here.train(here.trials, teachers=networks)
    batches = -(-len(here.plan.tasks[here.trials[0].task].data.train) // 32)
    used = here.trials[1].teachers[0].fingerprint
    assert passes[used] == 2 * batches + 1  # one more: the example that auxiliary modules are built to
    assert modes == {False}


def test_teachers_are_untouched_and_hooks_are_gone(lab: Callable[..., Lab]) -> None:
    here = lab(methods=ALL_METHODS)
    networks = here.teachers(here.plan.cohorts[0])
    before = {name: {k: v.clone() for k, v in network.state_dict().items()} for name, network in networks.items()}
    ended = here.train(here.trials, teachers=networks)
    for name, network in networks.items():
        for key, value in network.state_dict().items():
            assert torch.equal(value, before[name][key]), key
        assert all(parameter.grad is None for parameter in network.parameters())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    for trained in ended.values():
        assert trained.student is not None
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in trained.student.modules())


def test_students_are_in_train_mode_at_every_step(lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    from kdbench.training.learner import Learner

    modes = []
    original = Learner.advance

    def advance(self: Learner, *arguments: Any) -> None:
        modes.append(all(module.training for network in self.networks for module in network.modules()))
        original(self, *arguments)

    monkeypatch.setattr(Learner, "advance", advance)
    here = lab(methods="kd", epochs="3")
    here.train(here.trials)
    assert modes
    assert all(modes)


def test_training_leaves_the_global_generators_alone(lab: Callable[..., Lab]) -> None:
    here = lab(methods="noisy")
    networks = here.teachers(here.plan.cohorts[0])
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    here.train(here.trials, teachers=networks)
    assert torch.equal(torch.rand(3), expected)


def test_costs_are_charged_as_if_alone(lab: Callable[..., Lab]) -> None:
    here = lab(methods="kd")
    ended = here.train(here.trials)
    assert ended["scratch"].teacher_seconds == 0 < ended["kd"].teacher_seconds < ended["kd"].seconds
    for trained in ended.values():
        assert 0 < trained.shared_seconds < trained.seconds
    # nobody else looks at the teacher: its passes are all kd's
    assert ended["kd"].shared_seconds > ended["kd"].teacher_seconds


def test_bf16_and_clipping_are_recorded_options_that_train(lab: Callable[..., Lab]) -> None:
    plain, reduced = lab("plain"), lab("reduced", recipe="  precision: bf16\n  clip_grad_norm: 1.0")
    a, b = plain.train(plain.trials)["kd"], reduced.train(reduced.trials)["kd"]
    assert b.status == "done", b.error
    assert outcome(a) != outcome(b)
    assert plain.trials[0].fingerprint != reduced.trials[0].fingerprint
