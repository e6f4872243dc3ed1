"""Saliency agreement: by hand on linear networks, and where it is not measured."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kdbench import Data, DataSpec, TensorSplit
from kdbench.measuring import saliency
from kdbench.measuring.saliency import saliency_agreement

CPU = torch.device("cpu")


def data(*shape: int, **spec: object) -> Data:
    split = TensorSplit(torch.randn(70, *shape, generator=torch.Generator().manual_seed(0)), torch.zeros(70).long())
    return Data(DataSpec(shape, 2, **spec), train=split, test=split)  # type: ignore[arg-type]


def linear(*weights: list[float]) -> nn.Module:
    """Its gradient is its weights, whatever the input."""
    layer = nn.Linear(len(weights[0]), len(weights))
    layer.weight.data = torch.tensor(weights)
    layer.bias.data.zero_()
    return nn.Sequential(nn.Flatten(), layer).eval()


def test_it_is_the_rank_correlation_of_absolute_gradients():
    """Signs do not count; the ranks 1, 2, 3, 4 against 1, 3, 2, 4 have a Spearman correlation of 0.8."""
    teacher = linear([1.0, -2.0, 3.0, 4.0], [1.0, -2.0, 3.0, 4.0])
    student = linear([-1.0, 30.0, 2.0, 400.0], [-1.0, 30.0, 2.0, 400.0])
    assert saliency_agreement(student, teacher, data(4), CPU)["saliency_agreement"] == pytest.approx(0.8)


def test_the_class_is_the_teachers():
    """The student's first class, which the teacher always names, looks elsewhere than its second."""
    teacher = linear([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    teacher[1].bias.data = torch.tensor([9.0, -9.0])
    student = linear([3.0, 2.0, 1.0], [1.0, 2.0, 3.0])
    student[1].bias.data = torch.tensor([-99.0, 99.0])
    assert saliency_agreement(student, teacher, data(3), CPU)["saliency_agreement"] == pytest.approx(-1)


def test_colours_of_a_pixel_are_summed():
    """Two channels of 1 x 3 pixels: the sums rank alike, the channels do not."""
    teacher, student = linear(*[[0.0, 1.0, 2.0, 1.0, 1.0, 1.0]] * 2), linear(*[[1.0, 1.0, 1.0, 0.0, 1.0, 2.0]] * 2)
    assert saliency_agreement(student, teacher, data(2, 1, 3), CPU)["saliency_agreement"] == pytest.approx(1)


def test_bands_of_sound_stay_apart():
    teacher, student = linear(*[[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]] * 2), linear(*[[5.0, 4.0, 3.0, 2.0, 1.0, 0.0]] * 2)
    assert saliency_agreement(student, teacher, data(2, 3), CPU)["saliency_agreement"] == pytest.approx(-1)


def test_networks_are_left_as_they_were():
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(6), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    network.requires_grad_(False)
    before = {name: each.clone() for name, each in network.state_dict().items()}
    state = torch.get_rng_state()
    first = saliency_agreement(network, network, data(2, 3), CPU)
    assert first == {"saliency_agreement": pytest.approx(1)}
    assert saliency_agreement(network, network, data(2, 3), CPU) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())
    assert not any(each.requires_grad or each.grad is not None for each in network.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())


def test_recurrent_networks_have_maps():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.head = nn.GRU(2, 3, batch_first=True), nn.Linear(3, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(self.gru(inputs.transpose(1, 2))[0][:, -1])

    network = Recurrent().eval()
    assert saliency_agreement(network, network, data(2, 5), CPU)["saliency_agreement"] == pytest.approx(1)


def test_where_it_is_not_measured(monkeypatch: pytest.MonkeyPatch):
    class Detached(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.detach()[:, :2]

    network, blind = linear(*[[1.0, 2.0, 3.0]] * 2), linear(*[[0.0, 0.0, 0.0]] * 2)
    assert saliency_agreement(network, network, data(3), CPU)
    assert saliency_agreement(Detached(), network, data(3), CPU) == {}
    assert saliency_agreement(blind, network, data(3), CPU) == {}
    assert saliency_agreement(network, network, data(3, vocabulary=9), CPU) == {}
    assert saliency_agreement(network, network, data(3, positions=(3,)), CPU) == {}
    monkeypatch.setattr(saliency, "find_spec", lambda name: None)
    assert saliency_agreement(network, network, data(3), CPU) == {}
