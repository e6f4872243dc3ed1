"""Small networks for sound: they take features [bands, frames], such as log-mel spectra."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from kdbench import Architecture, BadInput, Count, DataSpec, Positive, Tap

_LEAST = 4  # bands and frames: below, the stages would have nothing to look at


@dataclass(frozen=True)
class AudioCNN(Architecture):
    """Small CNN on the spectrogram as a picture: three 3x3 convolutions of stride 2, batch norm, ReLU, average pooling.

    About 6,000 parameters at width 1 (8, 16 and 32 channels), 1,700 at 0.5, 94,000 at 4. It has no paper: it is
    the image suites' `cnn` with strides in the place of pools, as fits the larger spectrograms.

    Attributes:
        width: multiplies the channels.
    """

    width: Positive = 1.0

    def build(self, spec: DataSpec) -> nn.Module:
        feature_shape(spec)
        widths = [1, *(_scaled(base, self.width) for base in (8, 16, 32))]
        stages = {f"stage{i}": _convolution(widths[i - 1], widths[i], kernel=(3, 3), stride=2) for i in (1, 2, 3)}
        return _pictured(stages, widths[-1], spec.classes)

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """Stages after their ReLU, [batch, channels, bands, frames]; the embedding is the pooled last stage."""
        return {**_stage_taps(3), "embedding": Tap("classifier", at="input")}


@dataclass(frozen=True)
class DSCNN(Architecture):
    """Depthwise separable CNN for keyword spotting (Zhang et al. 2017, "Hello Edge", arXiv:1711.07128).

    A 10x4 convolution (frames x bands), then four blocks of a depthwise 3x3 and a pointwise convolution, each with
    batch norm and ReLU, average pooling and a linear layer. The paper's DS-CNN-S has 64 channels: width 1. Its input is
    49 frames of 10 MFCCs, and the first stride 2; ours has twice the frames and four times the bands, so it is 4.

    Attributes:
        width: multiplies the 64 channels; DS-CNN-M and -L have 172 and 276, but other strides.
        blocks: how many depthwise separable blocks.
    """

    width: Positive = 1.0
    blocks: Count = 4

    def build(self, spec: DataSpec) -> nn.Module:
        feature_shape(spec)
        channels = _scaled(64, self.width)
        stages = {f"stage{i}": _separable(channels) for i in range(1, self.blocks + 1)}
        return _pictured(
            {"stem": _convolution(1, channels, kernel=(4, 10), stride=4), **stages}, channels, spec.classes
        )

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """A stage per block, [batch, channels, bands, frames]; the embedding is the pooled last stage."""
        return {**_stage_taps(self.blocks), "embedding": Tap("classifier", at="input")}


@dataclass(frozen=True)
class ConvGRU(Architecture):
    """Two convolutions over time that shorten it to a quarter, then recurrent layers, and the mean over time.

    The bands are the channels of the first convolution. One recurrent layer, on 40 bands and 10 classes: 42,442
    parameters at width 1 and 1,506 at 0.125. It has no paper: of the kind that "Hello Edge" (Zhang et al. 2017,
    arXiv:1711.07128) calls CRNN, but with convolutions over time alone.

    Attributes:
        width: multiplies the 32 and 64 channels of the convolutions and the 64 of the recurrent layers.
        layers: recurrent layers (GRU), each a stage.
    """

    width: Positive = 1.0
    layers: Count = 1

    def build(self, spec: DataSpec) -> nn.Module:
        bands, _ = feature_shape(spec)
        narrow, wide = _scaled(32, self.width), _scaled(64, self.width)
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            stage1=_convolution_over_time(bands, narrow),
            stage2=_convolution_over_time(narrow, wide),
            turn=ChannelsLast(),
        )
        layers |= {f"stage{i}": Recurrent(wide) for i in range(3, 3 + self.layers)}
        layers |= {"pool": MeanOverTime(), "classifier": nn.Linear(wide, spec.classes)}
        return nn.Sequential(layers)

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """The convolutions and each recurrent layer, [batch, channels, frames]; the embedding is the mean over time."""
        recurrent = {f"stage{i}": Tap(f"stage{i}", layout="channels_last") for i in range(3, 3 + self.layers)}
        return {**_stage_taps(2), **recurrent, "embedding": Tap("classifier", at="input")}


class AsPicture(nn.Module):
    """Features [batch, bands, frames] to pictures of one channel."""

    def forward(self, features: Tensor) -> Tensor:
        return features.unsqueeze(1)


class ChannelsLast(nn.Module):
    """[batch, channels, frames] to [batch, frames, channels], which recurrent layers take."""

    def forward(self, features: Tensor) -> Tensor:
        return features.transpose(1, 2)


class Recurrent(nn.Module):
    """A GRU layer that returns its sequence [batch, frames, channels] alone, so that a hook sees a tensor."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gru = nn.GRU(channels, channels, batch_first=True)

    def forward(self, sequence: Tensor) -> Tensor:
        return self.gru(sequence)[0]


class MeanOverTime(nn.Module):
    """[batch, frames, channels] to [batch, channels]."""

    def forward(self, sequence: Tensor) -> Tensor:
        return sequence.mean(dim=1)


def feature_shape(spec: DataSpec) -> tuple[int, int]:
    """Bands and frames of one input.

    Raises:
        BadInput: the inputs are not features over time, or too small.
    """
    if len(spec.input_shape) != 2 or spec.vocabulary is not None:
        raise BadInput(
            f"this architecture takes sound features [bands, frames], not inputs of shape {list(spec.input_shape)}",
            hint="choose an architecture made for this task",
        )
    bands, frames = spec.input_shape
    if min(bands, frames) < _LEAST:
        raise BadInput(f"this architecture takes {_LEAST} bands and frames or more, not {bands} bands, {frames} frames")
    return bands, frames


def _pictured(stages: Mapping[str, nn.Module], channels: int, classes: int) -> nn.Sequential:
    """2-d stages between the step from features to a picture, and pooling and classifier."""
    pooled = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "classifier": nn.Linear(channels, classes)}
    return nn.Sequential(OrderedDict({"picture": AsPicture(), **stages, **pooled}))


def _convolution(inputs: int, outputs: int, kernel: tuple[int, int], stride: int = 1, groups: int = 1) -> nn.Sequential:
    padding = (kernel[0] - 1) // 2, (kernel[1] - 1) // 2
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(_initialised(convolution), nn.BatchNorm2d(outputs), nn.ReLU())


def _separable(channels: int) -> nn.Sequential:
    depthwise = _convolution(channels, channels, kernel=(3, 3), groups=channels)
    return nn.Sequential(*depthwise, *_convolution(channels, channels, kernel=(1, 1)))


def _convolution_over_time(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv1d(inputs, outputs, kernel_size=5, stride=2, padding=2, bias=False)
    return nn.Sequential(_initialised(convolution), nn.BatchNorm1d(outputs), nn.ReLU())


def _initialised(convolution: nn.Module) -> nn.Module:
    nn.init.kaiming_normal_(convolution.weight, mode="fan_in", nonlinearity="relu")  # type: ignore[arg-type]
    return convolution


def _stage_taps(stages: int) -> dict[str, Tap]:
    return {f"stage{i}": Tap(f"stage{i}") for i in range(1, stages + 1)}


def _scaled(base: int, width: float) -> int:
    return max(1, round(base * width))
