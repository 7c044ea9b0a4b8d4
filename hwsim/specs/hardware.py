"""Accelerators, and the clusters they sit in: nodes, network tiers and their collectives."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from hwsim.specs.base import (
    Bytes,
    BytesPerSecond,
    Count,
    FlopsPerSecond,
    Fraction,
    Hertz,
    MemoryBytes,
    Name,
    NaturalCount,
    RatedWatts,
    Ratio,
    Seconds,
    Spec,
    Text,
    Usd,
    UsdPerSecond,
    Watts,
)
from hwsim.specs.tiers import Calibration, CollectiveName, LibraryCollectives, LibraryName, Protocol, Source, Tier
from hwsim.units import show


class Peak(Spec):
    """Dense matrix peaks by compute dtype, fp32 accumulate, never with sparsity."""

    fp32: FlopsPerSecond | None = None
    tf32: FlopsPerSecond | None = None
    bf16: FlopsPerSecond | None = None
    fp16: FlopsPerSecond | None = None
    fp8: FlopsPerSecond | None = None
    fp4: FlopsPerSecond | None = None
    int8: FlopsPerSecond | None = None

    @model_validator(mode="after")
    def _has_one(self) -> Peak:
        if not any(rate for _, rate in self):
            msg = f"needs at least one rate ({', '.join(Peak.model_fields)})"
            raise ValueError(msg)
        return self


class Memory(Spec):
    """Device memory."""

    capacity: MemoryBytes
    """As sold (an "80 GB" card holds 80 GiB)."""
    visible: MemoryBytes | None = None
    """What the runtime reports; default: the capacity."""
    bandwidth: BytesPerSecond
    """Data-sheet bandwidth."""
    kind: Text = ""
    """HBM3, HBM2e, GDDR6, ..."""

    @model_validator(mode="after")
    def _no_more_visible_than_there_is(self) -> Memory:
        if self.visible and self.visible > self.capacity:
            msg = f"visible {show(self.visible, 'bytes')} is more than the capacity, {show(self.capacity, 'bytes')}"
            raise ValueError(msg)
        return self

    @property
    def usable(self) -> float:
        """What a program can have: the visible memory, else the capacity. [byte]"""
        return self.visible or self.capacity


DtypeName = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "fp4", "int8"]
"""Compute dtypes, as in `Peak`."""


class GemmFit(Spec):
    """How matrix multiplies of one dtype fall short of the roofline (see hwsim.formulas.gemm)."""

    efficiency: Fraction
    """Fraction of the dense peak that many waves of the largest tiles reach at large k."""
    k_half: NaturalCount
    """Inner dimension at which the main loop runs at half its asymptotic rate."""
    tile: Count = 128
    """Edge of the largest output tile that one compute unit works on."""
    tile_loss: Ratio = 0.3
    """Relative time lost by tiles of half that edge."""
    wave_quantisation: Annotated[float, Field(ge=0, le=1)] = 0.2
    """1: the last, partly filled wave of tiles costs as much as a full one; 0: tiles are dealt out evenly."""
    split_latency: Seconds = 3e-6
    """Fixed time of sharing the k loop of a tile among idle units."""
    throttle: Ratio = 0.0
    """Relative time that main loops of many milliseconds lose to power and heat."""
    memory_efficiency: Fraction
    """Fraction of the memory bandwidth a skinny multiply reaches."""
    memory_latency: Seconds = 0.0
    """Until the first operands arrive from memory."""
    cache_gain: Annotated[float, Field(ge=1, le=50)] = 1.0
    """Rate at which activations that fit the last-level cache come, over that of memory."""
    weight_cache_gain: Annotated[float, Field(ge=1, le=50)] = 1.0
    """The same for weights under a tenth of the cache, where benchmark loops found them there."""
    latency: Seconds
    """Fixed time of the smallest kernel."""
    floor: Seconds = 0.0
    """Least time of a call: the host behind it."""
    cast_bytes: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Memory traffic of casting the activations to a narrow dtype first, per element; 0: they come cast."""
    cast_row: Seconds = 0.0
    """Time that casting takes per row beside its traffic."""


class GemmCurve(GemmFit):
    """Matrix multiplies: the curve of half-precision dtypes, and of those that were measured apart."""

    dtypes: dict[DtypeName, GemmFit] = Field(default_factory=dict)
    """Whole curves of other dtypes; a dtype without one takes the curve above at its own peak."""


class AttentionFit(Spec):
    """How fused attention of one dtype falls short of the roofline (see hwsim.formulas.attention)."""

    forward_efficiency: Fraction
    """Fraction of the dense peak of the matmuls alone at long sequences, forward."""
    backward_efficiency: Fraction
    """The same, backward."""
    softmax_width: NaturalCount
    """Time of the softmax per query-key pair, in head dimensions of matmul time."""
    query_rows: Count = 64
    """Query rows of one head are padded to a multiple of this."""
    overhead_keys: NaturalCount
    """Time a query block takes beside its keys, in keys."""
    tail: Ratio = 0.5
    """Share of the longest block that does not hide behind the other blocks."""
    memory_efficiency: Fraction
    """Fraction of the memory bandwidth reached when reading the KV cache."""
    latency: Seconds
    """Fixed time of the smallest kernel."""
    split_latency: Seconds = 2e-6
    """Added where long stretches of keys are split and combined."""
    prefill_latency: Seconds = 2e-6
    """Added by the kernels around a prefill."""
    prefill_passes: Annotated[float, Field(ge=1, le=100)] = 2.0
    """Times a prefill moves its tensors: once for the kernel itself, more for writing the cache."""
    decode_rows: Count = 64
    """Heads that share keys are packed into a decode block and padded to a multiple of this."""
    lone_rows: Count = 64
    """Rows that a decode block is charged for a head on its own."""
    packed_heads: Count = 4096
    """Most query heads per key head that the decode kernel packs."""
    decode_overhead_keys: NaturalCount = 500
    """Time a decode block takes beside its keys, in keys."""
    mask_keys: NaturalCount = 0
    """Keys that a causal mask spares together or not at all, where that is more than the query rows of a block."""


class AttentionCurve(AttentionFit):
    """Fused attention: the curve of half-precision dtypes, and of those that were measured apart."""

    dtypes: dict[DtypeName, AttentionFit] = Field(default_factory=dict)
    """Whole curves of other dtypes; a dtype without one takes the curve above at the half-precision peak."""


class Library(Spec):
    """Curves of one kernel library where it was measured apart from the mix that the device's own curves stand for."""

    gemm: GemmCurve | None = None
    attention: AttentionCurve | None = None


StreamKind = Literal["norm", "activation", "residual", "bias", "embedding", "loss", "optimizer"]
"""Memory-bound kernels that a device may be slower or faster at than its bandwidth says."""


class StreamFit(Spec):
    """How memory-bound kernels fall short of the memory bandwidth (see hwsim.formulas.stream)."""

    efficiency: Fraction
    """Fraction of the memory bandwidth reached by a large kernel."""
    latency: Seconds
    """Fixed time of the smallest kernel."""


class StreamCurve(StreamFit):
    """Memory-bound kernels: the curve of all of them, and of kinds that were measured apart."""

    kinds: dict[StreamKind, StreamFit] = Field(default_factory=dict)
    """Curves of kinds; a kind without one takes the curve above."""


class Kernels(Spec):
    """Fitted efficiency curves of one device family, with their source."""

    status: Calibration
    """measured, inherited (from a relative) or datasheet (assumed)."""
    gemm: GemmCurve
    attention: AttentionCurve
    stream: StreamCurve
    launch: Seconds
    """Host time to enqueue one kernel eagerly."""
    graph_launch: Seconds
    """The same inside a CUDA graph or a compiled program."""
    libraries: dict[Name, Library] = Field(default_factory=dict)
    """Kernel libraries measured apart (vllm, sglang, trtllm, ...)."""


class Power(Spec):
    """Electrical power of one device."""

    tdp: RatedWatts
    """Board or chip limit."""
    idle: Watts
    """Powered, doing nothing."""
    unlimited: RatedWatts | None = None
    """What matrix multiplies without end would draw at the boost clock if nothing limited them; none: no more than the
    limit. Long runs clock down to the limit, short benchmarks do not."""

    @model_validator(mode="after")
    def _idle_below_limit(self) -> Power:
        if self.idle > self.tdp:
            msg = f"idle {show(self.idle, 'w')} is more than the tdp, {show(self.tdp, 'w')}"
            raise ValueError(msg)
        if self.unlimited is not None and self.unlimited < self.tdp:
            msg = f"unlimited {show(self.unlimited, 'w')} is less than the tdp, {show(self.tdp, 'w')}"
            raise ValueError(msg)
        return self


class Price(Spec):
    """What one device costs; prices are inputs with a date, never "now"."""

    rent: UsdPerSecond | None = None
    """On demand, per device."""
    committed: UsdPerSecond | None = None
    """With a one-year commitment, per device."""
    purchase: Usd | None = None
    """Bought, per device."""
    note: Text = ""
    """Seller and date."""


class Accelerator(Spec):
    """One device: a GPU, a TPU chip, ..."""

    name: Name
    """Preset id."""
    title: Text = ""
    """Product name."""
    vendor: Text = ""
    """Maker."""
    family: Name
    """Devices of one family share efficiency curves (ampere, hopper, tpu, ...)."""
    year: Count | None = None
    """Of launch."""
    usual_cluster: Name | None = None
    """Cluster that an accelerator id stands for."""
    usual_framework: Name = "megatron"
    """Training software assumed when none is named."""
    peak: Peak
    memory: Memory
    compute_units: Count
    """SMs, CUs or matrix units that share the output tiles of a kernel."""
    clock: Hertz | None = None
    """Boost clock at which the peaks hold."""
    vector: FlopsPerSecond | None = None
    """fp32 rate outside the matrix units."""
    cache: Bytes | None = None
    """Last-level cache (L2)."""
    host_bandwidth: BytesPerSecond | None = None
    """To the host, per direction."""
    power: Power
    price: Price = Price()
    kernels: Kernels
    confidence: Literal["exact", "mixed", "recalled"] = "mixed"
    """exact: core fields read from a stored source; mixed: some recalled; recalled: from memory."""
    notes: Text = ""
    """What a reader should know."""
    sources: dict[str, Source]
    """Field path to source; `default` covers the rest."""


class Node(Spec):
    """One host with its devices."""

    devices: Count
    nics: Count
    nic_bandwidth: BytesPerSecond
    """Of one NIC, per direction."""
    max_power: RatedWatts | None = None
    """Rated power of the whole node."""
    idle_power: Watts | None = None
    """Wall power with idle devices."""
    price: Usd | None = None
    """Bought, with devices."""

    @model_validator(mode="after")
    def _idle_below_limit(self) -> Node:
        if self.idle_power and self.max_power and self.idle_power > self.max_power:
            low, high = show(self.max_power, "w"), show(self.idle_power, "w")
            msg = f"idle_power {high} is more than max_power, {low}"
            raise ValueError(msg)
        return self

    @property
    def nic_share(self) -> float:
        """Bandwidth of the NICs that falls to one device, per direction. [byte/s]"""
        return self.nics * self.nic_bandwidth / self.devices


class Cluster(Spec):
    """Nodes joined by a network of tiers."""

    name: Name
    """Preset id."""
    title: Text = ""
    """Product name."""
    year: Count | None = None
    """Of launch."""
    accelerator: Name
    """Id of the device in it."""
    node: Node
    tiers: tuple[Tier, ...] = Field(min_length=1, max_length=6)
    confidence: Literal["exact", "mixed", "recalled"] = "mixed"
    notes: Text = ""
    sources: dict[str, Source]

    @field_validator("tiers")
    @classmethod
    def _tiers_nest(cls, tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
        if tiers[0].bandwidth is None:
            msg = "the innermost tier needs a bandwidth"
            raise ValueError(msg)
        sizes = [tier.size for tier in tiers]
        if None in sizes[:-1] or any(b is not None and b <= a for a, b in pairwise(sizes) if a):
            msg = f"sizes must grow outwards and only the last may be unlimited, found {_listed(sizes)}"
            raise ValueError(msg)
        if any(b and b % a for a, b in pairwise(sizes) if a):
            msg = f"each size must be a multiple of the one inside it, found {_listed(sizes)}"
            raise ValueError(msg)
        return tiers

    @property
    def most_devices(self) -> float:
        """Devices that the outermost tier connects; infinite where it is unlimited."""
        return self.tiers[-1].size or float("inf")


def _listed(sizes: Iterable[int | None]) -> str:
    return ", ".join("unlimited" if size is None else str(size) for size in sizes)


class Hardware(Spec):
    """A device in its cluster: what every estimate runs on."""

    accelerator: Accelerator
    cluster: Cluster

    @property
    def name(self) -> str:
        """Cluster id."""
        return self.cluster.name


__all__ = [
    "Accelerator",
    "AttentionCurve",
    "Calibration",
    "Cluster",
    "CollectiveName",
    "GemmCurve",
    "Hardware",
    "Kernels",
    "LibraryCollectives",
    "LibraryName",
    "Node",
    "Protocol",
    "Ratio",
    "Source",
    "Tier",
]
