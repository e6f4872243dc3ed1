"""What each lever on speed is worth: those that a recipe can pull, in the engine, and others, on the hand-written loop.

`recipe.speedups` and `recipe.precision` are pulled one by one and together, and what the networks then answer is
compared with what they answer without.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, get_args
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._inductor.utils import clear_caches

from kdbench import Batch
from kdbench.recipe import Speedup
from kdbench.training.device import resolve_device
from kdbench.training.prediction import EVALUATION_BATCH

from .bare import BareLoop
from .engine_step import EngineStep, batches_of, fit
from .harness import Report, Table, main
from .pacing import Paced
from .timing import Rounds, interleaved, median_interval, seconds_of
from .workloads import WORKLOADS, Bench

OFF = "off"
SLOW = 1e-4  # the learning rate at which losses are compared

_SPEEDUPS = get_args(Speedup)
_WITH_AUGMENTATION = tuple(name for name in _SPEEDUPS if name != "stored_answers")

# What is changed in the recipe; "off again" shows what the instrument makes of no difference.
LEVERS: Mapping[str, Mapping[str, Any]] = {
    OFF: {},
    "off again": {},
    **{name: {"speedups": (name,)} for name in _SPEEDUPS},
    "precision: bf16": {"precision": "bf16"},
    "all but stored_answers": {"speedups": _WITH_AUGMENTATION, "precision": "bf16"},
    "all": {"speedups": _SPEEDUPS, "precision": "bf16"},
}

# KD first. Only the networks for images have the stages that feature methods look at.
_BY_ANSWER = ("kd", "kd[temperature=2]", "kd[temperature=8]", "dkd")
_BY_STAGES = ("kd", "fitnets[stages=joint]", "rkd", "attention_transfer")
COMPANY = {"images": _BY_STAGES, "sound": _BY_ANSWER, "text": _BY_ANSWER}

Work = Callable[[], object]
Found = tuple[list[tuple[str, ...]], Any]  # rows of a table, and the raw figures


@dataclass(frozen=True)
class Levers(Paced):
    """Which levers are pulled on which workloads.

    `compiled`: on which of them networks are compiled, which takes minutes; `evaluated`: the batch sizes of an
    evaluation; `fitting`: how often the teacher sees its examples beforehand; `passes`: how often the students do
    before losses are compared.
    """

    workloads: tuple[str, ...] = ("resnet56", "wrn_40_2", "conv_gru", "bert")
    levers: tuple[str, ...] = tuple(LEVERS)[1:]
    compiled: tuple[str, ...] = ("resnet56", "wrn_40_2", "conv_gru", "bert")
    evaluated: tuple[int, ...] = (64, 256, 1024)
    fitting: int = 10
    passes: int = 3
    rounds: int = 15
    warmup: int = 2


_SMALL = ("resnet56", "conv_gru")
QUICK = Levers(16, 4, 1, workloads=_SMALL, compiled=_SMALL[1:], evaluated=(64, 256), fitting=5, passes=1)


def measure(setting: Levers) -> Report:
    """Pulls the levers of the engine, then the others, workload by workload."""
    parts = {"engine": _in_engine, "parity": _parity, "bare": _bare, "compiling": _compiling}
    rows: dict[str, list[tuple[str, ...]]] = {part: [] for part in parts}
    samples: dict[str, Any] = {}
    for name in setting.workloads:
        ready = setting.bench(WORKLOADS[name], COMPANY[WORKLOADS[name].kind])
        fit(ready, setting.fitting)
        own = setting if name in setting.compiled else replace(setting, levers=_without_compiling(setting.levers))
        for part, tried in parts.items():
            if part != "compiling" or name in setting.compiled:
                lines, samples[f"{ready.workload}, {part}"] = tried(ready, own)
                rows[part] += [(str(ready.workload), *line) for line in lines]
    question = (
        "Levers: each option of a recipe that makes training faster, on and off in turns in the engine; then what is "
        "no option, on a hand-written loop. Teachers have learnt their few examples by heart."
    )
    return Report("levers", question, _tables(rows, setting), samples=samples)


def _without_compiling(levers: Sequence[str]) -> tuple[str, ...]:
    return tuple(lever for lever in levers if "compiled" not in LEVERS[lever].get("speedups", ()))


def _in_engine(ready: Bench, setting: Levers) -> Found:
    """KD alone, and in company, under every lever in turns."""
    lines: dict[str, list[str]] = {lever: [] for lever in (OFF, *setting.levers)}
    samples = {}
    methods, steps = COMPANY[ready.workload.kind], ready.workload.steps
    for company in (methods[:1], methods):
        engines = _engines(ready, company, setting.levers)
        for engine in engines.values():
            engine.lap()  # in which it compiles, where it does
        rounds = _rounds({lever: engine.lap for lever, engine in engines.items()}, setting)
        for lever, line in lines.items():
            ratio = median_interval(rounds.ratios([lever], OFF))
            line += [rounds.median(lever).shown(1, 1000 / steps), ratio.shown(2)]
        samples[len(company)] = rounds.seconds
    return [(lever, *line) for lever, line in lines.items()], samples


def _engines(ready: Bench, methods: Sequence[str], levers: Sequence[str], **recipe: object) -> dict[str, EngineStep]:
    return {lever: EngineStep(ready, methods, {**LEVERS[lever], **recipe}) for lever in (OFF, *levers)}


def _rounds(contenders: Mapping[str, Work], setting: Levers) -> Rounds:
    """The contenders in turns; an accelerator is waited for, so that its work is charged to whoever asked for it."""

    def waited_for(work: Work) -> None:
        work()
        if resolve_device(setting.device).type == "cuda":
            torch.cuda.synchronize()

    waited = {name: partial(waited_for, work) for name, work in contenders.items()}
    return interleaved(waited, setting.rounds, setting.warmup, setting.clock)


def _parity(ready: Bench, setting: Levers) -> Found:
    """How far the teacher's answers, and the losses of students in training, are from what they are without a lever."""
    lines: list[tuple[str, ...]] = []
    batches = batches_of(ready)
    # slowly: at a high learning rate any two runs that differ by a rounding drift apart
    engines = _engines(ready, COMPANY[ready.workload.kind], setting.levers, learning_rate=SLOW)
    answers = {lever: engine.teacher_logits(batches) for lever, engine in engines.items()}
    losses = {lever: engine.losses(batches, setting.passes) for lever, engine in engines.items()}
    for lever in setting.levers:
        agreement = (answers[lever].argmax(1) == answers[OFF].argmax(1)).float().mean()
        distance = (answers[lever] - answers[OFF]).norm() / answers[OFF].norm()
        difference = (losses[lever] / losses[OFF] - 1).abs().max()
        lines.append((lever, f"{100 * agreement:.1f}", f"{100 * distance:.4f}", f"{100 * difference:.4f}"))
    return lines, {lever: each.tolist() for lever, each in losses.items()}


def _bare(ready: Bench, setting: Levers) -> Found:
    """Other ways to write a line of the loop, against the usual one, which is the first of each."""
    batch, sizes = batches_of(ready)[0], dict.fromkeys((EVALUATION_BATCH, *setting.evaluated))
    ways: dict[str, dict[str, Work]] = {
        "teacher's pass": {
            "no_grad": partial(_ask, ready.teacher, [batch.inputs]),
            "inference_mode": partial(_ask, ready.teacher, [batch.inputs], torch.inference_mode),
        },
        "optimiser's step": {way: _optimiser(ready, batch, way) for way in ("for loop", "foreach", "fused")},
        f"evaluation of {max(sizes)}": {f"batches of {size}": _evaluation(ready, max(sizes), size) for size in sizes},
    }
    rounds = _rounds({way: work for works in ways.values() for way, work in works.items()}, setting)
    lines: list[tuple[str, ...]] = []
    for what, works in ways.items():
        usual, *others = works
        lines += [(what, usual, rounds.median(usual).shown(2, 1000), *_instead(rounds, way, usual)) for way in others]
    return lines, rounds.seconds


def _instead(rounds: Rounds, way: str, usual: str, steps: int = 1) -> tuple[str, str, str]:
    return way, rounds.median(way).shown(2, 1000 / steps), median_interval(rounds.ratios([way], usual)).shown(2)


def _ask(network: nn.Module, inputs: Sequence[Tensor], mode: Callable[[], Any] = torch.no_grad) -> None:
    with mode():
        for each in inputs:
            network(each)


def _optimiser(ready: Bench, batch: Batch, way: str) -> Work:
    loop = BareLoop("scratch", ready.student("scratch"), ready.teacher, batch.inputs, ready.workload.optimizer)
    for group in loop.optimizer.param_groups:
        group |= {"foreach": way == "foreach", "fused": way == "fused"}
    loop.step(batch)  # so that there are gradients
    return loop.optimizer.step


def _evaluation(ready: Bench, examples: int, size: int) -> Work:
    """The student over so many examples; those that there are come round again."""
    few = torch.cat([batch.inputs for batch in batches_of(ready)])
    inputs = few[torch.arange(examples) % len(few)].split(size)
    return partial(_ask, ready.student("scratch").eval(), inputs)


def _compiling(ready: Bench, setting: Levers) -> Found:
    """A student's step in the engine, alone and after its teacher's pass, and what compiling both takes."""
    lines, samples = [], {}
    for what, method in (("student's step", "scratch"), ("KD's step", "kd")):
        off, seconds = EngineStep(ready, [method], LEVERS[OFF]), _first_steps(ready, method)
        contenders = {OFF: off.lap, "compiled": EngineStep(ready, [method], LEVERS["compiled"]).lap}
        contenders["compiled"]()
        rounds = _rounds(contenders, setting)
        saved = (rounds.median(OFF).value - rounds.median("compiled").value) / ready.workload.steps
        pays = f"{seconds[0] / saved:,.0f}" if saved > 0 else "never"
        usual = rounds.median(OFF).shown(2, 1000 / ready.workload.steps)
        _, *compiled = _instead(rounds, "compiled", OFF, ready.workload.steps)
        lines.append((what, usual, *compiled, *(f"{each:.1f}" for each in seconds), pays))
        samples[what] = {**rounds.seconds, "first steps": seconds}
    return lines, samples


def _first_steps(ready: Bench, method: str) -> list[float]:
    """Wall seconds until a first lap is done: with nothing compiled; of other networks of the same architectures; in a
    process that finds the kernels on disk."""

    def first() -> None:
        EngineStep(ready, [method], LEVERS["compiled"]).lap()

    with TemporaryDirectory() as cache, patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=cache):
        _forget()
        torch.compile(torch.neg)(torch.ones(1))  # loads the compiler, once a process
        seconds = [seconds_of(first), seconds_of(first)]
        _forget()
        return [*seconds, seconds_of(first)]


def _forget() -> None:
    """Leaves of what is compiled only what lies on disk, as for another process."""
    torch.compiler.reset()
    clear_caches()


def _tables(rows: Mapping[str, Sequence[Sequence[str]]], setting: Levers) -> tuple[Table, ...]:
    said = f"batches of {setting.batch_size}, {setting.rounds} rounds"
    spread = f"Times ({setting.clock}): median (quartiles). Ratios: median of the rounds' (95 % bootstrap interval)."
    shown = {
        "engine": (
            f"One step in the engine, of KD alone and of four methods together, {said}. {spread} stored_answers: "
            "without the one pass that stores them.",
            ("lever", "KD, ms", "to off", "four methods, ms", "to off"),
        ),
        "parity": (
            "What becomes of the answers, over four batches. Losses: the largest difference among the four methods, in "
            f"pass {setting.passes} of training.",
            ("lever", "teacher's top-1 agreement, %", "teacher's logits off by, %", "losses off by, %"),
        ),
        "bare": (f"A line of the hand-written loop, {said}.", ("what", "usual", "ms", "instead", "ms", "to usual")),
        "compiling": (
            f"speedups: [compiled], one step in the engine, {said}. Wall seconds until a first step is done, with the "
            "compiler loaded: with nothing compiled, for other networks of the same architectures, and in a later "
            "process, which finds the kernels on disk. It pays after as many steps as save the first of these.",
            ("what", "off, ms", "compiled, ms", "to off", "first, s", "another, s", "later, s", "pays after, steps"),
        ),
    }
    return tuple(Table(title, ("pair", *headers), rows[part]) for part, (title, headers) in shown.items() if rows[part])


if __name__ == "__main__":
    main(measure, QUICK, Levers())
