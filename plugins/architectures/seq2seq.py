"""The encoder-decoder transformer (Vaswani et al. 2017, arXiv:1706.03762), from torch's own layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import linear

from kdbench import Architecture, BadInput, Count, DataSpec, Fraction, Tap


@dataclass(frozen=True)
class Transformer(Architecture):
    """Encoder and decoder of so many layers each, normalised before each sublayer (Xiong et al. 2020), where the same
    embeddings serve source, target and output (Press and Wolf 2017).

    Attributes:
        layers: of the encoder, and of the decoder.
        width, heads: of every layer; the feed-forward layers are 4 times as wide.
        dropout: of embeddings, attention and sublayers.
        positions: sinusoidal, as in the paper, or learnt, beginning with these.
    """

    layers: Count = 2
    width: Count = 128
    heads: Count = 4
    dropout: Fraction = 0.1
    positions: Literal["sinusoidal", "learnt"] = "sinusoidal"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, not {self.width} for {self.heads}")
        if self.width % 2:
            raise ValueError(f"width must be even, for sines and cosines, not {self.width}")

    def build(self, spec: DataSpec) -> nn.Module:
        """
        Raises:
            BadInput: the inputs are no pairs of token sequences, or the answers no tokens.
        """
        if spec.vocabulary is None or len(spec.input_shape) != 2 or spec.input_shape[0] != 2:
            raise BadInput(
                f"this architecture takes pairs of token sequences [2, length], not inputs of {list(spec.input_shape)}",
                hint="choose an architecture made for this task",
            )
        if spec.classes != spec.vocabulary or spec.positions != spec.input_shape[1:] or spec.extras:
            raise BadInput("this architecture answers with the next token at each position of the second sequence")
        return EncoderDecoderNetwork(self, spec.vocabulary, spec.input_shape[1])

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """stage1..N: what each layer of the encoder answers at each source token, then each of the decoder at each
        target token. embedding: the mean of the encoder's answers. Columns that are padding in a whole batch are cut;
        what stands at other padding says nothing. There are no taps of the attention.
        """
        assert isinstance(network, EncoderDecoderNetwork)
        layers = [*(f"encoder.{i}" for i in range(self.layers)), *(f"decoder.{i}" for i in range(self.layers))]
        stages = {f"stage{i}": Tap(layer, layout="channels_last") for i, layer in enumerate(layers, start=1)}
        return {**stages, "embedding": Tap("mean")}


class EncoderDecoderNetwork(nn.Module):
    """Source and target tokens [batch, 2, length], the target shifted right, to logits [batch, vocabulary, length].

    0 pads at the end. A logit depends on the target tokens up to its position alone; at padding it is 0.
    """

    positions: Tensor

    def __init__(self, sizes: Transformer, vocabulary: int, length: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, sizes.width)
        if sizes.positions == "learnt":
            self.positions = nn.Parameter(_sinusoids(length, sizes.width))
        else:
            self.register_buffer("positions", _sinusoids(length, sizes.width), persistent=False)
        self.dropout = nn.Dropout(sizes.dropout)
        shape = (sizes.width, sizes.heads, 4 * sizes.width, sizes.dropout)
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(*shape, batch_first=True, norm_first=True) for _ in range(sizes.layers)
        )
        self.decoder = nn.ModuleList(
            nn.TransformerDecoderLayer(*shape, batch_first=True, norm_first=True) for _ in range(sizes.layers)
        )
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(sizes.width), nn.LayerNorm(sizes.width)
        self.mean = MeanOverTokens()
        self._initialise()

    def _initialise(self) -> None:
        for layer in (*self.encoder, *self.decoder):
            # Else its fast path, in eval mode, answers with other bits than the layer does once somebody taps it.
            # (That of the attention inside is closed to masks of floats.)
            layer.activation_relu_or_gelu = 0
            for parameter in layer.parameters():
                if parameter.ndim > 1:
                    nn.init.xavier_uniform_(parameter)
        nn.init.normal_(self.embedding.weight, std=self.embedding.embedding_dim**-0.5)

    def forward(self, pairs: Tensor) -> Tensor:
        source, target = (_without_common_padding(tokens) for tokens in pairs.unbind(dim=1))
        memory = self.encode(source)
        self.mean(memory, source)  # for those who tap it
        states, there = self._decoded(target, memory, source), pairs[:, 1] != 0
        # The product with the vocabulary is the largest of all: not for padding.
        logits = linear(states[there[:, : target.shape[1]]], self.embedding.weight)
        laid_out = logits.new_zeros(*there.shape, logits.shape[1])
        laid_out[there] = logits
        return laid_out.movedim(-1, 1)

    def encode(self, source: Tensor) -> Tensor:
        """Features [batch, length, width] of source tokens [batch, length]."""
        states, padding = self._embedded(source), _padding_mask(source)
        with _plain_attention():
            for layer in self.encoder:
                states = layer(states, src_key_padding_mask=padding)
        return self.encoder_norm(states)

    def decode(self, prefix: Tensor, memory: Tensor, source: Tensor) -> Tensor:
        """Logits [batch, vocabulary] of the token after prefix [batch, tokens]; memory: what `encode` answered."""
        return linear(self._decoded(prefix, memory, source)[:, -1], self.embedding.weight)

    def _decoded(self, target: Tensor, memory: Tensor, source: Tensor) -> Tensor:
        # Padding of the target comes last, so no token before it can see it: it needs no mask of its own.
        states, padding, future = self._embedded(target), _padding_mask(source), _future_mask(target)
        with _plain_attention():
            for layer in self.decoder:
                states = layer(states, memory, tgt_mask=future, memory_key_padding_mask=padding)
        return self.decoder_norm(states)

    def _embedded(self, tokens: Tensor) -> Tensor:
        scaled = self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim)
        return self.dropout(scaled + self.positions[: tokens.shape[1]])


class MeanOverTokens(nn.Module):
    """The mean [batch, features] of features [batch, length, features] over tokens [batch, length] that are not 0."""

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        weights = (tokens != 0).to(features.dtype)
        return (features * weights[:, :, None]).sum(dim=1) / weights.sum(dim=1, keepdim=True).clamp(min=1)


def _sinusoids(length: int, width: int) -> Tensor:
    """Positions [length, width] as the paper has them (section 3.5), the sines first and then the cosines."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _without_common_padding(tokens: Tensor) -> Tensor:
    """Tokens [batch, length] up to the longest sequence among them."""
    longest = int((tokens != 0).sum(dim=1).max())
    return tokens[:, : max(longest, 1)]


def _padding_mask(tokens: Tensor) -> Tensor:
    """What is added to attention scores, [batch, length]: -inf where there is padding, but never everywhere."""
    padding = tokens == 0
    padding = torch.cat([torch.zeros_like(padding[:, :1]), padding[:, 1:]], dim=1)
    return torch.zeros(tokens.shape, device=tokens.device).masked_fill(padding, -torch.inf)


def _future_mask(tokens: Tensor) -> Tensor:
    """What is added to attention scores, [length, length]: -inf for tokens that come later."""
    length = tokens.shape[1]
    return torch.full((length, length), -torch.inf, device=tokens.device).triu(diagonal=1)


def _plain_attention() -> AbstractContextManager[None]:
    """Written out, not fused: of the fused kernels another is taken with each device, mask and mode, and on a GPU their
    gradients are not the same bits at each repetition."""
    return sdpa_kernel(SDPBackend.MATH)
