"""A device whose waits are seen, where there is no GPU: its tensors compute on the CPU, but say that they live on the
device "meta", so that what crosses over to the host is an operation that can be watched.

A GPU works through what it is given while Python goes on, until Python wants a number from it, or a tensor whose size
depends on numbers: then it stands still until the next work arrives.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

REMOTE = torch.device("meta")

_CPU = torch.device("cpu")


class Remote(Tensor):
    """A tensor on that device; `here` are its values, which nobody can have without an operation."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Remote:
        made = Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=REMOTE,
        )
        made.here = here
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _computed(func, args, kwargs or {})

    def tolist(self) -> Any:
        """The values, which are copied for it; torch's own would ask "meta" for them."""
        return self.cpu().tolist()


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operation returns, on the device that it is asked for, or else on that of its arguments."""
    device = kwargs.get("device")
    remote = any(map(_is_remote, _flat(args))) if device is None else device.type == REMOTE.type
    found = func(*map(_brought_here, args), **{name: _brought_here(value) for name, value in kwargs.items()})
    if not remote:
        return found
    if func is torch.ops.aten._pack_padded_sequence.default:
        return Remote(found[0]), found[1]  # sizes of batches, which stay on the host
    return return_and_correct_aliasing(func, args, kwargs, _sent(found))


def _brought_here(value: Any) -> Any:
    if isinstance(value, Remote):
        return value.here
    if isinstance(value, list | tuple):
        return type(value)(map(_brought_here, value))
    assert not (isinstance(value, Tensor) and value.is_meta), "made past the device, without values"
    return _CPU if isinstance(value, torch.device) else value


def _sent(value: Any) -> Any:
    if isinstance(value, Tensor):
        return Remote(value)
    return type(value)(map(_sent, value)) if isinstance(value, list | tuple) else value


def _is_remote(value: Any) -> bool:
    return isinstance(value, Remote)


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        yield from value if isinstance(value, list | tuple) else (value,)


class FromPython(TorchFunctionMode):
    """Sends numbers of Python's as a device gets them: made on the host, then copied, and waited for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or _CPU) == REMOTE:
            return func(*args, **{**kwargs, "device": _CPU}).to(REMOTE)
        if func is Tensor.new_tensor and _is_remote(args[0]):
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs}).to(REMOTE)
        if func is Tensor.__setitem__ and _is_remote(args[0]) and isinstance(args[2], int | float):
            args = (*args[:2], torch.tensor(args[2], dtype=args[0].dtype))  # which stays on the host
        return func(*args, **kwargs)


@dataclass(frozen=True)
class Wait:
    """An operation that waits for the device: the function that asks for it, and its line."""

    operation: str
    place: str
    line: str


class Watch(TorchDispatchMode):
    """Has the device compute, and gathers the waits of what the function `within` calls, but for those of `but`.

    `folders`: of the code that a wait is laid at the door of, rather than of torch's that it calls.
    """

    def __init__(self, folders: Sequence[Path], within: str, but: str = "") -> None:
        super().__init__()
        self.waits: set[Wait] = set()
        self._folders, self._within, self._but = folders, within, but

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _waits(func, args, kwargs):
            stack = list(_frames())
            names = {frame.f_code.co_name for frame in stack}
            if self._within in names and self._but not in names:
                self.waits.add(_wait_of(func, stack, self._folders))
        return _computed(func, args, kwargs)


def _frames() -> Iterator[FrameType]:
    """From the innermost to the outermost, but for those of this file."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename != __file__:
            yield frame
        frame = frame.f_back


def _wait_of(func: Any, stack: Sequence[FrameType], folders: Sequence[Path]) -> Wait:
    files = [Path(frame.f_code.co_filename) for frame in stack]
    owners = [next((folder for folder in folders if file.is_relative_to(folder)), None) for file in files]
    asking = next((i for i, owner in enumerate(owners) if owner), len(stack) - 1)
    behind = any(frame.f_code.co_name == "_engine_run_backward" for frame in stack[:asking])
    owner, code = owners[asking], stack[asking].f_code
    file = files[asking].relative_to(owner.parent).as_posix() if owner else code.co_filename
    place = "the backward pass" if behind else f"{file} {code.co_name}"
    return Wait(str(func.overloadpacket), place, f"{file}:{stack[asking].f_lineno}")


_DEPENDS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
_FILLING = {"masked_fill", "masked_fill_"}  # whose value CUDA reads, where it is a tensor
_CHECKED = {"multinomial", "_linalg_check_errors", "_linalg_svd"}  # what else CUDA reads by itself, and no tag tells
_COPIES = {"_to_copy", "copy_", "copy"}


def _waits(func: Any, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether CUDA finishes all earlier work first: compare `torch.cuda.set_sync_debug_mode`."""
    name = func.overloadpacket.__name__
    if name in _COPIES:
        return _copy_waits(name, args, kwargs)
    if not any(map(_is_remote, _flat(args))):
        return False
    if name in _INDEXING:
        indices = [index for index in args[1] if index is not None]
        masked = any(index.dtype in (torch.bool, torch.uint8) for index in indices)
        filled = len(args) > 2 and args[2].numel() == 1 and not _is_remote(args[2])  # that is masked_fill
        return (masked and not filled) or not all(map(_is_remote, indices))
    if name in _FILLING:
        return _is_remote(args[2])
    if name == "repeat_interleave" and kwargs.get("output_size") is not None:
        return False
    return name in _CHECKED or bool(_DEPENDS & set(func.tags))


def _copy_waits(name: str, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether a copy is from the device, or to it and waited for."""
    if name == "_to_copy":
        source, device = _is_remote(args[0]), kwargs.get("device")
        target = source if device is None else device == REMOTE
        waited = not kwargs.get("non_blocking")
    else:
        target, source = map(_is_remote, args[:2])
        waited = not (kwargs.get("non_blocking") or args[2:3] == (True,))
    return source != target and (source or waited)
