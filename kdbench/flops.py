"""Counting multiply-accumulates, twice: from the traced graph (fvcore), and from what is dispatched (torch).

Both count a causal attention in full, and neither counts norms, pooling or element-wise operations. The tables
below hold what each library misses (attention, recurrent layers) and what fvcore alone would count (norms).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count, shape_wrapper

Shape = Sequence[int]

_NOT_COUNTED = (
    *("batch_norm", "group_norm", "instance_norm", "layer_norm"),
    *("adaptive_avg_pool2d", "grid_sampler", "upsample_bilinear2d", "upsample_nearest2d"),
)


def count_flops(step: Callable[[], object]) -> int:
    """FLOPs (2 per multiply-accumulate) that `step` costs when it is run, its backward pass included.

    Attention's backward pass counts the recomputation of the scores, which fused kernels do.
    """
    with _plain_attention(), _Counter() as counter:
        step()
    return counter.flops


def traced_macs(network: nn.Module, inputs: Tensor) -> int:
    """Multiply-accumulates of one forward pass, counted by fvcore on the traced graph.

    It leaves hooks on a network that raises: hand over a copy.
    """
    with _plain_attention(), warnings.catch_warnings():
        # fvcore scripts a loss of its own on import, which torch deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(network, inputs).set_op_handle(**_TRACED)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        return int(analysis.total())


class _Counter(TorchDispatchMode):
    """Adds up what torch's own formulas say of each operation that is dispatched.

    Not `FlopCounterMode`, which tells modules apart by hooks that fail under `torch.autograd.grad`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False leaves the method below as it is: else torch imports its compiler, seconds, to keep it from this."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        count = _FORMULAS.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=output)
        return output


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keeps transformer layers off their fast path: one opaque operation that nobody can count."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _recurrent_macs(inputs: Shape, weights: Sequence[Shape]) -> int:
    """Every weight matrix (input, hidden, projection; each layer and direction) meets every step of every example."""
    return prod(inputs[:-1]) * sum(prod(weight) for weight in weights if len(weight) == 2)


# What torch dispatches, with shapes in the place of tensors: FLOPs.


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


def _mkldnn_rnn(inputs: Shape, *rest: Any, **_: Any) -> int:
    return 2 * _recurrent_macs(inputs, rest[:4])


def _cudnn_rnn(inputs: Shape, weights: Sequence[Shape], *_: Any, **__: Any) -> int:
    return 2 * _recurrent_macs(inputs, weights)


def _twice(forward: Callable[..., int]) -> Callable[..., int]:
    return lambda *arguments, **keywords: 2 * forward(*arguments, **keywords)


_aten = torch.ops.aten
_DISPATCHED = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _aten.mkldnn_rnn_layer: _mkldnn_rnn,
    _aten.mkldnn_rnn_layer_backward: _twice(_mkldnn_rnn),
    _aten._cudnn_rnn: _cudnn_rnn,
    _aten._cudnn_rnn_backward: _twice(_cudnn_rnn),
}
_FORMULAS = {**flop_registry, **{operation: shape_wrapper(formula) for operation, formula in _DISPATCHED.items()}}


# What fvcore reads off the graph, as `torch._C.Value`s: multiply-accumulates.


def _shape(value: Any) -> list[int]:
    return value.type().sizes() if value.isCompleteTensor() else []


def _traced_attention(inputs: list[Any], outputs: list[Any]) -> int:
    query, key, value = (_shape(tensor) for tensor in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _traced_rnn(inputs: list[Any], outputs: list[Any]) -> int:
    weights = [_shape(member) for value in inputs for member in value.node().inputs() if _is_list(value)]
    return _recurrent_macs(_shape(inputs[0]), weights)


def _is_list(value: Any) -> bool:
    return value.node().kind() == "prim::ListConstruct"


def _traced_baddbmm(inputs: list[Any], outputs: list[Any]) -> int:
    return prod(_shape(inputs[1])) * _shape(inputs[2])[-1]


def _traced_same_convolution(inputs: list[Any], outputs: list[Any]) -> int:
    output = _shape(outputs[0])
    return output[0] * prod(output[2:]) * prod(_shape(inputs[1]))


_TRACED: dict[str, Callable[[list[Any], list[Any]], int]] = {
    **{f"aten::{name}": lambda inputs, outputs: 0 for name in _NOT_COUNTED},
    **{f"aten::{name}": _traced_rnn for name in ("gru", "lstm", "rnn_relu", "rnn_tanh")},
    "aten::scaled_dot_product_attention": _traced_attention,
    "aten::baddbmm": _traced_baddbmm,
    "aten::_convolution_mode": _traced_same_convolution,
}
