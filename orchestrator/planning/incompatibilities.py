"""What DeepSpeed 0.19 refuses or silently ignores, known before it is imported.

Each entry was found in DeepSpeed's source, and `tests/integration/trainers/test_incompatibilities.py` shows for each that
the installed DeepSpeed does what is said here. What a rank would die of after its start is told at submit instead. What
it refuses of a layout, whatever keys are passed, `trainers.layout` knows.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import Problem
from orchestrator.spec.reading import shorten
from trainers.layout import Layout


@dataclass(frozen=True)
class Request:
    """What DeepSpeed is asked for: the keys that are passed through, and what Evertrain sets beside them."""

    passed: Mapping[str, Any]
    layout: Layout
    precision: str = "fp32"
    clip: float | None = None
    experts: bool = False  # the model has a mixture of experts

    @property
    def zero(self) -> Mapping[str, Any]:
        """The keys under zero_optimization."""
        return self._section("zero_optimization")

    @property
    def data_types(self) -> Mapping[str, Any]:
        return self._section("data_types")

    def offload(self, what: str) -> Mapping[str, Any]:
        section = self.zero.get(what)
        return section if isinstance(section, Mapping) else {}

    def offloads(self, what: str) -> bool:
        return bool(self.offload(what).get("device", "none") != "none")

    def _section(self, name: str) -> Mapping[str, Any]:
        section = self.passed.get(name)
        return section if isinstance(section, Mapping) else {}


@dataclass(frozen=True)
class Rule:
    """`path` must not be as `applies` finds it; `advice` says what would be right."""

    name: str
    path: str
    applies: Callable[[Request], bool]
    advice: str

    def problem(self, request: Request) -> Problem:
        return Problem(self.path, _got(self.path, request), self.advice)


REMOVED = {
    "amp": "use train.precision",
    "compression_training": "DeepSpeed no longer compresses models in training: remove it",
    "curriculum_learning": "use data_efficiency.data_sampling.curriculum_learning",
    "eigenvalue": "it served mixture-of-quantization, which is gone: remove it",
    "graph_harvesting": "remove it",
    "nebula": "checkpoints are written by Evertrain: remove it",
    "progressive_layer_drop": "remove it",
    "quantize_training": "mixture-of-quantization is gone: remove it",
    "sparse_attention": "remove it: attention is the model's own",
    "sparse_gradients": "an embedding made with sparse=True needs no key: remove it",
    "elasticity": "use elastic",
}
"""Keys that DeepSpeed had once and now refuses, and what to do in their place."""

REMOVED_ZERO = {
    "mics_shard_size": "MiCS is gone: use zero_hpz_partition_size, or remove it",
    "mics_hierarchical_params_gather": "MiCS is gone: remove it",
    "zeropp_loco_param": "LoCo is gone: quantized gradients do without, remove it",
}

RENAMED_ZERO = {
    "cpu_offload": "offload_optimizer: {device: cpu}",
    "cpu_offload_param": "offload_param: {device: cpu}",
    "cpu_offload_use_pin_memory": "pin_memory under offload_optimizer or offload_param",
    "stage3_gather_fp16_weights_on_model_save": "stage3_gather_16bit_weights_on_model_save",
}
"""Keys that DeepSpeed still understands and warns of."""

_STAGE_3 = (
    "allgather_sequential",
    "gather_16bit_weights_on_model_save",
    "max_live_parameters",
    "max_reuse_distance",
    "model_persistence_threshold",
    "module_granularity_threshold",
    "param_persistence_threshold",
    "prefetch_bucket_size",
    "use_all_reduce_for_fetch_params",
)
ZERO_KEYS = frozenset(
    {
        "allgather_bucket_size",
        "allgather_partitions",
        "compute_grad_norm",
        "contiguous_gradients",
        "elastic_checkpoint",
        "enable_sanity_checks",
        "ignore_unused_parameters",
        "leaf_module",
        "legacy_stage1",
        "load_from_fp32_weights",
        "log_trace_cache_warnings",
        "memory_efficient_linear",
        "offload_optimizer",
        "offload_param",
        "overlap_comm",
        "override_module_apply",
        "parameter_alignment",
        "pipeline_loading_checkpoint",
        "reduce_bucket_size",
        "reduce_scatter",
        "round_robin_gradients",
        "save_muon_momentum_buffer_in_memory",
        "stage",
        "sub_group_size",
        "use_multi_rank_bucket_allreduce",
        "zenflow",
        "zero_hpz_partition_size",
        "zero_quantized_gradients",
        "zero_quantized_nontrainable_weights",
        "zero_quantized_weights",
        *RENAMED_ZERO,
        *_STAGE_3,
        *(f"stage3_{name}" for name in _STAGE_3),
    }
)
"""Every key that DeepSpeed knows under zero_optimization: it refuses all others."""

KEYS = frozenset(
    {
        *REMOVED,
        "activation_checkpointing",
        "aio",
        "autotuning",
        "bf16",
        "bfloat16",
        "checkpoint",
        "comet",
        "comms_logger",
        "communication_data_type",
        "compile",
        "csv_monitor",
        "data_efficiency",
        "data_types",
        "dataloader_drop_last",
        "datastates_ckpt",
        "disable_allgather",
        "disable_python_gc",
        "dump_state",
        "expert_parallel",
        "flops_profiler",
        "fp16",
        "gradient_accumulation_steps",
        "gradient_allreduce_op",
        "gradient_clipping",
        "gradient_predivide_factor",
        "hybrid_engine",
        "log_level",
        "managed_gradient_accumulation",
        "memory_breakdown",
        "optimizer",
        "pipeline",
        "prescale_gradients",
        "scheduler",
        "seq_parallel_communication_data_type",
        "steps_per_print",
        "tensor_parallel",
        "tensorboard",
        "timers",
        "torch_autocast",
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
        "use_data_before_expert_parallelism",
        "vocabulary_size",
        "wall_clock_breakdown",
        "wandb",
        "weight_quantization",
        "zero_allow_untested_optimizer",
        "zero_force_ds_cpu_optimizer",
        "zero_optimization",
    }
)
"""Every key that DeepSpeed looks for at the top: it passes over all others."""

_DTYPES = {"fp32": "fp32", "float32": "fp32", "fp16": "fp16", "float16": "fp16", "half": "fp16"} | {
    "bf16": "bf16",
    "bfloat16": "bf16",
    "float": "fp32",
}
_ZERO = "deepspeed.zero_optimization"


def _scatters(request: Request) -> bool:
    return request.layout.zero > 1 and request.zero.get("reduce_scatter", True) is not False


REFUSED: tuple[Rule, ...] = (
    Rule(
        "experts without reduce_scatter",
        f"{_ZERO}.reduce_scatter",
        lambda r: r.experts and r.layout.zero in (1, 2) and r.zero.get("reduce_scatter") is False,
        "must be true with a mixture of experts",
    ),
    Rule(
        "experts with scattered gradients",
        f"{_ZERO}.contiguous_gradients",
        lambda r: r.experts and r.layout.zero == 2 and r.zero.get("contiguous_gradients") is False,
        "must be true with a mixture of experts",
    ),
    Rule(
        "partial offload below ZeRO 3",
        f"{_ZERO}.offload_optimizer.ratio",
        lambda r: r.layout.zero != 3 and _below(r.offload("offload_optimizer").get("ratio"), 1),
        "must be 1: only ZeRO 3 offloads a part of the optimizer",
    ),
    Rule(
        "an offload device that is none",
        f"{_ZERO}.offload_optimizer.device",
        lambda r: r.offload("offload_optimizer").get("device", "none") not in ("none", "cpu", "nvme"),
        "must be cpu, nvme or none",
    ),
    Rule(
        "offload of parameters to a device that is none",
        f"{_ZERO}.offload_param.device",
        lambda r: r.offload("offload_param").get("device", "none") not in ("none", "cpu", "nvme"),
        "must be cpu, nvme or none",
    ),
    Rule(
        "offload said twice",
        f"{_ZERO}.cpu_offload",
        lambda r: "cpu_offload" in r.zero and "offload_optimizer" in r.zero,
        "is the old word for offload_optimizer, which is given too: keep that one",
    ),
    Rule(
        "offload of parameters said twice",
        f"{_ZERO}.cpu_offload_param",
        lambda r: "cpu_offload_param" in r.zero and "offload_param" in r.zero,
        "is the old word for offload_param, which is given too: keep that one",
    ),
    Rule(
        "no gradient norm outside of ZeRO 1 and 2",
        f"{_ZERO}.compute_grad_norm",
        lambda r: r.zero.get("compute_grad_norm") is False and r.layout.zero not in (1, 2),
        "may be false with ZeRO 1 and 2 only",
    ),
    Rule(
        "clipping without a gradient norm",
        f"{_ZERO}.compute_grad_norm",
        lambda r: r.zero.get("compute_grad_norm") is False and r.layout.zero in (1, 2) and bool(r.clip),
        "must be true where train.clip is set: the norm is what it clips by",
    ),
    Rule(
        "offload without a gradient norm",
        f"{_ZERO}.compute_grad_norm",
        lambda r: (
            r.zero.get("compute_grad_norm") is False
            and r.layout.zero in (1, 2)
            and not r.clip
            and r.offloads("offload_optimizer")
        ),
        "must be true where the optimizer is offloaded",
    ),
    Rule(
        "the first ZeRO 1",
        f"{_ZERO}.legacy_stage1",
        lambda r: r.zero.get("legacy_stage1") is True and r.layout.zero > 0,
        "must be false: DeepSpeed has one ZeRO 1 left",
    ),
    Rule(
        "an odd bucket",
        f"{_ZERO}.allgather_bucket_size",
        lambda r: r.layout.zero in (1, 2) and _is_odd(r.zero.get("allgather_bucket_size")),
        "must be even: sends are aligned to four bytes",
    ),
    Rule(
        "an empty bucket",
        f"{_ZERO}.reduce_bucket_size",
        lambda r: _below(r.zero.get("reduce_bucket_size"), 1),
        "must be above 0",
    ),
    Rule(
        "sums of gradients with ZeRO 3",
        "deepspeed.gradient_allreduce_op",
        lambda r: r.passed.get("gradient_allreduce_op") == "sum" and r.layout.zero == 3,
        "must be mean with ZeRO 3",
    ),
    Rule(
        "an unknown reduction",
        "deepspeed.gradient_allreduce_op",
        lambda r: r.passed.get("gradient_allreduce_op", "mean") not in ("mean", "sum"),
        "must be mean or sum",
    ),
    Rule(
        "an unknown communication type",
        "deepspeed.communication_data_type",
        lambda r: r.passed.get("communication_data_type") not in (None, "fp32", "fp16", "bf16"),
        "must be fp32, fp16 or bf16",
    ),
    Rule(
        "gradients divided before they are scattered",
        "deepspeed.gradient_predivide_factor",
        lambda r: _scatters(r) and r.passed.get("gradient_predivide_factor", 1) != 1,
        "must be 1 with ZeRO 2 and 3, unless reduce_scatter is false",
    ),
    Rule(
        "gradients scaled before they are scattered",
        "deepspeed.prescale_gradients",
        lambda r: _scatters(r) and r.passed.get("prescale_gradients") is True,
        "must be false with ZeRO 2 and 3, unless reduce_scatter is false",
    ),
    Rule(
        "gradients of another type without ZeRO",
        "deepspeed.data_types.grad_accum_dtype",
        lambda r: (
            r.layout.zero == 0 and _DTYPES.get(str(r.data_types.get("grad_accum_dtype")), r.precision) != r.precision
        ),
        "must be that of train.precision without ZeRO: use parallelism.zero 1, or leave it out",
    ),
    Rule(
        "parameters of another type",
        "deepspeed.data_types.param_dtype",
        lambda r: _DTYPES.get(str(r.data_types.get("param_dtype")), r.precision) != r.precision,
        "must be that of train.precision: leave it out",
    ),
    Rule(
        "unmanaged accumulation in a pipeline",
        "deepspeed.managed_gradient_accumulation",
        lambda r: r.passed.get("managed_gradient_accumulation") is False and r.layout.pipeline > 1,
        "must be true with pipeline stages",
    ),
    Rule(
        "unmanaged accumulation with overlap",
        "deepspeed.managed_gradient_accumulation",
        lambda r: (
            r.passed.get("managed_gradient_accumulation") is False
            and r.layout.zero < 2
            and r.zero.get("overlap_comm") is True
        ),
        "must be true where overlap_comm is and ZeRO is below 2",
    ),
    Rule(
        "autocast with quantized weights",
        "deepspeed.torch_autocast",
        lambda r: bool(_enabled(r.passed.get("torch_autocast"))) and r.zero.get("zero_quantized_weights") is True,
        "excludes zero_quantized_weights: keep one of them",
    ),
)

IGNORED: tuple[Rule, ...] = (
    Rule(
        "offload of the optimizer without ZeRO",
        f"{_ZERO}.offload_optimizer",
        lambda r: r.layout.zero == 0 and r.offloads("offload_optimizer"),
        "needs parallelism.zero of at least 1: without it DeepSpeed offloads nothing, and does not say so",
    ),
    Rule(
        "offload of parameters below ZeRO 3",
        f"{_ZERO}.offload_param",
        lambda r: r.layout.zero < 3 and r.offloads("offload_param"),
        "needs parallelism.zero 3: below it DeepSpeed offloads no parameters, and does not say so",
    ),
    Rule(
        "offload to NVMe below ZeRO 3",
        f"{_ZERO}.offload_optimizer.device",
        lambda r: r.layout.zero in (1, 2) and r.offload("offload_optimizer").get("device") == "nvme",
        "nvme needs parallelism.zero 3: below it DeepSpeed takes the host's memory, and does not say so",
    ),
    Rule(
        "the old word for bf16",
        "deepspeed.bfloat16",
        lambda r: "bfloat16" in r.passed,
        "is set by Evertrain under its new word: use train.precision",
    ),
)


def incompatible(request: Request) -> Iterator[Problem]:
    """Everything that DeepSpeed would refuse, or do silently without. Without keys of its own there is nothing."""
    if not request.passed:
        return
    for key, advice in REMOVED.items():
        if key in request.passed:
            path = f"deepspeed.{key}"
            yield Problem(path, _got(path, request), f"was removed from DeepSpeed, which refuses it: {advice}")
    for key in request.zero:
        path = f"{_ZERO}.{key}"
        if key in REMOVED_ZERO:
            words = f"was removed from DeepSpeed, which refuses it: {REMOVED_ZERO[key]}"
            yield Problem(path, _got(path, request), words)
        elif key not in ZERO_KEYS:
            near = difflib.get_close_matches(key, ZERO_KEYS, n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            yield Problem(path, _got(path, request), f"is not a key that DeepSpeed knows, which refuses it{hint}")
    yield from (rule.problem(request) for rule in (*REFUSED, *IGNORED) if rule.applies(request))


def doubtful(request: Request) -> Iterator[str]:
    """Words that DeepSpeed does not know, and old ones that it still takes."""
    if not request.passed:
        return
    for key in request.passed:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            yield f"deepspeed.{key} is not a key that DeepSpeed looks for: it would do nothing{hint}"
    for key, new in RENAMED_ZERO.items():
        if key in request.zero:
            yield f"{_ZERO}.{key} is an old word, which DeepSpeed warns of: write {new}"


def _got(path: str, request: Request) -> str:
    value: Any = request.passed
    for part in path.removeprefix("deepspeed.").split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return shorten(value)


def _below(value: object, limit: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value < limit


def _is_odd(value: object) -> bool:
    return isinstance(value, int) and value % 2 == 1


def _enabled(section: object) -> object:
    return section.get("enabled") if isinstance(section, Mapping) else False
