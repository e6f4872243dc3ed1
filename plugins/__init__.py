"""The built-in plugins, by name; each leads to the file it lives in."""

from collections.abc import Mapping

from kdbench.hookspecs import hookimpl

_METHODS = "kdbench_plugins.methods"
_TASKS = "kdbench_plugins.tasks"
_ARCHITECTURES = "kdbench_plugins.architectures"


@hookimpl
def kdbench_methods() -> Mapping[str, str]:
    return {
        "scratch": f"{_METHODS}.scratch:Scratch",
        "label_smoothing": f"{_METHODS}.label_smoothing:LabelSmoothing",
        "kd": f"{_METHODS}.kd:KD",
        "fitnets": f"{_METHODS}.fitnets:FitNets",
        "attention_transfer": f"{_METHODS}.attention_transfer:AttentionTransfer",
        "rkd": f"{_METHODS}.rkd:RKD",
        "self_distillation": f"{_METHODS}.self_distillation:SelfDistillation",
        "born_again": f"{_METHODS}.born_again:BornAgain",
        "ensemble": f"{_METHODS}.ensemble:Ensemble",
    }


@hookimpl
def kdbench_tasks() -> Mapping[str, str]:
    return {
        "digits": f"{_TASKS}.digits:Digits",
        "cifar10": f"{_TASKS}.torchvision_sets:CIFAR10",
        "cifar100": f"{_TASKS}.torchvision_sets:CIFAR100",
        "fashion_mnist": f"{_TASKS}.torchvision_sets:FashionMNIST",
        "image_folder": f"{_TASKS}.image_folder:ImageFolder",
    }


@hookimpl
def kdbench_architectures() -> Mapping[str, str]:
    resnets = {
        f"resnet{depth}": f"{_ARCHITECTURES}.cifar_resnet:CifarResNet[depth={depth}]" for depth in (8, 14, 20, 32, 56)
    }
    wide = {
        f"wrn_{depth}_{widen}": f"{_ARCHITECTURES}.wide_resnet:WideResNet[depth={depth},widen={widen}]"
        for depth, widen in ((16, 1), (16, 2), (40, 2))
    }
    return {
        **resnets,
        **wide,
        "cnn": f"{_ARCHITECTURES}.plain_cnn:PlainCNN",
        "torchvision": f"{_ARCHITECTURES}.torchvision_models:TorchvisionClassifier",
    }
