"""The device that `--device` names."""

from __future__ import annotations

import torch

from kdbench.errors import BadInput

CHOICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str) -> torch.device:
    """`auto` takes CUDA, then Apple's MPS, then the CPU; `cuda:1` picks one card.

    Raises:
        BadInput: no such device, or not on this machine.
    """
    kind = name.partition(":")[0]
    if kind not in CHOICES:
        raise BadInput(f"unknown device '{name}'", hint=f"choices: {', '.join(CHOICES)}")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind == "auto":
        return torch.device(next(device for device in ("cuda", "mps", "cpu") if available[device]))
    if not available[kind]:
        hint = f"this torch ({torch.__version__}) sees: {', '.join(each for each, there in available.items() if there)}"
        raise BadInput(f"device '{name}' is not available here", hint=hint)
    return torch.device(name)
