"""Networks that write speech down: an answer at every output frame, padding never read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from kdbench import Architecture, BadInput, Count, DataSpec, Fraction, Tap

from ..tasks._frames import lengths, shortened, within


@dataclass(frozen=True)
class CTCGRU(Architecture):
    """Convolutions over time that shorten it as the task asks, then GRU layers (Cho et al. 2014, arXiv:1406.1078).

    Of the kind of Deep Speech 2 (Amodei et al. 2015, arXiv:1512.02595), with layer norm in the place of its batch norm,
    which would read padding.

    Attributes:
        width: channels of the convolutions, and units of each layer and direction.
        layers: recurrent layers, each a stage.
        bidirectional: whether layers read backwards too; without, a network can answer while someone speaks.
        dropout: after the convolutions and each layer.
    """

    width: Count = 128
    layers: Count = 2
    bidirectional: bool = True
    dropout: Fraction = 0.1

    def build(self, spec: DataSpec) -> nn.Module:
        channels, strides = frames_asked(spec)
        states = self.width * (2 if self.bidirectional else 1)
        inputs = [self.width] + [states] * (self.layers - 1)
        return FrameClassifier(
            ConvolutionsOverTime(channels, self.width, strides, self.dropout),
            [Recurrent(each, self.width, self.bidirectional, self.dropout) for each in inputs],
            nn.Linear(states, spec.classes),
        )

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """stage1: the convolutions; then a stage per layer, zero where there is padding. The embedding is the mean of
        the last one over an utterance."""
        return frame_taps(self.layers)


@dataclass(frozen=True)
class CTCTransformer(Architecture):
    """Conformer blocks (Gulati et al. 2020, arXiv:2005.08100) after convolutions that shorten time as the task asks.

    A block is half a feed-forward layer, self-attention, a convolution over time and another half. Other than the
    paper's, it knows positions by sinusoids that are added once, and has layer norm in the place of batch norm, which
    would read padding. `kernel=1` leaves a transformer encoder with gates.

    Attributes:
        width: of the blocks; the feed-forward layers are 4 times as wide.
        layers: blocks, each a stage.
        heads: of the attention.
        kernel: frames that the blocks' convolutions see, odd.
        dropout: after each sublayer.
    """

    width: Count = 96
    layers: Count = 4
    heads: Count = 4
    kernel: Count = 15
    dropout: Fraction = 0.1

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width must be even and a multiple of heads, not {self.width} for {self.heads}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, not {self.kernel}")

    def build(self, spec: DataSpec) -> nn.Module:
        channels, strides = frames_asked(spec)
        blocks = [ConformerBlock(self.width, self.heads, self.kernel, self.dropout) for _ in range(self.layers)]
        front = ConvolutionsOverTime(channels, self.width, strides, self.dropout, positions=True)
        return FrameClassifier(front, blocks, nn.Linear(self.width, spec.classes))

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """stage1: the convolutions; then a stage per block, zero where there is padding. The embedding is the mean of
        the last one over an utterance. query1..N, key1..N, value1..N: the blocks' projections, heads side by side."""
        projections = {
            f"{projection}{number}": Tap(f"layers.{number - 1}.attention.{projection}", layout="channels_last")
            for number in range(1, self.layers + 1)
            for projection in ("query", "key", "value")
        }
        return {**frame_taps(self.layers), **projections}


def frames_asked(spec: DataSpec) -> tuple[int, list[int]]:
    """Channels of the inputs, and strides (its prime factors) that come to the subsampling that the task asks for.

    Raises:
        BadInput: the inputs are no signals over time, or the answers no frames of them.
    """
    shape = spec.input_shape
    if len(shape) != 2 or spec.vocabulary is not None or len(spec.positions) != 1 or shape[1] % spec.positions[0]:
        raise BadInput(
            f"this architecture answers at every n-th frame of signals [channels, frames], not at positions "
            f"{list(spec.positions)} of inputs of shape {list(shape)}",
            hint="choose an architecture made for this task",
        )
    left, strides = shape[1] // spec.positions[0], []
    for prime in range(2, left + 1):
        while left % prime == 0:
            strides.append(prime)
            left //= prime
    return shape[0], strides


def frame_taps(layers: int) -> dict[str, Tap]:
    """The stages and the embedding of a `FrameClassifier`."""
    stages = {f"stage{number + 2}": Tap(f"layers.{number}", layout="channels_last") for number in range(layers)}
    return {"stage1": Tap("front", layout="channels_last"), **stages, "embedding": Tap("mean")}


class FrameClassifier(nn.Module):
    """Padded signals [batch, channels, frames] to logits [batch, classes, output frames].

    Where an utterance ends is read off its inputs, and no layer lets what is beyond reach what is before.
    """

    def __init__(self, front: ConvolutionsOverTime, layers: Sequence[nn.Module], classifier: nn.Linear) -> None:
        super().__init__()
        self.front, self.layers, self.classifier = front, nn.ModuleList(layers), classifier
        self.mean = MeanOverFrames()

    def forward(self, signals: Tensor) -> Tensor:
        frames = lengths(signals)
        states = self.front(signals, frames)
        frames = shortened(frames, math.prod(self.front.strides))
        for layer in self.layers:
            states = layer(states, frames)
        self.mean(states, frames)  # for those who look at it
        return self.classifier(states).transpose(1, 2)


class MeanOverFrames(nn.Module):
    """States [batch, frames, channels], zero beyond the lengths `frames`, to their means [batch, channels]."""

    def forward(self, states: Tensor, frames: Tensor) -> Tensor:
        return states.sum(dim=1) / frames.unsqueeze(1)


class ConvolutionsOverTime(nn.Module):
    """Signals [batch, channels, frames] to states [batch, output frames, width]: convolutions with layer norm and ReLU.

    One for each of `strides` (one of stride 1 where there is none), each over two strides and a frame more, or five.
    `positions` adds sinusoids (Vaswani et al. 2017, arXiv:1706.03762).
    """

    def __init__(
        self, channels: int, width: int, strides: Sequence[int], dropout: float, positions: bool = False
    ) -> None:
        super().__init__()
        self.strides, self.positions = list(strides) or [1], positions
        inputs = channels
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for stride in self.strides:
            kernel = max(5, 2 * stride + 1)
            self.convolutions.append(nn.Conv1d(inputs, width, kernel, stride, padding=kernel // 2))
            self.norms.append(nn.LayerNorm(width))
            inputs = width
        self.dropout = nn.Dropout(dropout)

    def forward(self, signals: Tensor, frames: Tensor) -> Tensor:
        states = signals.transpose(1, 2)
        for convolution, norm, stride in zip(self.convolutions, self.norms, self.strides, strict=True):
            frames = shortened(frames, stride)
            states = silenced(norm(convolution(states.transpose(1, 2)).transpose(1, 2)).relu(), frames)
        if self.positions:
            states = silenced(states + sinusoids(states.shape[1], states), frames)
        return self.dropout(states)


class Recurrent(nn.Module):
    """A GRU layer whose backward direction begins where each utterance ends; states are zero beyond."""

    def __init__(self, inputs: int, units: int, bidirectional: bool, dropout: float) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, units, batch_first=True, bidirectional=bidirectional)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, frames: Tensor) -> Tensor:
        packed = pack_padded_sequence(states, frames.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=states.shape[1])
        return self.dropout(states)


class ConformerBlock(nn.Module):
    """States [batch, frames, width] to states, zero beyond the lengths `frames`."""

    def __init__(self, width: int, heads: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = FeedForward(width, dropout), FeedForward(width, dropout)
        self.attention, self.convolution = SelfAttention(width, heads), GatedConvolution(width, kernel)
        self.before_attention, self.before_convolution = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)

    def forward(self, states: Tensor, frames: Tensor) -> Tensor:
        states = states + 0.5 * self.first(states)
        states = states + self.dropout(self.attention(self.before_attention(states), frames))
        states = states + self.dropout(self.convolution(self.before_convolution(states), frames))
        states = states + 0.5 * self.second(states)
        return silenced(self.norm(states), frames)


class FeedForward(nn.Sequential):
    """Layer norm, and two linear layers around swish, the inner one 4 times as wide."""

    def __init__(self, width: int, dropout: float) -> None:
        wide = nn.Linear(width, 4 * width)
        super().__init__(nn.LayerNorm(width), wide, nn.SiLU(), nn.Linear(4 * width, width), nn.Dropout(dropout))


class SelfAttention(nn.Module):
    """Every frame looks at the frames of its utterance, none at its padding.

    Written out, not fused: on a GPU, the gradients of the fused kernels are not the same bits at each repetition.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))

    def forward(self, states: Tensor, frames: Tensor) -> Tensor:
        query, key, value = (
            projection(states).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
        heard = within(frames, states.shape[1])[:, None, None]
        weights = scores.masked_fill(~heard, -math.inf).softmax(dim=3)
        return self.output((weights @ value).transpose(1, 2).flatten(2))


class GatedConvolution(nn.Module):
    """The Conformer's convolution module: a gate, a depthwise convolution over time, norm, swish and a projection."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.gated = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, states: Tensor, frames: Tensor) -> Tensor:
        gated = silenced(nn.functional.glu(self.gated(states)), frames)
        seen = self.depthwise(gated.transpose(1, 2)).transpose(1, 2)
        return self.output(nn.functional.silu(self.norm(seen)))


def silenced(states: Tensor, frames: Tensor) -> Tensor:
    """States [batch, frames, channels], zero beyond the lengths `frames`."""
    return states * within(frames, states.shape[1]).unsqueeze(2)


def sinusoids(positions: int, like: Tensor) -> Tensor:
    """[positions, channels] with the channels, dtype and device of `like`, whose channels are an even number."""
    channels = like.shape[-1]
    rates = torch.exp(torch.arange(0, channels, 2, device=like.device) * (-math.log(10000.0) / channels))
    angles = torch.arange(positions, device=like.device).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).to(like.dtype)
