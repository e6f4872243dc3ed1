"""What makes training faster: the same answers but for rounding, said in the recipe, under the engine's guarantees."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdbench import Architecture, Batch, Data, DataSpec, TensorSplit
from kdbench.errors import StoreError
from kdbench.plan import LoadedTask
from kdbench.plugins import discover
from kdbench.recipe import Recipe
from kdbench.spec import Spec
from kdbench.task import Task
from kdbench.training import stored_answers as module
from kdbench.training.folding import fold_batch_norms
from kdbench.training.stored_answers import stored_answers

CPU = torch.device("cpu")
SPEC = DataSpec((3, 16, 16), 5)


def trained_norms(network: nn.Module) -> nn.Module:
    """The network with statistics and weights that a folded norm must not lose."""
    drawn = torch.Generator().manual_seed(1)
    for part in network.modules():
        if isinstance(part, nn.modules.batchnorm._NormBase):
            for tensor in (part.running_mean, part.weight.data, part.bias.data):
                assert tensor is not None
                tensor.normal_(generator=drawn)
            assert part.running_var is not None
            part.running_var.uniform_(0.5, 2, generator=drawn)
    return network.eval().double()


def built(written: str, spec: DataSpec = SPEC) -> tuple[Architecture, nn.Module]:
    architecture: Architecture = discover().create("architecture", Spec.parse(written))
    torch.manual_seed(0)
    return architecture, trained_norms(architecture.build(spec))


@pytest.mark.parametrize("written", ["resnet8", "wrn_16_2", "vgg8", "cnn[width=1]", "torchvision:mobilenet_v2"])
def test_folded_norms_are_gone_and_the_answers_are_the_same(written: str) -> None:
    architecture, network = built(written)
    inputs = torch.randn(4, *SPEC.input_shape, dtype=torch.float64)
    with torch.no_grad():
        expected = network(inputs)
        folded = fold_batch_norms(network, {tap.module for tap in architecture.taps(network).values()})
        assert torch.allclose(network(inputs), expected, rtol=1e-9, atol=1e-9)
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    # what follows no convolution (a norm before the activation of a wide ResNet's block) stays
    assert folded > 0
    assert all(not isinstance(part, nn.Identity) for part in norms)


def test_every_tap_sees_what_it_saw() -> None:
    from kdbench.training.taps import TappedNetwork

    architecture, network = built("resnet8")
    taps = architecture.taps(network)
    batch = Batch(torch.randn(4, *SPEC.input_shape, dtype=torch.float64), torch.zeros(4).long(), torch.arange(4))
    with torch.no_grad():
        expected = TappedNetwork(network, taps, tuple(taps), Task())(batch).taps
        assert fold_batch_norms(network, {tap.module for tap in taps.values()})
        found = TappedNetwork(network, taps, tuple(taps), Task())(batch).taps
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-5, atol=1e-5), name


class Shared(nn.Module):
    """One convolution whose output two norms use, and one norm that two convolutions share."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.first, self.second, self.common = (nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, inputs: Tensor) -> Tensor:
        once = self.one(inputs)
        twice = self.first(once) + self.second(once)
        return self.common(self.two(twice)) + self.common(self.three(twice))


class Branching(nn.Module):
    """Its forward pass depends on values, so that it cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = self.norm(self.convolution(inputs))
        return answer if inputs.sum() > 0 else -answer


@pytest.mark.parametrize("network", [Shared(), Branching()])
def test_what_cannot_be_folded_is_left_alone(network: nn.Module) -> None:
    before = {name: type(part) for name, part in network.named_modules()}
    assert fold_batch_norms(network.eval(), ()) == 0
    assert {name: type(part) for name, part in network.named_modules()} == before


def test_a_convolution_that_is_looked_at_keeps_its_norm() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    assert fold_batch_norms(network, {"0"}) == 0
    assert fold_batch_norms(network, {"1"}) == 1


# --- stored answers -------------------------------------------------------------------------------------------------


def loaded(examples: int = 11) -> LoadedTask:
    drawn = torch.Generator().manual_seed(0)
    split = TensorSplit(torch.randn(examples, 4, generator=drawn), torch.zeros(examples, dtype=torch.long))
    return LoadedTask("task", Task(), Data(DataSpec((4,), 2), split, split), "")


class Counting:
    """Doubles its inputs, and counts how often it is asked."""

    def __init__(self, rows: int = 1) -> None:
        self.asked, self.rows = 0, rows

    def __call__(self, batch: Batch) -> Mapping[str, Tensor]:
        self.asked += 1
        return {"logits": (2 * batch.inputs).repeat(self.rows, 1), "stage1": batch.inputs[:, :, None] + 1}


def test_they_are_those_of_the_teacher_in_any_order_and_computed_once(tmp_path: Path) -> None:
    task, teacher = loaded(), Counting()
    found = stored_answers(teacher, task, CPU, tmp_path, "teacher")
    assert found is not None
    rows = torch.tensor([7, 0, 3])
    (batch,) = task.data.train.batches([rows])
    answers = found(batch)
    assert answers["logits"].equal(2 * batch.inputs)
    assert answers["stage1"].equal(batch.inputs[:, :, None] + 1)
    again = Counting()
    same = stored_answers(again, task, CPU, tmp_path, "teacher")
    assert same is not None
    assert again.asked == 1  # for the shapes alone
    assert same.seconds == found.seconds
    assert same(batch)["logits"].equal(answers["logits"])


def test_another_teacher_or_other_data_are_other_answers(tmp_path: Path) -> None:
    for identity, examples in (("teacher", 11), ("other", 11), ("teacher", 10)):
        stored_answers(Counting(), loaded(examples), CPU, tmp_path, identity)
    assert len(list(tmp_path.iterdir())) == 3


def test_rows_that_are_no_examples_are_not_stored(tmp_path: Path) -> None:
    assert stored_answers(Counting(rows=3), loaded(), CPU, tmp_path, "teacher") is None
    assert not list(tmp_path.iterdir())


def test_what_exceeds_the_budget_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_needed = 11 * 8 * 4
    monkeypatch.setattr(module, "BUDGET", bytes_needed - 1)
    assert stored_answers(Counting(), loaded(), CPU, tmp_path, "teacher") is None
    monkeypatch.setattr(module, "BUDGET", bytes_needed)
    assert stored_answers(Counting(), loaded(), CPU, tmp_path, "teacher") is not None


def test_a_kill_while_they_are_written_costs_only_time(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    class Dying(Counting):
        def __call__(self, batch: Batch) -> Mapping[str, Tensor]:
            if self.asked:
                raise Killed
            return super().__call__(batch)

    with pytest.raises(Killed):
        stored_answers(Dying(), loaded(), CPU, tmp_path, "teacher")
    found = stored_answers(Counting(), loaded(), CPU, tmp_path, "teacher")
    assert found is not None
    assert np.isfinite(found.arrays["logits"]).all()
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["logits.npy", "seconds.json", "stage1.npy"]


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        stored_answers(Counting(), loaded(), CPU, tmp_path, "teacher")
    (folder,) = tmp_path.iterdir()
    assert not list(folder.iterdir())


@pytest.mark.parametrize("damage", [b"", b"x" * 200])
def test_damaged_ones_are_named(tmp_path: Path, damage: bytes) -> None:
    stored_answers(Counting(), loaded(), CPU, tmp_path, "teacher")
    (folder,) = tmp_path.iterdir()
    (folder / "logits.npy").write_bytes(damage)
    with pytest.raises(StoreError, match=re.escape(str(folder))):
        stored_answers(Counting(), loaded(), CPU, tmp_path, "teacher")


# --- in a suite -----------------------------------------------------------------------------------------------------


def run(kdbench: Callable[..., Any], suite: Path, out: Path) -> dict[str, dict[str, Any]]:
    status, _, said = kdbench("run", str(suite), "--out", str(out))
    assert status == 0, said
    _, said, _ = kdbench("records", "--json", "--out", str(out))
    return {record["method"]: record for record in map(json.loads, said.splitlines())}


def test_stored_answers_cost_one_pass_over_the_data(
    kdbench: Callable[..., Any], tiny_suite: Callable[..., Path], tmp_path: Path
) -> None:
    epochs = 3
    live = run(kdbench, tiny_suite(epochs=str(epochs)), tmp_path / "live")["kd"]["metrics"]
    suite = tiny_suite(epochs=str(epochs), recipe="  speedups: [stored_answers]")
    stored = run(kdbench, suite, tmp_path / "stored")["kd"]["metrics"]
    assert stored["teacher_flops"] == pytest.approx(live["teacher_flops"] / epochs)
    assert stored["training_flops"] - stored["teacher_flops"] == live["training_flops"] - live["teacher_flops"]
    assert stored["accuracy"] == pytest.approx(live["accuracy"], abs=0.05)
    folders = list((tmp_path / "stored" / "teachers").glob("*/answers/*"))
    assert len(folders) == 1
    assert [path.name for path in folders[0].glob("*.npy")] == ["logits.npy"]


def test_the_compute_matched_control_pays_for_what_is_really_asked(
    kdbench: Callable[..., Any], tiny_suite: Callable[..., Path], tmp_path: Path
) -> None:
    spent = {}
    for name, recipe in (("live", ""), ("stored", "  speedups: [stored_answers]")):
        suite = tiny_suite(teachers="'cnn[width=1]'", methods="kd, longer_scratch", epochs="4", recipe=recipe)
        records = run(kdbench, suite, tmp_path / name)
        spent[name] = {method: records[method]["metrics"]["training_flops"] for method in ("kd", "longer_scratch")}
    for each in spent.values():
        assert each["kd"] <= each["longer_scratch"] < 1.3 * each["kd"]
    assert spent["stored"]["longer_scratch"] < spent["live"]["longer_scratch"]


def test_images_that_change_have_no_stored_answers(
    kdbench: Callable[..., Any], tiny_suite: Callable[..., Path]
) -> None:
    suite = tiny_suite(recipe="  augmentation: ['crop[padding=1]']\n  speedups: [stored_answers]")
    status, _, said = kdbench("plan", str(suite))
    assert status == 2
    assert "stored_answers needs a recipe without augmentation" in " ".join(said.split())


def test_their_order_means_nothing() -> None:
    one, other = (Recipe(epochs=1, speedups=names) for names in (("folded_teacher", "bf16_teacher"),) * 2)
    reverse = Recipe(epochs=1, speedups=("bf16_teacher", "folded_teacher", "folded_teacher"))
    assert one == other == reverse
