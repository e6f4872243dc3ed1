"""Method, Needs, Step: how a student learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from kdbench.hyperparameters import SearchSpace

if TYPE_CHECKING:
    from torch import Tensor, nn

ALL: Literal["all"] = "all"

Family = Literal["response", "feature", "relation", "online", "self", "ensemble", "control", "compression"]
FAMILIES: tuple[Family, ...] = get_args(Family)


@dataclass(frozen=True)
class Needs:
    """What a method wants to see, by tap name; the engine fetches it, once for all methods.

    Attributes:
        student: taps of each student ("logits", "embedding", "stage1"...); "stages" stands for every stage tap;
            "gradient1" is the gradient, at stage1, of the logits of the examples' labels (of the largest, where
            answers have no label), of the same shape.
        teacher: taps of each teacher, likewise; empty for methods that look at no teacher.
        students: networks trained jointly; the first is the one measured.
        teachers: how many frozen teachers; ALL = every teacher of the pair, at least two.
        teacher_architecture: "student" asks for teachers of the student's own architecture (born-again networks).
        teacher_training: "none" asks for teachers of the pair's architecture as they were before training (a placebo).
        targets: "teacher" trains on what the first teacher decodes instead of the data's targets (sequence-level
            distillation); such trials have batches of their own, in the same order.
        student_architecture: "teacher" measures a network of the first teacher's architecture, trained by the teacher's
            recipe: what compresses the teacher itself (pruning, quantising) rather than teach a smaller network.
        budget: how long a student trains: the epochs of the suite's recipe; as many as cost the FLOPs of plain
            distillation from the pair's teacher ("distillation"); none at all; or a number of times the recipe's.
        data: "none" withholds the training data; only methods that own their loop (`kdbench.OwnLoop`) may.
        paired: False draws initial weights, batches and augmentation from random streams of its own.
    """

    student: tuple[str, ...] = ("logits",)
    teacher: tuple[str, ...] = ("logits",)
    students: int = 1
    teachers: int | Literal["all"] = 1
    teacher_architecture: Literal["teacher", "student"] = "teacher"
    teacher_training: Literal["full", "none"] = "full"
    targets: Literal["data", "teacher"] = "data"
    student_architecture: Literal["student", "teacher"] = "student"
    budget: Literal["recipe", "distillation", "none"] | float = "recipe"
    data: Literal["train", "none"] = "train"
    paired: bool = True


NO_TEACHER = Needs(teacher=(), teachers=0)


@dataclass(frozen=True)
class Step:
    """One batch, as the networks of one trial answered it.

    Attributes:
        students: per student, its taps: logits [N, classes]; embedding [batch, features];
            stages [batch, channels, *positions].
        teachers: per teacher, the same, computed under `no_grad` and shared with other trials: read, never write.
        task_loss: the hard-label loss (a scalar) of logits [N, classes]; closes over the batch's targets.
        labels: the class of each row of the logits, [N]; None where rows have none of their own (frames of speech).
        indices: positions of the examples in the training set, [batch] (for memory banks).
        progress: 0 at the first step of training, 1 at the last.
        auxiliary: what `build_auxiliary` returned; trained with the student, thrown away after.
        host_indices: `indices` on the host, where they are known without asking the device.
    """

    students: Sequence[Mapping[str, Tensor]]
    teachers: Sequence[Mapping[str, Tensor]]
    task_loss: Callable[[Tensor], Tensor]
    indices: Tensor
    labels: Tensor | None = None
    progress: float = 0.0
    auxiliary: nn.Module | None = None
    host_indices: Tensor | None = None

    @property
    def largest_index(self) -> int:
        """The largest of `indices`; a GPU is waited for only where the host does not know them."""
        return int((self.indices if self.host_indices is None else self.host_indices).max())

    @property
    def student(self) -> Mapping[str, Tensor]:
        """The taps of the first student: the one that is measured."""
        return self.students[0]

    @property
    def teacher(self) -> Mapping[str, Tensor]:
        """The taps of the first teacher."""
        return self.teachers[0]


@dataclass(frozen=True)
class Method:
    """A way to train a student. Subclasses are frozen dataclasses: their fields are their hyper-parameters.

    The base class is the plain training on hard labels. A method never calls a network, never owns an optimiser
    and never touches data: it says what it needs to see, and turns a `Step` into losses.

    Attributes:
        family: what it learns from; by it the controls are found that apply to it. "control" and "compression" are no
            distillation methods.
        paper: author, year and where to find it.
        controls: the names of the controls that apply to it, where those of its family do not.
        explains, explains_fidelity: of a control: the families of methods whose score, and whose likeness to the
            teacher, it may explain. A plan runs it beside every method of these families.
        without_dark_knowledge: of a control: it is KD, less what the teacher says of single examples.
        search_space: what the tuned track tries, by parameter; bounds have three digits at most. The learning rate is
            tuned for every method, and must not be here; nor what changes the budget (epochs, networks).
        batch_coupled: whether a loss relates the examples of a batch to one another (Gram matrices, contrasts), so that
            it depends on the batch size; the others are means over the batch.
        expected_failed_checks: checks of `kdbench.testing` that it fails by its nature, each with the reason.
    """

    family: ClassVar[Family] = "control"
    paper: ClassVar[str] = ""
    controls: ClassVar[tuple[str, ...] | None] = None
    explains: ClassVar[tuple[Family, ...]] = ()
    explains_fidelity: ClassVar[tuple[Family, ...]] = ()
    without_dark_knowledge: ClassVar[bool] = False
    search_space: ClassVar[SearchSpace] = {}
    batch_coupled: ClassVar[bool] = False
    expected_failed_checks: ClassVar[Mapping[str, str]] = {}

    @property
    def needs(self) -> Needs:
        """The taps and networks this method looks at; may depend on its hyper-parameters."""
        return NO_TEACHER

    def teacher_method(self) -> Method | None:
        """The method its teachers were trained with; None: hard labels. (Later generations of born-again networks.)"""
        return None

    def initial_weights(
        self, student: Mapping[str, Tensor], teachers: Sequence[Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """Values that a student starts from in place of fresh ones, by their names in its state dict; {}: none.

        `student`: its fresh state dict; `teachers`: those of the trained teachers. The deployed cost stays the same.

        Raises:
            NotApplicable: these networks do not fit each other; the trial is skipped with this reason.
        """
        return {}

    def prepare(self, student: nn.Module, parameters: int) -> None:
        """Changes a student in place before it is trained (masks weights). It has its initial weights already;
        `parameters`: how many the pair's student has, the size that other compressions of the teacher aim at."""

    def deploy(self, student: nn.Module) -> None:
        """Changes a student in place after it was trained, before it is measured and stored (quantises weights)."""

    def build_auxiliary(self, example: Step) -> nn.Module | None:
        """Modules trained along with the student (regressors, exits), built to the shapes of `example`.

        Raises:
            NotApplicable: the method has no meaning for such answers; the trial is skipped with this reason.
        """
        return None

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The terms of the loss, each a scalar already weighted; their sum is minimised and each is logged."""
        return {"task": step.task_loss(step.student["logits"])}


def stage_taps(taps: Mapping[str, Tensor]) -> list[Tensor]:
    """The tensors of `stage1`, `stage2`, ... in order."""
    return [
        taps[name] for name in sorted((name for name in taps if name.startswith("stage")), key=lambda n: int(n[5:]))
    ]
