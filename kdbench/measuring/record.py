"""Record: everything that is known about one trial, as it is stored."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 1

Status = Literal["done", "failed", "diverged", "skipped"]


class Record(BaseModel):
    """One trial, finished or not.

    Attributes:
        fingerprint: SHA-256 of all that determines the result (configuration, data, plugin source, teachers).
        suite: `name@major.minor`.
        task, pair, student, teachers: as the suite writes them; pair reads "TEACHER -> STUDENT".
        method, params: the plugin's name and its resolved hyper-parameters; family and paper as it declares them.
        control: whether the method is there for comparison: a control, or another compression of the teacher.
        controls, fidelity_controls: the controls that may explain its score, and its likeness to the teacher, by name;
            without_dark_knowledge: as the method declares it.
        data_set, train_fraction: the task without, and the part of, its training examples that were used; "": the task.
        reason, error: why it was skipped, failed or diverged (one line), and the traceback.
        primary, higher_is_better, unit: the task's primary metric; unit as in `Metric`.
        metrics: numbers that must reproduce bit for bit. Test scores by the task's names ("accuracy",
            "top5_accuracy", "macro_f1"); of rows with labels "nll", "ece", "brier"; "validation_<metric>" of the
            first metric that takes no decoding; "corrupted_<primary>/<kind>" on corrupted inputs (mean over
            severities) and "corrupted_<primary>" (mean over kinds). To the teachers it learnt from, combined, or else
            the pair's: "agreement" and "teacher_kl" (nats), both also with "_teacher_right" and "_teacher_wrong"
            after them (of the rows on which these are). To the pair's teacher: "cka_stage1", ... by the student's
            stages, and "cka", their mean; "relation_correlation" of embeddings; "saliency_agreement" (rank
            correlation; where Captum is). The pair's teacher's own score "teacher_<primary>"; "own_teacher_<primary>"
            of those it learnt from, combined (where searches have a mean). Of the deployed student "parameters",
            "nonzero_parameters", "macs", "flops", "file_bytes", and "macs_disagreement" of the two counters; of the
            pair's teacher "teacher_parameters", "teacher_macs" and "teacher_file_bytes". "best_validation_<primary>",
            "best_on_test_<primary>", "optimism" and "selection_epochs": see `selection`. "training_flops" (what
            teachers answer and decode included) and "teacher_flops" (their part of it); in the tuned track
            "training_flops" hold "tuning_flops" too, what its configuration was chosen with.
        measurements: the machine's numbers: "latency_ms_p50", "latency_ms_p95" (batch 1), "throughput_per_s" at
            "throughput_batch", "peak_memory_bytes", "threads"; "training_seconds" (what it would have cost alone),
            "teacher_seconds" (the teacher's part of it), "shared_seconds" (what it really cost in its cohort);
            of the pair's teacher "teacher_latency_ms_p50" and "teacher_peak_memory_bytes".
        calibration_curve: of rows with labels, `calibration.calibration_curve`: lists of one length, a number for each
            bin of confidence that is not empty: "confidence", "accuracy", "share".
        samples: what the student answers to a few test examples, as people read it (texts, translations).
        curves: per epoch: "loss", "loss/<term>" of the method, "loss/output/<term>" of the task,
            "validation_<metric>", "learning_rate".
        provenance: versions, machine, plugin distributions, data digest, teacher fingerprints, times (UTC, ISO 8601).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    fingerprint: str
    status: Status
    suite: str
    task: str
    pair: str
    teachers: tuple[str, ...]
    student: str
    method: str
    params: dict[str, Any]
    family: str
    paper: str = ""
    controls: tuple[str, ...] = ()
    fidelity_controls: tuple[str, ...] = ()
    without_dark_knowledge: bool = False
    data_set: str = ""
    train_fraction: float = 1.0
    seed: int
    primary: str
    higher_is_better: bool = True
    unit: str | None = None
    reason: str | None = None
    error: str | None = None
    metrics: dict[str, float] = {}
    measurements: dict[str, float] = {}
    calibration_curve: dict[str, list[float]] = {}
    curves: dict[str, list[float]] = {}
    samples: tuple[str, ...] = ()
    provenance: dict[str, Any] = {}

    @property
    def control(self) -> bool:
        """Whether the method is a control or compresses the teacher, and is no distillation method."""
        return self.family in ("control", "compression")
