"""The residual, wide and plain networks against the papers that they come from."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from kdbench import Architecture, DataSpec
from kdbench.plugins import discover
from kdbench.spec import Spec
from kdbench_plugins.architectures.cifar_resnet import CifarResNet
from kdbench_plugins.architectures.plain_cnn import PlainCNN
from kdbench_plugins.architectures.wide_resnet import WideResNet

DIGITS, CIFAR = DataSpec((1, 8, 8), 10), DataSpec((3, 32, 32), 10)


def parameters(architecture: Architecture, classes: int = 10) -> int:
    network = architecture.build(DataSpec((3, 32, 32), classes))
    return sum(parameter.numel() for parameter in network.parameters())


def resnet_parameters(depth: int, classes: int, widths: tuple[int, ...] = (16, 16, 32, 64), *, option: str) -> int:
    """Counted from He et al. 2016, section 4.2: 3x3 convolutions without bias, each with a norm's scale and shift."""
    count = 3 * 9 * widths[0] + 2 * widths[0]
    for inputs, outputs in pairwise(widths):
        count += 9 * outputs * (inputs + ((depth - 2) // 3 - 1) * outputs) + (depth - 2) // 3 * 2 * outputs
        if option == "B" and inputs != outputs:
            count += inputs * outputs + 2 * outputs
    return count + (widths[-1] + 1) * classes


def wrn_parameters(depth: int, widen: int, classes: int) -> int:
    """Counted from Zagoruyko & Komodakis 2016, table 1: norms come before convolutions, and one after all."""
    count, inputs, blocks = 3 * 9 * 16, 16, (depth - 4) // 6
    for outputs in (16 * widen, 32 * widen, 64 * widen):
        count += 9 * outputs * (inputs + (2 * blocks - 1) * outputs) + 2 * (inputs + (2 * blocks - 1) * outputs)
        count += inputs * outputs if inputs != outputs else 0
        inputs = outputs
    return count + 2 * inputs + (inputs + 1) * classes


@pytest.mark.parametrize(("depth", "published"), [(20, 0.27), (32, 0.46), (56, 0.85)])
def test_cifar_resnets_have_the_published_size(depth: int, published: float) -> None:
    # He et al. 2016, table 6 (CIFAR-10), where shortcuts have no parameters; ours are projections.
    assert round(resnet_parameters(depth, 10, option="A") / 1e6, 2) == published
    assert parameters(CifarResNet(depth)) == resnet_parameters(depth, 10, option="B")


@pytest.mark.parametrize(
    ("built", "classes", "widths", "exact"),
    [
        (CifarResNet(20), 10, (16, 16, 32, 64), 272_474),
        (CifarResNet(20), 100, (16, 16, 32, 64), 278_324),
        (CifarResNet(8, width=4, stem=32), 100, (32, 64, 128, 256), 1_233_540),
    ],
    ids=["resnet20-10", "resnet20-100", "resnet8x4-100"],
)
def test_the_benchmarks_resnets_have_their_exact_size(
    built: CifarResNet, classes: int, widths: tuple[int, ...], exact: int
) -> None:
    assert parameters(built, classes) == exact
    assert resnet_parameters(built.depth, classes, widths, option="B") == exact


@pytest.mark.parametrize(("depth", "widen", "published"), [(16, 1, 0.2), (16, 2, 0.7), (40, 2, 2.2)])
def test_wide_resnets_have_the_published_size(depth: int, widen: int, published: float) -> None:
    # Zagoruyko & Komodakis 2016 give millions to one digit (CIFAR-10).
    count = parameters(WideResNet(depth, widen))
    assert count == wrn_parameters(depth, widen, 10)
    assert round(count / 1e6, 1) == published


def norm(inputs: Tensor, module: nn.BatchNorm2d) -> Tensor:
    mean, variance = inputs.mean(dim=(0, 2, 3), keepdim=True), inputs.var(dim=(0, 2, 3), unbiased=False, keepdim=True)
    scale, shift = module.weight.reshape(1, -1, 1, 1), module.bias.reshape(1, -1, 1, 1)
    return (inputs - mean) / (variance + 1e-5).sqrt() * scale + shift


def test_a_residual_block_is_relu_of_residual_plus_projection() -> None:
    network = CifarResNet(8).build(CIFAR).double()
    block = network.get_submodule("stage2.0")
    inputs = torch.randn(2, 16, 8, 8, dtype=torch.float64)
    hidden = norm(functional.conv2d(inputs, block.conv1.weight, stride=2, padding=1), block.norm1).clamp(min=0)
    residual = norm(functional.conv2d(hidden, block.conv2.weight, padding=1), block.norm2)
    shortcut = norm(
        torch.einsum("oi,nihw->nohw", block.shortcut[0].weight[:, :, 0, 0], inputs[:, :, ::2, ::2]), block.shortcut[1]
    )
    torch.testing.assert_close(block(inputs), (residual + shortcut).clamp(min=0))


def test_a_wide_block_acts_before_it_convolves() -> None:
    network = WideResNet(16, 2).build(CIFAR).double()
    inputs = torch.randn(2, 64, 8, 8, dtype=torch.float64)
    for path, stride in (("stage3.0", 2), ("stage3.1", 1)):
        block = network.get_submodule(path)
        active = norm(inputs, block.norm1).clamp(min=0)
        hidden = norm(functional.conv2d(active, block.conv1.weight, stride=stride, padding=1), block.norm2).clamp(min=0)
        residual = functional.conv2d(hidden, block.conv2.weight, padding=1)
        shortcut = inputs
        if stride == 2:
            shortcut = torch.einsum("oi,nihw->nohw", block.shortcut.weight[:, :, 0, 0], active[:, :, ::2, ::2])
        torch.testing.assert_close(block(inputs), residual + shortcut)
        inputs = block(inputs).detach()


def stage_shapes(architecture: Architecture, spec: DataSpec) -> list[tuple[int, ...]]:
    network, outputs, shapes = architecture.build(spec), torch.randn(2, *spec.input_shape), []
    for name, layer in network.named_children():
        outputs = layer(outputs)
        if name in architecture.taps(network):
            shapes.append(tuple(outputs.shape[1:]))
    return shapes


@pytest.mark.parametrize("width", [0.5, 4])
def test_width_multiplies_the_channels_of_a_resnet(width: float) -> None:
    expected = [(16 * width, 8, 8), (32 * width, 4, 4), (64 * width, 2, 2)]
    assert stage_shapes(CifarResNet(8, width), DIGITS) == expected


@pytest.mark.parametrize(
    ("kind", "depth", "form"),
    [(WideResNet, 18, "4"), (WideResNet, 4, "4"), (CifarResNet, 9, "2"), (CifarResNet, 2, "2")],
)
def test_a_depth_that_does_not_divide_is_refused(kind: type[Architecture], depth: int, form: str) -> None:
    with pytest.raises(ValueError, match=rf"depth must be 6n \+ {form} \(.*, not {depth}"):
        kind(depth=depth)


def test_dropout_acts_in_training_only() -> None:
    network = WideResNet(dropout=0.5).build(DIGITS)
    inputs = torch.randn(4, *DIGITS.input_shape)
    assert not torch.equal(network(inputs), network(inputs))
    network.eval()
    assert torch.equal(network(inputs), network(inputs))


def test_the_plain_network_is_small_and_pools_while_it_can() -> None:
    assert parameters(PlainCNN()) < 7000
    expected = [(4, 8, 8), (8, 4, 4), (16, 2, 2), (32, 2, 2), (64, 2, 2)]
    assert stage_shapes(PlainCNN(width=0.5, stages=5), DIGITS) == expected


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("vgg8", 3_965_028),
        ("vgg13", 9_462_180),
        ("mobilenet_v2", 812_836),
        ("shufflenet_v1", 949_258),
        ("shufflenet_v2", 1_355_528),
        ("resnet50", 23_705_252),
        ("resnet8x4", 1_233_540),
        ("resnet32x4", 7_433_860),
    ],
)
def test_the_benchmarks_other_networks_have_their_exact_size(name: str, exact: int) -> None:
    # The sizes that these networks are known to have on CIFAR-100 in the CRD benchmark (Tian et al. 2020).
    built = discover().create("architecture", Spec(name))
    assert parameters(built, 100) == exact
