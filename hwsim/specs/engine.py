"""The software that serves a model: its kernels, its host, its memory, how it fills a step."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwsim.specs.base import Bytes, Count, Fraction, Name, NaturalCount, Ratio, Seconds, Spec, Text
from hwsim.specs.job import Passes
from hwsim.specs.tiers import LibraryName


class Engine(Spec):
    """How an inference engine spends time and memory; chosen by data, never by name."""

    name: Name
    """Preset id."""
    title: Text = ""
    """The software and version meant."""
    libraries: tuple[Name, ...] = ()
    """Kernel libraries in order of preference: the first whose curves the device has is taken; none: the device's."""
    collectives: LibraryName | None = None
    """Library whose all-reduces tensor-parallel peers use; none: NCCL."""
    exchange: Literal["all_gather", "all_to_all"] = "all_gather"
    """How rows reach experts on devices that serve other requests: everybody gets all rows, or each row travels."""
    fused_residual: bool = True
    """A norm adds the residual stream in the same kernel."""
    fused_sum: bool = False
    """A norm that follows a sum over tensor-parallel peers is part of that kernel, as long as the sum is small."""
    norm_passes: Passes = 1.0
    """Memory traffic of a norm over that of one fused kernel; likewise the next two."""
    activation_passes: Passes = 1.0
    rope_passes: Passes = 1.0
    attention: Literal["flash", "unfused"] = "flash"
    """Prompts attend in one fused kernel, or with their scores in memory."""
    cache_passes: Annotated[float, Field(ge=0, le=20)] = 0.0
    """Times that a step moves keys and values of every query head beside attending to them (repeated, joined anew)."""
    cache_copies: Annotated[float, Field(ge=1, le=4)] = 1.0
    """Caches of a request alive at once: 2 where a step joins every layer's anew and keeps the old ones to its end."""
    prompt_logits: bool = False
    """The head scores every prompt token, not the last alone."""
    native: tuple[Literal["fp8", "fp4", "int8"], ...] = ("fp8", "fp4")
    """Weight formats that are multiplied as they are where the device can; others are unpacked to half precision."""
    fused_cast: bool = False
    """Norms and activations write what narrow multiplies read; if not, it is cast by kernels of its own."""
    unpacked_share: Fraction = 0.9
    """Rate of multiplies that unpack their weights over that of plain ones with as many bytes."""
    unpacked_compute: Fraction = 0.9
    """The same where the matrix units are the limit."""
    compute_share: Fraction = 1.0
    """Rate of its multiplies over that of the library's curve where the matrix units are the limit."""
    half_sums: bool = False
    """Its multiplies keep their sums in half precision."""
    memory_share: Fraction = 1.0
    """The same where the memory is."""
    tile: Count | None = None
    """Edge of the largest tile of its multiplies, where they are made for few rows; none: the library's."""
    grouped: bool = True
    """Experts are multiplied in one fused call; if not, one after the other."""
    graph_batch: NaturalCount = 512
    """Largest batch whose decode steps are launched from one graph (or compiled program); 0: none is."""
    graph_prompt: NaturalCount = 0
    """Most prompt tokens of a step that is launched so."""
    kernel_dispatch: Seconds = 0.0
    """Host time per eager kernel, beside the device's own."""
    kernel_gap: Seconds = 0.0
    """Device time between two kernels."""
    step_host: Seconds = 0.0
    """Host time of a step that the device waits for: schedule, inputs, sampling."""
    sequence_host: Seconds = 0.0
    """The same for each sequence that gets a token."""
    request_host: Seconds = 0.0
    """From the client to the queue and back with the first token: HTTP, tokenizer, processes."""
    prompt_host: Seconds = 0.0
    """The same per prompt token."""
    chunked: bool = True
    """Prompts are cut into chunks; if not, whole prompts run first and decodes wait."""
    mixed: bool = True
    """Chunks run beside decodes, in one step; if not, decodes wait until no prompt is left."""
    token_budget: Count = 8192
    """Most tokens of a step that holds a prompt."""
    max_sequences: Count = 1024
    """Most requests in the running batch."""
    block_tokens: Count = 16
    """Tokens of a block of the KV cache."""
    preallocates: bool = True
    """The cache takes what the memory fraction leaves; if not, memory grows with the requests."""
    memory_fraction: Fraction = 0.9
    """Share of device memory that weights, activations and cache may take."""
    context: Bytes
    """Runtime context, kernels and library handles on each device."""
    communicator: Bytes
    """Buffers of each communicator."""
    graph_bytes: Bytes = 0.0
    """Held by captured graphs."""
    workspace: Bytes = 0.0
    """Scratch memory of kernel libraries."""
    allocator_slack: Ratio = 0.0
    """Reserved over allocated, less one, of what grows with the requests."""
    source: Text
    """Where these were read or fitted."""


WeightName = Literal["bf16", "fp8", "int8", "int4", "fp4"]
CacheName = Literal["bf16", "fp8", "int8"]
GROUP = 128.0
"""Weights that share a scale and a zero point in 4 bits."""
WEIGHT_BYTES: dict[str, float] = {
    "bf16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": 0.5 + (2.0 + 0.5) / GROUP,
    "fp4": 0.5 + 1.0 / 16.0,
}
"""Stored per weight of a multiply. int4: a half-precision scale and a 4-bit zero point for 128 (AWQ, GPTQ); fp4: an fp8
scale for 16 (NVFP4)."""
CACHE_BYTES: dict[str, float] = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0}
Acceptance = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class InferenceJob(Spec):
    """What is asked of a served model, beside the strategy that spreads it over devices."""

    weights: WeightName = "bf16"
    """Format of the layers' matrices; embedding and head stay in half precision."""
    kv: CacheName = "bf16"
    """Format of the KV cache."""
    batch: Count = 1
    """Requests that start together."""
    input_len: Count = 1024
    """Tokens of a prompt."""
    output_len: Count = 128
    """Tokens generated for each."""
    engine: Engine
    """Habits of the serving software."""
    source_len: Count | None = None
    """Tokens that an encoder reads per request; default: `input_len` (the decoder then starts from one token)."""
    images: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    """Images in a request to a model with a vision tower; their tokens are part of `input_len`."""
    prefix_hit: Share = 0.0
    """Share of a prompt that the prefix cache holds."""
    skew: Annotated[float, Field(ge=0, le=4)] = 0.0
    """Exponent of the popularity of experts: the k-th gets k ** -skew of the rows; 0: all alike."""
    draft_tokens: Annotated[int, Field(ge=0, le=64)] = 0
    """Tokens guessed ahead and verified in one step; 0: no speculation."""
    acceptance: Acceptance = 0.7
    """Probability that a guess is right, given that those before it were."""
    draft: Name | None = None
    """Model that guesses; none: the model's own extra layers (MTP), else layers like its own."""
    adapters: NaturalCount = 0
    """LoRA adapters in memory; 0: none."""
    rank: Count = 16
    """Of the adapters."""

    @property
    def weight_bytes(self) -> float:
        """Stored per weight of a multiply. [byte]"""
        return WEIGHT_BYTES[self.weights]

    @property
    def cache_bytes(self) -> float:
        """Of a number in the KV cache. [byte]"""
        return CACHE_BYTES[self.kv]
