"""Transformers for sound, from the library transformers: for spectrograms and for waveforms, new or pretrained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from kdbench import Architecture, BadInput, Count, DataSpec, Fraction, Tap

from ._transformers import ATTENTION, library, load_checked, make_places, place_taps, pretrained_digest, quiet
from .audio import feature_shape

_EXTRA = "speech"
_KERNELS, _STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)  # of wav2vec 2.0: a frame for every 320 samples
_MARKS = 2  # AST's tokens that are no patch: the class token, and DeiT's distillation token


@dataclass(frozen=True)
class AST(Architecture):
    """Audio Spectrogram Transformer (Gong et al. 2021, arXiv:2104.01778): patches of a spectrogram as tokens.

    Attributes:
        layers, width, heads: of the encoder; the feed-forward layers are 4 times as wide.
        patch, stride: the side of a patch, and the steps from one to the next, in bands and in frames; the paper's are
            16 and 10, so patches overlap.
        dropout: everywhere that AST has it; the paper uses none.
        pretrained: a folder that `save_pretrained` wrote, or a model on the Hugging Face hub, whose sizes, patches and
            dropout then replace those above, but for the classifier, which is new. Its positions are interpolated to
            the task's bands and frames, as in the paper's section 2.2.
    """

    layers: Count = 2
    width: Count = 128
    heads: Count = 2
    patch: Count = 16
    stride: Count = 10
    dropout: Fraction = 0.0
    pretrained: str | None = None

    def __post_init__(self) -> None:
        _check_heads(self.width, self.heads)

    def build(self, spec: DataSpec) -> nn.Module:
        """
        Raises:
            MissingExtra: the library transformers is not installed.
            MissingData: the pretrained model is neither here nor within reach.
            BadInput: the inputs are no spectrograms or smaller than a patch, or the pretrained model is no AST.
        """
        bands, frames = feature_shape(spec)
        transformers = library("the architecture 'ast'", _EXTRA)
        if self.pretrained is not None:
            return SpectrogramClassifier(self._load(transformers, spec, self.pretrained))
        _check_patch(self.patch, spec)
        config = transformers.ASTConfig(
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=4 * self.width,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            patch_size=self.patch,
            frequency_stride=self.stride,
            time_stride=self.stride,
            num_mel_bins=bands,
            max_length=frames,
            num_labels=spec.classes,
            attn_implementation=ATTENTION,
        )
        with quiet(transformers):
            model = transformers.ASTForAudioClassification(config)
        embeddings = model.audio_spectrogram_transformer.embeddings
        for zeros in (embeddings.cls_token, embeddings.distillation_token, embeddings.position_embeddings):
            nn.init.trunc_normal_(zeros, std=config.initializer_range)  # else the two tokens would stay one for ever
        return SpectrogramClassifier(model)

    def _load(self, transformers: Any, spec: DataSpec, name: str) -> Any:
        bands, frames = feature_shape(spec)
        model = load_checked(
            transformers,
            "ASTForAudioClassification",
            "audio-spectrogram-transformer",
            name,
            lambda config: _check_patch(config.patch_size, spec),
            num_labels=spec.classes,
            ignore_mismatched_sizes=True,  # a classifier of another number of classes, which is made anew
        )
        embeddings, config = model.audio_spectrogram_transformer.embeddings, model.config
        before = embeddings.get_shape(config)
        config.num_mel_bins, config.max_length = bands, frames
        resized = resized_positions(embeddings.position_embeddings.detach(), before, embeddings.get_shape(config))
        embeddings.position_embeddings = nn.Parameter(resized)
        return model

    def digest(self) -> str:
        """The content of the pretrained weights; "" where there are none."""
        return pretrained_digest(self.pretrained, "the architecture 'ast'")

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """stage1..N: what each layer answers at each token, the two that are no patch first; embedding: the mean of
        these two, after the last norm. query, key, value and attention 1..N: as in `bert`."""
        assert isinstance(network, SpectrogramClassifier)
        path = "model.audio_spectrogram_transformer.layers"
        layers = len(network.model.audio_spectrogram_transformer.layers)
        return {"embedding": Tap("model.classifier", at="input"), **_layer_taps(path, layers)}


class SpectrogramClassifier(nn.Module):
    """Features [batch, bands, frames] to logits [batch, classes]: transformers' AST in torch's manners."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        make_places(layer.attention for layer in model.audio_spectrogram_transformer.layers)

    def forward(self, features: Tensor) -> Tensor:
        return self.model(features.transpose(1, 2)).logits


@dataclass(frozen=True)
class Wav2Vec2(Architecture):
    """Wav2vec 2.0 (Baevski et al. 2020, arXiv:2006.11477): convolutions on the samples, then a transformer.

    The classifier is transformers': a projection, the mean over time, a linear layer. Each waveform is brought to mean
    0 and variance 1 by itself, as published models expect. Neither layers nor features are dropped at random (LayerDrop
    would leave taps empty; the library draws masks from a generator that is not kept apart for each trial).

    Attributes:
        layers, width, heads: of the encoder; the feed-forward layers are 4 times as wide.
        channels: of the seven convolutions, which leave a frame for every 320 samples. The base model has 12 layers,
            width 768, 12 heads and 512 channels.
        dropout: in the encoder.
        pretrained: a folder that `save_pretrained` wrote, or a model on the Hugging Face hub, whose sizes and dropout
            then replace those above, but for the classifier, which is new. Published ones take 16,000 samples a second.
    """

    layers: Count = 2
    width: Count = 128
    heads: Count = 2
    channels: Count = 64
    dropout: Fraction = 0.1
    pretrained: str | None = None

    def __post_init__(self) -> None:
        _check_heads(self.width, self.heads)

    def build(self, spec: DataSpec) -> nn.Module:
        """
        Raises:
            MissingExtra: the library transformers is not installed.
            MissingData: the pretrained model is neither here nor within reach.
            BadInput: the inputs are no waveforms or too short, or the pretrained model is no wav2vec 2.0.
        """
        samples = waveform_length(spec)
        transformers = library("the architecture 'wav2vec2'", _EXTRA)
        steady = {"layerdrop": 0.0, "apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0}
        if self.pretrained is not None:
            model = load_checked(
                transformers,
                "Wav2Vec2ForSequenceClassification",
                "wav2vec2",
                self.pretrained,
                lambda config: _check_length(samples, config.conv_kernel, config.conv_stride),
                num_labels=spec.classes,
                ignore_mismatched_sizes=True,  # a classifier of another number of classes, which is made anew
                **steady,
            )
            return WaveformClassifier(model)
        _check_length(samples, _KERNELS, _STRIDES)
        config = transformers.Wav2Vec2Config(
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=4 * self.width,
            conv_dim=(self.channels,) * len(_KERNELS),
            conv_kernel=_KERNELS,
            conv_stride=_STRIDES,
            num_conv_pos_embedding_groups=math.gcd(16, self.width),
            hidden_dropout=self.dropout,
            attention_dropout=self.dropout,
            activation_dropout=self.dropout,
            feat_proj_dropout=self.dropout,
            classifier_proj_size=self.width,
            num_labels=spec.classes,
            attn_implementation=ATTENTION,
            **steady,
        )
        with quiet(transformers):
            return WaveformClassifier(transformers.Wav2Vec2ForSequenceClassification(config))

    def digest(self) -> str:
        """The content of the pretrained weights; "" where there are none."""
        return pretrained_digest(self.pretrained, "the architecture 'wav2vec2'")

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """stage1..N: what each layer answers at each frame; embedding: the mean over time of their projection. query,
        key, value and attention 1..N: as in `bert`."""
        assert isinstance(network, WaveformClassifier)
        layers = len(network.model.wav2vec2.encoder.layers)
        return {
            "embedding": Tap("model.classifier", at="input"),
            **_layer_taps("model.wav2vec2.encoder.layers", layers),
        }


class WaveformClassifier(nn.Module):
    """Waveforms [batch, 1, samples] to logits [batch, classes]: transformers' wav2vec 2.0 in torch's manners."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        make_places(layer.attention for layer in model.wav2vec2.encoder.layers)
        # Only its gradient checkpointing needs a gradient with respect to the samples, which costs a convolution.
        model.wav2vec2.feature_extractor._requires_grad = False

    def forward(self, waveforms: Tensor) -> Tensor:
        variance, mean = torch.var_mean(waveforms, dim=2, correction=0, keepdim=True)
        return self.model(((waveforms - mean) / (variance + 1e-7).sqrt()).squeeze(1)).logits


def waveform_length(spec: DataSpec) -> int:
    """Samples of one input.

    Raises:
        BadInput: the inputs are no waveforms.
    """
    if len(spec.input_shape) != 2 or spec.input_shape[0] != 1 or spec.vocabulary is not None:
        raise BadInput(
            f"this architecture takes waveforms [1, samples], not inputs of shape {list(spec.input_shape)}",
            hint="give the task [features=waveform], if it takes that",
        )
    return spec.input_shape[1]


def resized_positions(positions: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """AST's position embeddings [1, 2 + patches, width] on another grid (patches across bands, across frames)."""
    if before == after:
        return positions
    marks, patches = positions.split([_MARKS, math.prod(before)], dim=1)
    grid = patches.transpose(1, 2).unflatten(2, before)
    resized = interpolate(grid, after, mode="bilinear", align_corners=False)
    return torch.cat([marks, resized.flatten(2).transpose(1, 2)], dim=1)


def _layer_taps(path: str, layers: int) -> dict[str, Tap]:
    taps: dict[str, Tap] = {}
    for number in range(1, layers + 1):
        layer = f"{path}.{number - 1}"
        taps[f"stage{number}"] = Tap(layer, layout="channels_last")
        for name in ("query", "key", "value"):
            taps[f"{name}{number}"] = Tap(f"{layer}.attention.{name[0]}_proj", layout="channels_last")
        taps |= place_taps(f"{layer}.attention", number)
    return taps


def _check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(f"width must be a multiple of heads, not {width} for {heads}")


def _check_patch(patch: int, spec: DataSpec) -> None:
    if min(spec.input_shape) < patch:
        raise BadInput(
            f"patches of {patch}x{patch} do not fit {spec.input_shape[0]} bands, {spec.input_shape[1]} frames"
        )


def _check_length(samples: int, kernels: tuple[int, ...], strides: tuple[int, ...]) -> None:
    frames = samples
    for kernel, stride in zip(kernels, strides, strict=True):
        frames = (frames - kernel) // stride + 1
    if frames < 1:
        raise BadInput(f"{samples} samples are too few for the convolutions: nothing is left of them")
