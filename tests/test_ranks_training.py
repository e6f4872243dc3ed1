"""Two ranks come to what one process comes to: on the same batches, the last one uneven, but for rounding."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdbench import Batch, Method, Needs, Step
from kdbench.data import DataFolders
from kdbench.errors import BadInput
from kdbench.planner import make_plan
from kdbench.plugins import Origin, Plugin, Registry, discover
from kdbench.suite_file import parse_suite
from kdbench.training import ranks as ranks_module
from kdbench.training.cohort import train
from kdbench.training.observer import Observer
from kdbench.training.ranks import ALONE, Ranks, RanksApart
from kdbench.training.shares import Share
from kdbench.training.trained import Trained

SUITE = """
suite: tiny@1.0
title: Tiny
tasks: [{task}]
pairs:
  - teacher: [{teacher}]
    student: {student}
methods: [{methods}]
controls: [scratch]
add_controls: false
seeds: 1
recipe:
  epochs: 1
  batch_size: 31
  learning_rate: 0.01
  clip_grad_norm: 5.0
  augmentation: {augmentation}
  speedups: {speedups}
"""
DEFAULTS = {"augmentation": "[]", "speedups": "[]"}
CASES = {
    "images": {
        "task": "'digits[train_examples=85]'",
        "teacher": "'cnn[width=0.5]'",
        "student": "'cnn[width=0.25]'",  # with batch normalisation
        "methods": "kd, fitnets, rkd, crd, dml, explanation_guided, data_free",
        "augmentation": "['crop[padding=1]']",
    },
    "texts": {
        "task": "'text_file[path=texts.csv,max_length=16,vocab_size=100]'",
        "teacher": "'bert[width=16,layers=2,dropout=0]'",
        "student": "'bert[width=16,layers=1,dropout=0]'",
        "methods": "kd, rkd",
        "speedups": "[stored_answers]",
    },
    "failures": {
        "task": "'digits[train_examples=85]'",
        "teacher": "'cnn[width=0.5]'",
        "student": "'cnn[width=0.25]'",
        "methods": "alike, kd",
    },
    "apart": {
        "task": "'digits[train_examples=85]'",
        "teacher": "'cnn[width=0.5]'",
        "student": "'cnn[width=0.25]'",
        "methods": "apart",
    },
}
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}  # of float32, after an epoch


@dataclass(frozen=True)
class Alike(Method):
    """Draws what no rank may draw otherwise, and raises on all of them."""

    family: ClassVar = "response"

    @property
    def needs(self) -> Needs:
        return Needs()

    def losses(self, step: Step) -> dict[str, Tensor]:
        if step.progress > 0.6:
            raise torch.OutOfMemoryError("everywhere")
        logits = step.student["logits"]
        return {"task": step.task_loss(logits + 0.1 * torch.randn_like(logits))}


@dataclass(frozen=True)
class Apart(Method):
    """Raises on the second rank."""

    family: ClassVar = "response"

    @property
    def needs(self) -> Needs:
        return Needs()

    def losses(self, step: Step) -> dict[str, Tensor]:
        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
            raise torch.OutOfMemoryError("here alone")
        return {"task": step.task_loss(step.student["logits"])}


def registry() -> Registry:
    """The built-ins and the methods above."""
    found, origin = discover(), Origin("tests", "0", __name__)
    methods = {cls.__name__.lower(): Plugin("method", cls.__name__.lower(), cls, origin) for cls in (Alike, Apart)}
    return Registry({**found.plugins, "method": {**found.plugins["method"], **methods}})


def trained(case: str, folder: Path, ranks: Ranks, observer: Observer | None = None) -> Iterator[Trained]:
    """Trains a case; teachers are random networks, the same everywhere."""
    suite = parse_suite(SUITE.format(**{**DEFAULTS, **CASES[case]}))
    plan = make_plan(suite, registry(), DataFolders((folder,), folder))
    for cohort in plan.cohorts:
        networks = {}
        for index, teacher in enumerate(cohort.teachers):
            torch.manual_seed(index)
            networks[teacher.fingerprint] = plan.architectures[teacher.student].build(
                plan.tasks[teacher.task].data.spec
            )
        yield from train(
            cohort,
            plan.tasks[cohort.head.task],
            plan.architectures,
            networks,
            lambda trial: folder / case / f"{trial.fingerprint}.safetensors",
            torch.device("cpu"),
            observer or Observer(),
            ranks=ranks,
        )


def outcomes(case: str, folder: Path, ranks: Ranks = ALONE) -> dict[str, Tensor]:
    """The final weights and losses of a case, by method and name; of one that failed nothing."""
    found = {}
    for each in trained(case, folder, ranks):
        if each.student is not None:
            found |= {f"{each.trial.method_name} {name}": value for name, value in each.student.state_dict().items()}
            found[f"{each.trial.method_name} loss"] = torch.tensor(each.curves["loss"])
        else:
            found[f"{each.trial.method_name} {each.reason}"] = torch.zeros(0)
    return found


def one_step(examples: int, ranks: Ranks = ALONE) -> dict[str, Tensor]:
    """In float64: all gradients, also that of the inputs, of a loss that relates the examples to one another and to
    the gradient at an inner layer; and what batch normalisation keeps."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    network = nn.Sequential(nn.Conv2d(2, 3, 2), norm, nn.Tanh(), nn.Flatten(), nn.Linear(27, 5)).double()
    nn.init.normal_(norm.weight)
    absent, outside = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(5, dtype=torch.float64))
    inputs = (torch.randn(examples, 2, 4, 4, dtype=torch.float64) + 3).requires_grad_()
    share = Share(Batch(inputs, torch.arange(examples), torch.arange(examples)), ranks)
    with share.computing(network):
        inner = network[:2](share.batch.inputs)
        own = network[2:](inner)
        (gradient,) = torch.autograd.grad(own.square().sum(), inner, create_graph=True)
    output, taps = share.gathered(own, {"gradient": gradient})
    loss = (output @ output.T).square().mean() + taps["gradient"].square().sum() + (output * outside).std()
    loss.backward()
    ranks.average_gradients([*network.parameters(), absent, outside])
    assert absent.grad is None
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    found = {**gradients, **dict(network.named_buffers()), "outside": outside.grad, "inputs": inputs.grad}
    return {name: value.clone() for name, value in found.items() if value is not None}


def dropped(ranks: Ranks) -> dict[str, Tensor]:
    """Where dropout leaves something, [examples, 64], and a number that is drawn after it."""
    torch.manual_seed(0)
    share = Share(Batch(torch.ones(6, 64), torch.arange(6), torch.arange(6)), ranks)
    network = nn.Dropout(0.5)
    masks = []
    for _ in range(2):
        with share.computing(network):
            own = network(share.batch.inputs)
        masks.append(share.gathered(own, {})[0] > 0)
    drawn = torch.rand(1)
    return {"first": masks[0], "second": masks[1], "lowest": -ranks.highest(-drawn), "highest": ranks.highest(drawn)}


def uneven(ranks: Ranks) -> str:
    """What is said of a tap that is as long as the longest example of a share."""
    share = Share(Batch(torch.ones(6, 2), torch.arange(6), torch.arange(6)), ranks)
    own = share.batch.inputs
    assert share.gathered(own, {"stage1": own[:, :, None]})[1]["stage1"].shape == (6, 2, 1)
    try:
        share.gathered(own, {"stage1": torch.zeros(len(own), 2, 3 + ranks.rank)})
    except BadInput as error:
        return error.message
    return ""


def main(folder: Path, rank: int, size: int) -> None:
    """What each rank does; the first writes down what it comes to."""
    torch.set_num_threads(1)
    ranks_module._PATIENCE = timedelta(seconds=1)
    ranks = Ranks.join(folder / "meeting", rank, size, torch.device("cpu"))
    found = {f"step {examples}": one_step(examples, ranks) for examples in (7, 1)}
    found |= {"dropout": dropped(ranks)}
    found |= {case: outcomes(case, folder, ranks) for case in CASES if case != "apart"}
    (folder / f"uneven {rank}").write_text(uneven(ranks))
    if ranks.leads:
        for name, tensors in found.items():
            save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors")
    outcomes("apart", folder, ranks)


Prepared = Callable[[str], Path]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A folder with the texts."""

    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        rows = [f"{'the fox ' * (index % 5)}{index} and a hen,{index % 3}" for index in range(70)]
        (folder / "texts.csv").write_text("\n".join(["text,label", *rows]))
        for case in CASES:
            (folder / case).mkdir()
        return folder

    return make


@pytest.fixture(scope="module")
def two(prepared: Prepared) -> tuple[Path, list[subprocess.CompletedProcess[str]]]:
    """The folder of two ranks, and how they ended."""
    folder = prepared("two")
    program = f"from pathlib import Path; import {Path(__file__).stem} as program; program.main(Path({str(folder)!r}), "
    commands = [[sys.executable, "-c", f"{program}{rank}, 2)"] for rank in range(2)]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(Path(__file__).parent)])}
    processes = [subprocess.Popen(each, env=variables, stderr=subprocess.PIPE, text=True) for each in commands]
    ended = [(process, process.communicate()[1]) for process in processes]
    return folder, [subprocess.CompletedProcess(each.args, each.returncode, stderr=said) for each, said in ended]


Two = tuple[Path, list[subprocess.CompletedProcess[str]]]


@pytest.mark.parametrize("case", ["images", "texts", "failures"])
def test_the_students_are_those_of_one_process(case: str, two: Two, prepared: Prepared) -> None:
    folder, ended = two
    assert (folder / f"{case}.safetensors").exists(), ended[0].stderr
    together, alone = load_file(folder / f"{case}.safetensors"), outcomes(case, prepared(case))
    assert together.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, **ROUNDING, msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.parametrize("examples", [7, 1])
def test_gradients_are_those_of_the_whole_batch(examples: int, two: Two) -> None:
    together, alone = load_file(two[0] / f"step {examples}.safetensors"), one_step(examples)
    assert together.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-9, atol=1e-12)


def test_ranks_drop_otherwise_but_draw_alike(two: Two) -> None:
    found = load_file(two[0] / "dropout.safetensors")
    assert not found["first"][:3].equal(found["first"][3:])
    assert not found["first"].equal(found["second"])
    assert found["lowest"].equal(found["highest"])


def test_taps_that_are_as_long_as_the_longest_of_a_share_are_refused_on_all_ranks(two: Two) -> None:
    for rank in range(2):
        assert "stage1: one of these taps has a length that depends on" in (two[0] / f"uneven {rank}").read_text()


def test_a_rank_that_fails_alone_ends_all(two: Two) -> None:
    for each in two[1]:
        assert each.returncode == 1
        assert "RanksApart: " in each.stderr
    assert "RanksApart: rank 1 alone failed: OutOfMemoryError: here alone" in two[1][1].stderr


class _Store:
    """What the other rank of two has written already."""

    def __init__(self, other: str) -> None:
        self.other, self.own = other, ""

    def set(self, key: str, value: str) -> None:
        self.own = value

    def wait(self, keys: list[str], patience: timedelta) -> None:
        pass

    def get(self, key: str) -> bytes:
        return (self.own if key.endswith("rank 0") else self.other).encode()


def test_ranks_agree_only_on_the_same_failure_at_the_same_place() -> None:
    Ranks(0, 2, _Store("ValueError after 0 exchanges")).agree(ValueError("x"))  # type: ignore[arg-type]
    for other in ("ValueError after 1 exchanges", "OutOfMemoryError after 0 exchanges"):
        with pytest.raises(RanksApart, match=f"at different places: ValueError after 0 exchanges, {other}"):
            Ranks(0, 2, _Store(other)).agree(ValueError("x"))  # type: ignore[arg-type]


@pytest.mark.parametrize(("examples", "size", "sizes"), [(7, 2, [4, 3]), (6, 3, [2, 2, 2]), (2, 2, [1, 1])])
def test_shares_are_as_even_as_can_be(examples: int, size: int, sizes: list[int]) -> None:
    assert Ranks(0, size).sizes(examples) == sizes


def test_gradients_are_exchanged_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks_module, "_BUCKET", 10)
    tensors = [torch.zeros(2), torch.zeros(9), torch.zeros(1), torch.zeros(1), torch.zeros(1, dtype=torch.float64)]
    assert [len(bucket) for bucket in ranks_module._buckets(tensors)] == [1, 1, 2, 1]
