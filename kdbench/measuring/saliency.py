"""Whether a student looks where its teacher looks."""

from __future__ import annotations

from importlib.util import find_spec
from statistics import fmean

import torch
from torch import Tensor, nn

from kdbench.measuring.sample import even_sample
from kdbench.task import Data
from kdbench.training.prediction import prepared

MOST_EXAMPLES = 64


def saliency_agreement(student: nn.Module, teacher: nn.Module, data: Data, device: torch.device) -> dict[str, float]:
    """Rank correlation of the two networks' saliency maps for the teacher's top class; both in eval mode.

    A map is the absolute gradient of that class's logit by the input (Simonyan et al. 2014, arXiv:1312.6034; Captum's
    `Saliency`), summed over the colours of a pixel; bands and sensors stay apart. Spearman's correlation as in Adebayo
    et al. 2018 (arXiv:1810.03292, section 4), mean over an even sample of the test split.

    Returns:
        "saliency_agreement"; nothing for token inputs and answers with positions, where a network has no gradients
        (integer weights), where no map of an example varies, and where Captum (extra `saliency`) is not installed.
    """
    if data.spec.vocabulary is not None or data.spec.positions:
        return {}
    if find_spec("captum") is None:
        return {}
    sample = even_sample(len(data.test), MOST_EXAMPLES)
    (batch,) = prepared(data.test, [sample], data, device)
    with torch.no_grad():
        top = teacher(batch.inputs).argmax(dim=1)
    theirs, own = (_maps(network, batch.inputs, top) for network in (teacher, student))
    if theirs is None or own is None:
        return {}
    found = [value for pair in zip(own, theirs, strict=True) if (value := _rank_correlation(*pair)) is not None]
    return {"saliency_agreement": fmean(found)} if found else {}


@torch.enable_grad()
def _maps(network: nn.Module, inputs: Tensor, classes: Tensor) -> Tensor | None:
    """Saliency [examples, places], float64 on the CPU; None where gradients do not reach the inputs."""
    from captum.attr import Saliency

    asked = inputs.clone().requires_grad_()
    recurrent = any(isinstance(module, nn.RNNBase) for module in network.modules())
    # cuDNN gives recurrent layers gradients in training mode only
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled and not recurrent, deterministic=True):
        if not network(asked[:1]).requires_grad:
            return None
        saliency = Saliency(network).attribute(asked, target=classes, abs=True)
    if saliency.ndim == 4:
        saliency = saliency.sum(dim=1)
    return saliency.detach().cpu().double().flatten(1)


def _rank_correlation(first: Tensor, second: Tensor) -> float | None:
    from scipy.stats import spearmanr

    if min(len(first.unique()), len(second.unique())) < 2:
        return None
    return float(spearmanr(first.numpy(), second.numpy()).statistic)
