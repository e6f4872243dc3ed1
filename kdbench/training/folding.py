"""Batch normalisation folded into the convolution before it: what a frozen network need not compute."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold_batch_norms(network: nn.Module, kept: Collection[str]) -> int:
    """Folds, in place, every norm that follows a convolution and nothing else; returns how many.

    The network must be in eval mode; it answers the same but for rounding. `kept`: paths of modules whose outputs are
    looked at, so that a convolution among them keeps its own. One whose forward pass cannot be traced stays as it is.
    """
    pairs = [(before, after) for before, after in _pairs(network) if before not in kept]
    for before, after in pairs:
        convolution, norm = network.get_submodule(before), network.get_submodule(after)
        network.set_submodule(before, fuse_conv_bn_eval(convolution, norm))  # type: ignore[type-var,arg-type]
        network.set_submodule(after, nn.Identity())
    return len(pairs)


def _pairs(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Paths of a convolution and of the norm that alone uses its output, each module called once."""
    try:
        nodes = list(fx.Tracer().trace(network).nodes)
    except Exception:  # whatever a stranger's forward pass raises when it is given no tensors
        return
    called = [str(node.target) for node in nodes if node.op == "call_module"]
    for node in nodes:
        source = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        before, after = str(source.target), str(node.target)
        alone = len(source.users) == 1 and called.count(before) == called.count(after) == 1
        convolution, norm = network.get_submodule(before), network.get_submodule(after)
        if alone and isinstance(convolution, _CONVOLUTIONS) and isinstance(norm, _NORMS) and norm.track_running_stats:
            yield before, after
