"""One trial in training: its students, auxiliary modules, optimiser, generators and curves."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import reduce

import torch
from torch import Tensor, nn

from kdbench.architecture import Architecture, Tap
from kdbench.method import Step
from kdbench.own_loop import Loop, Network, OwnLoop
from kdbench.plan import LoadedTask, Trial
from kdbench.profiling import span
from kdbench.task import Batch
from kdbench.training import prediction
from kdbench.training.compiled import CompiledForward, Compiling
from kdbench.training.loss_sums import LossSums
from kdbench.training.randomness import RandomState, derive, seeded
from kdbench.training.ranks import ALONE, Ranks
from kdbench.training.recipe import build_optimizer, learning_rate
from kdbench.training.taps import Tapped, TappedNetwork, expand

_NOTHING = Compiling()

TeacherTaps = Mapping[str, Mapping[str, Tensor]]


class Diverged(Exception):
    """The loss of a trial is no longer finite."""


class Learner:
    """Advances one trial batch by batch. What it computes depends on its trial only, never on its company."""

    def __init__(
        self,
        trial: Trial,
        loaded: LoadedTask,
        architecture: Architecture,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self.trial, self.loaded, self.device, self.ranks = trial, loaded, device, ranks
        self.networks = [self._build(architecture, index) for index in range(trial.method.needs.students)]
        self.students = [self._tap(network, architecture.taps(network)) for network in self.networks]
        self.teachers: Sequence[TappedNetwork] = ()
        asked = trial.method.needs.teacher
        self._wanted = ("logits", *asked) if asked else ()
        self.watches = frozenset(teacher.fingerprint for teacher in trial.watched)
        self.auxiliary: nn.Module | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.random = RandomState(derive(trial.seed, trial.stream, "steps"), device)
        self.curves: dict[str, list[float]] = {}
        self.started = time.time()
        self.epoch = 0
        self.examples = 0
        self.seconds = self.teacher_seconds = self.shared_seconds = 0.0
        self._losses_so_far = LossSums()
        self._compiled = [student for student in self.students if student.is_compiled]
        self._compiling = _NOTHING

    def _build(self, architecture: Architecture, index: int) -> nn.Module:
        with seeded(self.trial.seed, self.trial.stream, "weights", self.trial.student, index):
            network = architecture.build(self.loaded.data.spec).to(self.device)
        return self._laid_out(network, torch.channels_last)

    def _laid_out(self, network: nn.Module, memory_format: torch.memory_format) -> nn.Module:
        """The network in that format, if its recipe asks for another than the usual one."""
        if "channels_last" not in self.trial.recipe.speedups:
            return network
        return network.to(memory_format=memory_format)  # type: ignore[call-overload]

    def _tap(self, network: nn.Module, taps: Mapping[str, Tap]) -> TappedNetwork:
        """The network, compiled if its recipe says so; but those that a method calls as it likes, or takes gradients of
        gradients of, cannot be."""
        wanted = expand(self.trial.method.needs.student, taps)
        plain = self.trial.owns_loop or any(name.startswith("gradient") for name in wanted)
        compiles = "compiled" in self.trial.recipe.speedups and not plain
        compiled = CompiledForward(network, self.trial.student, training=True) if compiles else None
        return TappedNetwork(network, taps, wanted, self.loaded.task, compiled)

    def begin(
        self,
        example: Batch,
        answers: TeacherTaps,
        weights: Sequence[Mapping[str, Tensor]],
        teachers: Sequence[TappedNetwork] = (),
    ) -> None:
        """Gives the students their initial weights, builds the auxiliary modules to the shapes of an example batch, and
        the optimiser over everything. `weights`: the teachers' state dicts; `teachers`: for a method that asks them."""
        method = self.trial.method
        self.teachers = teachers
        for index, network in enumerate(self.networks):
            fresh = network.state_dict()
            with torch.no_grad(), seeded(self.trial.seed, self.trial.stream, "initial weights", index):
                given = method.initial_weights(fresh, weights)
            if given:
                network.load_state_dict({**fresh, **given})
            method.prepare(network, self.trial.parameters)
            network.eval()
        with torch.no_grad(), seeded(self.trial.seed, self.trial.stream, "auxiliary"):
            if isinstance(method, OwnLoop):
                self.auxiliary = method.build(self._loop(example, index=0, steps=1))
            else:
                answered = [student(example, self.ranks) for student in self.students]
                self.auxiliary = method.build_auxiliary(self._step(example, answered, answers, progress=0.0))
        if self.auxiliary is not None:
            self.auxiliary.to(self.device)
        self.optimizer = build_optimizer(self.trial.recipe, self.networks, self.auxiliary)
        self.train_mode()

    def train_mode(self) -> None:
        """Puts every trained module into train mode."""
        for module in self._modules():
            module.train()

    def _modules(self) -> list[nn.Module]:
        return [*self.networks, *([self.auxiliary] if self.auxiliary is not None else [])]

    def _parameters(self) -> Iterator[nn.Parameter]:
        assert self.optimizer is not None
        return (parameter for group in self.optimizer.param_groups for parameter in group["params"])

    def _step(self, batch: Batch, answered: Sequence[Tapped], teachers: TeacherTaps, progress: float) -> Step:
        task = self.loaded.task
        answers = [teachers[teacher.fingerprint] for teacher in self.trial.teachers]
        return Step(
            students=[each.taps for each in answered],
            # exactly the taps it asked for: what other trials of the cohort look at must not reach it
            teachers=[
                {name: taps[name] for name in expand(self._wanted, taps)} if self._wanted else {} for taps in answers
            ],
            task_loss=lambda logits: task.loss(logits, batch),
            indices=batch.indices,
            labels=task.labels(batch),
            progress=progress,
            auxiliary=self.auxiliary,
            host_indices=batch.host_indices,
        )

    def _loop(self, batch: Batch, index: int, steps: int) -> Loop:
        task, recipe = self.loaded.task, self.trial.recipe
        return Loop(
            students=[self._asked(student) for student in self.students],
            teachers=[self._asked(teacher) for teacher in self.teachers],
            batch=batch if self.trial.method.needs.data == "train" else None,
            task_loss=task.loss,
            rationales=task.rationales,
            spec=self.loaded.data.spec,
            size=recipe.batch_size,
            index=index,
            progress=index / max(steps - 1, 1),
            auxiliary=self.auxiliary,
        )

    def _asked(self, network: TappedNetwork) -> Network:
        return lambda batch: network(batch, self.ranks).taps

    def _losses(self, batch: Batch, teachers: TeacherTaps, step: int, steps: int) -> dict[str, Tensor]:
        method, half = self.trial.method, self.trial.recipe.precision == "bf16"
        precision = torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext()
        if isinstance(method, OwnLoop):
            with span("own loop", self.trial.method_name), precision:
                return method.loop_losses(self._loop(batch, step, steps))
        with span("student", self.trial.method_name), precision:
            answered = [student(batch, self.ranks) for student in self.students]
        with span("losses", self.trial.method_name):
            seen = self._step(batch, answered, teachers, step / max(steps - 1, 1))
            return {**method.losses(seen), **self._output_losses(batch, answered)}

    def advance(self, batch: Batch, teachers: TeacherTaps, step: int, steps: int) -> None:
        """One optimisation step: the `step`-th of `steps` in all."""
        assert self.optimizer is not None
        started = time.perf_counter()
        recipe = self.trial.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step / steps)
        with self.random:
            losses = self._losses(batch, teachers, step, steps)
            terms = {name: loss.reshape(()) if loss.ndim else loss for name, loss in losses.items()}
            total = reduce(torch.add, terms.values())
            for parameter in self._parameters():
                parameter.grad = None  # what zero_grad does, less its hooks for profilers
            with span("backward", self.trial.method_name):
                total.backward()
            with span("optimiser", self.trial.method_name):
                self.ranks.average_gradients(self._parameters())
                if recipe.clip_grad_norm is not None:
                    nn.utils.clip_grad_norm_(list(self._parameters()), recipe.clip_grad_norm)
                self.optimizer.step()
        self._losses_so_far.add(total, terms, len(batch))
        self._book(time.perf_counter() - started)
        self.examples += len(batch)

    def _book(self, seconds: float) -> None:
        """Charges a step that took so long, and the first one what compiling takes: as if alone, and what it really
        took. (A resumed trial was charged for it before.)"""
        compiling = sum((each.compiling for each in self._compiled), start=_NOTHING)
        seconds -= compiling.spent - self._compiling.spent
        self.seconds += seconds
        self.shared_seconds += seconds
        if not self.examples:
            self.seconds += compiling.seconds
            self.shared_seconds += compiling.spent
        self._compiling = compiling

    def _output_losses(self, batch: Batch, answered: Sequence[Tapped]) -> dict[str, Tensor]:
        """What the task asks of outputs that are no logits, summed over the students; named apart from the method's."""
        each = [self.loaded.task.output_losses(output, batch) for output, _ in answered]
        return {f"output/{name}": torch.stack([losses[name] for losses in each]).sum() for name in each[0]}

    def end_epoch(self, examples: int) -> None:
        """Closes the curves of an epoch of `examples` examples, scores the validation split.

        Raises:
            Diverged: the epoch's loss is not finite.
        """
        means = self._losses_so_far.means(examples)
        if not torch.isfinite(torch.tensor(means["loss"])):
            raise Diverged(f"the loss became {means['loss']} in epoch {self.epoch + 1}")
        validation = self.loaded.data.validation
        assert validation is not None
        assert self.optimizer is not None
        metric = self.loaded.validation_metric
        score = metric.score(prediction.answers(self.networks[0], validation, self.loaded, self.device))
        rate = self.optimizer.param_groups[0]["lr"]
        for name, value in {**means, f"validation_{metric.name}": score, "learning_rate": rate}.items():
            self.curves.setdefault(name, [0.0] * self.epoch).append(value)
        self.epoch += 1

    def replicated(self) -> Iterator[Tensor]:
        """What is the same on all ranks as long as they stay together: students, and the generators' states."""
        for network in self.networks:
            yield from network.state_dict().values()
        yield from self.random.state.values()

    def deploy(self) -> None:
        """Leaves the students as they are deployed: without hooks, and as the method finishes them."""
        for student in self.students:
            student.detach_hooks()
        for network in self.networks:
            self.trial.method.deploy(self._laid_out(network, torch.contiguous_format))

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training goes on from, by name, as a checkpoint holds it."""
        assert self.optimizer is not None
        found = {f"random.{name}": state for name, state in self.random.state.items()}
        for index, module in enumerate(self._modules()):
            found.update({f"module.{index}.{name}": value for name, value in module.state_dict().items()})
        for index, slots in self.optimizer.state_dict()["state"].items():
            found.update({f"optimizer.{index}.{name}": value for name, value in slots.items() if value is not None})
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `tensors` gave."""
        assert self.optimizer is not None
        self.random.state = _below(tensors, "random")
        for index, module in enumerate(self._modules()):
            module.load_state_dict(_below(tensors, f"module.{index}"))
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in _below(tensors, "optimizer").items():
            position, _, slot = name.partition(".")
            slots.setdefault(int(position), {})[slot] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = len(prefix) + 1
    return {name[start:]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}
