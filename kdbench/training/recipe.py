"""A suite's recipe put to work: parameter groups, optimiser, learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from kdbench.recipe import Recipe

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def build_optimizer(
    recipe: Recipe, students: Sequence[nn.Module], auxiliary: nn.Module | None
) -> torch.optim.Optimizer:
    """SGD or AdamW over all students and the auxiliary module; the latter never decays, nor (by default) do
    biases and norms."""
    decayed: list[nn.Parameter] = []
    plain = list(auxiliary.parameters()) if auxiliary is not None else []
    for student in students:
        for module in student.modules():
            for name, parameter in module.named_parameters(recurse=False):
                exempt = isinstance(module, _NORMS) or name.endswith("bias")
                (plain if exempt and not recipe.decay_biases_and_norms else decayed).append(parameter)
    groups = [
        {"params": _unique(decayed), "weight_decay": recipe.weight_decay},
        {"params": _unique(plain), "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate, nesterov = recipe.learning_rate, recipe.nesterov and recipe.momentum > 0
    # foreach: all parameters in one call, as torch does on CUDA anyway: the same bits as one by one, in less time
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, foreach=True)
    return torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum, nesterov=nesterov, foreach=True)


def learning_rate(recipe: Recipe, progress: float) -> float:
    """The learning rate at `progress` in [0, 1): a pure function, so that a resumed run needs no scheduler state."""
    if progress < recipe.warmup:
        return recipe.learning_rate * max(progress / recipe.warmup, 1e-3)
    if recipe.schedule == "cosine":
        after = (progress - recipe.warmup) / (1 - recipe.warmup)
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * after))
    if recipe.schedule == "multistep":
        return recipe.learning_rate * recipe.gamma ** sum(progress >= milestone for milestone in recipe.milestones)
    return recipe.learning_rate


def _unique(parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    """Each parameter once: tied weights are listed by every module that holds them."""
    return list({id(parameter): parameter for parameter in parameters}.values())
