"""What DeepSpeed refuses, or silently does without: one example for each rule of `orchestrator.planning.incompatibilities`.

The unit tests show that the planner finds each; the integration tests that the installed DeepSpeed does as it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.planning.incompatibilities import IGNORED, REFUSED, REMOVED, REMOVED_ZERO, Request
from trainers.layout import Layout


@dataclass(frozen=True)
class Example:
    """A request that one rule is about. `zero`, `precision`, `clip` and `model` are what Evertrain itself would set."""

    rule: str
    passed: Mapping[str, Any] = field(default_factory=dict)
    zero: int = 0
    model: str = "dense"  # or pipeline, experts
    precision: str = "fp32"
    clip: float | None = None

    def request(self) -> Request:
        layout = Layout(workers=2, zero=self.zero, pipeline=2 if self.model == "pipeline" else 1)
        return Request(self.passed, layout, self.precision, self.clip, self.model == "experts")


def _zero(**keys: Any) -> dict[str, Any]:
    return {"zero_optimization": keys}


_BY_RULE = (
    Example("experts without reduce_scatter", _zero(reduce_scatter=False), zero=2, model="experts"),
    Example("experts with scattered gradients", _zero(contiguous_gradients=False), zero=2, model="experts"),
    Example("partial offload below ZeRO 3", _zero(offload_optimizer={"device": "cpu", "ratio": 0.5}), zero=2),
    Example("an offload device that is none", _zero(offload_optimizer={"device": "disk"}), zero=2),
    Example("offload of parameters to a device that is none", _zero(offload_param={"device": "disk"}), zero=3),
    Example("offload said twice", _zero(cpu_offload=True, offload_optimizer={"device": "cpu"}), zero=2),
    Example("offload of parameters said twice", _zero(cpu_offload_param=True, offload_param={"device": "cpu"}), zero=3),
    Example("no gradient norm outside of ZeRO 1 and 2", _zero(compute_grad_norm=False), zero=3),
    Example("no gradient norm outside of ZeRO 1 and 2", _zero(compute_grad_norm=False), zero=0),
    Example("clipping without a gradient norm", _zero(compute_grad_norm=False), zero=2, clip=1.0),
    Example(
        "offload without a gradient norm", _zero(compute_grad_norm=False, offload_optimizer={"device": "cpu"}), zero=1
    ),
    Example("the first ZeRO 1", _zero(legacy_stage1=True), zero=1),
    Example("an odd bucket", _zero(allgather_bucket_size=1001), zero=2),
    Example("an empty bucket", _zero(reduce_bucket_size=0), zero=1),
    Example("sums of gradients with ZeRO 3", {"gradient_allreduce_op": "sum"}, zero=3),
    Example("an unknown reduction", {"gradient_allreduce_op": "max"}),
    Example("an unknown communication type", {"communication_data_type": "int8"}),
    Example("gradients divided before they are scattered", {"gradient_predivide_factor": 2.0}, zero=2),
    Example("gradients divided before they are scattered", {"gradient_predivide_factor": 2.0}, zero=3),
    Example("gradients scaled before they are scattered", {"prescale_gradients": True}, zero=2),
    Example("gradients scaled before they are scattered", {"prescale_gradients": True}, zero=3),
    Example("gradients of another type without ZeRO", {"data_types": {"grad_accum_dtype": "fp32"}}, precision="bf16"),
    Example("parameters of another type", {"data_types": {"param_dtype": "bf16"}}),
    Example("unmanaged accumulation in a pipeline", {"managed_gradient_accumulation": False}, model="pipeline"),
    Example(
        "unmanaged accumulation with overlap",
        {"managed_gradient_accumulation": False, **_zero(overlap_comm=True)},
        zero=1,
    ),
    Example(
        "autocast with quantized weights",
        {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}, **_zero(zero_quantized_weights=True)},
        zero=3,
    ),
)

SAYS = {
    "two precisions": "bfloat16 and fp16 modes cannot be simultaneously enabled",
    "pipeline with ZeRO 2 or 3": "incompatible with pipeline",
    "experts with ZeRO 3": "not supported with ZeRO Stage 3",
    "experts without reduce_scatter": "Reduce Scatter",
    "experts with scattered gradients": "Contiguous Gradients",
    "partial offload below ZeRO 3": "Partial offloading",
    "an offload device that is none": "offload_optimizer.device",
    "offload of parameters to a device that is none": "offload_param.device",
    "offload said twice": "parameter 'cpu_offload'",
    "offload of parameters said twice": "parameter 'cpu_offload_param'",
    "no gradient norm outside of ZeRO 1 and 2": "only with ZeRO Stage 1 or 2",
    "clipping without a gradient norm": "requires gradient_clipping=0",
    "offload without a gradient norm": "does not support optimizer offload",
    "the first ZeRO 1": "deprecated version of ZeRO Stage 1",
    "an odd bucket": "allgather_bucket_size must be a multiple",
    "an empty bucket": "reduce_bucket_size",
    "sums of gradients with ZeRO 3": "gradient_allreduce_op='sum'",
    "an unknown reduction": "Invalid gradient_allreduce_op",
    "an unknown communication type": "Invalid communication_data_type",
    "gradients divided before they are scattered": "gradient_predivide_factor != 1.0",
    "gradients scaled before they are scattered": "pre-scale gradients",
    "gradients of another type without ZeRO": "unsupported mix",
    "parameters of another type": "data_types.param_dtype",
    "unmanaged accumulation in a pipeline": "not supported with pipeline parallelism",
    "unmanaged accumulation with overlap": "only with ZeRO stage 2",
    "autocast with quantized weights": "torch autocast and zero quantized weights",
    **{f"removed: {key}": "has been removed" for key in (*REMOVED, *REMOVED_ZERO)},
    "removed: curriculum_learning": "'curriculum_learning' has been removed",
    "unknown: reduce_buckets": "Extra inputs are not permitted",
}
"""Words of DeepSpeed's refusal, so that another reason is not taken for this one."""


REFUSALS = (
    *_BY_RULE,
    *(Example(f"removed: {key}", {key: {}}) for key in REMOVED),
    *(Example(f"removed: {key}", _zero(**{key: 2}), zero=3) for key in REMOVED_ZERO),
    Example("unknown: reduce_buckets", _zero(reduce_buckets=1000), zero=2),
)

REFUSED_OF_A_LAYOUT = (  # known to `trainers.layout`: whatever keys are passed
    Example("pipeline with ZeRO 2 or 3", zero=2, model="pipeline"),
    Example("pipeline with ZeRO 2 or 3", zero=3, model="pipeline"),
    Example("experts with ZeRO 3", zero=3, model="experts"),
)

REFUSED_BY_THE_RUN_FILE = (
    Example("two precisions", {"fp16": {"enabled": True}, "bf16": {"enabled": True}}),  # it has one key for all
)

IGNORANCES = (
    Example("offload of the optimizer without ZeRO", _zero(offload_optimizer={"device": "cpu", "pin_memory": False})),
    Example("offload of parameters below ZeRO 3", _zero(offload_param={"device": "cpu"}), zero=2),
    Example("offload to NVMe below ZeRO 3", _zero(offload_optimizer={"device": "nvme", "pin_memory": False}), zero=2),
    Example("the old word for bf16", {"bfloat16": {"enabled": True}}),
)

NOT_SHOWN = {rule.name for rule in (*REFUSED, *IGNORED)} - {each.rule for each in (*REFUSALS, *IGNORANCES)}
