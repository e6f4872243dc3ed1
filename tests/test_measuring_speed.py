"""Latency, memory, estimates and environment: their structure and bookkeeping; no test waits for a clock to agree."""

from __future__ import annotations

import json
import platform
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from kdbench.measuring.environment import environment, machine_fingerprint
from kdbench.measuring.estimate import step_seconds
from kdbench.measuring.latency import SINGLE_RUNS, deployed_speed
from kdbench.measuring.memory import peak_memory_bytes
from kdbench.task import DataSpec

SPEC = DataSpec((4,), classes=2)


class Probe(nn.Module):
    """Notes how it was called; on the class, because it is copies that are measured."""

    calls: ClassVar[list[tuple[int, bool, bool]]] = []

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.dropout, self.norm = nn.Linear(4, 2), nn.Dropout(0.5), nn.BatchNorm1d(2)

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls.append((len(inputs), self.training, torch.is_grad_enabled()))
        return self.norm(self.dropout(self.layer(inputs)))


@pytest.fixture
def probe() -> Probe:
    Probe.calls.clear()
    network = Probe()
    network.norm.eval()
    return network


def state(network: nn.Module) -> dict[str, object]:
    return {
        "modes": [module.training for module in network.modules()],
        "gradients": [(p.requires_grad, p.grad) for p in network.parameters()],
        "weights": {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()},
        "generator": torch.get_rng_state().numpy().tobytes(),
        "threads": torch.get_num_threads(),
        "gradients on": torch.is_grad_enabled(),
    }


MEASUREMENTS = {
    "speed": lambda network: deployed_speed(network, SPEC, "cpu", throughput_batch=8, min_run_time=0.001),
    "memory": lambda network: peak_memory_bytes(network, SPEC, "cpu"),
    "estimate, forward": lambda network: step_seconds(network, SPEC, 8, "cpu", backward=False),
    "estimate, backward": lambda network: step_seconds(network, SPEC, 8, "cpu", backward=True),
}


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_the_network_and_the_generator_are_left_as_they_were(probe, name):
    before = state(probe)
    MEASUREMENTS[name](probe)
    assert state(probe) == before
    assert Probe.calls


def test_speed_is_of_the_deployed_network_one_by_one_and_in_batches(probe):
    speed = deployed_speed(probe, SPEC, torch.device("cpu"), throughput_batch=8, min_run_time=0.001)
    assert set(speed) == {"latency_ms_p50", "latency_ms_p95", "throughput_per_s", "throughput_batch", "threads"}
    assert 0 < speed["latency_ms_p50"] <= speed["latency_ms_p95"]
    assert speed["throughput_per_s"] > 0
    assert speed["throughput_batch"] == 8
    assert speed["threads"] == torch.get_num_threads()
    assert {(training, gradients) for _, training, gradients in Probe.calls} == {(False, False)}
    batches = [batch for batch, _, _ in Probe.calls]
    assert set(batches) == {1, 8}
    assert batches.count(1) >= SINGLE_RUNS


def test_latencies_are_of_single_runs(probe, monkeypatch):
    """Where every timing lasts a second whatever it holds, one of several runs would seem faster than a second."""
    monkeypatch.setattr("torch.utils.benchmark.Timer._timeit", lambda timer, number: 1.0)
    speed = deployed_speed(probe, SPEC, "cpu", throughput_batch=8, min_run_time=0.5)
    assert speed["latency_ms_p50"] == speed["latency_ms_p95"] == 1000
    assert speed["throughput_per_s"] == 8


def test_an_estimate_runs_the_steps_that_it_times(probe):
    assert step_seconds(probe, SPEC, 6, "cpu", backward=False) > 0
    assert set(Probe.calls) == {(6, False, False)}
    Probe.calls.clear()
    assert step_seconds(probe, SPEC, 6, "cpu", backward=True) > 0
    assert set(Probe.calls) == {(6, True, True)}
    assert len(Probe.calls) >= 3


class Chain(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.first, self.activation, self.second = nn.Linear(4, 8), activation, nn.Linear(8, 2)
        self.register_buffer("scale", torch.ones(3))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        hidden = self.activation(hidden)
        return self.second(hidden.view(-1, 8))


HELD = 4 * (4 * 8 + 8 + 8 * 2 + 2 + 3)  # parameters and buffers, in float32


@pytest.mark.parametrize("batch", [1, 5])
def test_memory_is_what_is_held_plus_the_peak_of_what_lives(batch):
    """The peak is at the activation, whose input [batch, 8] and output live together; views add nothing."""
    assert peak_memory_bytes(Chain(nn.ReLU()), SPEC, "cpu", batch) == HELD + batch * 4 * (4 + 8 + 8)


def test_memory_of_an_activation_in_place_peaks_at_the_last_layer():
    assert peak_memory_bytes(Chain(nn.ReLU(inplace=True)), SPEC, "cpu") == HELD + 4 * (4 + 8 + 2)


def test_memory_does_not_depend_on_what_else_lives():
    company = [torch.zeros(1000) for _ in range(10)]
    first = peak_memory_bytes(Chain(nn.ReLU()), SPEC, "cpu")
    company.clear()
    assert peak_memory_bytes(Chain(nn.ReLU()), SPEC, "cpu") == first


def test_a_wider_network_needs_more_memory():
    images = DataSpec((3, 8, 8), classes=2)
    narrow, wide = (peak_memory_bytes(nn.Conv2d(3, width, 3), images, "cpu") for width in (4, 8))
    assert (narrow, wide) == tuple(4 * (width * 28 + 3 * 64 + width * 36) for width in (4, 8))


ALLOWED = {
    *("python", "kdbench", "torch", "torchvision", "numpy", "os", "os_release", "processor"),
    *("cores", "threads", "memory_gib", "device", "accelerator"),
}


def test_the_environment_is_an_allow_list(monkeypatch):
    monkeypatch.setenv("KDBENCH_TEST_SECRET", "swordfish")
    found = environment("cpu")
    assert set(found) == ALLOWED
    assert found["torch"] == torch.__version__
    assert found["cores"] >= 1
    assert found["threads"] == torch.get_num_threads()
    assert (found["device"], found["accelerator"]) == ("cpu", None)
    written = json.dumps(found)
    assert "swordfish" not in written
    assert platform.node() not in found.values()


def test_times_are_compared_within_one_machine_whatever_its_software():
    here = environment("cpu")
    assert machine_fingerprint(here) == machine_fingerprint(environment(torch.device("cpu")))
    assert machine_fingerprint({**here, "torch": "9.9"}) == machine_fingerprint(here)
    others = [{**here, key: "other"} for key in ("os", "processor", "cores", "threads", "memory_gib", "accelerator")]
    assert len({machine_fingerprint(other) for other in [here, *others]}) == 7
    assert len(machine_fingerprint(here)) == 12
