"""What is asked of the machine: the training job, its number formats, and the habits of the software that runs it."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from hwsim.specs.base import Bytes, Count, Fraction, Name, Ratio, Seconds, Spec, Text

PrecisionName = Literal["fp32", "tf32", "bf16", "fp16", "fp8"]
AttentionName = Literal["flash", "unfused"]
OptimizerName = Literal["adam"]


class Precision(NamedTuple):
    """Bytes per number in each role of mixed-precision training."""

    compute: str
    """Key of the accelerator's peak."""
    weight: float
    """Weight as it is stored."""
    wire: float
    """Weight as the forward pass reads it and ZeRO gathers it."""
    activation: float
    """Residual stream and other tensors between kernels."""
    gemm_input: float
    """Operands of a matrix multiply, and what is saved of them."""
    gradient: float
    """Gradient as the backward pass writes it."""
    master: float
    """fp32 copy of the weight kept by the optimizer; 0: the weight is fp32 already."""


PRECISIONS = MappingProxyType(
    {
        "fp32": Precision("fp32", 4.0, 4.0, 4.0, 4.0, 4.0, 0.0),
        "tf32": Precision("tf32", 4.0, 4.0, 4.0, 4.0, 4.0, 0.0),
        "bf16": Precision("bf16", 2.0, 2.0, 2.0, 2.0, 2.0, 4.0),
        "fp16": Precision("fp16", 2.0, 2.0, 2.0, 2.0, 2.0, 4.0),
        "fp8": Precision("fp8", 2.0, 2.0, 2.0, 1.0, 2.0, 4.0),
    }
)
"""Training precisions. fp8 multiplies fp8 operands; weights, gradients and the residual stream stay bf16."""

OPTIMIZER_STATE_BYTES = MappingProxyType({"adam": 8.0})
"""Bytes of optimizer state per parameter beside the master copy: Adam keeps two fp32 moments."""


Passes = Annotated[float, Field(ge=1, le=20)]


class Framework(Spec):
    """How a training framework spends memory and hides communication; chosen by data, never by name."""

    name: Name
    """Preset id."""
    title: Text = ""
    """The software and version meant."""
    master_copy: bool = True
    """Half-precision weights are stored beside fp32 masters; if not, the fp32 weights alone are (FSDP, MaxText)."""
    usual_zero: Annotated[int, Field(ge=0, le=3)] = 1
    """ZeRO stage assumed when none is given."""
    gradient_bytes: Annotated[float, Field(ge=1, le=8)]
    """Bytes of the gradient buffer per parameter (Megatron accumulates in fp32)."""
    reduce_bytes: Annotated[float, Field(ge=1, le=8)]
    """Bytes per gradient element on the wire."""
    logit_bytes: Annotated[float, Field(ge=1, le=32)]
    """Bytes kept per logit between the loss and its backward pass."""
    logit_traffic_bytes: Annotated[float, Field(ge=1, le=200)]
    """Device-memory bytes moved per logit by the loss, forward and backward."""
    norm_passes: Passes = 1.0
    """Memory traffic of a norm over that of one fused kernel."""
    activation_passes: Passes = 1.0
    """The same for the MLP's activation."""
    rope_passes: Passes = 1.0
    """The same for rotary embeddings."""
    overlap_gradients: bool
    """Gradient reduction runs beside the last backward pass."""
    overlap_parameters: bool
    """Parameter all-gathers run beside the forward pass."""
    overlap_pipeline: bool
    """Stage-to-stage sends of interleaved schedules run beside compute."""
    zero_with_pipeline: Annotated[int, Field(ge=0, le=3)]
    """Highest ZeRO stage a plan combines with pipeline stages."""
    interference: Ratio
    """Share of compute that a hidden communication takes away."""
    bucket_bytes: Bytes
    """Communication buffer kept per overlapped collective."""
    context: Bytes
    """Runtime context, kernels and library handles on each device."""
    communicator: Bytes
    """Buffers of each communicator (one per group with more than one member)."""
    allocator_slack: Ratio
    """Reserved over allocated, less one: fragmentation and cached blocks."""
    compiled: bool = False
    """Kernels are launched from graphs or a compiled program unless the job says otherwise."""
    kernel_dispatch: Seconds
    """Host time per eager kernel added by the framework's own Python."""
    band: dict[Literal["measured", "inherited", "datasheet"], Fraction]
    """Half-width of the step-time band by the state of the kernel curves."""
    source: Text
    """Where these were read."""


class TrainingJob(Spec):
    """One pre-training step, beside the strategy that spreads it over devices."""

    seq_len: Count = 8192
    """Tokens per sequence."""
    global_batch: Count = 1024
    """Sequences per optimizer step over all devices."""
    precision: PrecisionName = "bf16"
    """Training compute format."""
    optimizer: OptimizerName = "adam"
    """Update rule."""
    attention: AttentionName = "flash"
    """Fused FlashAttention, or scores written to memory."""
    graphs: bool | None = None
    """Kernels are launched from CUDA graphs or a compiled program; default: as the framework does."""
    framework: Framework
    """Habits of the training software."""

    @property
    def numbers(self) -> Precision:
        """Bytes per number in each role, as this framework stores them."""
        usual = PRECISIONS[self.precision]
        return usual if self.framework.master_copy else usual._replace(weight=max(usual.weight, 4.0), master=0.0)
