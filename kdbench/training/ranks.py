"""The ranks of a cohort: processes that train it together, each of which computes its share of every batch.

Every rank makes the whole batch, has its networks answer its own examples, and gets the answers to the others' from
the other ranks (`kdbench.training.shares`). So each computes the loss of the whole batch, whatever that relates, and
all take the same step: they stay alike from the first weights on, and any one of them can tell the result.

torch's DistributedDataParallel is not used. It must know at the end of a network's forward pass which parameters will
get a gradient, and looks for them behind the outputs. But here the loss is chosen later, by a method: it may look at
inner taps alone (a hint stage), so that a parameter behind the output gets none; it then fails, or waits for ever. And
it reports nothing to an inner backward pass, such as that for the gradient at a stage. So gradients are averaged when
the backward pass is over, which does not overlap with it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

_BUCKET = 25 << 20  # bytes of gradients that are averaged in one piece, as DistributedDataParallel has it
_PATIENCE = timedelta(seconds=60)  # for the others to fail as this one did
_FOR_EVER = timedelta(days=365)  # others may be measuring for hours; that one is dead is seen from outside


class RanksApart(Exception):
    """One rank failed where the others did not, or their weights differ: they cannot go on together."""


class Ranks:
    """`size` processes, of which this one is number `rank`; all must call the same methods in the same order.

    Alone, everything is as if there were no ranks.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: distributed.Store | None = None) -> None:
        """`store`: what all ranks read and write; see `join`."""
        self.rank, self.size, self._store = rank, size, store
        self._exchanges = self._failures = 0

    @classmethod
    def join(cls, meeting: Path, rank: int, size: int, device: torch.device) -> Ranks:
        """Waits for the others, which meet in the same new file on this machine, and talk through its loopback alone.

        On CUDA each takes the card of its own number, and must do so before it touches one.
        """
        if size == 1:
            return cls()
        for _, name in socket.if_nameindex():
            if name.startswith("lo"):
                os.environ.update(GLOO_SOCKET_IFNAME=name, NCCL_SOCKET_IFNAME=name)
        backend = "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(rank)
            backend = "cpu:gloo,cuda:nccl"
        store = distributed.FileStore(str(meeting), size)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_FOR_EVER)
        return cls(rank, size, store)

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes down what they come to."""
        return self.rank == 0

    def sizes(self, examples: int) -> list[int]:
        """How many examples of a batch each rank computes."""
        each, left = divmod(examples, self.size)
        return [each + (rank < left) for rank in range(self.size)]

    def sum(self, tensor: Tensor) -> Tensor:
        """Replaces a tensor by its sum over ranks, the same bits on all of them; returns it."""
        self._exchanges += 1
        distributed.all_reduce(tensor)
        return tensor

    def highest(self, tensor: Tensor) -> Tensor:
        """The highest value over ranks of each number of a tensor."""
        self._exchanges += 1
        found = tensor.clone()
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return found

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Gives all ranks the mean of their gradients; those that are absent are so everywhere, and stay it."""
        if self.size == 1:
            return
        for bucket in _buckets(each.grad for each in parameters if each.grad is not None):
            mean = self.sum(torch.cat([gradient.reshape(-1) for gradient in bucket])).div_(self.size)
            for gradient, values in zip(bucket, mean.split([each.numel() for each in bucket]), strict=True):
                gradient.copy_(values.view_as(gradient))

    def check_alike(self, tensors: Iterable[Tensor]) -> None:
        """Sees to it that these, of which each rank has its own, are the same everywhere.

        Raises:
            RanksApart: they are not. At least one rank raises it, and so ends the others.
        """
        if self.size == 1:
            return
        own = torch.stack([tensor.detach().double().sum().cpu() for tensor in tensors])
        if not own.equal(self.highest(own)):
            raise RanksApart("the ranks have come to different weights")

    def agree(self, error: BaseException) -> None:
        """Waits until the others have failed as this rank did, at the same place, so that all can go on without what
        failed.

        Raises:
            RanksApart: they have not; one that went on would wait for this one for ever.
        """
        if self._store is None:
            return
        self._failures += 1
        keys = [f"failure {self._failures} of rank {rank}" for rank in range(self.size)]
        own = f"{type(error).__name__} after {self._exchanges} exchanges"
        self._store.set(keys[self.rank], own)
        try:
            self._store.wait(keys, _PATIENCE)
        except RuntimeError:  # they have not written; torch has no error of its own for that
            raise RanksApart(f"rank {self.rank} alone failed: {type(error).__name__}: {error}") from error
        told = [self._store.get(key).decode() for key in keys]
        if any(each != own for each in told):
            raise RanksApart(f"the ranks failed at different places: {', '.join(told)}") from error


ALONE = Ranks()


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in order, in lists of one type and at most so many bytes, unless there is only one."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        size = sum(each.nbytes for each in bucket) + tensor.nbytes
        if bucket and (size > _BUCKET or bucket[0].dtype != tensor.dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
