"""GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"), from the library transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import linear

from kdbench import Architecture, BadInput, Count, DataSpec, Fraction, Tap

from ._tokens import token_shape
from ._transformers import (
    ATTENTION,
    PROJECTIONS,
    library,
    load_pretrained,
    make_places,
    place_taps,
    pretrained_digest,
    quiet,
)


@dataclass(frozen=True)
class GPT2(Architecture):
    """A causal transformer that tells the next token at each position; random initial weights, or pretrained ones.

    Attributes:
        layers, width, heads: of the decoder; the feed-forward layers are 4 times as wide.
        dropout: everywhere that GPT-2 has it: embeddings, attention and both sublayers.
        pretrained: a folder that `save_pretrained` wrote, or a model on the Hugging Face hub, whose sizes and dropout
            then replace those above. The task must have the model's own vocabulary.
    """

    layers: Count = 2
    width: Count = 128
    heads: Count = 2
    dropout: Fraction = 0.1
    pretrained: str | None = None

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, not {self.width} for {self.heads}")

    def build(self, spec: DataSpec) -> nn.Module:
        """
        Raises:
            MissingExtra: the library transformers is not installed.
            MissingData: the pretrained model is neither here nor within reach.
            BadInput: the task is no language modelling, or the pretrained model does not fit it.
        """
        length, vocabulary = token_shape(spec)
        if spec.positions != (length,) or spec.classes != vocabulary:
            raise BadInput(
                "this architecture answers with a token at each position, which this task does not ask",
                hint="choose an architecture made for this task",
            )
        transformers = library("the architecture 'gpt2'")
        if self.pretrained is not None:
            model = load_pretrained(transformers, "GPT2Model", "gpt2", self.pretrained, spec)
            if not model.config.tie_word_embeddings:
                raise BadInput(f"'{self.pretrained}' is no GPT-2: its output layer is not its embedding")
            return LanguageModel(model)
        config = transformers.GPT2Config(
            vocab_size=vocabulary,
            n_positions=length,
            n_embd=self.width,
            n_layer=self.layers,
            n_head=self.heads,
            embd_pdrop=self.dropout,
            attn_pdrop=self.dropout,
            resid_pdrop=self.dropout,
            bos_token_id=None,
            eos_token_id=None,
            attn_implementation=ATTENTION,
        )
        with quiet(transformers):
            return LanguageModel(transformers.GPT2Model(config))

    def digest(self) -> str:
        """The content of the pretrained weights; "" where there are none."""
        return pretrained_digest(self.pretrained, "the architecture 'gpt2'")

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """stage1..N: what each layer answers at each token; embedding: the mean of the last one's normalised answers.

        query1..N, key1..N, value1..N: the layers' projections, [batch, width, length] with the heads side by side.
        attention1..N: who attends to whom, [batch, heads, length, length], rows that sum to 1, before dropout.
        """
        assert isinstance(network, LanguageModel)
        taps = {"embedding": Tap("embedding")}
        for number in range(len(network.transformer.h)):
            layer = f"transformer.h.{number}"
            taps[f"stage{number + 1}"] = Tap(layer, layout="channels_last")
            taps |= place_taps(f"{layer}.attn", number + 1, *PROJECTIONS)
        return taps


class LanguageModel(nn.Module):
    """Token ids [batch, length] to logits [batch, vocabulary, length], the output layer being the embedding's.

    There is no mask of padding: it comes last, and no position looks ahead.
    """

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer = transformer
        self.embedding = MeanState()
        make_places((layer.attn for layer in transformer.h), *PROJECTIONS)

    def forward(self, tokens: Tensor) -> Tensor:
        states = self.transformer(tokens, use_cache=False).last_hidden_state
        self.embedding(states, tokens)  # beside the way to the logits, for methods that look at it
        return linear(states, self.transformer.wte.weight).transpose(1, 2)


class MeanState(nn.Module):
    """The mean [batch, width] of states [batch, length, width] over the tokens that are no padding."""

    def forward(self, states: Tensor, tokens: Tensor) -> Tensor:
        valid = (tokens != 0).unsqueeze(2).to(states.dtype)
        return (states * valid).sum(1) / valid.sum(1).clamp(min=1)
