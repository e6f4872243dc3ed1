"""What a deployed network costs, by counting: the same on every machine."""

from __future__ import annotations

from safetensors.torch import save
from torch import nn

from kdbench.flops import count_flops as count_flops
from kdbench.flops import traced_macs
from kdbench.measuring.deployed import deployed, example_inputs
from kdbench.task import DataSpec


def deployed_cost(network: nn.Module, spec: DataSpec) -> dict[str, float]:
    """Counts of `network` in eval mode, answering one example; `network` is left as it was.

    Returns:
        "parameters": their number, shared ones once.
        "macs": multiply-accumulates of convolutions, matrix products, attention and recurrent layers (fvcore).
        "flops": 2 per multiply-accumulate.
        "file_bytes": size of its weights as one safetensors file.
        "macs_disagreement": how far torch's own counter is from "macs", relative to the larger; 0 where both agree.
    """
    with deployed(network) as model:
        inputs = example_inputs(spec, batch=1)
        macs = traced_macs(model, inputs)
        dispatched = count_flops(lambda: model(inputs)) / 2
        return {
            "parameters": float(sum(parameter.numel() for parameter in model.parameters())),
            "macs": float(macs),
            "flops": 2.0 * macs,
            "file_bytes": float(_file_bytes(model)),
            "macs_disagreement": abs(macs - dispatched) / max(macs, dispatched, 1),
        }


def _file_bytes(network: nn.Module) -> int:
    """A shared tensor is saved once, under its first name, and whole rows are saved whatever the memory format."""
    state = network.state_dict(keep_vars=True)
    unique = {id(tensor): name for name, tensor in reversed(state.items())}
    return len(save({name: state[name].detach().contiguous() for name in unique.values()}))
