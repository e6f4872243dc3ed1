"""BERT (Devlin et al. 2019, arXiv:1810.04805), from the library transformers: of any size, or pretrained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from kdbench import Architecture, BadInput, Count, DataSpec, Fraction, MissingData, MissingExtra, Tap

from ._tokens import token_shape

# Written out, not fused: on a GPU, the gradients of the fused kernels are not the same bits at each repetition.
_ATTENTION = "eager"


@dataclass(frozen=True)
class Bert(Architecture):
    """A BERT encoder with a linear classifier on its pooled first token; random initial weights, or pretrained ones.

    Attributes:
        layers, width, heads: of the encoder; the feed-forward layers are 4 times as wide.
        dropout: everywhere that BERT has it: embeddings, attention, both sublayers and before the classifier.
        pretrained: a folder that `save_pretrained` wrote, or a model on the Hugging Face hub, whose sizes and dropout
            then replace those above, but for the classifier, which is new. The task must split texts with the same
            model's tokenizer, e.g. sst2[tokenizer=google-bert/bert-base-uncased].
    """

    layers: Count = 2
    width: Count = 128
    heads: Count = 2
    dropout: Fraction = 0.1
    pretrained: str | None = None

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, not {self.width} for {self.heads}")

    def build(self, spec: DataSpec) -> nn.Module:
        """
        Raises:
            MissingExtra: the library transformers is not installed.
            MissingData: the pretrained model is neither here nor within reach.
            BadInput: the inputs are no token ids, or the pretrained model is no BERT or has another vocabulary.
        """
        length, vocabulary = token_shape(spec)
        transformers = _library()
        if self.pretrained is not None:
            return SentenceClassifier(self._load(transformers, spec, self.pretrained))
        config = transformers.BertConfig(
            vocab_size=vocabulary,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=4 * self.width,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            max_position_embeddings=length,
            num_labels=spec.classes,
            attn_implementation=_ATTENTION,
        )
        with _quiet(transformers):
            return SentenceClassifier(transformers.BertForSequenceClassification(config))

    def _load(self, transformers: Any, spec: DataSpec, name: str) -> nn.Module:
        folder = Path(name).expanduser()
        source = str(folder) if folder.is_dir() else name
        offline = {"local_files_only": folder.is_dir()}
        with _quiet(transformers):
            try:
                config = transformers.AutoConfig.from_pretrained(source, **offline)
                _check(config, spec, name)
                return transformers.BertForSequenceClassification.from_pretrained(
                    source,
                    **offline,
                    num_labels=spec.classes,
                    attn_implementation=_ATTENTION,
                    ignore_mismatched_sizes=True,  # a classifier of another number of classes, which is made anew
                ).train()
            except (OSError, ValueError, SafetensorError) as error:
                if folder.is_dir():
                    raise BadInput(f"cannot read the pretrained model {folder}: {error}") from error
                raise MissingData(
                    f"there is no pretrained model '{name}' on this machine, and the hub did not give it: {error}",
                    hint="name a folder that save_pretrained wrote, or a model on the Hugging Face hub",
                ) from error

    def taps(self, network: nn.Module) -> Mapping[str, Tap]:
        """stage1..N: what each layer answers at each token; embedding: the pooled first token, before dropout.

        query1..N, key1..N, value1..N: the layers' projections, [batch, width, length] with the heads side by side, from
        which methods make attention maps and relations (MiniLM). Padding has features too: nobody attends to them.
        """
        assert isinstance(network, SentenceClassifier)
        taps = {"embedding": Tap("model.bert.pooler")}
        for number in range(len(network.model.bert.encoder.layer)):
            layer = f"model.bert.encoder.layer.{number}"
            taps[f"stage{number + 1}"] = Tap(layer, layout="channels_last")
            for projection in ("query", "key", "value"):
                taps[f"{projection}{number + 1}"] = Tap(f"{layer}.attention.self.{projection}", layout="channels_last")
        return taps


class SentenceClassifier(nn.Module):
    """Token ids [batch, length], 0 for padding, to logits [batch, classes]: transformers' model in torch's manners."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens, attention_mask=tokens != 0).logits


def _check(config: Any, spec: DataSpec, name: str) -> None:
    length, vocabulary = token_shape(spec)
    if config.model_type != "bert":
        raise BadInput(f"'{name}' is no BERT model, but {config.model_type}")
    if config.vocab_size != vocabulary:
        raise BadInput(
            f"'{name}' knows {config.vocab_size} tokens, but the task has {vocabulary}",
            hint=f"give the task the model's own tokenizer: NAME[tokenizer={name}]",
        )
    if config.max_position_embeddings < length:
        raise BadInput(f"'{name}' takes {config.max_position_embeddings} tokens at most, not {length}")


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
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


def _library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("the architecture 'bert'", "nlp") from error
    return transformers
