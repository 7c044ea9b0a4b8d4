"""What is asked of the machine: the training job, its number formats, and the habits of the software that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from hwsim.specs.base import Bytes, Count, Name, Ratio, Seconds, Spec, Text

PrecisionName = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "fp4", "int8"]
AttentionName = Literal["flash", "unfused"]
OptimizerName = Literal["adam", "adam8bit", "adafactor", "muon", "momentum", "sgd"]
MethodName = Literal["full", "lora", "qlora"]
StackName = Literal["decoder", "encoder", "vision"]
OffloadName = Literal["optimizer", "activations", "weights"]
ModuleName = Literal["core_attn", "attn", "layernorm", "mlp_act", "mlp", "mla_up_proj", "moe_act", "moe",
                     "shared_experts"]  # fmt: skip
OperatorName = Literal[
    "attention norm", "qkv", "qk norm", "rope", "attention", "attention output", "attention post norm",
    "attention residual", "q", "q down", "q latent norm", "q up", "kv down", "kv latent norm", "kv up", "cross norm",
    "cross q", "cross kv", "cross attention", "cross output", "cross residual", "mlp norm", "mlp up", "activation",
    "mlp down", "mlp post norm", "mlp residual", "router", "dispatch", "expert up", "expert activation", "expert down",
    "combine", "shared up", "shared activation", "shared down", "shared gate",
]  # fmt: skip
"""Operators of a layer, as `hwsim explain` names them."""


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
        "int8": Precision("int8", 2.0, 2.0, 2.0, 1.0, 2.0, 4.0),
        "fp4": Precision("fp4", 2.0, 2.0, 2.0, 0.5625, 2.0, 4.0),
    }
)
"""Training precisions. fp8, int8 and fp4 multiply operands of that format (fp4 with an fp8 scale for every 16 numbers);
weights, gradients and the residual stream stay bf16."""


class OptimizerState(NamedTuple):
    """Bytes of optimizer state beside the master copy."""

    matrix: float
    """Per parameter of a layer's matrices."""
    other: float
    """Per other parameter: embeddings, head, norms, biases."""
    factor: float = 0.0
    """Per row and column of every matrix."""
    orthogonalises: bool = False
    """Its update of a matrix takes multiplies (Newton-Schulz)."""


OPTIMIZERS = MappingProxyType(
    {
        "adam": OptimizerState(8.0, 8.0),
        "adam8bit": OptimizerState(2.03125, 2.03125),
        "adafactor": OptimizerState(0.0, 0.0, 4.0),
        "muon": OptimizerState(4.0, 8.0, orthogonalises=True),
        "momentum": OptimizerState(4.0, 4.0),
        "sgd": OptimizerState(0.0, 0.0),
    }
)
"""Update rules. Adam (and AdamW) keeps two fp32 moments, in 8 bits each with an fp32 scale for 256 numbers (Dettmers et
al., "8-bit Optimizers", 2022); Adafactor the means of rows and columns (Shazeer and Stern, 2018); Muon one fp32
momentum for the layers' matrices and Adam elsewhere (Jordan et al., 2024); SGD nothing, or one fp32 momentum."""
NF4_BYTES = 0.5 + (1.0 + 4.0 / 256.0) / 64.0
"""Per weight of a 4-bit NormalFloat: one 8-bit scale for 64 weights, itself scaled in fp32 by 256 (Dettmers et al.,
"QLoRA", 2023, section 3)."""


Passes = Annotated[float, Field(ge=1, le=20)]


Share = Annotated[float, Field(ge=0, le=1)]


class Rerun(Spec):
    """What selective recompute does with one operator of a layer."""

    again: Share = 0.0
    """Share of its forward pass that is run again before the backward pass."""
    keep: Share = 1.0
    """Share kept of what it saves (of its inputs alone, where it is run again)."""


_AGAIN, _DROPPED = Rerun(again=1.0), Rerun(keep=0.0)
_WHOLE = Rerun(again=1.0, keep=0.0)
_ATTENTION: Mapping[OperatorName, Rerun] = MappingProxyType({"attention": _AGAIN, "cross attention": _AGAIN})
MODULES: Mapping[str, Mapping[str, Rerun]] = MappingProxyType(
    {
        "core_attn": {"attention": _AGAIN, "cross attention": _AGAIN},
        "attn": {"qkv": _AGAIN, "qk norm": _AGAIN, "rope": _AGAIN, "attention": _WHOLE, "attention output": _DROPPED,
                 "q": _AGAIN, "q down": _AGAIN, "q latent norm": _WHOLE, "q up": _WHOLE, "kv down": _AGAIN,
                 "kv latent norm": _WHOLE, "kv up": _WHOLE},
        "layernorm": {"attention norm": _AGAIN, "qkv": _DROPPED, "q": _DROPPED, "q down": _DROPPED, "mlp norm": _AGAIN,
                      "mlp up": _DROPPED},
        "mlp_act": {"activation": _AGAIN, "mlp down": _DROPPED},
        "mlp": {"mlp up": _AGAIN, "activation": _WHOLE, "mlp down": _DROPPED},
        "mla_up_proj": {"q up": _AGAIN, "kv up": _AGAIN, "rope": _AGAIN, "attention": _DROPPED},
        "moe_act": {"expert activation": _AGAIN, "expert down": _DROPPED},
        "moe": {"router": _AGAIN, "dispatch": _AGAIN, "expert up": _WHOLE, "expert activation": _WHOLE,
                "expert down": _WHOLE, "combine": _AGAIN, "shared up": _AGAIN, "shared activation": _WHOLE,
                "shared down": _WHOLE},
        "shared_experts": {"shared up": _AGAIN, "shared activation": _WHOLE, "shared down": _DROPPED},
    }
)  # fmt: skip
"""Module that a user can name (as Megatron-Core's --recompute-modules) to what is run again and what is dropped: a
module's input is kept, its output is made again instead of being saved as the next operator's input."""


class Autograd(Spec):
    """What is saved for the backward pass beside what fused kernels save, where operators run one by one."""

    index_bytes: Annotated[float, Field(ge=0, le=8)] = 0.0
    """Bytes of each index that look-ups, the loss and the exchange of rows between experts save; 0: left out."""
    loss_bytes: Annotated[float, Field(ge=0, le=8)] = 0.0
    """Bytes per logit that the loss saves (its log-softmax), beside those of `logit_bytes`."""
    weight_gradients: bool = False
    """Gradients of weights stand beside the gradient buffer until they are added to it, those of a tied table until
    both its uses have theirs; what was saved is freed as the backward pass goes."""
    rotary_tables: bool = False
    """Cosines and sines of rotary embeddings, made anew in each forward pass and shared by all layers."""
    normalised: bool = False
    """An RMSNorm keeps its input in fp32 and its normalised rows; a fused one its input alone."""
    gates: bool = False
    """A gated activation keeps the activated gate beside both its inputs."""
    repeated_keys: bool = False
    """Unfused attention keeps keys and values once per query head, not once per head of their own."""
    expert_outputs: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Copies kept of the experts' outputs where their weights multiply those, not activations: one for the product, one
    more where adding rows up keeps what it adds (PyTorch's index_add does)."""


class Framework(Spec):
    """How a training framework spends memory and hides communication; chosen by data, never by name."""

    name: Name
    """Preset id."""
    title: Text = ""
    """The software and version meant."""
    kin: Name | None = None
    """Framework whose bands these runs count for too: the same software under other recipes."""
    master_copy: bool = True
    """Half-precision weights are stored beside fp32 masters; if not, the fp32 weights alone are (FSDP, MaxText)."""
    single_dtype: bool = False
    """Weights, gradients and optimizer state are all in the dtype that is trained in, none of them in fp32."""
    usual_zero: Annotated[int, Field(ge=0, le=3)] = 1
    """ZeRO stage assumed when none is given."""
    usual_attention: AttentionName = "flash"
    """Attention kernels assumed when none are given."""
    sequence_parallel: bool = True
    """Tensor-parallel jobs shard norms and residuals too when nothing is said."""
    libraries: tuple[Name, ...] = ()
    """Kernel libraries in order of preference: the first whose curves the device has is taken, for multiplies and for
    attention; none: the device's own curves."""
    selective: dict[OperatorName, Rerun] = Field(default_factory=lambda: dict(_ATTENTION))
    """What selective recompute means: operator of a layer to what is run again and what is kept."""
    saves_quantised: bool = True
    """A multiply saves its inputs for the backward pass in the format it multiplies (fp8, fp4), not as activations."""
    statistics_bytes: Annotated[float, Field(ge=0, le=8)] = 0.0
    """Bytes of each number that a norm saves per row; 0: they are left out."""
    autograd: Autograd = Field(default_factory=Autograd)
    """What is saved beside that where operators are not fused."""
    gathers_quantised: bool = True
    """Tensor-parallel peers gather the residual stream in the format it is multiplied in (fp8, fp4)."""
    gathers_again: bool = True
    """What sequence parallelism gathers for a multiply is gathered again backward; if not, it is saved whole."""
    overlap_tensor: Share = 0.0
    """Share of the tensor-parallel communication that runs beside the multiply it feeds or follows."""
    overlap_experts: Share = 0.0
    """Share of the expert-parallel communication that runs beside the compute of other operators."""
    dispatch_once: bool = False
    """A token travels once to each node that holds any of its experts, not once per expert (DeepEP)."""
    grouped: bool = True
    """Experts on one device are multiplied by one kernel; if not, by one kernel each (Transformer Engine)."""
    early_stop: bool = False
    """Full recompute ends when the backward pass has what it needs: a layer's last multiply is not run again."""
    keeps_ends: bool = False
    """ZeRO 3 gathers what lies outside the layers once a micro-batch: it stays whole until the backward pass (FSDP)."""
    accumulation: Literal["fused", "separate", "none"] = "fused"
    """Weight gradients of a micro-batch are added to the gradient buffer by the multiply itself, by kernels of their
    own, or not at all (each micro-batch's are reduced at once)."""
    scatter_sends: bool = True
    """Tensor-parallel peers send 1/tp of a stage's output each and gather it on arrival."""
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
    score_passes: Passes = 1.0
    """The same for the mask and softmax between the multiplies of unfused attention."""
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
    library_workspace: Bytes
    """Scratch memory that kernel libraries hold through the allocator."""
    allocator_slack: Ratio
    """Reserved over allocated, less one: fragmentation and cached blocks."""
    compiled: bool = False
    """Kernels are launched from graphs or a compiled program unless the job says otherwise."""
    kernel_dispatch: Seconds
    """Host time per eager kernel added by the framework's own Python."""
    backward_dispatch: Share = 1.0
    """The same for a kernel of the backward pass, which no Python enqueues, over that of a forward one."""
    micro_batch_host: Seconds = 0.0
    """Host time per micro-batch beside the launches: schedule, data, loss scaling; the device works behind it."""
    step_host: Seconds = 0.0
    """Host time per step that nothing hides: optimizer launches, gradient norm, logging."""
    straggler: Ratio = 0.0
    """Mean delay of a node in a step, over the step: everyone waits for the slowest node."""
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
    modules: tuple[ModuleName, ...] = ()
    """Modules that selective recompute runs again; default: as the framework does."""
    framework: Framework
    """Habits of the training software."""
    method: MethodName = "full"
    """Which weights are trained: all, or low-rank adapters beside frozen ones (stored in 4 bits: qlora)."""
    rank: Count = 16
    """Of the adapters."""
    frozen: tuple[StackName, ...] = ()
    """Stacks of the model that are not trained; the decoder still passes gradients to what is before it."""
    source_len: Count | None = None
    """Tokens that an encoder reads per sequence; default: `seq_len`."""
    images: Annotated[float, Field(ge=0, le=10_000)] = 1.0
    """Images per sequence of a model with a vision tower."""
    offload: tuple[OffloadName, ...] = ()
    """What is kept in the host's memory and fetched when it is needed."""
    imbalance: Annotated[float, Field(ge=1, le=1000)] = 1.0
    """Tokens of the busiest device's experts over the mean."""
    capacity: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Tokens that every expert is padded or cut to, over the mean; 0: dropless."""

    @property
    def optimizer_state(self) -> OptimizerState:
        """Bytes of the optimizer's state."""
        state = OPTIMIZERS[self.optimizer]
        if not self.framework.single_dtype:
            return state
        share = PRECISIONS[self.precision].weight / PRECISIONS["fp32"].weight
        return state._replace(matrix=state.matrix * share, other=state.other * share, factor=state.factor * share)

    @property
    def gradient_bytes(self) -> float:
        """Of the gradient buffer per parameter. [byte]"""
        return self.numbers.gradient if self.framework.single_dtype else self.framework.gradient_bytes

    @property
    def reduce_bytes(self) -> float:
        """Of a gradient element on the wire. [byte]"""
        return self.numbers.gradient if self.framework.single_dtype else self.framework.reduce_bytes

    @property
    def frozen_bytes(self) -> float:
        """Stored per weight of a frozen matrix. [byte]"""
        return NF4_BYTES if self.method == "qlora" else self.numbers.wire

    @property
    def rerun(self) -> Mapping[str, Rerun]:
        """Operator to what selective recompute does with it."""
        if not self.modules:
            return {str(name): rerun for name, rerun in self.framework.selective.items()}
        merged: dict[str, Rerun] = {}
        for module in self.modules:
            for name, rerun in MODULES[module].items():
                before = merged.get(name, Rerun())
                merged[name] = Rerun(again=max(before.again, rerun.again), keep=min(before.keep, rerun.keep))
        return merged

    @property
    def numbers(self) -> Precision:
        """Bytes per number in each role, as this framework stores them."""
        usual = PRECISIONS[self.precision]
        if self.framework.single_dtype:
            return usual._replace(master=0.0)
        return usual if self.framework.master_copy else usual._replace(weight=max(usual.weight, 4.0), master=0.0)
