"""Gradients at a network's stages, as methods see them: right, differentiable in students, mere numbers in teachers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdbench import Architecture, Batch, DataSpec, Task
from kdbench.plugins import discover
from kdbench.spec import Spec
from kdbench.training.taps import TappedNetwork

SPEC = DataSpec((1, 8, 8), 5)


def batch(examples: int = 6) -> Batch:
    drawn = torch.Generator().manual_seed(0)
    inputs = torch.randn(examples, *SPEC.input_shape, generator=drawn)
    return Batch(inputs, torch.randint(5, (examples,), generator=drawn), torch.arange(examples))


def built(written: str = "cnn[width=0.5]", spec: DataSpec = SPEC) -> tuple[Architecture, nn.Module]:
    architecture: Architecture = discover().create("architecture", Spec.parse(written))
    torch.manual_seed(0)
    return architecture, architecture.build(spec).eval()


def tapped(*wanted: str, frozen: bool = False) -> TappedNetwork:
    architecture, network = built()
    return TappedNetwork(network.requires_grad_(not frozen), architecture.taps(network), wanted, Task())


def test_it_is_the_gradient_of_the_labels_logits() -> None:
    """By differences: the logits' sum moves by the gradient times a small step at one place of the stage."""
    architecture, network = built()
    network = network.double()
    examples = dataclasses.replace(batch(), inputs=batch().inputs.double())
    tap = architecture.taps(network)["stage2"]
    found = TappedNetwork(network, architecture.taps(network), ("gradient2",), Task())(examples).taps["gradient2"]
    place, step = (2, 1, 1, 0), 1e-4

    def score(shift: float) -> Tensor:
        def moved(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            changed = output.clone()
            changed[place] += shift
            return changed

        handle = network.get_submodule(tap.module).register_forward_hook(moved)
        logits = network(examples.inputs)
        handle.remove()
        chosen: Tensor = logits.gather(1, examples.targets[:, None]).sum()
        return chosen

    slope = (score(step) - score(-step)) / (2 * step)
    assert found[place].item() == pytest.approx(slope.item(), rel=1e-4, abs=1e-6)


def test_a_teacher_gives_the_same_numbers_as_a_student_and_records_nothing() -> None:
    examples = batch()
    student = tapped("stage1", "gradient1", "gradient3")(examples).taps
    with torch.no_grad():
        teacher = tapped("stage1", "gradient1", "gradient3", frozen=True)(examples)
    assert set(teacher.taps) == {"logits", "stage1", "gradient1", "gradient3"}
    assert not any(tensor.requires_grad for tensor in (teacher.output, *teacher.taps.values()))
    for name, tensor in teacher.taps.items():
        assert tensor.equal(student[name].detach()), name
    assert teacher.taps["gradient1"].shape == teacher.taps["stage1"].shape
    assert teacher.taps["gradient1"].any()


def test_a_students_gradient_can_be_differentiated_again() -> None:
    network = tapped("gradient2")
    network(batch()).taps["gradient2"].square().sum().backward()
    reached = [parameter.grad for parameter in network.network.parameters() if parameter.grad is not None]
    assert any(gradient.abs().sum() > 0 for gradient in reached)


def test_asking_for_it_changes_no_answer() -> None:
    examples = batch()
    with torch.no_grad():
        plain = tapped("stage2")(examples)
        asked = tapped("stage2", "gradient2", frozen=True)(examples)
    assert plain.output.equal(asked.output)
    assert plain.taps["stage2"].equal(asked.taps["stage2"])


def test_without_labels_it_is_that_of_the_largest_logit() -> None:
    class Unlabelled(Task):
        def labels(self, batch: Batch) -> None:
            return None

    architecture, network = built()
    examples = batch()
    largest = dataclasses.replace(examples, targets=network(examples.inputs).argmax(dim=1))
    found = [
        TappedNetwork(network, architecture.taps(network), ("gradient1",), task)(given).taps["gradient1"]
        for task, given in ((Unlabelled(), examples), (Task(), largest))
    ]
    assert found[0].equal(found[1])


def test_tokens_lie_as_their_stage_does() -> None:
    spec = DataSpec((12,), 3, "nlp", vocabulary=50)
    architecture, network = built("bert[layers=2,width=16]", spec)
    examples = Batch(torch.randint(1, 50, (4, 12)), torch.tensor([0, 1, 2, 0]), torch.arange(4))
    with torch.no_grad():
        taps = TappedNetwork(network, architecture.taps(network), ("stage1", "gradient1"), Task())(examples).taps
    assert taps["gradient1"].shape == taps["stage1"].shape == (4, 16, 12)


def test_a_plan_knows_them_and_names_the_stage_that_is_missing(
    kdbench: Callable[..., Any], tiny_suite: Callable[..., Any]
) -> None:
    method = "'explanation_guided[student_stage=stage9]'"
    status, said, _ = kdbench("plan", str(tiny_suite(methods=f"explanation_guided, {method}")))
    assert status == 0
    assert "has no tap 'stage9'" in " ".join(said.split())
    assert "gradient" not in said
