"""The tuned track: the same tries for everyone, by validation alone, and the same again after an interruption."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from kdbench import BadInput, Choices, Method, Needs, NotApplicable, Range, Step
from kdbench.cli.choosing import requested_trials
from kdbench.data import DataFolders
from kdbench.errors import BrokenPlugin, MissingExtra, UnknownName
from kdbench.execution.executors import Local
from kdbench.execution.limits import Limits, OutOfTime
from kdbench.execution.processes import Processes
from kdbench.hyperparameters import values
from kdbench.method import NO_TEACHER
from kdbench.plan import Configuration, TuningCost
from kdbench.planner import TUNING_SEED, Planner
from kdbench.plugins import Origin, Plugin, Registry, discover
from kdbench.splits import TensorSplit
from kdbench.store.run_folder import RunFolder
from kdbench.suite_file import load_suite
from kdbench.training.observer import Observer
from kdbench.tuning.choice import Choice
from kdbench.tuning.sampling import Sampler
from kdbench.tuning.space import FACTORS, LEARNING_RATE, space_of
from kdbench.tuning.tuner import Tuner

CPU = torch.device("cpu")
Write = Callable[..., Path]


@dataclasses.dataclass(frozen=True)
class Moody(Method):
    """Trains well, raises, diverges, or is not applicable, as its parameter says."""

    family: ClassVar[Any] = "response"
    search_space: ClassVar = {"mood": Choices("fine", "raises", "diverges", "shy")}

    mood: str = "raises"

    @property
    def needs(self) -> Needs:
        return NO_TEACHER

    def build_auxiliary(self, example: Step) -> None:
        if self.mood == "shy":
            raise NotApplicable("it is shy")

    def losses(self, step: Step) -> dict[str, Tensor]:
        if self.mood == "raises":
            raise RuntimeError("not today")
        return {"task": step.task_loss(step.student["logits"]) * (float("nan") if self.mood == "diverges" else 1)}


@dataclasses.dataclass(frozen=True)
class Hopeless(Moody):
    """Never trains."""

    search_space: ClassVar = {"mood": Choices("raises", "diverges")}


@dataclasses.dataclass(frozen=True)
class Picky(Method):
    """Refuses values that are allowed each."""

    family: ClassVar[Any] = "control"
    search_space: ClassVar = {"low": Range(1, 9), "high": Range(1, 9)}

    low: int = 1
    high: int = 9

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low must not be above high")


def registry() -> Registry:
    """The built-ins and the methods above."""
    found, origin = discover(), Origin("tests", "0", __name__)
    extra = {"moody": Moody, "hopeless": Hopeless, "picky": Picky}
    methods = {name: Plugin("method", name, cls, origin) for name, cls in extra.items()}
    return Registry({**found.plugins, "method": {**found.plugins["method"], **methods}})


def planner_of(suite: Path) -> Planner:
    return Planner(load_suite(str(suite)), registry(), DataFolders((suite.parent,), suite.parent))


def tuned(planner: Planner, trials: int, folder: Path, observer: Observer | None = None) -> Tuner:
    tuner = Tuner(planner, trials, RunFolder(folder))
    tuner.run(CPU, observer or Observer())
    return tuner


def said(choices: list[Choice]) -> dict[str, dict[str, Any]]:
    """The choices by method, without the clock."""
    return {choice.method: choice.model_dump(exclude={"seconds"}) for choice in choices}


def stored(folder: Path) -> dict[str, Any]:
    """What must reproduce of every record, by fingerprint."""
    found = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("trials/*/record.json")}
    return {name: (record["status"], record["metrics"], record["curves"]) for name, record in found.items()}


class Interruption(Observer):
    """Ends everything when epoch `at` of the run is over."""

    def __init__(self, at: int) -> None:
        self.left = at

    def epoch_ended(self, *_: Any) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_an_interrupted_tuning_goes_on_to_the_same_choices(tiny_suite: Write, tmp_path: Path) -> None:
    planner = planner_of(tiny_suite(methods="kd, 'rkd[distance_weight=1]'", controls="scratch, label_smoothing"))
    whole = tuned(planner, 4, tmp_path / "whole")
    for at in (3, 4):  # in a round, and after one
        with pytest.raises(KeyboardInterrupt):
            tuned(planner, 4, tmp_path / "parts", Interruption(at))
    assert 0 < Tuner(planner, 4, RunFolder(tmp_path / "parts")).done < 4
    parts = tuned(planner, 4, tmp_path / "parts")
    assert said(parts.choices()) == said(whole.choices())
    assert stored(tmp_path / "parts") == stored(tmp_path / "whole")
    assert len(stored(tmp_path / "whole")) == 16, "four tries for each of four"
    assert Tuner(planner, 4, RunFolder(tmp_path / "parts")).epochs_left() == 0
    assert not [*(tmp_path / "whole" / "trials").glob("*/*.safetensors")], "no student is kept"


def test_choices_do_not_depend_on_company_and_more_trials_begin_with_the_same(
    tiny_suite: Write, tmp_path: Path
) -> None:
    company = said(tuned(planner_of(tiny_suite(methods="kd, rkd")), 3, tmp_path / "company").choices())
    alone = said(tuned(planner_of(tiny_suite("alone.yaml")), 3, tmp_path / "alone").choices())
    assert alone == {method: company[method] for method in ("scratch", "kd")}
    before = stored(tmp_path / "alone")
    tuned(planner_of(tiny_suite("alone.yaml")), 5, tmp_path / "alone")
    assert before.items() < stored(tmp_path / "alone").items()


@dataclasses.dataclass(frozen=True, eq=False)
class Sealed(TensorSplit):
    """A test split that nobody may read."""

    def batches(self, order: Any) -> Iterator[Any]:
        raise AssertionError("the test split was opened")

    def subset(self, indices: Any) -> TensorSplit:
        raise AssertionError("the test split was opened")


def test_the_test_split_stays_closed(tiny_suite: Write, tmp_path: Path) -> None:
    planner = planner_of(tiny_suite(methods="kd, born_again, ensemble, moody", controls="scratch, untrained_teacher"))
    planner.tasks = {
        name: dataclasses.replace(
            task,
            data=dataclasses.replace(task.data, test=Sealed(task.data.test.inputs, task.data.test.targets)),  # type: ignore[attr-defined]
        )
        for name, task in planner.tasks.items()
    }
    choices = said(tuned(planner, 2, tmp_path / "tuning").choices())
    assert all(choices[name]["failed"] == 0 for name in choices if name != "moody"), choices
    for _, metrics, _ in stored(tmp_path / "tuning").values():
        assert metrics.keys() <= {"validation_accuracy", "training_flops", "teacher_flops"}


def test_the_best_is_chosen_and_what_fails_is_not(tiny_suite: Write, tmp_path: Path) -> None:
    planner = planner_of(tiny_suite(methods="moody, hopeless, picky, 'kd[temperature=50]'", epochs="3"))
    tuner = tuned(planner, 8, tmp_path)
    choices, found = said(tuner.choices()), stored(tmp_path)
    assert choices["moody"]["params"] == {"mood": "fine"}
    assert choices["moody"]["own_score"] is None
    assert 0 < choices["moody"]["failed"] < 8
    assert (choices["hopeless"]["params"], choices["hopeless"]["score"]) == ({"mood": "raises"}, None)
    assert choices["hopeless"]["learning_rate"] == choices["hopeless"]["own_learning_rate"]
    assert choices["picky"]["failed"] > 0
    assert choices["picky"]["trials"] == 8
    assert choices["kd"]["own_params"]["temperature"] == 50, "outside of its space, and tried all the same"
    assert {status for status, _, _ in found.values()} == {"done", "failed", "diverged", "skipped"}
    assert all(metrics["training_flops"] > 0 for status, metrics, _ in found.values() if status == "diverged")
    best = max(metrics["validation_accuracy"] for status, metrics, _ in found.values() if status == "done")
    assert best == max(choice["score"] for choice in choices.values() if choice["score"] is not None)


def test_what_cannot_run_or_has_nothing_to_tune_is_left_as_it_is(tiny_suite: Write, tmp_path: Path) -> None:
    methods = "ensemble, 'moody[mood=shy]', kd, 'kd[temperature=2]', fitnets, 'fitnets[stages=joint]'"
    planner = planner_of(tiny_suite(methods=methods, controls="scratch, int8", teachers="'cnn[width=0.5]'"))
    tuner = tuned(planner, 2, tmp_path)
    assert [choice.method for choice in tuner.choices()] == ["scratch", "kd", "fitnets", "fitnets"]
    (chosen,) = tuner.chosen().values()
    untouched = {each.method_name for each in chosen if each.tuning is None}
    assert untouched == {"int8", "ensemble", "moody"}
    assert {each.tuning.trials for each in chosen if each.tuning} == {2}
    plan = planner.plan(tuner.chosen())
    assert {skipped.trial.method_name for skipped in plan.skipped} == {"ensemble"}


def test_a_chosen_configuration_reaches_its_trials_and_what_it_cost_their_fingerprints(tiny_suite: Write) -> None:
    planner = planner_of(tiny_suite())
    (board,) = planner.own
    scratch, kd = planner.own[board]
    faster = dataclasses.replace(kd, learning_rate_factor=2.0, tuning=TuningCost(3, 1e9, 5.0))
    plain, changed = planner.plan(), planner.plan({board: [scratch, faster]})
    assert [trial.recipe.learning_rate for trial in changed.trials] == [0.05, 0.1]
    assert {trial.recipe.learning_rate for trial in changed.teachers} == {0.05}
    assert len(changed.cohorts) == 1, "other learning rates are the same batches"
    before, after = ([trial.fingerprint for trial in plan.trials] for plan in (plain, changed))
    assert before[0] == after[0]
    assert before[1] != after[1]
    costlier = planner.plan({board: [scratch, dataclasses.replace(faster, tuning=TuningCost(4, 1e9, 5.0))]})
    assert after[1] != [trial.fingerprint for trial in costlier.trials][1]
    assert {trial.seed for trial in planner.for_tuning().plan().trials} == {TUNING_SEED}
    assert planner.suite.seeds == (0,)


def test_no_suite_can_use_the_seed_of_tuning(tiny_suite: Write) -> None:
    with pytest.raises(BadInput, match="seeds"):
        load_suite(str(tiny_suite(seeds=f"[{TUNING_SEED}]")))


def points(name: str, scores: list[float | None], own: float = 1.0) -> list[dict[str, Any]]:
    space = {"weight": Range(0.1, 10.0, log=True), "depth": Range(1, 3), "stages": Choices("two", "joint", None)}
    sampler = Sampler(name, space, {"weight": own, "depth": 2, "stages": None}, higher_is_better=True)
    found = []
    for score in scores:
        found.append(sampler.ask())
        sampler.tell(score)
    return found


def test_the_sampler_repeats_itself_and_stays_in_the_space() -> None:
    scores = [0.1, None, 0.5, 0.4, 0.2, 0.9, 0.1, 0.3, 0.35, 0.7]
    found = points("a", scores)
    assert found == points("a", scores)
    assert found[:5] == points("a", scores[:5])
    assert found[1:] != points("b", scores)[1:]
    assert found[0] == {"weight": 1.0, "depth": 2, "stages": None}
    for point in found:
        assert 0.1 <= point["weight"] <= 10
        assert point["weight"] == float(f"{point['weight']:.3g}")
        assert isinstance(point["depth"], int)
        assert point["depth"] in (1, 2, 3)
        assert point["stages"] in ("two", "joint", None)
    assert len({json.dumps(point) for point in found}) == len(found)


def test_a_suites_own_value_outside_of_the_space_is_tried_as_it_is() -> None:
    assert points("a", [0.5, 0.5], own=123.456)[0]["weight"] == 123.456


def test_the_learning_rate_is_tuned_for_everyone_who_is_trained() -> None:
    methods = {name: registry().find("method", name).load()[0]() for name in ("scratch", "kd", "int8")}
    spaces = {name: space_of(Configuration(name, method)) for name, method in methods.items()}
    assert spaces["scratch"] == {LEARNING_RATE: FACTORS}
    assert spaces["kd"].keys() == {"temperature", "hard_weight", "soft_weight", LEARNING_RATE}
    assert spaces["int8"] == {}


@dataclasses.dataclass(frozen=True)
class Wrong(Method):
    search_space: ClassVar = {"heat": Range(1.0, 2.0)}


def test_a_search_space_of_what_is_no_parameter_is_the_plugins_fault() -> None:
    with pytest.raises(BrokenPlugin, match="wrong: its search_space has 'heat'"):
        space_of(Configuration("wrong", Wrong()))


@pytest.mark.parametrize(("low", "high", "log"), [(1.0, 1.0, False), (2, 1, False), (0.0, 1.0, True)])
def test_a_range_without_numbers_is_refused(low: float, high: float, log: bool) -> None:
    with pytest.raises(ValueError, match="low must be below high"):
        Range(low, high, log)


def test_without_optuna_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtra, match=r"kdbench\[tuning\]"):
        Sampler("a", {}, {}, higher_is_better=True)


def test_tracks_and_trials_go_together() -> None:
    assert [requested_trials("fixed", None), requested_trials("tuned", None), requested_trials("tuned", 3)] == [
        0,
        10,
        3,
    ]
    with pytest.raises(BadInput, match="--tuning-trials is an option of the tuned track"):
        requested_trials("fixed", 3)
    with pytest.raises(BadInput, match="must be 1 or more"):
        requested_trials("tuned", 0)
    with pytest.raises(UnknownName, match="did you mean 'tuned'"):
        requested_trials("tune", None)


class Untracked:
    """In place of MLflow, which takes seconds."""

    def __init__(self, *_: Any) -> None: ...

    def sync(self, *_: Any, **__: Any) -> None: ...


@pytest.mark.usefixtures("given")
def test_the_command(
    tiny_suite: Write,
    tmp_path: Path,
    kdbench: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kdbench.cli.running.Tracker", Untracked)
    monkeypatch.setattr("kdbench.measuring.measure.deployed_speed", lambda *_: {"latency_ms_p50": 1.0})
    out = tmp_path / "out"
    command = ("run", str(tiny_suite()), "--track", "tuned", "--tuning-trials", "3", "--out", str(out))
    status, printed, messages = kdbench(*command)
    assert status == 0, messages
    assert "tuned track: 3 trials for every method and control, on validation" in printed
    assert "the best of 3 tries by accuracy on validation" in printed
    assert "tuning, round 3 of 3" in messages

    run = RunFolder(out / "tiny@1.0-tuned")
    assert (run.manifest().tuning_trials, len(run.manifest().trials)) == (3, 2)
    choices = {each["method"]: each for each in json.loads((run.path / "tuning" / "choices.json").read_text())}
    for record in run.records():
        choice = choices[record.method]
        assert record.params == choice["params"]
        assert record.provenance["recipe"]["learning_rate"] == choice["learning_rate"]
        assert record.metrics["tuning_flops"] == choice["flops"] > 0
        assert record.metrics["training_flops"] > choice["flops"]
        assert record.measurements["training_seconds"] > record.measurements["tuning_seconds"] == choice["seconds"]

    assert "rounds are done" in kdbench("plan", *command[1:])[1]
    planned = kdbench("plan", *command[1:5], "5", *command[6:])[1]
    assert "tuning: 2 of 5 rounds are left, each of 2 trials" in planned

    status, again, messages = kdbench(*command)
    assert (status, again) == (0, printed)
    assert "round" not in messages, "nothing is left to tune"

    status, printed, _ = kdbench(*command[:-2], "--method", "rkd", "--out", str(out))
    assert status == 0
    methods = sorted(record.method for record in run.records())
    assert methods == ["kd", "rkd", "scratch"], "what is not run now stays, and nothing is there twice"
    assert values(discover().create("method", load_suite(command[1]).methods[0])) == choices["kd"]["own_params"]


def test_rounds_are_carried_out_by_any_executor(tiny_suite: Callable[..., Path], tmp_path: Path) -> None:
    planner = Planner(load_suite(str(tiny_suite(epochs="1"))), discover(), DataFolders((tmp_path,), tmp_path))
    chosen = []
    for name, means in (("here", Local()), ("there", Processes(workers=1))):
        tuner = Tuner(planner, 2, RunFolder.create(tmp_path, name))
        tuner.run(CPU, Observer(), means)
        chosen.append([(choice.method, choice.params, choice.score) for choice in tuner.choices()])
    assert chosen[0] == chosen[1]
    assert chosen[0]


def test_tuning_stops_when_the_runs_time_is_over(tiny_suite: Callable[..., Path], tmp_path: Path) -> None:
    planner = planner_of(tiny_suite(epochs="1"))
    tuner = Tuner(planner, 2, RunFolder(tmp_path / "run"))
    with pytest.raises(OutOfTime, match="--max-hours"):
        tuner.run(CPU, Observer(), limits=Limits(max_hours=1e-9))
