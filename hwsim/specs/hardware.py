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
    Hertz,
    MemoryBytes,
    Name,
    RatedWatts,
    Ratio,
    Spec,
    Text,
    Usd,
    UsdPerSecond,
    Watts,
)
from hwsim.specs.kernels import (
    AttentionCurve,
    DtypeName,
    ExpertsCurve,
    ExpertsFit,
    ExpertsFormat,
    GemmCurve,
    GemmFit,
    Kernels,
    Library,
    StreamKind,
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
        return self.capacity if self.visible is None else self.visible


class Power(Spec):
    """Electrical power of one device."""

    tdp: RatedWatts
    """Board or chip limit."""
    idle: Watts
    """Powered, doing nothing."""
    unlimited: RatedWatts | None = None
    """What matrix multiplies without end would draw at the boost clock if nothing limited them; none: no more than the
    limit. Long runs clock down to the limit, short benchmarks do not. Less than the limit: never reaches it."""

    @model_validator(mode="after")
    def _idle_below_limit(self) -> Power:
        if self.idle > self.tdp:
            msg = f"idle {show(self.idle, 'w')} is more than the tdp, {show(self.tdp, 'w')}"
            raise ValueError(msg)
        if self.unlimited is not None and self.unlimited < self.idle:
            msg = f"unlimited {show(self.unlimited, 'w')} is less than idle, {show(self.idle, 'w')}"
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
    usual_engine: Name = "vllm"
    """Inference software assumed when none is named."""
    peak: Peak
    memory: Memory
    compute_units: Count
    """SMs, CUs or matrix units that share the output tiles of a kernel."""
    clock: Hertz | None = None
    """Boost clock at which the peaks hold."""
    vector: FlopsPerSecond | None = None
    """fp32 rate outside the matrix units."""
    half_sums: Annotated[float, Field(ge=1, le=4)] = 1.0
    """Half-precision rate with sums in half precision too, over that with wider sums (GeForce cards: 2)."""
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
    "DtypeName",
    "ExpertsCurve",
    "ExpertsFit",
    "ExpertsFormat",
    "GemmCurve",
    "GemmFit",
    "Hardware",
    "Kernels",
    "Library",
    "LibraryCollectives",
    "LibraryName",
    "Node",
    "Protocol",
    "Ratio",
    "Source",
    "StreamKind",
    "Tier",
]
