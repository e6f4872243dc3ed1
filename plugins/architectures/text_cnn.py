"""A convolutional network for sentences (Kim 2014, arXiv:1408.5882)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdbench import Architecture, Count, DataSpec, Fraction, Tap

from ._tokens import text_shape

WINDOWS = (3, 4, 5)


@dataclass(frozen=True)
class TextCNN(Architecture):
    """Kim's sentence CNN, "CNN-rand": word vectors, convolutions over 3, 4 and 5 of them, the maximum over positions.

    Each convolution answers at every position of the text (the paper: only where its window fits), and padding answers
    0, which a rectified maximum does not see: so a sentence's logits do not depend on the length it is padded to.

    Attributes:
        width: feature maps of each of the three windows (the paper: 100).
        word_width: length of the word vectors (the paper: 300).
        dropout: before the classifier. The paper also clips the norms of its weights; here they only decay.
    """

    width: Count = 100
    word_width: Count = 128
    dropout: Fraction = 0.5

    def build(self, spec: DataSpec) -> nn.Module:
        _, vocabulary = text_shape(spec)
        return SentenceCNN(vocabulary, self.word_width, self.width, spec.classes, self.dropout)

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """stage1: the word vectors; stage2: all feature maps, at every token; embedding: their maxima, undropped."""
        return {
            "stage1": Tap("words", layout="channels_last"),
            "stage2": Tap("features"),
            "embedding": Tap("dropout", at="input"),
        }


class SentenceCNN(nn.Module):
    """Token ids [batch, length] to logits [batch, classes]."""

    def __init__(self, vocabulary: int, word_width: int, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, word_width, padding_idx=0)
        self.features = WindowFeatures(word_width, width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(len(WINDOWS) * width, classes)
        nn.init.uniform_(self.words.weight, -0.25, 0.25)  # as the paper draws the words it has no vectors for
        with torch.no_grad():
            self.words.weight[0].zero_()

    def forward(self, tokens: Tensor) -> Tensor:
        features = self.features(self.words(tokens), tokens != 0)
        return self.classifier(self.dropout(features.amax(2)))


class WindowFeatures(nn.Module):
    """Word vectors [batch, length, word_width] to rectified feature maps [batch, 3 * width, length]."""

    def __init__(self, word_width: int, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(word_width, width, window) for window in WINDOWS)

    def forward(self, words: Tensor, present: Tensor) -> Tensor:
        vectors = words.transpose(1, 2)
        answers = [
            convolution(functional.pad(vectors, ((window - 1) // 2, window // 2)))
            for convolution, window in zip(self.convolutions, WINDOWS, strict=True)
        ]
        return torch.cat(answers, dim=1).relu() * present.unsqueeze(1)
