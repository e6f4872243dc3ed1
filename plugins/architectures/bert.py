"""BERT (Devlin et al. 2019, arXiv:1810.04805), from the library transformers: of any size, or pretrained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from kdbench import Architecture, Count, DataSpec, Fraction, Tap

from ._tokens import text_shape
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
class Bert(Architecture):
    """A BERT encoder with a linear classifier on its pooled first token; random initial weights, or pretrained ones.

    Attributes:
        layers, width, heads: of the encoder; the feed-forward layers are 4 times as wide.
        dropout: everywhere that BERT has it: embeddings, attention, both sublayers and before the classifier.
        pretrained: a folder that `save_pretrained` wrote, or a model on the Hugging Face hub, whose sizes and dropout
            then replace those above, but for the classifier, which is new. The task must split texts with the same
            model's tokenizer, e.g. sst2[tokenizer=google-bert/bert-base-uncased].
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
            BadInput: the inputs are no token ids, or the pretrained model is no BERT or has another vocabulary.
        """
        length, vocabulary = text_shape(spec)
        transformers = library("the architecture 'bert'")
        if self.pretrained is not None:
            model = load_pretrained(
                transformers,
                "BertForSequenceClassification",
                "bert",
                self.pretrained,
                spec,
                num_labels=spec.classes,
                ignore_mismatched_sizes=True,  # a classifier of another number of classes, which is made anew
            )
            return SentenceClassifier(model)
        config = transformers.BertConfig(
            vocab_size=vocabulary,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=4 * self.width,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            max_position_embeddings=length,
            num_labels=spec.classes,
            attn_implementation=ATTENTION,
        )
        with quiet(transformers):
            return SentenceClassifier(transformers.BertForSequenceClassification(config))

    def digest(self) -> str:
        """The content of the pretrained weights; "" where there are none."""
        return pretrained_digest(self.pretrained, "the architecture 'bert'")

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """stage1..N: what each layer answers at each token; embedding: the pooled first token, before dropout.

        query1..N, key1..N, value1..N: the layers' projections, [batch, width, length] with the heads side by side, from
        which methods make relations (MiniLM). attention1..N: who attends to whom, [batch, heads, length, length], rows
        that sum to 1, before dropout. Padding has features and rows too, but nobody attends to it.
        """
        assert isinstance(network, SentenceClassifier)
        taps = {"embedding": Tap("model.bert.pooler")}
        for number in range(len(network.model.bert.encoder.layer)):
            layer = f"model.bert.encoder.layer.{number}"
            taps[f"stage{number + 1}"] = Tap(layer, layout="channels_last")
            for projection in PROJECTIONS:
                taps[f"{projection}{number + 1}"] = Tap(f"{layer}.attention.self.{projection}", layout="channels_last")
            taps |= place_taps(f"{layer}.attention.self", number + 1)
        return taps


class SentenceClassifier(nn.Module):
    """Token ids [batch, length], 0 for padding, to logits [batch, classes]: transformers' model in torch's manners."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        make_places(layer.attention.self for layer in model.bert.encoder.layer)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens, attention_mask=tokens != 0).logits
