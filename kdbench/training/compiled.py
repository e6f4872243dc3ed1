"""Forward passes compiled by torch.compile, with the backward passes that belong to them: faster in long runs.

The guarantees hold because what is compiled depends on a network and its recipe alone, never on what this process has
compiled before: every size and number is a constant of the code, hooks are part of it, and other sizes of input (the
last, smaller batch of an epoch; shorter sequences) are answered as without it. Networks that are built alike share one
code, and later processes find it on disk.
"""

from __future__ import annotations

import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils._triton import has_triton

from kdbench.data import DataFolders
from kdbench.errors import BadInput, StoreError
from kdbench.files import write_atomic
from kdbench.profiling import span
from kdbench.provenance import digest

BACKEND = "inductor"
_STRICT: Literal["fail_on_recompile"] = "fail_on_recompile"
_VARIANTS = 4096  # of one function's code: layers of a class, each in every network that has another one of it

# What the compiler warns of that is its own doing: how it is imported, and how it goes about other libraries' code.
_WARNINGS: Mapping[str, type[Warning]] = {
    r"`torch\.jit\.": DeprecationWarning,
    r"The \.grad attribute of a Tensor that is not a leaf": UserWarning,
    r"Dynamo detected a call to a `functools\.lru_cache`": UserWarning,
}


@dataclass(frozen=True)
class Compiling:
    """What compiling took. `alone`: seconds where nothing is compiled yet, by what is compiled; `spent`: seconds now,
    0 where another network of its kind was first."""

    alone: Mapping[str, float] = field(default_factory=dict)
    spent: float = 0.0

    @property
    def seconds(self) -> float:
        """As if alone."""
        return sum(self.alone.values())

    def __add__(self, other: Compiling) -> Compiling:
        return Compiling({**self.alone, **other.alone}, self.spent + other.spent)


class CompiledForward:
    """A network's forward pass: compiled in one mode, for inputs of the first shape that it is called with; otherwise
    the plain network's. `training`: in train mode, with gradients; else in eval mode, without them. `name`: the
    network's, for people.

    What counts or follows operations (a TorchDispatchMode) sees those of the plain network. The network itself stays
    what it is. There are gradients from outputs and taps to weights and inputs, but none from an output to a tap, and
    they cannot be differentiated again.
    """

    def __init__(self, network: nn.Module, name: str, training: bool) -> None:
        self._network, self._name, self._training = network, name, training
        self._shape: torch.Size | None = None
        self._compiling: Compiling | None = None

    def __call__(self, inputs: Tensor) -> Tensor:
        """The network's output.

        Raises:
            BadInput: it cannot be compiled, or would have to be compiled once more.
            StoreError: there is no room for what is compiled.
        """
        if self._shape is None:
            self._shape = inputs.shape
        mode = self._network.training is torch.is_grad_enabled() is self._training
        if not mode or inputs.shape != self._shape or is_in_torch_dispatch_mode():
            return self._network(inputs)
        if self._compiling is None:
            return self._first(inputs)
        with _refusals(self._name), torch.compiler.set_stance(_STRICT):
            return _compiled(BACKEND)(self._network, inputs)

    def _first(self, inputs: Tensor) -> Tensor:
        known = _cache_folder() / f"{self._identity(inputs)}.json"
        with span("compiling", self._name), _refusals(self._name), _settings(), _timed() as took:
            output: Tensor = _compiled(BACKEND)(self._network, inputs)
        alone, spent = json.loads(known.read_bytes()) if known.exists() else 0.0, sum(took)
        if spent > alone:  # with nothing on disk yet
            alone = spent
            write_atomic(known, json.dumps(alone))
        self._compiling = Compiling({known.stem: alone}, spent)
        return output

    def _identity(self, inputs: Tensor) -> str:
        """Of what is compiled."""
        weights = [[name, list(tensor.shape)] for name, tensor in self._network.state_dict().items()]
        kind = inputs.device.type
        half = torch.is_autocast_enabled(kind) and str(torch.get_autocast_dtype(kind))
        given = [list(inputs.shape), list(inputs.stride()), str(inputs.dtype), kind, half]
        made_by = [torch.__version__, str(BACKEND), torch.get_num_threads()]
        return digest([str(self._network), weights, self._training, given, made_by])[:32]

    @property
    def compiling(self) -> Compiling:
        """What compiling it took; nothing, until it is called in its mode."""
        return self._compiling or Compiling()


def require_compiler(ranks: int, networks: Iterable[nn.Module]) -> None:
    """Nothing, where this process may compile, and has a compiler for the device of `networks`; where there are none,
    for the one that is taken by default.

    Raises:
        BadInput: it has none, or is one of several ranks.
    """
    leave_out = "leave `compiled` out of the recipe's speedups"
    if ranks > 1:  # they normalise over the whole batch by functions in the place of torch's
        raise BadInput("speedups: compiled is not made for several ranks", hint=f"train with ranks=1, or {leave_out}")
    used = {parameter.device.type for network in networks for parameter in network.parameters()}
    if used == {"cuda"} or (not used and torch.cuda.is_available()):
        if not has_triton():
            raise BadInput("speedups: compiled needs Triton on a GPU", hint=f"pip install triton, or {leave_out}")
    elif used <= {"cpu"} and not _cpp_compiler():
        hint = f"install g++ (Debian: apt install g++), name another in the variable CXX, or {leave_out}"
        raise BadInput("speedups: compiled needs a C++ compiler, and there is none", hint=hint)


def _cpp_compiler() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        return bool(get_cpp_compiler())
    except RuntimeError:
        return False


def _forward(network: nn.Module, inputs: Tensor) -> Tensor:
    return network(inputs)


@cache
def _compiled(backend: str) -> Any:
    """`_forward` compiled: one function for all networks, so that they share what is compiled."""
    # dropout draws what it draws without; as many processes compile as there are threads to train
    options: dict[str, str | int | bool | Callable[..., Any]] = {
        "fallback_random": True,
        "compile_threads": torch.get_num_threads(),
    }
    return torch.compile(_forward, backend=backend, dynamic=False, options=options if backend == "inductor" else None)


@contextmanager
def _settings() -> Iterator[None]:
    """How compiling goes on within a block."""
    import torch._dynamo.config as dynamo
    import torch._functorch.config as functorch

    with ExitStack() as patches:
        patches.enter_context(
            dynamo.patch(
                skip_nnmodule_hook_guards=False,  # else a network with other taps would be given the code of this one
                specialize_float=True,  # else a second network with another dropout would be given slower code
                recompile_limit=_VARIANTS,
                accumulated_recompile_limit=_VARIANTS,
                fail_on_recompile_limit_hit=True,
            )
        )
        # else the backward pass would be compiled in the midst of a step
        patches.enter_context(functorch.patch(force_non_lazy_backward_lowering=True))
        patches.enter_context(warnings.catch_warnings())
        for message, category in _WARNINGS.items():
            warnings.filterwarnings("ignore", message, category)
        yield


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Yields the seconds that compiling takes within a block, part by part."""
    from torch._dynamo.callback import callback_handler

    started: list[float] = []
    took: list[float] = []

    def start(*_: object) -> None:
        started.append(time.perf_counter())

    def end(*_: object) -> None:
        took.append(time.perf_counter() - started.pop())

    callback_handler.register_start_callback(start)
    callback_handler.register_end_callback(end)
    try:
        yield took
    finally:
        callback_handler.remove_start_callback(start)
        callback_handler.remove_end_callback(end)


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Says for people what the compiler says to its authors."""
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    try:
        yield
    except (RuntimeError, FailOnRecompileLimitHit) as error:
        changed = _STRICT in str(error)
        if not changed and isinstance(error, RuntimeError) and not isinstance(error, TorchDynamoException):
            raise  # what the network itself raises
        cause = getattr(error, "inner_exception", error)  # the backend's own
        said = "it changes as it is trained" if changed else str(cause).strip().partition("\n")[0]
        hint = "leave `compiled` out of the recipe's speedups"
        raise BadInput(f"torch.compile fails on {name}: {said}", hint=hint) from error


def _cache_folder() -> Path:
    """Where the compiler keeps what it makes: where its own variable says, or beside the downloaded data, apart for
    each machine, because code is made for the processor that it is made on.

    Raises:
        StoreError: it cannot be made.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    variable = "TORCHINDUCTOR_CACHE_DIR"
    if os.environ.get(variable) in (None, default_cache_dir()):  # which torch itself sets, in /tmp
        os.environ[variable] = str((DataFolders.from_environment().cache / "compiled" / platform.node()).absolute())
    folder = Path(os.environ[variable])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "set KDBENCH_CACHE to a folder that can be written and has room"
        raise StoreError(f"cannot write {folder}: {error.strerror or error}", hint=hint) from error
    return folder
