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
        "longer_scratch": f"{_METHODS}.longer_scratch:LongerScratch",
        "independent_student": f"{_METHODS}.independent_student:IndependentStudent",
        "label_smoothing": f"{_METHODS}.label_smoothing:LabelSmoothing",
        "deep_supervision": f"{_METHODS}.deep_supervision:DeepSupervision",
        "independent_pair": f"{_METHODS}.independent_pair:IndependentPair",
        "shuffled_teacher": f"{_METHODS}.shuffled_teacher:ShuffledTeacher",
        "class_mean_teacher": f"{_METHODS}.class_mean_teacher:ClassMeanTeacher",
        "untrained_teacher": f"{_METHODS}.untrained_teacher:UntrainedTeacher",
        "magnitude_pruning": f"{_METHODS}.magnitude_pruning:MagnitudePruning",
        "int8": f"{_METHODS}.int8:Int8",
        "kd": f"{_METHODS}.kd:KD",
        "ofa": f"{_METHODS}.ofa:OFA",
        "dist": f"{_METHODS}.dist:DIST",
        "dkd": f"{_METHODS}.dkd:DKD",
        "logit_standardization": f"{_METHODS}.logit_standardization:LogitStandardization",
        "fitnets": f"{_METHODS}.fitnets:FitNets",
        "vid": f"{_METHODS}.vid:VID",
        "crd": f"{_METHODS}.crd:CRD",
        "reviewkd": f"{_METHODS}.reviewkd:ReviewKD",
        "attention_transfer": f"{_METHODS}.attention_transfer:AttentionTransfer",
        "rkd": f"{_METHODS}.rkd:RKD",
        "cc": f"{_METHODS}.cc:CC",
        "pkt": f"{_METHODS}.pkt:PKT",
        "sp": f"{_METHODS}.sp:SP",
        "self_distillation": f"{_METHODS}.self_distillation:SelfDistillation",
        "born_again": f"{_METHODS}.born_again:BornAgain",
        "tf_kd": f"{_METHODS}.tf_kd:TfKD",
        "ensemble": f"{_METHODS}.ensemble:Ensemble",
        "dml": f"{_METHODS}.dml:DML",
        "explanation_guided": f"{_METHODS}.explanation_guided:ExplanationGuided",
        "data_free": f"{_METHODS}.data_free:DataFree",
        "step_by_step": f"{_METHODS}.step_by_step:StepByStep",
        "sequence_kd": f"{_METHODS}.sequence_kd:SequenceKD",
        "patient_kd": f"{_METHODS}.patient_kd:PatientKD",
        "minilm": f"{_METHODS}.minilm:MiniLM",
        "distilbert": f"{_METHODS}.distilbert:DistilBERT",
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
        "multi30k": f"{_TASKS}.multi30k:Multi30k",
        "cose": f"{_TASKS}.cose:CosE",
        "shakespeare": f"{_TASKS}.shakespeare:Shakespeare",
        "text_lm": f"{_TASKS}.shakespeare:TextLM",
        "text_file": f"{_TASKS}.text_file:TextFile",
        "hf_text": f"{_TASKS}.text_file:HubText",
        "turbofan": f"{_TASKS}.turbofan:Turbofan",
        "bccd": f"{_TASKS}.bccd:BCCD",
        "spoken_digits": f"{_TASKS}.spoken_digits:SpokenDigits",
        "audio_folder": f"{_TASKS}.audio_folder:AudioFolder",
        "speech_commands": f"{_TASKS}.speech_commands:SpeechCommands",
        "an4": f"{_TASKS}.an4:AN4",
        "hf_speech": f"{_TASKS}.hf_speech:HubSpeech",
        "connected_digits": f"{_TASKS}.connected_digits:ConnectedDigits",
        "camvid": f"{_TASKS}.camvid:CamVid",
        "segmentation_folder": f"{_TASKS}.segmentation_folder:SegmentationFolder",
    }


@hookimpl
def kdbench_architectures() -> Mapping[str, str]:
    resnets = {
        f"resnet{depth}": f"{_ARCHITECTURES}.cifar_resnet:CifarResNet[depth={depth}]"
        for depth in (8, 14, 20, 32, 56, 110)
    }
    wide = {
        f"wrn_{depth}_{widen}": f"{_ARCHITECTURES}.wide_resnet:WideResNet[depth={depth},widen={widen}]"
        for depth, widen in ((16, 1), (16, 2), (40, 1), (40, 2))
    }
    return {
        **resnets,
        **wide,
        "resnet8x4": f"{_ARCHITECTURES}.cifar_resnet:CifarResNet[depth=8,width=4,stem=32]",
        "resnet32x4": f"{_ARCHITECTURES}.cifar_resnet:CifarResNet[depth=32,width=4,stem=32]",
        "resnet50": f"{_ARCHITECTURES}.small_image_models:BottleneckResNet",
        "vgg8": f"{_ARCHITECTURES}.vgg:VGG[depth=8]",
        "vgg13": f"{_ARCHITECTURES}.vgg:VGG[depth=13]",
        "mobilenet_v2": f"{_ARCHITECTURES}.small_image_models:MobileNetV2",
        "shufflenet_v1": f"{_ARCHITECTURES}.shufflenet_v1:ShuffleNetV1",
        "shufflenet_v2": f"{_ARCHITECTURES}.small_image_models:ShuffleNetV2",
        "cnn": f"{_ARCHITECTURES}.plain_cnn:PlainCNN",
        "audio_cnn": f"{_ARCHITECTURES}.audio:AudioCNN",
        "ds_cnn": f"{_ARCHITECTURES}.audio:DSCNN",
        "conv_gru": f"{_ARCHITECTURES}.audio:ConvGRU",
        "ast": f"{_ARCHITECTURES}.audio_transformers:AST",
        "wav2vec2": f"{_ARCHITECTURES}.audio_transformers:Wav2Vec2",
        "ctc_gru": f"{_ARCHITECTURES}.ctc:CTCGRU",
        "ctc_transformer": f"{_ARCHITECTURES}.ctc:CTCTransformer",
        "bert": f"{_ARCHITECTURES}.bert:Bert",
        "gpt2": f"{_ARCHITECTURES}.gpt2:GPT2",
        "text_cnn": f"{_ARCHITECTURES}.text_cnn:TextCNN",
        "conv1d": f"{_ARCHITECTURES}.sequence:SequenceCNN",
        "gru": f"{_ARCHITECTURES}.sequence:SequenceGRU",
        "transformer": f"{_ARCHITECTURES}.seq2seq:Transformer",
        "torchvision": f"{_ARCHITECTURES}.torchvision_models:TorchvisionClassifier",
        "ssd": f"{_ARCHITECTURES}.ssd:SSD",
        "unet": f"{_ARCHITECTURES}.unet:UNet",
        "torchvision_segmentation": f"{_ARCHITECTURES}.torchvision_segmentation:TorchvisionSegmentation",
    }
