"""Network tiers of a cluster: their links, and the protocols that libraries run collectives with on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from hwsim.specs.base import BytesPerSecond, Count, Name, Seconds, Spec, Text

Calibration = Literal["measured", "inherited", "datasheet"]
"""How the efficiency curves were come by: fitted on this device, taken from a relative, or assumed."""


class Source(Spec):
    """Where a value was read."""

    kind: Literal["datasheet", "measured", "derived", "recalled", "assumed", "given"]
    """How far to trust it; given: by whoever asks, who knows better than any book."""
    text: Text
    """Document, table or file."""
    date: Text = ""
    """When it was read or measured."""

    def __str__(self) -> str:
        """For a person: the kind, the text and the date."""
        return f"{self.kind}: {self.text}" + (f" ({self.date})" if self.date else "")


def source_of(sources: Mapping[str, Source], path: Sequence[str]) -> Source:
    """The source of the longest prefix of a field's path, else the default."""
    for end in range(len(path), 0, -1):
        if ".".join(path[:end]) in sources:
            return sources[".".join(path[:end])]
    return sources.get("default", Source(kind="assumed", text="no source given"))


GIVEN = Source(kind="given", text="set in the question")


CollectiveName = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv"]
LibraryName = Literal["vllm", "sglang", "trtllm", "torch.distributed", "training"]
"""Libraries whose collectives differ from those of NCCL in a compiled training step."""


class Protocol(Spec):
    """One way a library runs a collective on one tier: the fastest protocol of the list wins at each size."""

    algorithm: Literal["ring", "tree", "switch"] = "ring"
    """ring: (n-1)/n of the data per phase; tree: log2(n) steps; switch: reduced inside the switch."""
    min_devices: Count = 2
    """Smallest group it serves."""
    latency: Seconds
    """Fixed time of the software."""
    hop_latency: Seconds
    """Added per step of the algorithm."""
    efficiency: Annotated[float, Field(ge=1e-4, le=2.0)]
    """Bus bandwidth over link bandwidth at large messages and groups (over 1 where the switch reduces)."""
    own_share: Annotated[float, Field(gt=-1.0, le=10.0)] = 0.0
    """Time that a member's own share of the data costs, in shares sent: n-1 of them take the time of n-1 + this.
    Where the switch reduces, 1: a member sends its whole buffer. Below 0 where a pair is joined better than others."""


class LibraryCollectives(Spec):
    """How one library runs collectives on one tier, where it was measured apart from NCCL as training uses it."""

    launch: dict[CollectiveName, Seconds] = Field(default_factory=dict)
    """Host time of one call, on this tier or through it; the device works behind it."""
    collectives: dict[CollectiveName, tuple[Protocol, ...]] = Field(default_factory=dict)
    """Its own protocols, such as the one- and two-shot all-reduces of serving engines."""
    fallback: bool = True
    """Whether the tier's own protocols serve what its own do not do faster."""


class Tier(Spec):
    """One level of the network, innermost first."""

    name: Name
    """nvlink, rail, spine, ici, dcn, ..."""
    kind: Literal["switch", "mesh", "torus"]
    """switch: any pair at full rate; mesh: one link per pair; torus: neighbours only."""
    size: Count | None = None
    """Devices in one domain of this tier; none: unlimited."""
    bandwidth: BytesPerSecond | None = None
    """Per device and direction, all links together; default: the device's share of the node's NICs."""
    oversubscription: Annotated[float, Field(ge=1, le=1000)] = 1.0
    """Demand over capacity towards this tier (4 means a quarter of the bandwidth when all talk)."""
    sharing: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    """How the members of a group crowd each other out. 0: not at all (a switch); 1: all share what one pair has (a host
    bridge); 2: and the bridge slows down as much again."""
    latency: Seconds
    """One way between two devices, hardware only; every call pays it once beside its protocol's own times."""
    torus: tuple[Count, ...] = ()
    """Edge lengths of the largest torus."""
    wrap_multiple: Count = 1
    """A torus axis closes into a ring when its length is a multiple of this (TPU v5e: 16, v5p: 4)."""
    status: Calibration = "datasheet"
    """Whether the protocols below were fitted on this kind of cluster."""
    collectives: dict[CollectiveName, tuple[Protocol, ...]]
    """Protocols by collective."""
    libraries: dict[LibraryName, LibraryCollectives] = Field(default_factory=dict)
    """Libraries measured apart from the one that the protocols above stand for."""
    source: Source

    @field_validator("collectives")
    @classmethod
    def _has_all(cls, given: dict[str, tuple[Protocol, ...]]) -> dict[str, tuple[Protocol, ...]]:
        lacking = [name for name in get_args(CollectiveName) if not given.get(name)]
        if lacking:
            msg = f"needs at least one protocol for {', '.join(lacking)}"
            raise ValueError(msg)
        return given

    def protocols(self, kind: CollectiveName, library: LibraryName | None = None) -> tuple[Protocol, ...]:
        """Protocols that a library, by default NCCL, has for one collective."""
        given = self.libraries.get(library) if library else None
        if given is None:
            return self.collectives[kind]
        own = given.collectives.get(kind, ())
        return own if own and not given.fallback else own + self.collectives[kind]

    def launch_s(self, kind: CollectiveName, library: LibraryName | None = None) -> float:
        """Host time of one call that the device's own time hides behind. [s]"""
        given = self.libraries.get(library) if library else None
        return given.launch.get(kind, 0.0) if given else 0.0

    @model_validator(mode="after")
    def _torus_has_edges(self) -> Tier:
        if (self.kind == "torus") != bool(self.torus):
            msg = "torus: edge lengths are given for a torus tier and only there"
            raise ValueError(msg)
        if self.torus and self.size not in (None, prod(self.torus)):
            edges = " x ".join(map(str, self.torus))
            msg = f"torus {edges} is {prod(self.torus):,} devices, but size is {self.size:,}: they must agree"
            raise ValueError(msg)
        return self
