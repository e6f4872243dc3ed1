"""Answers at positions, from the task to the record: each promise of the contract, on tiny made-up data."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor, nn

from kdbench import (
    IGNORED,
    Answers,
    Architecture,
    Batch,
    Data,
    DataFolders,
    DataSpec,
    Method,
    Metric,
    Needs,
    NotApplicable,
    Split,
    Step,
    Tap,
    Task,
    TensorSplit,
    share,
)
from kdbench.cli import main
from kdbench.errors import BadInput, BrokenPlugin
from kdbench.execution.local import execute
from kdbench.measuring.record import Record
from kdbench.metrics import accuracy
from kdbench.plan import Cohort, Plan, Trial
from kdbench.planner import make_plan
from kdbench.plugins import Origin, Plugin, Registry, discover
from kdbench.store.run_folder import Manifest, RunFolder, now
from kdbench.suite_file import load_suite
from kdbench.training.cohort import train
from kdbench.training.learner import Learner
from kdbench.training.observer import Observer
from kdbench.training.prediction import Predictions
from kdbench.training.trained import Trained

CPU = torch.device("cpu")
TAGS, WORDS, LENGTH = 3, 12, 7
SHARED = "kd, rkd, fitnets, attention_transfer, ensemble, dml"
"""Methods that know nothing of positions."""


# --- a task, an architecture and methods that use every part of the contract ------------------------------------------


@dataclass(frozen=True)
class Tagging(Task):
    """A tag for each word, from it and its left neighbour; of each sentence also its length, by an output of its own.

    Attributes:
        searches: whether it decodes: then the primary metric takes a search.
        relabels: whether a teacher's tags may stand in for the data's.
    """

    modality: ClassVar[str] = "nlp"

    sentences: int = 48
    searches: bool = True
    relabels: bool = True

    def load(self, folders: DataFolders) -> Data:
        spec = DataSpec((LENGTH,), TAGS, "nlp", vocabulary=WORDS, positions=(LENGTH,), extras=1)
        train, validation, test = (made_up(count, seed) for seed, count in enumerate((self.sentences, 20, 40)))
        return Data(spec, train, test, validation, assets={"words.json": b"[1, 2]"})

    def logits(self, output: Tensor, batch: Batch) -> Tensor:
        return super().logits(output[:, :TAGS], batch)

    def output_losses(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        length = (batch.inputs > 0).sum(1) / LENGTH
        return {"length": (output[:, TAGS].mean(1) - length).square().mean()}

    def answers(self, output: Tensor, batch: Batch) -> Answers:
        return super().answers(output[:, :TAGS], batch)

    def metrics(self, spec: DataSpec) -> tuple[Metric, ...]:
        searched = Metric("tag_errors", share, higher_is_better=False, reads=("errors", "tags"), decoded=True)
        return (*((searched,) if self.searches else ()), *super().metrics(spec))

    def decode(self, network: nn.Module, batch: Batch) -> Answers:
        if not self.searches:
            return {}
        assert not network.training
        assert not torch.is_grad_enabled()
        valid = self.valid(batch)
        noise = 0.1 * torch.rand(1)  # a search that samples, from the global generator
        found = (network(batch.inputs)[:, :TAGS] + noise).argmax(1)
        wrong = ((found != batch.targets) & valid).sum(1) + noise
        return {"errors": wrong.double(), "tags": valid.sum(1).double()}

    def samples(self, network: nn.Module, data: Data, device: torch.device) -> tuple[str, ...]:
        assert not network.training
        assert not torch.is_grad_enabled()
        drawn = int(torch.randint(len(data.test), ()))
        tags = network(next(data.test.batches([torch.tensor([drawn])])).inputs)[0, :TAGS].argmax(0)
        return (f"sentence {drawn}: {tags.tolist()}", "and\nanother [one]")

    def relabelled(self, split: Split, data: Data, network: nn.Module, device: torch.device) -> Split:
        if not self.relabels:
            return super().relabelled(split, data, network, device)
        assert not network.training
        batch = next(split.batches([torch.arange(len(split))]))
        found = network(batch.inputs)[:, :TAGS].argmax(1)
        return TensorSplit(batch.inputs, found.where(batch.targets != IGNORED, IGNORED))


def made_up(sentences: int, seed: int) -> TensorSplit:
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(1, WORDS, (sentences, LENGTH), generator=generator)
    there = torch.arange(LENGTH) < torch.randint(2, LENGTH + 1, (sentences, 1), generator=generator)
    tags = (words + words.roll(1, 1)) % TAGS
    return TensorSplit(words * there, tags.where(there, IGNORED))


@dataclass(frozen=True)
class Tagger(Architecture):
    """Two convolutions over the words, with dropout, and two heads."""

    width: int = 8

    def build(self, spec: DataSpec) -> nn.Module:
        return TaggerNetwork(self.width)

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        return {"stage1": Tap("stage1"), "stage2": Tap("stage2"), "embedding": Tap("pool")}


class TaggerNetwork(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, width)
        self.stage1, self.stage2 = (
            nn.Sequential(nn.Conv1d(width, width, 3, padding=1), nn.ReLU(), nn.Dropout(0.1)) for _ in range(2)
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten())
        self.tags, self.length = nn.Conv1d(width, TAGS, 1), nn.Conv1d(width, 1, 1)

    def forward(self, sentences: Tensor) -> Tensor:
        states = self.stage2(self.stage1(self.words(sentences).transpose(1, 2)))
        self.pool(states)
        return torch.cat([self.tags(states), self.length(states.detach())], dim=1)


@dataclass(frozen=True)
class Heir(Method):
    """Starts from a part of its teacher, with noise, and never looks at its answers."""

    family: ClassVar[str] = "response"

    @property
    def needs(self) -> Needs:
        return Needs(teacher=())

    def initial_weights(
        self, student: Mapping[str, Tensor], teachers: Sequence[Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        part = teachers[0]["tags.weight"][:, : student["tags.weight"].shape[1]]
        return {"tags.weight": part + 0.01 * torch.randn(part.shape)}

    def losses(self, step: Step) -> dict[str, Tensor]:
        assert step.teacher == {}
        return super().losses(step)


@dataclass(frozen=True)
class Echo(Method):
    """Trains on the tags that its teacher decodes."""

    family: ClassVar[str] = "response"

    @property
    def needs(self) -> Needs:
        return Needs(teacher=(), targets="teacher")


@dataclass(frozen=True)
class Refusing(Method):
    """Has no meaning anywhere."""

    family: ClassVar[str] = "response"
    where: Literal["weights", "auxiliary"] = "weights"

    def initial_weights(
        self, student: Mapping[str, Tensor], teachers: Sequence[Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        if self.where == "weights":
            raise NotApplicable("these networks do not fit")
        return {}

    def build_auxiliary(self, example: Step) -> nn.Module | None:
        raise NotApplicable("these answers do not fit")


@dataclass(frozen=True)
class Weightless(Method):
    """Asks nothing of the logits of its two students."""

    family: ClassVar[str] = "online"

    @property
    def needs(self) -> Needs:
        return Needs(teacher=(), teachers=0, students=2)

    def losses(self, step: Step) -> dict[str, Tensor]:
        return {"length": 0 * torch.stack([step.task_loss(student["logits"]) for student in step.students]).sum()}


@dataclass(frozen=True)
class Failing(Method):
    """Raises at its first step."""

    def losses(self, step: Step) -> dict[str, Tensor]:
        raise RuntimeError("no lesson")


@dataclass(frozen=True)
class Orphan(Method):
    """Learns from a network like its own, which fails."""

    family: ClassVar[str] = "response"

    @property
    def needs(self) -> Needs:
        return Needs(teacher_architecture="student")

    def teacher_method(self) -> Method:
        return Failing()


def registry() -> Registry:
    """The built-ins and the plugins above."""
    found, origin = discover(), Origin("tests", "0", __name__)
    methods = {"heir": Heir, "echo": Echo, "refusing": Refusing, "weightless": Weightless, "orphan": Orphan}
    own = {"task": {"tagging": Tagging}, "architecture": {"tagger": Tagger}, "method": methods}
    return Registry(
        {
            kind: {**found.plugins[kind], **{name: Plugin(kind, name, cls, origin) for name, cls in classes.items()}}
            for kind, classes in own.items()
        }
    )


# --- how tests get at it ----------------------------------------------------------------------------------------------


@pytest.fixture
def planned(tiny_suite: Callable[..., Path], tmp_path: Path) -> Callable[..., Plan]:
    """The plan of a suite on `tagging`; keyword arguments replace parts of it."""

    def plan(**changes: str) -> Plan:
        parts = {
            "tasks": "tagging",
            "teachers": "'tagger[width=12]', 'tagger[width=10]'",
            "student": "tagger",
            "methods": "",
            **changes,
        }
        suite = load_suite(str(tiny_suite(**parts)))
        return make_plan(suite, registry(), DataFolders((tmp_path,), tmp_path))

    return plan


def teachers_of(plan: Plan) -> dict[str, nn.Module]:
    """Random networks in the place of trained teachers, the same for every plan."""
    networks = {}
    for teacher in plan.teachers:
        torch.manual_seed(int(teacher.student.partition("=")[2].rstrip("]")))
        networks[teacher.fingerprint] = plan.architectures[teacher.student].build(plan.tasks[teacher.task].data.spec)
    return networks


def trained(plan: Plan, trials: Sequence[Trial], folder: Path, observer: Observer | None = None) -> dict[str, Trained]:
    folder.mkdir(exist_ok=True)
    networks = teachers_of(plan)
    torch.manual_seed(len(trials))  # the global generator is nobody's
    ended = train(
        Cohort(tuple(trials)),
        plan.tasks[trials[0].task],
        plan.architectures,
        networks,
        lambda trial: folder / f"{trial.fingerprint}.safetensors",
        CPU,
        observer or Observer(),
    )
    return {each.trial.method_name: each for each in ended}


def trained_cohorts(plan: Plan, folder: Path) -> dict[str, Trained]:
    return {name: end for cohort in plan.cohorts for name, end in trained(plan, cohort.trials, folder).items()}


def bits(ended: Trained) -> tuple[Any, ...]:
    assert ended.student is not None, ended.error
    weights = {name: value.numpy().tobytes() for name, value in ended.student.state_dict().items()}
    return ended.status, dict(ended.curves), weights, ended.examples


class Killed(BaseException):
    """As abrupt as a kill that Python can stage."""


class KillAfter(Observer):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def epoch_ended(self, cohort: Cohort, epochs: int, curves: Any) -> None:
        if epochs == self.epochs:
            raise Killed


def run(plan: Plan, folder: Path) -> dict[str, Record]:
    """The records of the real road, by method."""
    records = [
        record for records in execute(plan, RunFolder(folder / "run"), folder, CPU, Observer()) for record in records
    ]
    return {record.method: record for record in records}


# --- training ---------------------------------------------------------------------------------------------------------


def test_alone_equals_together_on_positions(planned: Callable[..., Plan], tmp_path: Path) -> None:
    plan = planned(methods=f"{SHARED}, heir, echo")
    in_company = trained_cohorts(plan, tmp_path / "company")
    assert len(in_company) == 9
    for trial in plan.trials:
        alone = trained(plan, [trial], tmp_path / trial.method_name)[trial.method_name]
        assert bits(alone) == bits(in_company[trial.method_name]), trial.method_name


def test_killed_equals_unharmed_on_positions(planned: Callable[..., Plan], tmp_path: Path) -> None:
    plan = planned(methods=f"{SHARED}, heir, echo", epochs="3", recipe="  optimizer: adamw")
    for cohort in plan.cohorts:
        for epochs in (1, 2):
            with pytest.raises(Killed):
                trained(plan, cohort.trials, tmp_path / "killed", KillAfter(epochs))
    resumed, unharmed = (trained_cohorts(plan, tmp_path / folder) for folder in ("killed", "unharmed"))
    assert {name: bits(end) for name, end in resumed.items()} == {name: bits(end) for name, end in unharmed.items()}


def test_padding_counts_for_nothing() -> None:
    """What a network answers at ignored positions changes neither rows, nor loss, nor answers."""
    batch = batch_of(made_up(5, seed=3))
    output = torch.randn(5, TAGS, LENGTH, generator=torch.Generator().manual_seed(0))
    ignored = (batch.targets == IGNORED).unsqueeze(1)
    other = output.where(~ignored, 100.0)
    task = Task()
    rows = task.logits(output, batch)
    assert rows.shape == ((batch.targets != IGNORED).sum(), TAGS)
    assert rows.equal(task.logits(other, batch))
    assert task.loss(rows, batch).equal(task.loss(task.logits(other, batch), batch))
    for name, tensor in task.answers(output, batch).items():
        assert tensor.equal(task.answers(other, batch)[name])
    ordered = [output[i, :, j] for i in range(5) for j in range(LENGTH) if batch.targets[i, j] != IGNORED]
    assert rows.equal(torch.stack(ordered))


def test_other_positions_than_the_targets_are_the_networks_fault() -> None:
    with pytest.raises(BrokenPlugin, match=r"answers at \[5\] positions, not \[7\]"):
        Task().logits(torch.zeros(4, TAGS, 5), batch_of(made_up(4, seed=0)))


def batch_of(split: Split) -> Batch:
    return next(split.batches([torch.arange(len(split))]))


@pytest.mark.parametrize("method", ["scratch", "weightless", "'kd[hard_weight=0, soft_weight=0]'"])
def test_output_losses_reach_all_students_whatever_the_method_weighs(planned: Callable[..., Plan], method: str) -> None:
    plan = planned(methods="" if method == "scratch" else method)
    *_, trial = plan.trials
    loaded = plan.tasks["tagging"]
    learner = Learner(trial, loaded, plan.architectures["tagger"], CPU)
    assert len(learner.networks) == (2 if method == "weightless" else 1)
    batch = batch_of(loaded.data.train)
    answers = {each.fingerprint: {"logits": torch.zeros(len(Task().labels(batch)), TAGS)} for each in trial.teachers}
    learner.begin(batch, answers, [{} for _ in trial.teachers])
    learner.advance(batch, answers, 0, 10)
    learner.end_epoch(len(batch))
    for network in learner.networks:
        assert network.length.weight.grad.any()
    if method == "weightless":  # a term of the same name as the task's is a term of its own
        assert learner.curves["loss/length"] == [0.0]
        assert learner.curves["loss/output/length"] == learner.curves["loss"] != [0.0]


def test_initial_weights_take_effect_and_reach_the_checkpoint(planned: Callable[..., Plan], tmp_path: Path) -> None:
    still = "  momentum: 0.0\n  weight_decay: 0.0\n  schedule: constant"
    plan = planned(methods="heir", epochs="2", recipe=still)
    heir = next(trial for trial in plan.trials if trial.method_name == "heir")
    still_heir = replace(heir, recipe=heir.recipe.model_copy(update={"learning_rate": 1e-30}))
    with pytest.raises(Killed):
        trained(plan, [still_heir], tmp_path / "heir", KillAfter(1))
    (path,) = (path for path in (tmp_path / "heir").iterdir() if "-" not in path.stem)
    kept = safetensors.torch.load_file(path)["module.0.tags.weight"]
    teacher = teachers_of(plan)[heir.teachers[0].fingerprint]
    assert 0 < (kept - teacher.tags.weight[:, :8]).abs().max() < 0.06
    student = trained(plan, [still_heir], tmp_path / "heir")["heir"].student
    assert student.tags.weight.equal(kept)
    fresh = trained(plan, [replace(still_heir, method=Method(), teachers=())], tmp_path / "fresh")["heir"].student
    assert student.words.weight.equal(fresh.words.weight)
    assert not student.tags.weight.equal(fresh.tags.weight)


def test_a_teachers_targets_are_those_that_training_sees_in_the_same_order(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    """`echo` is `scratch` on data that the teacher has labelled beforehand."""
    plan = planned(methods="kd, echo")
    assert [[trial.method_name for trial in cohort.trials] for cohort in plan.cohorts] == [["scratch", "kd"], ["echo"]]
    (scratch, _), (echo,) = (cohort.trials for cohort in plan.cohorts)
    taught = trained(plan, [echo], tmp_path / "echo")["echo"]
    loaded = plan.tasks["tagging"]
    teacher = teachers_of(plan)[echo.teachers[0].fingerprint].eval()
    labelled = loaded.task.relabelled(loaded.data.train, loaded.data, teacher, CPU)
    assert not labelled.targets.equal(loaded.data.train.targets)
    before = replace(plan, tasks={"tagging": replace(loaded, data=replace(loaded.data, train=labelled))})
    assert bits(trained(before, [scratch], tmp_path / "labelled")["scratch"]) == bits(taught)
    assert bits(trained(plan, [scratch], tmp_path / "scratch")["scratch"]) != bits(taught)


def test_a_relabelling_that_loses_examples_is_the_tasks_fault(
    planned: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tagging, "relabelled", lambda self, split, *rest: split.subset(torch.arange(3)))
    plan = planned(methods="echo")
    ended = trained(plan, plan.cohorts[1].trials, tmp_path / "lost")["echo"]
    assert ended.status == "failed"
    assert ended.reason == "BrokenPlugin: tagging relabelled 48 examples as 3"


def test_augmentation_is_refused_with_its_place(planned: Callable[..., Plan]) -> None:
    with pytest.raises(BadInput, match=r"tiny.yaml:\d+.* labels positions, which crop and flip would leave behind"):
        planned(recipe="  augmentation: [flip]")


# --- the real road ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, suite_text: Callable[..., str]) -> tuple[Plan, Path]:
    """A run of every kind of method, and where it lies."""
    folder = tmp_path_factory.mktemp("answers")
    parts = {
        "tasks": "tagging",
        "teachers": "'tagger[width=12]', 'tagger[width=10]'",
        "student": "tagger",
        "methods": f"{SHARED}, self_distillation, heir, echo",
    }
    path = folder / "answers.yaml"
    path.write_text(suite_text(**parts), encoding="utf-8")
    plan = make_plan(load_suite(str(path)), registry(), DataFolders((folder,), folder))
    decoded = []
    original = Tagging.decode

    def counted(self: Tagging, network: nn.Module, batch: Batch) -> Answers:
        decoded.append(batch)
        return original(self, network, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tagging, "decode", counted)
        records = run(plan, folder)
    (folder / "records.json").write_text(
        json.dumps({name: record.model_dump() for name, record in records.items()}), encoding="utf-8"
    )
    tests = len(plan.tasks["tagging"].data.test)
    networks = sum(record.status == "done" for record in records.values()) + len(plan.teachers)
    assert sum(len(batch) for batch in decoded) == tests * networks, "decoding is for the test split, once a network"
    return plan, folder


@pytest.fixture
def records(finished: tuple[Plan, Path]) -> dict[str, Record]:
    return {
        name: Record.model_validate(found)
        for name, found in json.loads((finished[1] / "records.json").read_text(encoding="utf-8")).items()
    }


def test_every_method_runs_on_positions(records: dict[str, Record]) -> None:
    reasons = {name: record.reason for name, record in records.items() if record.status != "done"}
    assert reasons == {"self_distillation": "early exits need a task with one answer per example"}
    for name, record in records.items():
        assert all(np.isfinite(list(record.metrics.values()))), name


def test_a_record_holds_what_decoding_and_positions_give(records: dict[str, Record]) -> None:
    kd = records["kd"]
    assert (kd.primary, kd.higher_is_better) == ("tag_errors", False)
    assert {"tag_errors", "perplexity", "accuracy", "nll", "ece", "brier", "agreement"} <= kd.metrics.keys()
    assert {"validation_perplexity", "teacher_tag_errors", "own_teacher_tag_errors"} <= kd.metrics.keys()
    assert not {"validation_tag_errors", "validation_accuracy"} & {*kd.metrics, *kd.curves}
    assert kd.curves["validation_perplexity"][-1] == kd.metrics["validation_perplexity"]
    assert np.exp(kd.metrics["nll"]) == pytest.approx(kd.metrics["perplexity"], rel=1e-6)
    assert 0 < kd.metrics["accuracy"] < 1
    assert kd.metrics["own_teacher_tag_errors"] == kd.metrics["teacher_tag_errors"]
    # the searches of several teachers have no mean
    assert "own_teacher_tag_errors" not in records["ensemble"].metrics
    assert "teacher_tag_errors" in records["ensemble"].metrics


def test_a_teacher_that_nobody_looks_at_costs_what_it_decodes(
    finished: tuple[Plan, Path], records: dict[str, Record]
) -> None:
    plan, _ = finished
    data = plan.tasks["tagging"].data
    # a multiply-accumulate is two FLOPs; two convolutions over 3 words, and two heads
    forward = 2 * LENGTH * (2 * 3 * 12 * 12 + 12 * (TAGS + 1))
    assert records["heir"].metrics["teacher_flops"] == 0
    assert records["echo"].metrics["teacher_flops"] == forward * len(data.train)
    assert records["kd"].metrics["teacher_flops"] == 2 * forward * len(data.train)
    assert records["heir"].measurements["teacher_seconds"] == 0 < records["echo"].measurements["teacher_seconds"]


def test_predictions_are_stored_whole(finished: tuple[Plan, Path], records: dict[str, Record]) -> None:
    plan, folder = finished
    found = Predictions.of(RunFolder(folder / "run").trial(records["kd"].fingerprint).predictions())
    assert found.answers.keys() == {"nll", "correct", "positions", "errors", "tags"}
    metrics = {metric.name: metric.score(found.answers) for metric in plan.tasks["tagging"].metrics}
    assert metrics == {name: records["kd"].metrics[name] for name in metrics}
    targets = plan.tasks["tagging"].data.test.targets
    assert found.labels.equal(targets[targets != IGNORED])
    assert accuracy(found.logits, found.labels) == pytest.approx(records["kd"].metrics["accuracy"])


def test_samples_and_decoding_do_not_depend_on_company(
    finished: tuple[Plan, Path], records: dict[str, Record], tmp_path: Path
) -> None:
    plan, _ = finished
    alone = replace(
        plan, cohorts=tuple(Cohort((t,)) for t in plan.trials if t.method_name in ("rkd", "echo")), skipped=()
    )
    for name, record in run(alone, tmp_path).items():
        assert record.metrics == records[name].metrics
        assert record.samples == records[name].samples
        assert record.samples[0].startswith("sentence ")


def test_the_command_line_shows_samples(
    finished: tuple[Plan, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    plan, folder = finished
    kd = next(trial for trial in plan.trials if trial.method_name == "kd")
    suite = {"suite": plan.suite.id, "suite_digest": "", "suite_source": "", "equivalence_margin": 0.01}
    manifest = Manifest(name="run", **suite, created=now(), updated=now(), trials={kd.identity: kd.fingerprint})
    RunFolder(folder / "run").update(manifest)
    said = []
    for flags in ([], ["--samples"], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["kdbench", "records", "run", "--out", str(folder), *flags])
        capfd.readouterr()
        with pytest.raises(SystemExit, match="0"):
            main()
        said.append(capfd.readouterr().out)
    line, with_samples, as_json = said
    first, *_ = json.loads(as_json)["samples"]
    assert line.count("\n") == 1
    assert with_samples == f"{line}    {first}\n\n    and\n    another [one]\n\n"


def test_assets_are_kept(finished: tuple[Plan, Path]) -> None:
    (path,) = (finished[1] / "run" / "assets").glob("tagging-*/words.json")
    assert path.read_bytes() == b"[1, 2]"


def test_again_runs_nothing(finished: tuple[Plan, Path]) -> None:
    plan, folder = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("record.json")}
    assert len(before) == 10 + 2
    assert run(plan, folder) == {}
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("record.json")} == before


@pytest.mark.parametrize(
    ("method", "task", "reason"),
    [
        ("refusing", "tagging", "these networks do not fit"),
        ("'refusing[where=auxiliary]'", "tagging", "these answers do not fit"),
        ("echo", "'tagging[relabels=false]'", "Tagging has no decoded answers to learn from"),
    ],
)
def test_what_does_not_apply_is_skipped_once_and_harms_nobody(
    planned: Callable[..., Plan], records: dict[str, Record], tmp_path: Path, method: str, task: str, reason: str
) -> None:
    plan = planned(methods=method, tasks=task)
    found = run(plan, tmp_path)
    name = next(name for name in found if name != "scratch")
    assert (found[name].status, found[name].reason, found[name].error) == ("skipped", reason, None)
    assert run(plan, tmp_path) == {}
    assert not list(tmp_path.rglob("checkpoint.safetensors"))
    assert found["scratch"].metrics == records["scratch"].metrics


def test_a_teacher_that_fails_takes_only_its_own_students_along(planned: Callable[..., Plan], tmp_path: Path) -> None:
    found = run(planned(methods="kd, orphan"), tmp_path)
    assert {name: record.status for name, record in found.items()} == {
        "scratch": "done",
        "kd": "done",
        "orphan": "failed",
    }
    assert found["orphan"].reason == "its teacher tagger (seed 0) failed: RuntimeError: no lesson"


def test_a_search_that_raises_fails_its_trial_alone(
    planned: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def samples(self: Task, network: nn.Module, *rest: object) -> tuple[str, ...]:
        calls.append(network)
        if len(calls) == 2:  # of the first student, after its teacher
            raise RuntimeError("no words")
        return ()

    calls: list[nn.Module] = []
    monkeypatch.setattr(Tagging, "samples", samples)
    found = run(planned(methods="weightless"), tmp_path)
    assert {name: record.status for name, record in found.items()} == {"scratch": "failed", "weightless": "done"}
    assert found["scratch"].reason == "it cannot be measured: RuntimeError: no words"
    assert "Traceback" in str(found["scratch"].error)


def test_a_task_whose_scores_all_take_a_search_is_broken(
    planned: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tagging, "metrics", lambda self, spec: (Metric("errors", share, decoded=True),))
    plan = planned()
    ended = trained(plan, list(plan.trials), tmp_path / "broken")["scratch"]
    assert ended.reason is not None
    assert "tagging has no metric for the validation split" in ended.reason
