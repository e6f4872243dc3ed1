"""The device that stands for a GPU: which operations wait for it, and that it computes what the host does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from .remote_device import REMOTE, FromPython, Watch

HERE = (Path(__file__).parent,)

WAITING: dict[str, Callable[[Tensor], Any]] = {
    "a number": lambda tensor: tensor[0].item(),
    "a condition": lambda tensor: bool(tensor.any()),
    "numbers": lambda tensor: tensor.tolist(),
    "a comparison": lambda tensor: tensor.equal(tensor + 1),
    "a copy to the host": lambda tensor: tensor.cpu(),
    "one that is said not to block": lambda tensor: tensor.to("cpu", non_blocking=True),
    "numbers of Python's": lambda tensor: torch.tensor([1.0], device=tensor.device),
    "more of them": lambda tensor: tensor.new_tensor([1.0]),
    "a copy from the host": lambda tensor: torch.zeros(3).to(tensor.device),
    "a copy into it": lambda tensor: tensor.copy_(torch.zeros(3)),
    "rows by a mask": lambda tensor: tensor[tensor > 0],
    "rows set by a mask": lambda tensor: tensor.index_put_((tensor > 0,), 2 * tensor),
    "a value of the device by a mask": lambda tensor: tensor.index_put_((tensor > 0,), tensor[0]),
    "the same by filling": lambda tensor: tensor.masked_fill_(tensor > 1, tensor.sum()),
    "a decomposition": lambda tensor: torch.linalg.cholesky(tensor.diag()),
    "rows by indices of the host": lambda tensor: tensor[torch.tensor([0])],
    "places": lambda tensor: tensor.nonzero(),
    "kinds": lambda tensor: tensor.unique(),
    "counts": lambda tensor: tensor.long().bincount(),
    "repetitions": lambda tensor: tensor.repeat_interleave(tensor.long()),
    "a draw by weights": lambda tensor: tensor.multinomial(1),
}
QUEUED: dict[str, Callable[[Tensor], Any]] = {
    "arithmetic": lambda tensor: (tensor * 2).sum() / torch.tensor(3.0),
    "a mask and one value": lambda tensor: tensor.masked_fill_(tensor > 0, 1.0),
    "the same by indexing": lambda tensor: tensor.__setitem__(tensor > 0, 1.0),
    "rows by indices": lambda tensor: tensor[tensor.argsort()],
    "a copy that does not block": lambda tensor: torch.zeros(3).to(tensor.device, non_blocking=True),
    "what starts there": lambda tensor: torch.rand(3, device=tensor.device) + tensor.new_zeros(3),
    "repetitions of known length": lambda tensor: tensor.repeat_interleave(tensor.long(), output_size=3),
    "classes": lambda tensor: one_hot(tensor.long(), 3),
    "what is on the host": lambda tensor: torch.ones(3).sum().item(),
}


@pytest.mark.parametrize("what", [*WAITING, *QUEUED])
def test_every_wait_is_seen_and_nothing_else(what: str) -> None:
    def asked() -> Any:
        return (WAITING | QUEUED)[what](tensor)

    with FromPython(), Watch(HERE, "asked") as watch:
        tensor = torch.ones(3).to(REMOTE)
        asked()
    assert bool(watch.waits) == (what in WAITING)


def test_it_computes_what_the_host_does() -> None:
    torch.manual_seed(0)
    with Watch(HERE, "nobody"):
        there = nn.Linear(3, 2).to(REMOTE)
        there(torch.ones(1, 3).to(REMOTE)).square().sum().backward()
        found = [each.cpu() for each in (there.weight.detach(), there.weight.grad)]
    torch.manual_seed(0)
    here = nn.Linear(3, 2)
    here(torch.ones(1, 3)).square().sum().backward()
    assert all(map(torch.equal, found, (here.weight.detach(), here.weight.grad)))
