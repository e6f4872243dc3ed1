"""A student beside its teachers: what it answers, what it sees inside, and where it looks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdbench.architecture import Architecture
from kdbench.measuring.deployed import deployed
from kdbench.measuring.features import features, likeness
from kdbench.measuring.fidelity import fidelity
from kdbench.measuring.saliency import saliency_agreement
from kdbench.plan import LoadedTask, Trial
from kdbench.training.prediction import Predictions
from kdbench.training.taps import TappedNetwork


@dataclass(frozen=True)
class Built:
    """A network, and the architecture that knows its taps."""

    network: nn.Module
    architecture: Architecture


def against_teachers(
    trial: Trial, loaded: LoadedTask, own: Predictions, teachers: Mapping[str, Predictions]
) -> dict[str, float]:
    """Fidelity to the teachers that `trial` learnt from (without any: to the pair's, which it never saw), and their
    scores."""
    if trial.reference is None:
        return {}
    followed = [teachers[teacher.fingerprint] for teacher in trial.teachers or (trial.reference,)]
    combined = _mean_answer([each.logits for each in followed])
    primary = loaded.metrics[0]
    scored = {f"teacher_{primary.name}": primary.score(teachers[trial.reference.fingerprint].answers)}
    if len(followed) == 1:
        scored[f"own_teacher_{primary.name}"] = primary.score(followed[0].answers)
    elif set(primary.reads) <= {"logits", "targets"}:  # several searches, or sums over positions, have no mean
        scored[f"own_teacher_{primary.name}"] = primary.score({**own.answers, "logits": combined})
    return {**fidelity(own.logits, combined, own.labels), **scored}


def inside(student: Built, teacher: Built, loaded: LoadedTask, device: torch.device) -> dict[str, float]:
    """`likeness` of what two networks see in a sample of the test split, and `saliency_agreement` of where they look.

    It works on copies: the networks are left as they were, and so are the global generators.
    """
    with deployed(student.network, device) as ours, deployed(teacher.network, device) as theirs:
        looked = saliency_agreement(ours, theirs, loaded.data, device)
        seen = [
            features(_tapped(copy, each.architecture, loaded), loaded.data, device)
            for copy, each in ((ours, student), (theirs, teacher))
        ]
    return {**likeness(*seen), **looked}


def _tapped(network: nn.Module, architecture: Architecture, loaded: LoadedTask) -> TappedNetwork:
    taps = architecture.taps(network)
    wanted = [name for name in taps if name.startswith("stage") or name == "embedding"]
    return TappedNetwork(network, taps, wanted, loaded.task)


def _mean_answer(logits: list[Tensor]) -> Tensor:
    """One teacher's logits, or the log of several teachers' mean probabilities."""
    if len(logits) == 1:
        return logits[0]
    return torch.stack([answer.log_softmax(dim=1) for answer in logits]).logsumexp(dim=0) - math.log(len(logits))
