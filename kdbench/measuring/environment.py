"""Which software and which machine a measurement was taken with."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from kdbench import __version__

Environment = dict[str, str | int | float | None]

_MACHINE = ("os", "processor", "cores", "threads", "memory_gib", "device", "accelerator")


def environment(device: str | torch.device, ranks: int = 1) -> Environment:
    """Versions and machine, by allow-list: no environment variables, no names of hosts or users, no paths.

    "cores" are those that this process may use; "memory_gib" is the machine's, rounded; None where unknown. "ranks", if
    more than one, are the processes that trained together: the last bits of a result are then others than one's.
    """
    return {
        "python": platform.python_version(),
        "kdbench": __version__,
        "torch": torch.__version__,
        "torchvision": _version("torchvision"),
        "numpy": _version("numpy"),
        "os": f"{platform.system()} {platform.machine()}",
        "os_release": platform.release(),
        "processor": _processor(),
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "device": torch.device(device).type,
        "accelerator": _accelerator(torch.device(device)),
        **({"ranks": ranks} if ranks > 1 else {}),
    }


def machine_fingerprint(environment: Mapping[str, object]) -> str:
    """Twelve hex digits over the machine's part of `environment`: times are compared only where they are equal."""
    machine = json.dumps([environment[key] for key in (*_MACHINE, "ranks") if key in {*_MACHINE, *environment}])
    return hashlib.sha256(machine.encode()).hexdigest()[:12]


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _processor() -> str | None:
    """Linux tells the model in /proc only; elsewhere `platform` knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or None


def _cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory_gib() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (AttributeError, ValueError, OSError):
        return None


def _accelerator(device: torch.device) -> str | None:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return None if device.type == "cpu" else device.type
