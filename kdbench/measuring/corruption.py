"""How much of a network's score is left when its inputs get worse than any it has seen."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from statistics import fmean

import torch
from torch import Tensor, nn

from kdbench.measuring.image_corruption import IMAGE_CORRUPTIONS
from kdbench.measuring.sample import even_sample
from kdbench.plan import LoadedTask
from kdbench.splits import TensorSplit
from kdbench.task import Data
from kdbench.training.prediction import answers
from kdbench.training.randomness import generator

SEVERITIES = range(1, 6)
MOST_EXAMPLES = 1000
MOST_NUMBERS = 1 << 28  # of all corrupted inputs: a quarter of a gigabyte of pixels

Corrupted = Mapping[str, tuple[TensorSplit, ...]]  # by kind, one for each severity


class CorruptedTests:
    """Scores networks on corrupted test inputs, which are made once: kept are those of the latest test split."""

    def __init__(self) -> None:
        self._kept: tuple[str, Corrupted] = ("", {})

    def scores(self, network: nn.Module, loaded: LoadedTask, device: torch.device) -> dict[str, float]:
        """The primary metric on corrupted inputs, in eval mode; the network is left as it was.

        Returns:
            "corrupted_<primary>/<kind>": its mean over the severities; "corrupted_<primary>": the mean over the kinds.
            Nothing where the task's inputs have no corruption, or its primary metric takes decoding.
        """
        metric = loaded.metrics[0]
        if metric.decoded:
            return {}
        digest = loaded.data.test.digest()
        if self._kept[0] != digest:
            self._kept = (digest, corrupted(loaded.data))
        name = f"corrupted_{metric.name}"
        found = {
            f"{name}/{kind}": fmean(metric.score(answers(network, split, loaded, device)) for split in splits)
            for kind, splits in self._kept[1].items()
        }
        return {**found, name: fmean(found.values())} if found else {}


def corrupted(data: Data) -> Corrupted:
    """An even sample of the test split, corrupted in every way and severity: the same each time.

    In the ways that the data bring; of uint8 images that bring none, in those of `image_corruption`. None where an
    answer has positions: what is at them may have moved.
    """
    if data.spec.positions:
        return {}
    kinds = len(data.corruptions) or len(IMAGE_CORRUPTIONS)
    most = max(1, min(MOST_EXAMPLES, MOST_NUMBERS // (kinds * len(SEVERITIES) * prod(data.spec.input_shape))))
    sample = even_sample(len(data.test), most)
    inputs = _brought(data, sample) if data.corruptions else _images(data, sample)
    targets = data.test.targets[sample]
    return {kind: tuple(TensorSplit(each, targets) for each in worse) for kind, worse in inputs.items()}


def _brought(data: Data, sample: Tensor) -> dict[str, list[Tensor]]:
    return {
        kind: [corrupt(sample, severity, generator(0, "corruption", kind, severity)) for severity in SEVERITIES]
        for kind, corrupt in data.corruptions.items()
    }


def _images(data: Data, sample: Tensor) -> dict[str, list[Tensor]]:
    if data.spec.modality != "vision" or len(data.spec.input_shape) != 3:
        return {}
    (batch,) = data.test.batches([sample])
    images = batch.inputs.cpu()
    peak = int(images.max())
    if images.dtype != torch.uint8 or not peak:
        return {}
    return {
        kind: [corrupt(images, peak, each, generator(0, "corruption", kind, each)) for each in SEVERITIES]
        for kind, corrupt in IMAGE_CORRUPTIONS.items()
    }
