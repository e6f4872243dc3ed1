"""How alike two networks represent the same examples inside, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

from kdbench.measuring.sample import even_sample
from kdbench.task import Data
from kdbench.training.prediction import EVALUATION_BATCH, POSITIONS_BATCH, prepared
from kdbench.training.taps import TappedNetwork

MOST_EXAMPLES = 500
MOST_POSITIONS = 4  # per axis
_SAME = 1e-6  # relative: features that differ less do so by rounding
_POOLS: dict[int, Any] = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}


def likeness(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> dict[str, float]:
    """Of `features` of the same examples by tap. What is not defined (a feature that never changes) is absent.

    Returns:
        "cka_stage1", ...: linear CKA with the teacher's stage, by the student's stage. Where the numbers of stages
            differ, the last ones are paired. "cka": their mean, where all of them are defined.
        "relation_correlation": of the embeddings, where both networks have one.
    """
    pairs = zip(reversed(_stages(student)), reversed(_stages(teacher)), strict=False)
    found = {f"cka_{own}": debiased_cka(student[own], teacher[other]) for own, other in pairs}
    alike = {name: value for name, value in sorted(found.items()) if value is not None}
    if alike and len(alike) == len(found):  # a mean over fewer stages could not be compared with other students'
        alike["cka"] = fmean(alike.values())
    if "embedding" in student and "embedding" in teacher:
        correlation = relation_correlation(student["embedding"], teacher["embedding"])
        if correlation is not None:
            alike["relation_correlation"] = correlation
    return alike


@torch.no_grad()
def features(network: TappedNetwork, data: Data, device: torch.device) -> dict[str, Tensor]:
    """What a network in eval mode shows at its taps for an even sample of the test split, float64 on the CPU.

    [examples, channels * positions] each; positions (padding among them) are averaged to at most 4 per axis, which
    keeps where something is seen and brings a feature of 64 channels of 56 x 56 from 200,000 numbers to 1024.
    """
    sample = even_sample(len(data.test), MOST_EXAMPLES)
    seen: dict[str, list[Tensor]] = {}
    for batch in prepared(
        data.test, sample.split(POSITIONS_BATCH if data.spec.positions else EVALUATION_BATCH), data, device
    ):
        for name, feature in network(batch).taps.items():
            if name != "logits":
                seen.setdefault(name, []).append(_pooled(feature.cpu()))
    return {name: torch.cat(parts).double() for name, parts in seen.items()}


def debiased_cka(first: Tensor, second: Tensor) -> float | None:
    """Linear centred kernel alignment of two features [examples, numbers] of the same examples, in float64.

    HSIC_1(K, L) / sqrt(HSIC_1(K, K) HSIC_1(L, L)) with the unbiased HSIC_1 (Nguyen, Raghu & Kornblith 2021,
    arXiv:2010.15327, eq. 2 and 3; Song et al. 2012, eq. 5): 1 for features that are alike up to rotation and scale,
    about 0 (negative too) for independent ones, however many numbers they have, where the biased one nears 1.
    None where it is not defined: for fewer than 4 examples, or where a feature is the same for all.
    """
    if len(first) < 4 or not (_varies(first) and _varies(second)):
        return None
    one, two = _similarities(first), _similarities(second)
    scale = _hsic(one, one) * _hsic(two, two)
    return (_hsic(one, two) / scale**0.5) if scale > 0 else None


def relation_correlation(first: Tensor, second: Tensor) -> float | None:
    """Pearson correlation of the Euclidean distances of all pairs of examples in two features [examples, numbers].

    The distance-wise relations of Park et al. 2019 (arXiv:1904.05068, eq. 4 and 5), compared as Kriegeskorte et al.
    2008 compare representations. None where it is not defined: all distances are alike.
    """
    if len(first) < 3 or not (_varies(first) and _varies(second)):
        return None
    distances = torch.stack([torch.pdist(first.double()), torch.pdist(second.double())])
    correlation = torch.corrcoef(distances)[0, 1].item()
    return correlation if abs(correlation) <= 1 else None  # NaN is not


def _stages(taps: Mapping[str, Tensor]) -> list[str]:
    return sorted((name for name in taps if name.startswith("stage")), key=lambda name: int(name[5:]))


def _pooled(feature: Tensor) -> Tensor:
    """[batch, channels, *positions] to [batch, channels * at most 4 per axis]."""
    axes = feature.shape[2:]
    if axes and max(axes) > MOST_POSITIONS:
        feature = _POOLS[len(axes)](feature, tuple(min(axis, MOST_POSITIONS) for axis in axes))
    return feature.flatten(1)


def _varies(feature: Tensor) -> bool:
    """Whether examples differ by more than rounding."""
    spread = (feature - feature.mean(dim=0)).abs().max()
    return bool(spread > _SAME * feature.abs().max())


def _similarities(feature: Tensor) -> Tensor:
    """Inner products of all pairs of examples, with zeros for an example with itself; scaled, so that none overflows.

    Unbiased HSIC does not mind centring (it removes what all of a row share); it keeps digits that matter.
    """
    centred = feature.double() - feature.double().mean(dim=0)
    centred = centred / centred.abs().max()
    return (centred @ centred.T).fill_diagonal_(0)


def _hsic(one: Tensor, two: Tensor) -> float:
    """Song et al. 2012, eq. 5, of two matrices of similarities [examples, examples] without their diagonals."""
    n = len(one)
    rows, columns = one.sum(dim=0), two.sum(dim=0)
    trace = (one * two).sum()  # both are symmetric
    alone = rows.sum() * columns.sum() / ((n - 1) * (n - 2))
    return ((trace + alone - 2 / (n - 2) * rows.dot(columns)) / (n * (n - 3))).item()
