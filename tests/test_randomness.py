"""Each trial's own state of the global generators."""

from __future__ import annotations

import torch

from kdbench.training.randomness import RandomState

CPU = torch.device("cpu")


def test_draws_go_on_where_they_were_and_nobody_else_notices() -> None:
    own, other = RandomState(1, CPU), RandomState(2, CPU)
    with own:
        alone = torch.rand(6)
    torch.manual_seed(0)
    outside = torch.rand(2)
    own, drawn = RandomState(1, CPU), []
    torch.manual_seed(0)
    for _ in range(3):
        with own:
            drawn.append(torch.rand(2))
        with other:
            torch.rand(5)
    assert torch.cat(drawn).equal(alone)
    assert torch.rand(2).equal(outside)


def test_what_raises_leaves_no_trace_outside() -> None:
    before = torch.get_rng_state()
    try:
        with RandomState(1, CPU):
            torch.rand(1)
            raise KeyError
    except KeyError:
        assert torch.get_rng_state().equal(before)


def test_a_state_of_another_device_is_left_alone() -> None:
    """A checkpoint that was written on CUDA, read on a CPU."""
    state = RandomState(1, CPU)
    with state:
        expected = torch.rand(3)
    again = RandomState(1, CPU)
    again.state["cuda"] = torch.zeros(16, dtype=torch.uint8)
    with again:
        assert torch.rand(3).equal(expected)
