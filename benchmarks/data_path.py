"""What forming, augmenting and normalising a batch costs: in batched tensors, as the engine does it, or through PIL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdbench import TensorSplit, torchvision_ops
from kdbench.augmentation import parse
from kdbench.training.randomness import generator
from kdbench_plugins.tasks._images import Normalise

from .bare import BareLoop
from .harness import Report, Table, Target, main
from .pacing import Paced
from .timing import Rounds, interleaved, median_interval
from .workloads import WORKLOADS

LIMIT = 0.02
IMAGES = 4096  # of 32 x 32 pixels, three channels
AUGMENTATION = ("crop[padding=4]", "flip")

TENSORS, PIL = "tensors", "PIL"


@dataclass(frozen=True)
class DataPath(Paced):
    """One batch by each way a round, and one step of KD on each workload, which are its measure."""

    workloads: tuple[str, ...] = ("resnet20", "resnet56", "wrn_40_2")
    warmup: int = 2


QUICK = DataPath(workloads=("resnet20", "wrn_40_2"), rounds=15)


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images one by one through PIL, as torchvision's CIFAR10 reads and augments them."""

    def __init__(self, split: TensorSplit, normalise: Normalise) -> None:
        self.images = split.inputs.permute(0, 2, 3, 1).numpy()
        self.labels = split.targets.tolist()
        mean, std = ([value / 255 for value in values] for values in (normalise.mean, normalise.std))
        torchvision_ops.ensure()
        from torchvision import transforms

        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def measure(setting: DataPath) -> Report:
    """Times both ways and the steps in turns, in one process and one thread each."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8, generator=random)
    split = TensorSplit(images, torch.randint(0, 100, (IMAGES,), generator=random))
    normalise = Normalise.to(images)
    contenders: dict[str, Callable[[], object]] = {
        TENSORS: _next(lambda: _by_tensors(split, normalise, setting.batch_size)),
        PIL: _next(lambda: DataLoader(Pictures(split, normalise), setting.batch_size, shuffle=True, drop_last=True)),
    }
    for name in setting.workloads:
        contenders[name] = _step(name, setting)
    rounds = interleaved(contenders, setting.rounds, setting.warmup, setting.clock)
    return _report(rounds, setting)


def _by_tensors(split: TensorSplit, normalise: Normalise, batch_size: int) -> Iterator[Tensor]:
    """An epoch's batches by the pieces that the engine forms them of."""
    augment, random = parse(AUGMENTATION), generator(0, "augmentation")
    order = torch.randperm(len(split), generator=random).split(batch_size)
    for batch in split.batches(order):
        yield normalise(augment(batch.inputs, random))


def _next(epoch: Callable[[], Any]) -> Callable[[], object]:
    """The next batch, epoch after epoch."""

    def endless() -> Iterator[object]:
        while True:
            yield from epoch()

    return endless().__next__


def _step(name: str, setting: DataPath) -> Callable[[], object]:
    """A step of bare KD on a batch that is there already."""
    ready = setting.bench(WORKLOADS[name], ["kd"])
    batch = next(iter(ready.loaded.data.train.batches([torch.arange(setting.batch_size)])))
    loop = BareLoop("kd", ready.student("kd"), ready.teacher, batch.inputs, WORKLOADS[name].optimizer)
    return lambda: loop.step(batch)


def _report(rounds: Rounds, setting: DataPath) -> Report:
    ways = [(way, rounds.median(way).shown(2, 1000)) for way in (TENSORS, PIL)]
    faster = median_interval(rounds.ratios([PIL], TENSORS)).shown(1)
    rows, targets = [], []
    for name in setting.workloads:
        shares = [median_interval(rounds.ratios([way], name)) for way in (TENSORS, PIL)]
        step = rounds.median(name).shown(1, 1000)
        rows.append((str(WORKLOADS[name]), step, *(share.shown(1, 100) for share in shares)))
        own = shares[0]
        targets.append(Target(f"share of a step, {WORKLOADS[name]}", own.value, LIMIT, "", own.low, own.high))
    said = f"batches of {setting.batch_size}, {setting.rounds} rounds; times ({setting.clock}): median (quartiles)"
    tables = (
        Table(f"One batch of 32 x 32 images, {said}. PIL takes {faster} times as long.", ("way", "ms"), ways),
        Table(
            "Beside a step of KD (bare loop, teacher's pass included): median share (95 % bootstrap interval).",
            ("pair", "step, ms", "tensors, % of it", "DataLoader and PIL, % of it"),
            rows,
        ),
    )
    question = (
        "Data path: random crop, flip and normalisation of CIFAR-sized images, as batches of tensors (the engine) or "
        "one by one through PIL in a DataLoader without workers."
    )
    return Report("data_path", question, tables, tuple(targets), rounds.seconds)


if __name__ == "__main__":
    main(measure, QUICK, DataPath())
