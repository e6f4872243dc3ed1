"""A rank's share of a batch, and how the answers to the whole batch come of all shares.

Outside the networks a tensor is the same on every rank, and so is its gradient. Inside, a rank has its own examples,
and gradients are multiplied by the number of ranks: then the mean over ranks is the gradient of the loss for every
parameter, those outside (of auxiliary modules, generators) like those inside. `_Gather` and `_Scatter` lead from one
to the other; each is the other's backward pass, so gradients of gradients are right too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from kdbench.errors import BadInput
from kdbench.task import Batch
from kdbench.training.randomness import RandomState, derive
from kdbench.training.ranks import Ranks


class Share:
    """The examples of a batch that this rank computes, `batch`.

    A batch of fewer examples than ranks is not divided: each computes all of it.
    """

    def __init__(self, whole: Batch, ranks: Ranks) -> None:
        self.batch, self.ranks = whole, ranks
        self._divided = 1 < ranks.size <= len(whole)
        if self._divided:
            self.sizes = ranks.sizes(len(whole))
            first = sum(self.sizes[: ranks.rank])
            self.rows = slice(first, first + self.sizes[ranks.rank])
            inputs = _Scatter.apply(whole.inputs, self)
            self.batch = Batch(inputs, whole.targets[self.rows], whole.indices[self.rows])

    def computing(self, network: nn.Module) -> AbstractContextManager[None]:
        """Has a network in train mode normalise over the whole batch, and draw (dropout) for its share only."""
        return self._together() if self._divided and network.training else nullcontext()

    @contextmanager
    def _together(self) -> Iterator[None]:
        with _own_draws(self.ranks.rank, self.batch.inputs.device), _NormalisedTogether(self):
            yield

    def gathered(self, output: Tensor, taps: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A network's output and taps, [share, ...] each, of the whole batch.

        Raises:
            BadInput: a tap's shape depends on the examples of a share (on the longest), so that the shares do not make
                what one process would see.
        """
        if not self._divided:
            return output, dict(taps)
        self._check_shapes({name: tap for name, tap in taps.items() if tap.ndim > 2})
        return _Gather.apply(output, self), {name: _Gather.apply(tap, self) for name, tap in taps.items()}

    def _check_shapes(self, taps: Mapping[str, Tensor]) -> None:
        if not taps:
            return
        own = torch.tensor([length for tap in taps.values() for length in tap.shape[1:]])
        bounds = torch.cat([own, -own])
        highest, negative = self.ranks.highest(bounds).chunk(2)
        if not highest.equal(-negative):
            raise BadInput(
                f"{', '.join(taps)}: one of these taps has a length that depends on the examples of a batch, which"
                " cannot be put together from shares of it",
                hint="train this method with ranks=1",
            )

    def whole(self, own: Tensor) -> Tensor:
        """[share, ...] to [batch, ...], without gradients."""
        found = own.new_zeros(sum(self.sizes), *own.shape[1:])
        found[self.rows] = own
        return self.ranks.sum(found)


class _Gather(torch.autograd.Function):
    """From this rank's rows to those of the whole batch: from inside the networks to outside."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, share: Share) -> Tensor:
        ctx.share = share
        return share.whole(own)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Scatter.apply(gradient, ctx.share) * ctx.share.ranks.size, None


class _Scatter(torch.autograd.Function):
    """From the rows of the whole batch to this rank's: from outside the networks to inside."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, share: Share) -> Tensor:
        ctx.share = share
        return whole[share.rows].clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Gather.apply(gradient, ctx.share) / ctx.share.ranks.size, None


class _Sum(torch.autograd.Function):
    """The sum of what each rank has inside the networks; every rank's part of the loss depends on it."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.sum(own.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(gradient, ctx.ranks), None


@contextmanager
def _own_draws(rank: int, device: torch.device) -> Iterator[None]:
    """Runs a block with draws of this rank's own. The generators that all ranks share come out of it alike: as they
    were, where nothing was drawn (so that a network without dropout leaves the draws of one process), or a draw on."""
    state = hashlib.sha256(torch.get_rng_state().numpy().tobytes()).digest()
    own = RandomState(derive(int.from_bytes(state[:8], "big"), "rank", rank), device)
    fresh = own.state
    with own:
        yield
    if any(not own.state[name].equal(fresh[name]) for name in fresh):
        torch.rand(())


class _NormalisedTogether(TorchFunctionMode):
    """Batch normalisation by the statistics of the whole batch, within a block.

    torch.nn.SyncBatchNorm takes CUDA tensors only, cannot be differentiated twice, and would put other modules in the
    place of those that taps are hooked to. The statistics: Chan, Golub, LeVeque, "Updating formulae and a pairwise
    algorithm for computing sample variances", 1979, https://doi.org/10.1007/978-3-642-51461-6_3.
    """

    def __init__(self, share: Share) -> None:
        super().__init__()
        self._share = share

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is functional.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """As torch.nn.functional.batch_norm, of input [share, channels, ...]."""
        if not training:
            return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        values = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        mean, variance = self._statistics(values)
        if running_mean is not None and running_var is not None:
            count = sum(self._share.sizes) * (input.numel() // (len(input) * input.shape[1]))
            running_mean.lerp_(mean.detach().to(running_mean.dtype), momentum)
            running_var.lerp_(variance.detach().to(running_var.dtype) * (count / (count - 1)), momentum)
        shape = (1, -1, *[1] * (input.ndim - 2))
        scale = (variance + eps).rsqrt()
        scale = scale if weight is None else scale * weight
        centred = (values - mean.view(shape)) * scale.view(shape)
        return (centred if bias is None else centred + bias.view(shape)).to(input.dtype)

    def _statistics(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and (biased) variance of the whole batch, [channels] each."""
        share = self._share
        own = torch.stack(torch.var_mean(values, dim=[0, *range(2, values.ndim)], correction=0))
        rows = [own if rank == share.ranks.rank else torch.zeros_like(own) for rank in range(share.ranks.size)]
        variances, means = _Sum.apply(torch.stack(rows), share.ranks).unbind(dim=1)
        weights = own.new_tensor(share.sizes)[:, None] / sum(share.sizes)
        mean = (weights * means).sum(dim=0)
        return mean, (weights * (variances + (means - mean).square())).sum(dim=0)
