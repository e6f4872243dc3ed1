"""Counts against formulas worked out by hand; two independent counters agree; nothing is left behind."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from kdbench import torchvision_ops
from kdbench.measuring.cost import count_flops, deployed_cost
from kdbench.task import DataSpec


class Attention(nn.Module):
    """Queries [2 heads, 5, 4] against keys [2, 7, 4] and values [2, 7, 3]."""

    def forward(self, inputs: Tensor) -> Tensor:
        query, key, value = inputs[:, :, :5, :4], inputs[:, :, :7, 4:8], inputs[:, :, :7, 8:]
        return scaled_dot_product_attention(query, key, value)


class SelfAttention(nn.Module):
    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.need_weights = need_weights

    def forward(self, tokens: Tensor) -> Tensor:
        return self.attention(tokens, tokens, tokens, need_weights=self.need_weights)[0]


class MaskedAttention(SelfAttention):
    def forward(self, tokens: Tensor) -> Tensor:
        return self.attention(tokens, tokens, tokens, attn_mask=torch.zeros(5, 5))[0]


class Recurrent(nn.Module):
    def __init__(self, cells: nn.Module) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, inputs: Tensor) -> Tensor:
        return self.cells(inputs)[0]


def cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False), nn.GroupNorm(2, 8), nn.GELU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 5)),
    )


def encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)


ATTENTION_MACS = 4 * 5 * 8 * 8 + 2 * 5 * 5 * 8  # four projections of five tokens; scores and their sums, all heads
CASES = {
    "linear": (lambda: nn.Linear(7, 4), (7,), 7 * 4),
    "cnn": (cnn, (3, 6, 6), 8 * 3 * 9 * 36 + 8 * 2 * 9 * 9 + 8 * 5),
    "strided": (lambda: nn.Conv2d(2, 4, 3, stride=2), (2, 9, 9), 4 * 2 * 9 * 16),
    "same": (lambda: nn.Conv2d(2, 4, 3, padding="same"), (2, 6, 6), 4 * 2 * 9 * 36),
    "transposed": (lambda: nn.ConvTranspose2d(2, 4, 3), (2, 6, 6), 4 * 2 * 9 * 36),
    "one-dimensional": (lambda: nn.Conv1d(2, 4, 5), (2, 12), 4 * 2 * 5 * 8),
    "attention": (Attention, (2, 7, 11), 2 * 5 * 7 * (4 + 3)),
    "self-attention": (lambda: SelfAttention(need_weights=False), (5, 8), ATTENTION_MACS),
    "self-attention, weights": (lambda: SelfAttention(need_weights=True), (5, 8), ATTENTION_MACS),
    "self-attention, mask": (lambda: MaskedAttention(need_weights=True), (5, 8), ATTENTION_MACS),
    "transformer encoder": (encoder, (5, 8), ATTENTION_MACS + 2 * 5 * 8 * 16),
    "gru": (lambda: Recurrent(nn.GRU(6, 4, batch_first=True)), (9, 6), 9 * 3 * 4 * (6 + 4)),
    "deep gru": (
        lambda: Recurrent(nn.GRU(6, 4, num_layers=2, bidirectional=True, batch_first=True)),
        (9, 6),
        9 * 2 * 3 * 4 * ((6 + 4) + (8 + 4)),
    ),
    "lstm": (lambda: Recurrent(nn.LSTM(6, 4, batch_first=True)), (9, 6), 9 * 4 * 4 * (6 + 4)),
    "lstm, projected": (
        lambda: Recurrent(nn.LSTM(6, 4, proj_size=3, batch_first=True)),
        (9, 6),
        9 * (4 * 4 * (6 + 3) + 3 * 4),
    ),
    "rnn": (lambda: Recurrent(nn.RNN(6, 4, batch_first=True)), (9, 6), 9 * 4 * (6 + 4)),
}


@pytest.mark.parametrize("case", CASES)
def test_macs_are_those_of_the_formula_and_both_counters_agree(case):
    build, shape, macs = CASES[case]
    cost = deployed_cost(build(), DataSpec(shape, classes=2))
    assert cost["macs"] == macs
    assert cost["flops"] == 2 * macs
    assert cost["macs_disagreement"] == 0


def test_resnet18_agrees_with_its_architecture_table():
    torchvision_ops.ensure()
    from torchvision.models import resnet18

    macs = 64 * 3 * 7 * 7 * 32**2 + 4 * 64 * 64 * 9 * 16**2 + 512 * 1000
    for width, side in ((128, 8), (256, 4), (512, 2)):
        macs += side**2 * (9 * width // 2 * width + 3 * 9 * width * width + width // 2 * width)
    cost = deployed_cost(resnet18(), DataSpec((3, 64, 64), classes=1000))
    assert cost["macs"] == macs
    assert cost["macs_disagreement"] == 0
    assert cost["parameters"] == 11_689_512  # He et al. (2016), as torchvision documents it


def test_a_disagreement_is_reported():
    class Contraction(nn.Module):
        """torch dispatches a matrix product for what the trace calls tensordot, which fvcore does not know."""

        def __init__(self) -> None:
            super().__init__()
            self.weight, self.head = nn.Parameter(torch.ones(6, 4)), nn.Linear(4, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(torch.tensordot(inputs, self.weight, dims=1))

    cost = deployed_cost(Contraction(), DataSpec((6,), classes=4))
    assert cost["macs"] == 4 * 4
    assert cost["macs_disagreement"] == pytest.approx(24 / 40)


def test_a_network_without_products_costs_nothing():
    cost = deployed_cost(nn.Flatten(), DataSpec((2, 2), classes=4))
    assert (cost["parameters"], cost["macs"], cost["macs_disagreement"]) == (0, 0, 0)


def test_text_networks_are_fed_tokens():
    network = nn.Sequential(nn.Embedding(11, 6), nn.Flatten(), nn.Linear(30, 2))
    assert deployed_cost(network, DataSpec((5,), classes=2, modality="nlp", vocabulary=7))["macs"] == 60


def test_file_bytes_are_those_of_the_file():
    network = cnn()
    arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    cost = deployed_cost(network, DataSpec((3, 6, 6), classes=5))
    assert cost["file_bytes"] == len(safetensors.numpy.save(arrays))
    assert cost["parameters"] == 8 * 27 + 8 + 16 + 8 * 2 * 9 + 16 + 45
    reordered = cnn().to(memory_format=torch.channels_last)
    assert deployed_cost(reordered, DataSpec((3, 6, 6), classes=5)) == cost


def test_shared_weights_are_counted_and_saved_once():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    cost = deployed_cost(network, DataSpec((4,), classes=4))
    kept = {name: np.zeros(shape, np.float32) for name, shape in {"0.weight": (4, 4), "0.bias": 4, "1.bias": 4}.items()}
    assert cost["parameters"] == 24
    assert cost["macs"] == 32
    assert cost["file_bytes"] == len(safetensors.numpy.save(kept))


@pytest.mark.parametrize("input_needs_gradient", [False, True])
def test_a_backward_pass_costs_one_product_per_gradient(input_needs_gradient):
    """Forward, weight gradient and, if it is wanted, input gradient: examples x inputs x outputs each."""
    layer, inputs = nn.Linear(6, 4), torch.randn(3, 6, requires_grad=input_needs_gradient)
    products = 3 if input_needs_gradient else 2
    assert count_flops(lambda: layer(inputs).sum().backward()) == products * 2 * (3 * 6 * 4)


def test_only_the_first_layer_is_spared_the_input_gradient():
    network, inputs = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 5)), torch.randn(3, 6)
    assert count_flops(lambda: network(inputs).sum().backward()) == 2 * (2 * 3 * 6 * 4 + 3 * 3 * 4 * 5)
    with torch.no_grad():
        assert count_flops(lambda: network(inputs)) == 2 * (3 * 6 * 4 + 3 * 4 * 5)


def test_convolutions_cost_thrice_with_their_backward_pass():
    layer, inputs = nn.Conv2d(3, 4, 3, padding=1), torch.randn(2, 3, 5, 5, requires_grad=True)
    assert count_flops(lambda: layer(inputs).sum().backward()) == 3 * 2 * (2 * 4 * 3 * 9 * 25)


def test_attention_recomputes_its_scores_in_the_backward_pass():
    query, key, value = (torch.randn(1, 2, length, 4, requires_grad=True) for length in (5, 7, 7))
    product = 2 * (2 * 5 * 7 * 4)  # 2 forward; scores again, and four gradients, backward
    assert count_flops(lambda: scaled_dot_product_attention(query, key, value).sum().backward()) == 7 * product


def test_recurrent_layers_cost_thrice_with_their_backward_pass():
    layer, inputs = nn.LSTM(6, 4, batch_first=True), torch.randn(2, 9, 6)
    assert count_flops(lambda: layer(inputs)[0].sum().backward()) == 3 * 2 * (2 * 9 * 4 * 4 * (6 + 4))


def test_teachers_in_eval_mode_are_charged_for_their_attention():
    layer, tokens = encoder().eval(), torch.randn(3, 5, 8)
    with torch.no_grad():
        assert count_flops(lambda: layer(tokens)) == 3 * 2 * (ATTENTION_MACS + 2 * 5 * 8 * 16)


def test_counting_changes_no_gradient():
    first, inputs = cnn(), torch.randn(2, 3, 6, 6)
    second = copy.deepcopy(first)
    torch.manual_seed(3)
    count_flops(lambda: first(inputs).sum().backward())
    torch.manual_seed(3)
    second(inputs).sum().backward()
    for counted, plain in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(counted.grad, plain.grad)


def test_the_network_and_the_generator_are_left_as_they_were():
    network = nn.Sequential(cnn(), nn.Linear(5, 5)).train()
    network[0][1].eval()
    network[1].bias.requires_grad_(False)
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    before = snapshot(network)
    deployed_cost(network, DataSpec((3, 6, 6), classes=5))
    assert snapshot(network) == before


def test_a_network_that_raises_is_left_as_it_was():
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(4, 2))
    before = snapshot(network)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        deployed_cost(network, DataSpec((4,), classes=2))
    assert snapshot(network) == before
    with pytest.raises(ZeroDivisionError):
        count_flops(lambda: 1 / 0)
    assert snapshot(network) == before


def snapshot(network: nn.Module) -> dict[str, object]:
    return {
        "modes": [module.training for module in network.modules()],
        "gradients": [(p.requires_grad, p.grad) for p in network.parameters()],
        "devices": [p.device for p in network.parameters()],
        "weights": {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()},
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()],
        "global hooks": len(nn.modules.module._global_forward_hooks),
        "global pre-hooks": len(nn.modules.module._global_forward_pre_hooks),
        "generator": torch.get_rng_state().numpy().tobytes(),
        "gradients on": torch.is_grad_enabled(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
    }
