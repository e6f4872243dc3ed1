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
DIGITS, FASHION, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)

# What architectures take that are not made for images.
FITTING = {
    "conv1d": DataSpec((15, 30), CLASSES, modality="sensor"),
    "gru": DataSpec((15, 30), CLASSES, modality="sensor"),
    "bert": DataSpec((12,), CLASSES, modality="nlp", vocabulary=50),
    "gpt2": DataSpec((12,), 50, modality="nlp", vocabulary=50, positions=(12,)),
    "text_cnn": DataSpec((12,), CLASSES, modality="nlp", vocabulary=50),
    "audio_cnn": DataSpec((40, 100), CLASSES, modality="speech"),
    "ds_cnn": DataSpec((40, 100), CLASSES, modality="speech"),
    "conv_gru": DataSpec((40, 100), CLASSES, modality="speech"),
    "ctc_gru": DataSpec((40, 96), CLASSES, modality="speech", positions=(24,)),
    "ctc_transformer": DataSpec((40, 96), CLASSES, modality="speech", positions=(24,)),
    "ast": DataSpec((40, 100), CLASSES, modality="speech"),
    "wav2vec2": DataSpec((1, 1000), CLASSES, modality="speech"),
    "unet": DataSpec((3, 24, 32), CLASSES, positions=(24, 32)),
    "torchvision_segmentation:lraspp_mobilenet_v3_large": DataSpec((3, 24, 32), CLASSES, positions=(24, 32)),
    "ssd": DataSpec((3, 48, 64), CLASSES, positions=(128,), extras=4),
    "transformer": DataSpec((2, 12), 50, modality="nlp", vocabulary=50, positions=(12,)),
}
FAMILIES = {"torchvision", "torchvision_segmentation"}  # named by what follows a colon
NATIVE = [name for name in kdbench_plugins.kdbench_architectures() if name not in {*FAMILIES, *FITTING}]


def fitting_spec(name: str, shape: tuple[int, ...]) -> DataSpec:
    """Data that the architecture can take; of that shape where it takes images."""
    return FITTING.get(name) or DataSpec(shape, CLASSES)


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
            return built, built.build(fitting_spec(self.name, self.shape))

    def inputs(self, batch: int) -> Tensor:
        vocabulary, generator = fitting_spec(self.name, self.shape).vocabulary, torch.Generator().manual_seed(1)
        if vocabulary is not None:
            return torch.randint(1, vocabulary, (batch, *self.shape), generator=generator).to(self.device)
        return torch.randn(batch, *self.shape, generator=generator).to(self.device)


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
FITTED = [Case(name, spec.input_shape) for name, spec in FITTING.items()]
CASES = [*(Case(name, shape) for name in NATIVE for shape in (DIGITS, FASHION, CIFAR)), *FITTED, *TORCHVISION]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


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
    taps, spec = built.taps(network), fitting_spec(case.name, case.shape)
    for training, batch in ((True, 2), (False, 1)):
        logits, seen = run(network.train(training), taps, case.inputs(batch))
        assert logits.shape == (batch, spec.classes + spec.extras, *spec.positions)
        stages = [name for name in taps if name.startswith("stage")]
        assert seen.keys() == taps.keys() >= {*(f"stage{i + 1}" for i in range(len(stages))), "embedding"}
        assert len(stages) >= (1 if case.name == "gru" else 2 if case.name in FITTING else 3)
        assert seen["embedding"].tensor.ndim == 2
        sizes = []
        for name, tapped in seen.items():
            tensor = presented(tapped, taps[name])
            assert tensor.shape[0] == batch
            assert tapped.tensor._version == tapped.version, f"{name} was overwritten in place"
            assert case.device == "meta" or torch.equal(tapped.tensor, tapped.copy)
            if name != "embedding":
                assert tensor.ndim >= 3
            if name in stages:
                sizes.append(tensor[0, 0].numel())
        # what answers at positions may come up to them again
        assert spec.positions or sizes == sorted(sizes, reverse=True)


def test_an_overwritten_tap_would_be_seen() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True))
    _, seen = run(network, {"stage1": Tap("0"), "stage2": Tap("1")}, torch.randn(1, 1, 4, 4))
    assert seen["stage1"].tensor._version > seen["stage1"].version
    assert not torch.equal(seen["stage1"].tensor, seen["stage1"].copy)
    assert seen["stage2"].tensor._version == seen["stage2"].version


@every_case
def test_gradients_reach_every_parameter_and_every_tap(case: Case) -> None:
    built, network = case.build()
    logits, seen = run(network, built.taps(network), case.inputs(2))
    for tapped in seen.values():
        tapped.tensor.retain_grad()
    targets = torch.tensor([0, 3], device=case.device).reshape(2, *(1 for _ in logits.shape[2:]))
    loss = functional.cross_entropy(logits, targets.expand(2, *logits.shape[2:]))
    # SqueezeNet's embedding lies beside the road to the logits, so it needs a term of its own.
    (loss + seen["embedding"].tensor.square().mean()).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    gradients |= {name: tapped.tensor.grad for name, tapped in seen.items()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    if case.device == "cpu":
        assert all(bool(gradient.isfinite().all()) for gradient in gradients.values())
        assert all(bool(tapped.tensor.grad.any()) for tapped in seen.values())


@pytest.mark.parametrize("case", [*(Case(name, DIGITS) for name in NATIVE), *FITTED, *TORCHVISION[:4]], ids=str)
def test_the_seed_decides_the_initial_weights_and_taps_change_nothing(case: Case) -> None:
    built, network = case.build()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    generator_state = torch.get_rng_state()
    taps = built.taps(network)
    assert taps == built.taps(network)
    assert torch.equal(torch.get_rng_state(), generator_state)
    assert all(module.training for module in network.modules())
    again = case.build()[1].state_dict()
    other = built.build(fitting_spec(case.name, case.shape)).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
    assert state.keys() == again.keys()
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert any(not torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize("name", NATIVE)
def test_inputs_that_are_not_images_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match=r"takes images .* not inputs of shape \[16000\]"):
        architecture(name).build(DataSpec((16000,), 2))


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
        ("torchvision", "say which image classifier"),
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
    with pytest.raises(BadInput, match="weights lack conv1"):
        asked.build(DataSpec(CIFAR, 10))

    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(_api, "load_state_dict_from_url", offline)
    with pytest.raises(MissingData, match=r"put it at .*checkpoints/resnet18-\w+\.pth"):
        asked.build(DataSpec(CIFAR, 10))
