"""Compiled networks: the engine's guarantees, what is compiled and what is not, and what it is said to cost.

Most of it is shown without the compiler that makes kernels: how code is traced, guarded and shared is the same.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from kdbench import Architecture, Batch, DataSpec, Method, Needs, Tap, Task
from kdbench.data import DataFolders
from kdbench.errors import BadInput, StoreError
from kdbench.flops import count_flops
from kdbench.method import NO_TEACHER
from kdbench.plan import Cohort, Plan, Trial
from kdbench.planner import make_plan
from kdbench.plugins import Kind, Origin, Plugin, Registry, discover
from kdbench.spec import Spec
from kdbench.suite_file import load_suite
from kdbench.training import compiled as module
from kdbench.training.cohort import train
from kdbench.training.compiled import CompiledForward, Compiling, require_compiler
from kdbench.training.observer import Observer
from kdbench.training.randomness import seeded
from kdbench.training.taps import TappedNetwork
from kdbench.training.trained import Trained

CPU = torch.device("cpu")
METHODS = "kd, fitnets, dml, 'explanation_guided[student_stage=stage2,teacher_stage=stage2]', sober"
HOUR = 3600.0  # longer than any test


@dataclass(frozen=True)
class Sober(Method):
    """Puts a sine into its student, by which a test knows its code from others'."""

    family: ClassVar[str] = "response"

    @property
    def needs(self) -> Needs:
        return NO_TEACHER

    def prepare(self, student: nn.Module, parameters: int) -> None:
        student.get_submodule("stage1").register_forward_hook(lambda _, __, output: output.sin())


@dataclass(frozen=True)
class Least(Architecture):
    """As little as shows what may go wrong: convolutions, batch norm, dropout and a linear layer."""

    def build(self, spec: DataSpec) -> nn.Module:
        stage = nn.Sequential(nn.Conv2d(spec.input_shape[0], 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        last = {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "dropout": nn.Dropout(0.1)}
        return nn.Sequential(
            OrderedDict(
                {"stage1": stage, "stage2": nn.Conv2d(4, 4, 3), **last, "classifier": nn.Linear(4, spec.classes)}
            )
        )

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        return {"stage1": Tap("stage1"), "stage2": Tap("stage2"), "embedding": Tap("classifier", at="input")}


class Kernels:
    """A backend that makes none: it runs what dynamo traced, and counts it; fails where it is told to."""

    def __init__(self, fails: Callable[[torch.fx.GraphModule], bool] = lambda graph: False) -> None:
        self.made, self._fails = 0, fails

    def __call__(self, graph: torch.fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
        if self._fails(graph):
            raise RuntimeError("no kernel for this\nand much more")
        self.made += 1
        return graph.forward


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nothing compiled yet, a folder of its own, and no kernels."""
    folder = tmp_path / "compiled"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    monkeypatch.setattr(module, "BACKEND", "eager")
    monkeypatch.setattr(module, "_cpp_compiler", lambda: True)  # which is not asked for anything
    torch.compiler.reset()
    module._compiled.cache_clear()
    yield folder
    torch.compiler.reset()


@dataclass
class Lab:
    """Trains trials of a plan, with random teachers, in a folder of checkpoints."""

    plan: Plan
    folder: Path

    def train(self, *methods: str, observer: Observer | None = None) -> dict[str, Trained]:
        self.folder.mkdir(exist_ok=True)
        cohort, networks = self.plan.cohorts[0], {}
        for teacher in cohort.teachers:
            with seeded(0, teacher.student):
                networks[teacher.fingerprint] = self.plan.architectures[teacher.student].build(self.spec)
        ended = train(
            Cohort(tuple(trial for trial in cohort.trials if trial.method_name.startswith(methods or ""))),
            self.plan.tasks[cohort.head.task],
            self.plan.architectures,
            networks,
            lambda trial: self.folder / f"{trial.fingerprint}.safetensors",
            CPU,
            observer or Observer(),
        )
        return {trained.trial.method_name: trained for trained in ended}

    @property
    def spec(self) -> DataSpec:
        return self.plan.tasks[self.plan.cohorts[0].head.task].data.spec

    @property
    def trials(self) -> tuple[Trial, ...]:
        return self.plan.cohorts[0].trials


@pytest.fixture
def lab(tiny_suite: Callable[..., Path], tmp_path: Path) -> Callable[..., Lab]:
    """By folder and speed-ups; keyword arguments change the suite."""

    def build(folder: str, *speedups: str, precision: str = "fp32", **changes: str) -> Lab:
        found = discover()
        own: dict[Kind, type] = {"method": Sober, "architecture": Least}
        extra = {
            kind: Plugin(kind, cls.__name__.lower(), cls, Origin("tests", "0", __name__)) for kind, cls in own.items()
        }
        registry = Registry({**found.plugins, **{k: {**found.plugins[k], p.name: p} for k, p in extra.items()}})
        recipe = f"  speedups: [{', '.join(speedups)}]\n  precision: {precision}"
        suite = load_suite(str(tiny_suite(**{"teachers": "least", "student": "least", "recipe": recipe, **changes})))
        return Lab(make_plan(suite, registry, DataFolders((tmp_path,), tmp_path)), tmp_path / folder)

    return build


def outcome(trained: Trained) -> tuple[Any, ...]:
    """All that must not depend on company, interruption or what was compiled before, as bits."""
    assert trained.student is not None, trained.error
    weights = {name: value.numpy().tobytes() for name, value in trained.student.state_dict().items()}
    return trained.status, dict(trained.curves), weights, trained.examples


class Killed(BaseException):
    """As abrupt as a kill that Python can stage."""


class KillAfterOne(Observer):
    """Kills training when an epoch is done."""

    def epoch_ended(self, cohort: Cohort, epochs: int, curves: Any) -> None:
        raise Killed


# --- guarantees -----------------------------------------------------------------------------------------------------


def test_alone_equals_together(lab: Callable[..., Lab]) -> None:
    """Whoever comes first, whatever taps the others ask for, and in a process that has compiled nothing yet."""
    together = lab("together", "compiled", methods=METHODS)
    in_company = together.train()
    assert len(in_company) == 6
    for name in reversed(in_company):
        if name == "dml":
            torch.compiler.reset()
        assert outcome(lab(name, "compiled", methods=METHODS).train(name)[name]) == outcome(in_company[name])


def test_killed_equals_unharmed(lab: Callable[..., Lab]) -> None:
    unharmed = lab("unharmed", "compiled", methods=METHODS).train()
    killed = lab("killed", "compiled", methods=METHODS)
    with pytest.raises(Killed):
        killed.train(observer=KillAfterOne())
    torch.compiler.reset()
    for name, trained in killed.train().items():
        assert outcome(trained) == outcome(unharmed[name])


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_kernels_keep_the_guarantees(lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Real ones: the same bits alone, in company, and after a kill, of a process that finds them on disk."""
    monkeypatch.setattr(module, "BACKEND", "inductor")
    changes = {"methods": "kd, rkd"}
    plain = lab("plain", **changes).train("kd")["kd"]
    in_company = lab("together", "compiled", **changes).train()
    assert outcome(lab("alone", "compiled", **changes).train("kd")["kd"]) == outcome(in_company["kd"])
    killed = lab("killed", "compiled", **changes)
    with pytest.raises(Killed):
        killed.train(observer=KillAfterOne())
    torch.compiler.reset()
    assert outcome(killed.train()["kd"]) == outcome(in_company["kd"])
    assert in_company["kd"].curves["loss"] == pytest.approx(plain.curves["loss"], rel=1e-3)


@pytest.mark.parametrize(
    ("speedups", "precision"),
    [(("channels_last", "bf16_teacher"), "fp32"), (("stored_answers",), "bf16")],
)
def test_it_goes_with_the_other_speedups(
    lab: Callable[..., Lab], speedups: tuple[str, ...], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKEND", "aot_eager")
    plain = lab("plain", *speedups, precision=precision, methods="fitnets").train()
    found = lab("compiled", *speedups, "compiled", precision=precision, methods="fitnets").train()
    for name, trained in found.items():
        assert trained.student is not None, trained.error
        assert trained.curves["loss"] == pytest.approx(plain[name].curves["loss"], rel=0.02)


# --- what is compiled -----------------------------------------------------------------------------------------------


def test_networks_of_an_architecture_share_their_code(lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = Kernels()
    monkeypatch.setattr(module, "BACKEND", kernels)
    lab("first", "compiled", methods="kd, fitnets, attention_transfer, rkd, dml").train()
    assert kernels.made == 2  # the teacher's pass, and the students'
    lab("second", "compiled", methods="kd, sober").train()
    assert kernels.made == 3  # what a method put into its student is part of its code, and of no other


def test_what_is_stored_of_a_teacher_is_asked_without(lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = Kernels()
    monkeypatch.setattr(module, "BACKEND", kernels)
    lab("stored", "compiled", "stored_answers").train("kd")
    assert kernels.made == 1


def ready(name: str, training: bool = True) -> tuple[nn.Module, CompiledForward, TappedNetwork, DataSpec]:
    spec = DataSpec((40, 20), 5, modality="speech") if name == "conv_gru" else DataSpec((3, 16, 16), 5)
    architecture: Architecture = discover().create("architecture", Spec.parse(name))
    with seeded(0, name):
        network = architecture.build(spec).train(training)
    forward = CompiledForward(network, name, training)
    taps = architecture.taps(network)
    return network, forward, TappedNetwork(network, taps, taps, Task(), forward), spec


def batch(spec: DataSpec, size: int = 4) -> Batch:
    drawn = torch.Generator().manual_seed(0)
    return Batch(torch.randn(size, *spec.input_shape, generator=drawn), torch.arange(size) % 5, torch.arange(size))


@pytest.mark.parametrize("name", ["resnet8", "conv_gru"])
def test_outputs_taps_and_gradients_are_the_networks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of recurrent layers too, which dynamo leaves to torch."""
    monkeypatch.setattr(module, "BACKEND", "aot_eager")
    network, _, tapped, spec = ready(name)
    examples = batch(spec)
    answered = tapped(examples)
    (answered.output.sum() + sum(tap.sum() for tap in answered.taps.values())).backward()
    found = [parameter.grad for parameter in network.parameters()]
    other, _, same, _ = ready(name)
    same._forward = other
    expected = same(examples)
    (expected.output.sum() + sum(tap.sum() for tap in expected.taps.values())).backward()
    torch.testing.assert_close(answered.output, expected.output)
    torch.testing.assert_close(answered.taps, expected.taps)
    torch.testing.assert_close(found, [parameter.grad for parameter in other.parameters()])
    torch.testing.assert_close(network.state_dict(), other.state_dict())
    tapped(examples)  # as compiled, without being compiled once more


def test_other_modes_shapes_and_whoever_counts_operations_see_the_plain_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernels = Kernels()
    monkeypatch.setattr(module, "BACKEND", kernels)
    network, forward, tapped, spec = ready("resnet8")
    network.eval()
    with torch.no_grad():
        tapped(batch(spec))  # as auxiliary modules are built: the shape that is compiled
    network.train()
    tapped(batch(spec, size=3))
    counted = count_flops(lambda: tapped(batch(spec)))
    assert kernels.made == 0
    assert forward.compiling == Compiling()
    tapped(batch(spec))
    tapped(batch(spec, size=3))
    assert kernels.made == 1
    assert counted == count_flops(lambda: tapped(batch(spec))) > 0


def test_the_network_stays_what_it_is(lab: Callable[..., Lab]) -> None:
    plain, found = (lab(name, *speedups).train("kd")["kd"].student for name, *speedups in [("p",), ("c", "compiled")])
    assert plain is not None
    assert found is not None
    assert str(found) == str(plain)
    assert list(found.state_dict()) == list(plain.state_dict())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in found.modules())


def test_taps_that_few_ask_for_leave_the_code_alone(lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients cannot be compiled: a teacher is asked for them in another pass, a student stays as it is."""
    kernels = Kernels()
    monkeypatch.setattr(module, "BACKEND", kernels)
    (trained,) = lab("few", "compiled", methods=METHODS).train("explanation_guided").values()
    assert trained.status == "done", trained.error
    assert kernels.made == 1


# --- what fails -----------------------------------------------------------------------------------------------------


def test_a_student_that_cannot_be_compiled_leaves(lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKEND", Kernels(lambda graph: "sin" in graph.code))
    ended = lab("one", "compiled", methods="kd, sober").train()
    assert {name: trained.status for name, trained in ended.items()} == {
        "kd": "done",
        "sober": "failed",
        "scratch": "done",
    }
    assert "torch.compile fails on least" in str(ended["sober"].reason)
    assert "no kernel for this\nleave `compiled` out" in str(ended["sober"].reason)


def test_a_teacher_that_cannot_be_compiled_fails_those_who_learn_from_it(
    lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKEND", Kernels(lambda graph: not torch.is_grad_enabled()))
    ended = lab("teacher", "compiled", methods="kd, fitnets").train()
    assert {name: trained.status for name, trained in ended.items()} == {
        "kd": "failed",
        "fitnets": "failed",
        "scratch": "done",
    }
    assert "no kernel for this\nleave `compiled` out" in str(ended["kd"].reason)


def test_a_network_that_changes_as_it_trains_is_not_compiled_again() -> None:
    class Restless(nn.Linear):
        step = 0

        def forward(self, inputs: Tensor) -> Tensor:
            self.step += 1
            return super().forward(inputs) * self.step

    forward = CompiledForward(Restless(3, 3), "restless", training=True)
    forward(torch.ones(2, 3))
    with pytest.raises(BadInput, match="on restless: it changes as it is trained"):
        forward(torch.ones(2, 3))


def test_what_a_network_raises_is_its_own() -> None:
    class Full(nn.Linear):
        @torch.compiler.disable
        def forward(self, inputs: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("the device is full")

    with pytest.raises(torch.OutOfMemoryError):
        CompiledForward(Full(3, 3), "full", training=True)(torch.ones(2, 3))


def test_without_a_compiler_nothing_begins(
    kdbench: Callable[..., Any], tiny_suite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_cpp_compiler", lambda: False)
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    suite = tiny_suite(recipe="  speedups: [compiled]")
    status, _, said = kdbench("run", str(suite), "--out", str(tmp_path / "out"), "--device", "cpu")
    assert status == 2
    assert "needs a C++ compiler, and there is none install g++" in " ".join(said.split())
    assert not list((tmp_path / "out").rglob("record.json"))


def test_what_is_compiled_lies_beside_the_data_or_where_torch_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = "TORCHINDUCTOR_CACHE_DIR"
    assert module._cache_folder() == Path(os.environ[variable])  # the user's own
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "here"))
    monkeypatch.setenv(variable, default_cache_dir())  # torch's own, which it sets as it is imported
    assert module._cache_folder() == tmp_path / "here" / "compiled" / platform.node()
    assert os.environ[variable] == str(module._cache_folder())
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file" / "below"))
    with pytest.raises(StoreError, match="cannot write"):
        module._cache_folder()


def test_ranks_train_without() -> None:
    with pytest.raises(BadInput, match="several ranks"):
        require_compiler(2, ())


# --- what it is said to cost ----------------------------------------------------------------------------------------


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is compiled takes an hour, by a clock that is put forward."""
    timed, clock, passed = module._timed, time.perf_counter, 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + passed)

    @contextmanager
    def slow() -> Iterator[list[float]]:
        nonlocal passed
        with timed() as took:
            yield took
        if took:
            took[:] = [HOUR]
            passed += HOUR

    monkeypatch.setattr(module, "_timed", slow)


def charged(ended: dict[str, Trained]) -> dict[str, int]:
    return {name: round(trained.seconds / HOUR) for name, trained in ended.items()}


def shared(ended: dict[str, Trained]) -> int:
    return round(sum(trained.shared_seconds for trained in ended.values()) / HOUR)


@pytest.mark.usefixtures("hours")
def test_each_is_charged_as_if_alone_and_all_together_once(lab: Callable[..., Lab]) -> None:
    changes = {"methods": "kd, fitnets, dml"}
    first = lab("first", "compiled", **changes).train()
    assert charged(first) == {"kd": 2, "fitnets": 2, "dml": 1, "scratch": 1}
    assert shared({name: first[name] for name in ("dml", "scratch", "kd", "fitnets")}) == 2
    # what is compiled already costs nothing more, and is charged all the same
    again = lab("again", "compiled", **changes).train("scratch", "dml")
    assert charged(again) == {"dml": 1, "scratch": 1}
    assert shared(again) == 0


@pytest.mark.usefixtures("hours")
def test_a_resumed_trial_is_charged_once(lab: Callable[..., Lab]) -> None:
    killed = lab("killed", "compiled")
    with pytest.raises(Killed):
        killed.train(observer=KillAfterOne())
    torch.compiler.reset()
    assert charged(killed.train()) == {"kd": 2, "scratch": 1}


def test_a_later_process_charges_what_it_took_with_nothing_on_disk(cache: Path) -> None:
    _, forward, tapped, spec = ready("resnet8")
    tapped(batch(spec))
    (known,) = cache.glob("*.json")
    known.write_text(str(HOUR))
    torch.compiler.reset()
    _, later, tapped, _ = ready("resnet8")
    tapped(batch(spec))
    assert later.compiling.seconds == HOUR
    assert 0 < later.compiling.spent < HOUR
    assert forward.compiling.alone.keys() == later.compiling.alone.keys()
