"""How fast a deployed network answers on this machine."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.utils.benchmark import Timer

from kdbench.measuring.deployed import deployed, example_inputs
from kdbench.task import DataSpec

SINGLE_RUNS = 50  # with fewer, the 95th percentile is just the worst


def deployed_speed(
    network: nn.Module,
    spec: DataSpec,
    device: str | torch.device,
    *,
    throughput_batch: int = 64,
    min_run_time: float = 0.2,
) -> dict[str, float]:
    """Latency and throughput of `network` in eval mode on `device`, with torch's present number of threads.

    Latencies are of single forward passes, each timed by itself (and synchronised, on an accelerator) after two
    untimed ones: at least 50, and `min_run_time` seconds of them. Means over blocks would hide the slow ones that
    the 95th percentile is about. The throughput, where they do not matter, is from the median block.

    Returns:
        "latency_ms_p50", "latency_ms_p95": percentiles at batch 1, in milliseconds.
        "throughput_per_s": examples per second, in batches of "throughput_batch".
        "threads": CPU threads within an operation.
    """
    with deployed(network, device) as model:
        latencies = _single_runs(_timer(model, spec, 1, device), min_run_time)
        block = _timer(model, spec, throughput_batch, device).blocked_autorange(min_run_time=min_run_time)
    p50, p95 = np.percentile(latencies, [50, 95])
    return {
        "latency_ms_p50": 1000 * float(p50),
        "latency_ms_p95": 1000 * float(p95),
        "throughput_per_s": throughput_batch / block.median,
        "throughput_batch": float(throughput_batch),
        "threads": float(torch.get_num_threads()),
    }


def _timer(model: nn.Module, spec: DataSpec, batch: int, device: str | torch.device) -> Timer:
    names = {"model": model, "inputs": example_inputs(spec, batch, device)}
    return Timer("model(inputs)", globals=names, num_threads=torch.get_num_threads())


def _single_runs(timer: Timer, min_run_time: float) -> list[float]:
    timer.timeit(number=10)  # caches, kernel choices and clocks settle
    seconds: list[float] = []
    total = 0.0
    while len(seconds) < SINGLE_RUNS or total < min_run_time:
        seconds.append(timer.timeit(number=1).median)
        total += seconds[-1]
    return seconds
