"""The contract of every architecture: taps that can be trusted, shapes, gradients, modes and seeds."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import kdbench_plugins
from kdbench import Architecture, BadInput, DataSpec, MissingData, Tap, torchvision_ops
from kdbench.hyperparameters import construct
from kdbench.spec import Spec

CLASSES = 7
NATIVE = [name for name in kdbench_plugins.kdbench_architectures() if name != "torchvision"]
DIGITS, FASHION, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)


@dataclass(frozen=True)
class Case:
    """An architecture on one shape of input; the heavy ones without numbers, on torch's meta device."""

    name: str
    shape: tuple[int, ...]
    device: str = "cpu"

    def __str__(self) -> str:
        return f"{self.name}-{'x'.join(map(str, self.shape))}"

    def build(self) -> tuple[Architecture, nn.Module]:
        built = architecture(self.name)
        torch.manual_seed(0)
        with torch.device(self.device):
            return built, built.build(DataSpec(self.shape, CLASSES))

    def inputs(self, batch: int) -> Tensor:
        return torch.randn(batch, *self.shape, generator=torch.Generator().manual_seed(1)).to(self.device)


# The smallest sizes each can take.
TORCHVISION = [
    Case("torchvision:resnet18", CIFAR),
    Case("torchvision:mobilenet_v2", (1, 32, 32)),
    Case("torchvision:mobilenet_v3_small", CIFAR),
    Case("torchvision:shufflenet_v2_x0_5", (1, 32, 32)),
    Case("torchvision:efficientnet_b0", CIFAR),
    Case("torchvision:regnet_y_400mf", CIFAR),
    Case("torchvision:squeezenet1_1", (1, 32, 32)),
    Case("torchvision:googlenet", (2, 32, 32)),
    Case("torchvision:densenet121", CIFAR),
    Case("torchvision:vgg11_bn", CIFAR, "meta"),
    Case("torchvision:convnext_tiny", CIFAR, "meta"),
    Case("torchvision:vit_b_16", (1, 32, 32), "meta"),
    Case("torchvision:swin_t", CIFAR, "meta"),
    Case("torchvision:inception_v3", (1, 75, 75), "meta"),
    Case("torchvision:maxvit_t", (3, 224, 224), "meta"),
]
CASES = [*(Case(name, shape) for name in NATIVE for shape in (DIGITS, FASHION, CIFAR)), *TORCHVISION]
every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_case_with_numbers = pytest.mark.parametrize("case", [case for case in CASES if case.device == "cpu"], ids=str)


@functools.cache
def architecture(written: str) -> Architecture:
    """The plugin instance that `NAME[key=value]` stands for, built as the core builds it."""
    torchvision_ops.ensure()
    asked = Spec.parse(written)
    name, _, variant = asked.name.partition(":")
    module, _, target = kdbench_plugins.kdbench_architectures()[name].partition(":")
    preset = Spec.parse(target)
    params = {**preset.params, **({"variant": variant} if variant else {}), **asked.params}
    return construct(getattr(import_module(module), preset.name), params, where=written)


@dataclass(frozen=True)
class Tapped:
    """A tensor as the tap saw it: itself, a copy of that moment, and its version then."""

    tensor: Tensor
    copy: Tensor
    version: int


def run(network: nn.Module, taps: Mapping[str, Tap], inputs: Tensor) -> tuple[Tensor, dict[str, Tapped]]:
    seen: dict[str, Tapped] = {}
    handles = []
    for name, tap in taps.items():

        def keep(module: nn.Module, args: Any, output: Any = None, *, name: str = name, tap: Tap = tap) -> None:
            tensor = args[0] if tap.at == "input" else output
            seen[name] = Tapped(tensor, tensor.detach().clone(), tensor._version)

        module = network.get_submodule(tap.module)
        register = module.register_forward_pre_hook if tap.at == "input" else module.register_forward_hook
        handles.append(register(keep))
    logits = network(inputs)
    for handle in handles:
        handle.remove()
    return logits, seen


def presented(tapped: Tapped, tap: Tap) -> Tensor:
    """As methods receive it: channels in the second place."""
    return tapped.tensor.movedim(-1, 1) if tap.layout == "channels_last" else tapped.tensor


@every_case
def test_taps_keep_their_shape_and_their_values(case: Case) -> None:
    built, network = case.build()
    assert all(module.training for module in network.modules())
    taps = built.taps(network)
    for training, batch in ((True, 2), (False, 1)):
        logits, seen = run(network.train(training), taps, case.inputs(batch))
        assert logits.shape == (batch, CLASSES)
        assert seen.keys() == taps.keys() == {*(f"stage{i}" for i in range(1, len(taps))), "embedding"}
        assert len(taps) >= 4
        assert seen["embedding"].tensor.ndim == 2
        sizes = []
        for name, tapped in seen.items():
            tensor = presented(tapped, taps[name])
            assert tensor.shape[0] == batch
            assert tapped.tensor._version == tapped.version, f"{name} was overwritten in place"
            assert case.device == "meta" or torch.equal(tapped.tensor, tapped.copy)
            if name != "embedding":
                assert tensor.ndim >= 3
                sizes.append(tensor[0, 0].numel())
        assert sizes == sorted(sizes, reverse=True)


@every_case
def test_gradients_reach_every_parameter_and_every_tap(case: Case) -> None:
    built, network = case.build()
    logits, seen = run(network, built.taps(network), case.inputs(2))
    for tapped in seen.values():
        tapped.tensor.retain_grad()
    loss = functional.cross_entropy(logits, torch.tensor([0, 3], device=case.device))
    # SqueezeNet's embedding lies beside the road to the logits, so it needs a term of its own.
    (loss + seen["embedding"].tensor.square().mean()).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    gradients |= {name: tapped.tensor.grad for name, tapped in seen.items()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    if case.device == "cpu":
        assert all(bool(gradient.isfinite().all()) for gradient in gradients.values())
        assert all(bool(tapped.tensor.grad.any()) for tapped in seen.values())


@every_case_with_numbers
def test_the_seed_decides_the_initial_weights_and_taps_change_nothing(case: Case) -> None:
    built, network = case.build()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    generator_state = torch.get_rng_state()
    taps = built.taps(network)
    assert taps == built.taps(network)
    assert torch.equal(torch.get_rng_state(), generator_state)
    assert all(module.training for module in network.modules())
    again = case.build()[1].state_dict()
    other = built.build(DataSpec(case.shape, CLASSES)).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
    assert state.keys() == again.keys()
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert any(not torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize("name", NATIVE)
def test_inputs_that_are_not_images_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match=r"takes images .* not inputs of shape \[16000\]"):
        architecture(name).build(DataSpec((16000,), 2))


# --- the papers' networks -------------------------------------------------------------------------------------------


def parameters(written: str, classes: int) -> int:
    network = architecture(written).build(DataSpec(CIFAR, classes))
    return sum(parameter.numel() for parameter in network.parameters())


def resnet_parameters(depth: int, classes: int, widths: tuple[int, ...] = (16, 16, 32, 64), *, option: str) -> int:
    """Counted from He et al. 2016, section 4.2: 3x3 convolutions without bias, each with a norm's scale and shift."""
    count = 3 * 9 * widths[0] + 2 * widths[0]
    for inputs, outputs in zip(widths, widths[1:], strict=False):
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
    assert round(resnet_parameters(depth, 10, option="A") / 1e6, 2) == pytest.approx(published, abs=0.011)
    assert parameters(f"resnet{depth}", 10) == resnet_parameters(depth, 10, option="B")


@pytest.mark.parametrize(
    ("written", "classes", "exact"),
    [("resnet20", 10, 272_474), ("resnet20", 100, 278_324), ("resnet8[width=4,stem=32]", 100, 1_233_540)],
)
def test_the_benchmarks_resnets_have_their_exact_size(written: str, classes: int, exact: int) -> None:
    assert parameters(written, classes) == exact
    widths = (32, 64, 128, 256) if "width" in written else (16, 16, 32, 64)
    assert resnet_parameters(8 if "resnet8" in written else 20, classes, widths, option="B") == exact


@pytest.mark.parametrize(("depth", "widen", "published"), [(16, 1, 0.2), (16, 2, 0.7), (40, 2, 2.2)])
def test_wide_resnets_have_the_published_size(depth: int, widen: int, published: float) -> None:
    # Zagoruyko & Komodakis 2016 give millions to one digit (CIFAR-10).
    count = parameters(f"wrn_{depth}_{widen}", 10)
    assert count == wrn_parameters(depth, widen, 10)
    assert round(count / 1e6, 1) == published


def norm(inputs: Tensor, module: nn.BatchNorm2d) -> Tensor:
    mean, variance = inputs.mean(dim=(0, 2, 3), keepdim=True), inputs.var(dim=(0, 2, 3), unbiased=False, keepdim=True)
    scale, shift = module.weight.reshape(1, -1, 1, 1), module.bias.reshape(1, -1, 1, 1)
    return (inputs - mean) / (variance + 1e-5).sqrt() * scale + shift


def test_a_residual_block_is_relu_of_residual_plus_projection() -> None:
    network = architecture("resnet8").build(DataSpec(CIFAR, 10)).double()
    block = network.get_submodule("stage2.0")
    inputs = torch.randn(2, 16, 8, 8, dtype=torch.float64)
    hidden = norm(functional.conv2d(inputs, block.conv1.weight, stride=2, padding=1), block.norm1).clamp(min=0)
    residual = norm(functional.conv2d(hidden, block.conv2.weight, padding=1), block.norm2)
    shortcut = norm(
        torch.einsum("oi,nihw->nohw", block.shortcut[0].weight[:, :, 0, 0], inputs[:, :, ::2, ::2]), block.shortcut[1]
    )
    torch.testing.assert_close(block(inputs), (residual + shortcut).clamp(min=0))


def test_a_wide_block_acts_before_it_convolves() -> None:
    network = architecture("wrn_16_2").build(DataSpec(CIFAR, 10)).double()
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


@pytest.mark.parametrize("written", ["resnet8[width=0.5]", "resnet8[width=4]"])
def test_width_multiplies_the_channels_of_a_resnet(written: str) -> None:
    built = architecture(written)
    network = built.build(DataSpec(CIFAR, 10))
    _, seen = run(network, built.taps(network), torch.randn(2, *CIFAR))
    factor = 4 if "4" in written else 0.5
    assert [seen[f"stage{i}"].tensor.shape[1] for i in (1, 2, 3)] == [16 * factor, 32 * factor, 64 * factor]


@pytest.mark.parametrize("written", ["wrn_16_1[depth=18]", "wrn_16_1[depth=4]", "resnet8[depth=9]", "resnet8[depth=2]"])
def test_a_depth_that_does_not_divide_is_refused(written: str) -> None:
    with pytest.raises(BadInput, match=r"depth must be 6n \+ [24] \("):
        architecture(written)


def test_dropout_acts_in_training_only() -> None:
    network = architecture("wrn_16_1[dropout=0.5]").build(DataSpec(DIGITS, 10))
    inputs = torch.randn(4, *DIGITS)
    assert not torch.equal(network(inputs), network(inputs))
    network.eval()
    assert torch.equal(network(inputs), network(inputs))


def test_the_plain_network_is_small_and_pools_while_it_can() -> None:
    assert parameters("cnn", 10) < 7000
    built = architecture("cnn[width=0.5,stages=5]")
    network = built.build(DataSpec(DIGITS, 10))
    _, seen = run(network, built.taps(network), torch.randn(2, *DIGITS))
    shapes = [tuple(seen[f"stage{i}"].tensor.shape[1:]) for i in range(1, 6)]
    assert shapes == [(4, 8, 8), (8, 4, 4), (16, 2, 2), (32, 2, 2), (64, 2, 2)]


# --- torchvision ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", [64, 128, 256, 512]),
        ("mobilenet_v2", [16, 24, 32, 96, 320]),
        ("densenet121", [256, 512, 1024, 1024]),
        ("vgg11_bn", [64, 128, 256, 512, 512]),
        ("googlenet", [480, 832, 1024]),
        ("swin_t", [96, 192, 384, 768]),
        ("convnext_tiny", [96, 192, 384, 768]),
        ("shufflenet_v2_x0_5", [48, 96, 192]),
    ],
)
def test_stages_are_those_of_the_papers(name: str, channels: list[int]) -> None:
    built, network = Case(f"torchvision:{name}", CIFAR, "meta").build()
    taps = built.taps(network)
    _, seen = run(network, taps, torch.zeros(2, *CIFAR, device="meta"))
    assert [presented(seen[tap], taps[tap]).shape[1] for tap in taps if tap != "embedding"] == channels


def test_a_vision_transformer_has_a_stage_per_encoder_block() -> None:
    built, network = Case("torchvision:vit_b_16", CIFAR, "meta").build()
    taps = built.taps(network)
    _, seen = run(network, taps, torch.zeros(2, *CIFAR, device="meta"))
    assert len(taps) == 12 + 1
    assert presented(seen["stage12"], taps["stage12"]).shape == (2, 768, 1 + 2 * 2)


def test_stages_do_not_depend_on_the_size_of_the_images() -> None:
    built, small = Case("torchvision:resnet18", DIGITS, "meta").build()
    _, large = Case("torchvision:resnet18", (3, 224, 224), "meta").build()
    assert built.taps(small) == built.taps(large)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("torchvision", "say which classifier"),
        ("torchvision:resnet19", "not known to torchvision; the nearest: .*resnet1"),
        ("torchvision:fasterrcnn_resnet50_fpn", "is no image classifier"),
        ("torchvision:resnet18[weights=IMAGENET]", "no weights 'IMAGENET'; choices: IMAGENET1K_V1, DEFAULT"),
    ],
)
def test_unknown_names_are_refused_with_choices(written: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        architecture(written)


@pytest.mark.parametrize("name", ["vgg11_bn", "alexnet", "vit_b_16", "maxvit_t", "inception_v3"])
def test_images_that_a_network_cannot_take_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match=f"torchvision:{name} cannot take images of 9x8"):
        Case(f"torchvision:{name}", (1, 9, 8), "meta").build()


def publish(monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]) -> None:
    """Lets every download bring `state`, if it asks for weights only, with their hash checked."""
    from torchvision.models import _api

    def download(url: str, *, progress: bool, check_hash: bool, weights_only: bool) -> dict[str, Tensor]:
        assert check_hash
        assert weights_only
        return state.copy()

    monkeypatch.setattr(_api, "load_state_dict_from_url", download)


def test_published_weights_are_loaded_whole_where_the_task_has_their_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    state = architecture("torchvision:resnet18").build(DataSpec(CIFAR, 1000)).state_dict()
    publish(monkeypatch, state)
    loaded = architecture("torchvision:resnet18[weights=DEFAULT]").build(DataSpec(CIFAR, 1000)).state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_a_grey_image_means_what_its_repetition_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    colour = architecture("torchvision:squeezenet1_1").build(DataSpec(CIFAR, 1000)).eval().double()
    publish(monkeypatch, colour.state_dict())
    built = architecture("torchvision:squeezenet1_1[weights=DEFAULT]")
    grey = built.build(DataSpec((1, 32, 32), 10)).eval().double()
    image = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    logits, seen = run(grey, built.taps(grey), image)
    _, expected = run(colour, built.taps(colour), image.expand(-1, 3, -1, -1))
    assert logits.shape == (2, 10)
    # The published weights are in single precision, and so is their sum over colours.
    torch.testing.assert_close(seen["embedding"].tensor, expected["embedding"].tensor, rtol=1e-5, atol=1e-6)


def test_old_names_in_published_weights_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    state = architecture("torchvision:densenet121").build(DataSpec(CIFAR, 1000)).state_dict()
    old = {}
    for name, tensor in state.items():
        for kind in ("norm1", "norm2", "conv1", "conv2"):
            if "denselayer" in name:
                name = name.replace(f".{kind}.", f".{kind[:-1]}.{kind[-1]}.")
        old[name] = tensor
    assert old.keys() != state.keys()
    publish(monkeypatch, old)
    loaded = architecture("torchvision:densenet121[weights=DEFAULT]").build(DataSpec(CIFAR, 5)).state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state if not name.startswith("classifier"))
    assert loaded["classifier.weight"].shape == (5, 1024)


def test_auxiliary_classifiers_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    whole = torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=False)
    publish(monkeypatch, whole.state_dict())
    network = architecture("torchvision:googlenet[weights=DEFAULT]").build(DataSpec(CIFAR, 1000))
    assert network.transform_input
    assert not any(name.startswith("aux") for name, _ in network.named_parameters())
    whole.transform_input = True
    image = torch.randn(2, *CIFAR)
    torch.testing.assert_close(network.eval()(image), whole.eval()(image))


def test_weights_that_lack_something_or_cannot_be_had_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import _api

    asked = architecture("torchvision:resnet18[weights=DEFAULT]")
    publish(monkeypatch, {"fc.bias": torch.zeros(1000)})
    with pytest.raises(BadInput, match="weights lack conv1.weight"):
        asked.build(DataSpec(CIFAR, 10))

    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(_api, "load_state_dict_from_url", offline)
    with pytest.raises(MissingData, match=r"put it at .*checkpoints/resnet18-\w+\.pth"):
        asked.build(DataSpec(CIFAR, 10))
