"""Small networks for sequences of measurements: convolutional and recurrent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from kdbench import Architecture, BadInput, Count, DataSpec, Positive, Tap

from ._plain import plain_network, plain_taps


@dataclass(frozen=True)
class SequenceCNN(Architecture):
    """Small 1-D CNN: a convolution over 3 positions, batch norm and ReLU per stage, then the mean over positions.

    About 9,000 parameters at width 1 on 15 channels (16, 32 and 64 channels). It has no paper: it is the fully
    convolutional network for time series of Wang et al. 2017 (arXiv:1611.06455), shrunk, with pooling between stages.

    Attributes:
        width: multiplies the channels: 16, 32, 64, ... over the stages.
        stages: each begins with a max pool over 2 positions, but the first and those that would be left with one.
    """

    width: Positive = 1.0
    stages: Count = 3

    def build(self, spec: DataSpec) -> nn.Module:
        channels, positions = sequence_shape(spec)
        widths = [max(1, round(16 * self.width * 2**stage)) for stage in range(self.stages)]
        return plain_network(1, channels, positions, widths, spec.classes)

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        return plain_taps(self.stages)


@dataclass(frozen=True)
class SequenceGRU(Architecture):
    """GRU layers (Cho et al. 2014, arXiv:1406.1078) and a linear classifier of the last position's state.

    Attributes:
        width: units of each layer.
        layers: one above the other.
    """

    width: Count = 64
    layers: Count = 1

    def build(self, spec: DataSpec) -> nn.Module:
        channels, _ = sequence_shape(spec)
        widths = [channels] + [self.width] * self.layers
        recurrent = [RecurrentLayer(inputs, self.width) for inputs in widths[:-1]]
        return RecurrentClassifier(recurrent, nn.Linear(self.width, spec.classes))

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """Stages are the layers' states at all positions; the embedding is the last one's at the last position."""
        stages = {f"stage{i}": Tap(f"layers.{i - 1}", layout="channels_last") for i in range(1, self.layers + 1)}
        return {**stages, "embedding": Tap("classifier", at="input")}


class RecurrentLayer(nn.Module):
    """A GRU that answers with its states [batch, positions, units] only, so that they can be tapped."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, units, batch_first=True)

    def forward(self, sequence: Tensor) -> Tensor:
        states, _ = self.gru(sequence)
        return states


class RecurrentClassifier(nn.Module):
    """Inputs [batch, channels, positions] through recurrent layers; the last position's state is classified."""

    def __init__(self, layers: list[RecurrentLayer], classifier: nn.Linear) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.classifier = classifier

    def forward(self, inputs: Tensor) -> Tensor:
        states = self.layers(inputs.transpose(1, 2))
        return self.classifier(states[:, -1])


def sequence_shape(spec: DataSpec) -> tuple[int, int]:
    """Channels and positions of one input.

    Raises:
        BadInput: the inputs are no sequences of measurements.
    """
    if len(spec.input_shape) != 2 or spec.vocabulary is not None:
        raise BadInput(
            f"this architecture takes sequences [channels, positions], not inputs of shape {list(spec.input_shape)}",
            hint="choose an architecture made for this task",
        )
    channels, positions = spec.input_shape
    return channels, positions
