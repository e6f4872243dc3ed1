"""kdbench: does knowledge distillation really work here?

These are the names that a plugin may import; everything else may change without notice.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdbench.architecture import Architecture as Architecture
    from kdbench.architecture import Tap as Tap
    from kdbench.data import DataFile as DataFile
    from kdbench.data import DataFolders as DataFolders
    from kdbench.errors import BadInput as BadInput
    from kdbench.errors import MissingData as MissingData
    from kdbench.errors import MissingExtra as MissingExtra
    from kdbench.errors import NotApplicable as NotApplicable
    from kdbench.hookspecs import hookimpl as hookimpl
    from kdbench.hyperparameters import Choices as Choices
    from kdbench.hyperparameters import Count as Count
    from kdbench.hyperparameters import Fraction as Fraction
    from kdbench.hyperparameters import Positive as Positive
    from kdbench.hyperparameters import Range as Range
    from kdbench.hyperparameters import Weight as Weight
    from kdbench.losses import common_positions as common_positions
    from kdbench.losses import full_precision as full_precision
    from kdbench.losses import soft_loss as soft_loss
    from kdbench.method import ALL as ALL
    from kdbench.method import NO_TEACHER as NO_TEACHER
    from kdbench.method import Family as Family
    from kdbench.method import Method as Method
    from kdbench.method import Needs as Needs
    from kdbench.method import Step as Step
    from kdbench.method import stage_taps as stage_taps
    from kdbench.metrics import share as share
    from kdbench.own_loop import Loop as Loop
    from kdbench.own_loop import OwnLoop as OwnLoop
    from kdbench.splits import LoadedSplit as LoadedSplit
    from kdbench.splits import TensorSplit as TensorSplit
    from kdbench.task import IGNORED as IGNORED
    from kdbench.task import Answers as Answers
    from kdbench.task import Batch as Batch
    from kdbench.task import Data as Data
    from kdbench.task import DataSpec as DataSpec
    from kdbench.task import Metric as Metric
    from kdbench.task import Split as Split
    from kdbench.task import Task as Task

__version__ = "0.1.0"

_HOME = {
    "kdbench.architecture": ("Architecture", "Tap"),
    "kdbench.data": ("DataFile", "DataFolders"),
    "kdbench.errors": ("BadInput", "MissingData", "MissingExtra", "NotApplicable"),
    "kdbench.hookspecs": ("hookimpl",),
    "kdbench.hyperparameters": ("Choices", "Count", "Fraction", "Positive", "Range", "Weight"),
    "kdbench.losses": ("common_positions", "full_precision", "soft_loss"),
    "kdbench.method": ("ALL", "NO_TEACHER", "Family", "Method", "Needs", "Step", "stage_taps"),
    "kdbench.metrics": ("share",),
    "kdbench.own_loop": ("Loop", "OwnLoop"),
    "kdbench.splits": ("LoadedSplit", "TensorSplit"),
    "kdbench.task": ("IGNORED", "Answers", "Batch", "Data", "DataSpec", "Metric", "Split", "Task"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted([*_MODULE_OF, "__version__"])


def __getattr__(name: str) -> Any:
    """Imports a public name on first use, so that `import kdbench` stays fast and free of torch."""
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'kdbench' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
