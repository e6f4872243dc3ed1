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
        "dml": f"{_METHODS}.dml:DML",
        "patient_kd": f"{_METHODS}.patient_kd:PatientKD",
        "minilm": f"{_METHODS}.minilm:MiniLM",
    }


@hookimpl
def kdbench_tasks() -> Mapping[str, str]:
    return {
        "digits": f"{_TASKS}.digits:Digits",
        "cifar10": f"{_TASKS}.torchvision_sets:CIFAR10",
        "cifar100": f"{_TASKS}.torchvision_sets:CIFAR100",
        "fashion_mnist": f"{_TASKS}.torchvision_sets:FashionMNIST",
        "image_folder": f"{_TASKS}.image_folder:ImageFolder",
        "sst2": f"{_TASKS}.text_sets:SST2",
        "ag_news": f"{_TASKS}.text_sets:AGNews",
        "cola": f"{_TASKS}.text_sets:CoLA",
        "text_file": f"{_TASKS}.text_file:TextFile",
        "hf_text": f"{_TASKS}.text_file:HubText",
        "turbofan": f"{_TASKS}.turbofan:Turbofan",
        "spoken_digits": f"{_TASKS}.spoken_digits:SpokenDigits",
        "audio_folder": f"{_TASKS}.audio_folder:AudioFolder",
        "speech_commands": f"{_TASKS}.speech_commands:SpeechCommands",
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
        "audio_cnn": f"{_ARCHITECTURES}.audio:AudioCNN",
        "ds_cnn": f"{_ARCHITECTURES}.audio:DSCNN",
        "conv_gru": f"{_ARCHITECTURES}.audio:ConvGRU",
        "bert": f"{_ARCHITECTURES}.bert:Bert",
        "text_cnn": f"{_ARCHITECTURES}.text_cnn:TextCNN",
        "conv1d": f"{_ARCHITECTURES}.sequence:SequenceCNN",
        "gru": f"{_ARCHITECTURES}.sequence:SequenceGRU",
        "torchvision": f"{_ARCHITECTURES}.torchvision_models:TorchvisionClassifier",
    }
