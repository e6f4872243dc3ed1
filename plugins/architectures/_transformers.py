"""What networks from the library transformers share: silence, pretrained weights, and attention that can be tapped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import dropout as drop

from kdbench import BadInput, DataSpec, MissingData, MissingExtra, Tap

from ._tokens import token_shape

ATTENTION = "kdbench"  # its name in the library's registry
PROJECTIONS = ("query", "key", "value")

_WEIGHTS = (".json", ".safetensors", ".bin")  # what the library makes a pretrained network of


def library(feature: str, extra: str = "nlp") -> Any:
    """The library transformers, which knows `attention` by the name `ATTENTION`.

    Raises:
        MissingExtra: it is not installed; `feature` is what needs it, and `extra` brings it.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra(feature, extra) from error
    transformers.AttentionInterface.register(ATTENTION, attention)
    transformers.AttentionMaskInterface.register(ATTENTION, _mask)
    return transformers


def _mask(**sizes: Any) -> Tensor | None:
    """The library's mask for its eager attention, made for batches without padding too: zeros, which change no bit, for
    to look whether there is any would wait for the device at every step."""
    from transformers.masking_utils import eager_mask

    return eager_mask(**{**sizes, "allow_is_bidirectional_skip": False})


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Neither log lines (of weights that are made anew) nor progress bars."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """The library's eager attention, bit for bit, with places on its way (`make_places`) that hooks can look at.

    Written out, not fused: on a GPU, the gradients of the fused kernels are not the same bits at each repetition. So
    the maps are there anyway, and taps on them cost nothing and change nothing. They are tapped before dropout: rows of
    probabilities, where the library's own `output_attentions` gives what dropout has left of them.

    Args:
        query, key, value: [batch, heads, positions, channels]. attention_mask: added to the scores; None: none.
    """
    places: nn.ModuleDict = module.places
    if "query" in places:
        query, key, value = (
            _through(places[name], heads) for name, heads in zip(PROJECTIONS, (query, key, value), strict=True)
        )
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    maps = places["attention"](scores.softmax(dim=-1))
    weights = drop(maps, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def _through(place: nn.Module, heads: Tensor) -> Tensor:
    """Shows [batch, heads, positions, channels] as [batch, positions, width], heads side by side: views, no copies."""
    side_by_side = place(heads.transpose(1, 2).flatten(2))
    return side_by_side.unflatten(2, (heads.shape[1], heads.shape[3])).transpose(1, 2)


def make_places(attention_layers: Any, *names: str) -> None:
    """Gives layers that use `attention` their places: "attention", and "query", "key" and "value" if asked for."""
    for layer in attention_layers:
        layer.places = nn.ModuleDict({name: nn.Identity() for name in (*names, "attention")})


def place_taps(layer: str, number: int, *names: str) -> dict[str, Tap]:
    """The taps on the places of one layer, whose attention is the submodule `layer`."""
    taps = {f"{name}{number}": Tap(f"{layer}.places.{name}", layout="channels_last") for name in names}
    return {**taps, f"attention{number}": Tap(f"{layer}.places.attention")}


def load_pretrained(transformers: Any, model: str, family: str, name: str, spec: DataSpec, **settings: Any) -> Any:
    """`load_checked`, of a network for texts.

    Raises:
        MissingData: it is neither here nor within reach.
        BadInput: it is damaged, of another family, or has another vocabulary or too few positions.
    """
    return load_checked(transformers, model, family, name, lambda config: _check(config, spec, name), **settings)


def load_checked(
    transformers: Any, model: str, family: str, name: str, check: Callable[[Any], None], **settings: Any
) -> Any:
    """The library's class `model` with pretrained weights, in train mode.

    Args:
        family: what the configuration must call itself. name: a folder that `save_pretrained` wrote, or a model on the
            hub. check: raises where the configuration does not fit. settings: what else `from_pretrained` takes.

    Raises:
        MissingData: it is neither here nor within reach.
        BadInput: it is damaged or of another family, or `check` says so.
    """
    folder = Path(name).expanduser()
    source = str(folder) if folder.is_dir() else name
    offline = {"local_files_only": folder.is_dir()}
    with quiet(transformers), _explained(name):
        config = transformers.AutoConfig.from_pretrained(source, **offline)
        if config.model_type != family:
            raise BadInput(f"'{name}' is no {family.upper()} model, but {config.model_type}")
        check(config)
        loaded = getattr(transformers, model).from_pretrained(
            source, **offline, attn_implementation=ATTENTION, **settings
        )
    return loaded.train()


def pretrained_digest(name: str | None, feature: str) -> str:
    """What tells the content of a pretrained model from another of the same name; "" for none.

    SHA-256 over the names and bytes of the files that a network is made of, or the commit that the hub (or its cache
    on this machine) has under that name.

    Raises:
        MissingExtra, MissingData, BadInput: the model is not to be had.
    """
    if name is None:
        return ""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        transformers = library(feature)
        with quiet(transformers), _explained(name):
            return str(transformers.AutoConfig.from_pretrained(name)._commit_hash)
    total = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in _WEIGHTS):
        try:
            with path.open("rb") as file:
                total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()};".encode())
        except OSError as error:
            raise BadInput(f"cannot read {path}: {error.strerror or error}") from error
    return total.hexdigest()


@contextmanager
def _explained(name: str) -> Iterator[None]:
    from safetensors import SafetensorError

    folder = Path(name).expanduser()
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        if folder.is_dir():
            raise BadInput(f"cannot read the pretrained model {folder}: {error}") from error
        raise MissingData(
            f"there is no pretrained model '{name}' on this machine, and the hub did not give it: {error}",
            hint="name a folder that save_pretrained wrote, or a model on the Hugging Face hub",
        ) from error


def _check(config: Any, spec: DataSpec, name: str) -> None:
    length, vocabulary = token_shape(spec)
    if config.vocab_size != vocabulary:
        raise BadInput(
            f"'{name}' knows {config.vocab_size} tokens, but the task has {vocabulary}",
            hint=f"give the task the model's own tokenizer, if it takes one: NAME[tokenizer={name}]",
        )
    if config.max_position_embeddings < length:
        raise BadInput(f"'{name}' takes {config.max_position_embeddings} tokens at most, not {length}")
