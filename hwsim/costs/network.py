"""Seconds and bytes of collectives on a cluster: groups are placed on tiers, each tier's fastest protocol wins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from hwsim.errors import UsageError
from hwsim.formulas import collectives, topology
from hwsim.formulas.types import Numeric
from hwsim.specs.hardware import Cluster, CollectiveName, LibraryName, Protocol, Tier
from hwsim.specs.strategy import ORDERS, Strategies

AXES = ("tp", "cp", "dp", "pp")


@dataclass(frozen=True)
class Group:
    """The members of a communication group, and how many of them share a domain of each tier (innermost first)."""

    size: Numeric
    members: tuple[Numeric, ...]


@dataclass(frozen=True)
class Link:
    """One tier as seen by a job: how many of its devices a domain holds and what a device can send through it."""

    tier: Tier
    domain: int
    bandwidth_bytes_per_s: Numeric
    edge: float

    def least_s(self, sent_bytes: Numeric) -> Numeric:
        """Time to send at the full rate of the link. [s]"""
        return sent_bytes / self.bandwidth_bytes_per_s


@dataclass(frozen=True)
class Network:
    """The tiers of a cluster for a job of a given number of devices."""

    links: tuple[Link, ...]

    def seconds(
        self, kind: CollectiveName, total_bytes: Numeric, group: Group, library: LibraryName | None = None
    ) -> Numeric:
        """Time of one collective over `group`; zero for one member or no bytes. [s]

        The outermost tier that the group spans sets the protocol. Every tier inside adds its steps and carries its
        share of the bytes; members that share a domain share its way out too. The slowest tier rules. The default
        library is NCCL.
        """
        result: Numeric = 0.0
        inner, call = _Inner(1.0, 0.0, np.inf), _Call(kind, library)
        wire = collectives.wire_bytes(kind, total_bytes, group.size)
        for link, members in zip(self.links, group.members, strict=True):
            held = members >= group.size
            spans = (group.size > inner.members) & held
            if np.any(spans):
                result = np.where(spans, _on_tier(call, wire, group.size, link, members, inner), result)
            if np.all(held):
                break
            inner = _inside(call, group.size, link, members, inner)
        launch_s = max(link.tier.launch_s(kind, library) for link in self.links) if library else 0.0
        return np.where((np.asarray(total_bytes) > 0) & (result > 0.0), np.maximum(result, launch_s), 0.0)

    @property
    def joining(self) -> set[str]:
        """Names of the tiers that join anything in a job of this size."""
        within = (1, *(link.domain for link in self.links))
        return {link.tier.name for link, inside in zip(self.links, within, strict=False) if link.domain > inside}

    def ring_shares(self, group: Group) -> dict[str, Numeric]:
        """Share of what a device of the group sends round its ring that leaves through each tier."""
        return self._shares(group, lambda inside, outside: topology.boundary_share(inside, outside, group.size))

    def line_shares(self, group: Group, rounds: Numeric) -> dict[str, Numeric]:
        """The same for a pipeline that goes round its stages `rounds` times."""
        return self._shares(group, lambda inside, outside: topology.line_share(inside, outside, group.size, rounds))

    def _shares(self, group: Group, share: Callable[[Numeric, Numeric], Numeric]) -> dict[str, Numeric]:
        within = (1.0, *group.members)
        pairs = zip(self.links, within, within[1:], strict=False)
        return {link.tier.name: share(inside, outside) for link, inside, outside in pairs}

    def group(self, size: Numeric, stride: Numeric) -> Group:
        """Every `stride`-th device, `size` of them."""
        return Group(size, tuple(topology.members_within(link.domain, stride, size) for link in self.links))

    def axis_groups(self, s: Strategies, axes: tuple[str, ...] = AXES) -> dict[str, Group]:
        """The group of each axis under the placement order of each strategy."""
        return {axis: self.group(getattr(s, axis), axis_stride(axis, s)) for axis in axes}

    def step_groups(self, s: Strategies) -> dict[str, Group]:
        """The groups that talk once per step or per chunk.

        `data` holds the same weights (cp x dp); ZeRO shards over its nearest `shard` members, `replica` joins the rest;
        `send` is a pair of neighbouring stages where the pipeline crosses its widest gap.
        """
        groups = self.axis_groups(s, ("tp", "cp", "dp", "pp"))
        data_size = s.cp * s.dp
        data = tuple(c * d for c, d in zip(groups["cp"].members, groups["dp"].members, strict=True))
        near = tuple(np.minimum(members, s.shard) for members in data)
        far = tuple(np.maximum(np.floor(members / s.shard), 1.0) for members in data)
        two = np.minimum(s.pp, 2.0)
        hop = tuple(np.where(members >= s.pp, two, 1.0) for members in groups["pp"].members)
        return groups | {
            "data": Group(data_size, data),
            "shard": Group(s.shard, near),
            "replica": Group(data_size / s.shard, far),
            "send": Group(two, hop),
        }

    def expert_groups(self, s: Strategies, copies: Numeric, shard: Numeric) -> dict[str, Group]:
        """The groups of experts: those that share one (etp), all experts (ep), and their `copies`, `shard` of which
        share optimizer state. The devices of a stage are dealt out anew: etp nearest, then ep, then the copies.
        """
        near = np.minimum(copies, shard)
        return {
            "etp": self._folded(s.etp, np.ones_like(s.etp), s),
            "ep": self._folded(s.ep, s.etp, s),
            "expert data": self._folded(copies, s.etp * s.ep, s),
            "expert shard": self._folded(near, s.etp * s.ep, s),
            "expert replica": self._folded(np.maximum(copies / near, 1.0), s.etp * s.ep * near, s),
        }

    def _folded(self, size: Numeric, stride: Numeric, s: Strategies) -> Group:
        """Every `stride`-th device of a pipeline stage, `size` of them; other stages lie between runs of neighbours."""
        run = axis_stride("pp", s)
        inner = np.clip(np.floor(run / stride), 1.0, size)
        far = np.maximum(run, stride) * s.pp
        members = []
        for link in self.links:
            close = topology.members_within(link.domain, stride, inner)
            runs = topology.members_within(link.domain, far, np.maximum(np.floor(size / inner), 1.0))
            members.append(np.where(close >= inner, np.minimum(close * runs, size), close))
        members[-1] = np.maximum(members[-1], size)
        return Group(size, tuple(members))

    def exchange_shares(self, group: Group) -> dict[str, Numeric]:
        """Share of what a device sends evenly to all others of a group that leaves through each tier."""
        others = np.maximum(group.size - 1.0, 1.0)
        return self._shares(group, lambda inside, outside: (outside - inside) / others)


def network(cluster: Cluster, devices: int) -> Network:
    """Lay a job of `devices` out on a cluster: every domain is filled with as many as divide the job evenly."""
    if devices > cluster.most_devices:
        msg = f"cluster {cluster.name} connects {cluster.most_devices:,.0f} devices, not {devices:,}"
        raise UsageError(msg)
    links: list[Link] = []
    inner = 1
    for tier in cluster.tiers:
        size = tier.size or devices
        inner = next(d for d in range(min(size, devices) // inner * inner, 0, -inner) if devices % d == 0 or d == inner)
        rate = (cluster.node.nic_share if tier.bandwidth is None else tier.bandwidth) / tier.oversubscription
        links.append(Link(tier, inner, rate, _edge(tier, devices)))
    outer = links[-1]
    links[-1] = Link(outer.tier, max(outer.domain, devices), outer.bandwidth_bytes_per_s, outer.edge)
    return Network(tuple(links))


def _edge(tier: Tier, devices: int) -> float:
    """Longest edge of the most cubic torus slice that holds the job, one that closes where the job is large enough."""
    if not tier.torus:
        return 1.0
    dimensions, chips = len(tier.torus), min(devices, prod(tier.torus))
    unit = tier.wrap_multiple if chips >= tier.wrap_multiple**dimensions else 1
    return float(next(edge for edge in range(unit, 2 * max(tier.torus) + unit, unit) if edge**dimensions >= chips))


@dataclass(frozen=True)
class _Inner:
    """What the tiers below have settled: members per domain, time of their steps, and the rate they carry."""

    members: Numeric
    steps_s: Numeric
    bytes_per_s: Numeric


@dataclass(frozen=True)
class _Call:
    """What is called: a collective of a library."""

    kind: CollectiveName
    library: LibraryName | None

    def protocols(self, tier: Tier) -> tuple[Protocol, ...]:
        return tier.protocols(self.kind, self.library)


def _on_tier(call: _Call, wire: Numeric, size: Numeric, link: Link, members: Numeric, inner: _Inner) -> Numeric:
    """Time when this tier is the outermost one spanned: that of its fastest protocol. [s]"""
    domains = members / inner.members
    width = _driven(call.kind, link, size) * link.bandwidth_bytes_per_s * _ways_out(call.kind, inner.members)
    length = _ring_length(link, domains)
    if call.kind == "all_to_all":  # what goes to members of the same inner domain stays inside
        wire = wire * ((size - inner.members) / np.maximum(size - 1.0, 1.0))
    best: Numeric = np.inf
    for protocol in call.protocols(link.tier):
        steps = collectives.steps(call.kind, protocol.algorithm, length)
        rate = np.minimum(width * _reached(protocol, link.tier, domains), inner.bytes_per_s)
        fixed_s = protocol.latency + link.tier.latency
        seconds = inner.steps_s + collectives.protocol_s(wire, steps, fixed_s, protocol.hop_latency, rate)
        best = np.minimum(best, seconds if protocol.min_devices <= 2 else _from(protocol, domains, seconds))
    return np.where(np.isfinite(best), best, 0.0)


def _inside(call: _Call, size: Numeric, link: Link, members: Numeric, inner: _Inner) -> _Inner:
    """Fold a tier into what the next one out finds below it: its steps, without the fixed time of a call of its own."""
    protocols = call.protocols(link.tier)
    domains = members / inner.members
    length = _ring_length(link, domains)
    call_s = min((protocol.latency for protocol in protocols), default=0.0)
    quickest: Numeric = np.inf
    reached: Numeric = 0.0
    for protocol in protocols:
        steps = collectives.steps(call.kind, protocol.algorithm, length)
        steps_s = protocol.latency - call_s + steps * protocol.hop_latency
        quickest = np.minimum(quickest, _from(protocol, domains, steps_s))
        reached = np.maximum(reached, _reached(protocol, link.tier, domains))
    width = _driven(call.kind, link, size) * link.bandwidth_bytes_per_s * reached * _ways_out(call.kind, inner.members)
    used = domains > 1
    return _Inner(
        members,
        inner.steps_s + np.where(used & np.isfinite(quickest), quickest, 0.0),
        np.minimum(inner.bytes_per_s, np.where(used, width, np.inf)),
    )


def _from(protocol: Protocol, domains: Numeric, seconds: Numeric) -> Numeric:
    """The time of a protocol where it serves groups of this size, else infinity. [s]"""
    return np.where(domains >= protocol.min_devices, seconds, np.inf)


def _reached(protocol: Protocol, tier: Tier, domains: Numeric) -> Numeric:
    """Fraction of the link bandwidth that a protocol reaches in a group of this size. [-]"""
    reached: Numeric = protocol.efficiency
    if protocol.own_share:
        reached = reached * collectives.sent_share(domains, protocol.own_share)
    return reached * collectives.crowding(domains, tier.sharing) if tier.sharing else reached


def _driven(kind: CollectiveName, link: Link, size: Numeric) -> Numeric:
    """Share of a device's links on this tier that a group of `size` can use."""
    if link.tier.kind == "torus":
        share = topology.torus_exchange_share if kind == "all_to_all" else topology.torus_share
        return share(size, link.edge, float(len(link.tier.torus)), float(link.tier.wrap_multiple))
    if link.tier.kind == "mesh":
        return topology.mesh_share(size, float(link.tier.size or link.domain))
    return 1.0


def _ring_length(link: Link, domains: Numeric) -> Numeric:
    """Members that a step-by-step algorithm walks through: on a torus, axis by axis."""
    if link.tier.kind != "torus":
        return domains
    return topology.torus_walk(domains, link.edge, float(link.tier.wrap_multiple))


def _ways_out(kind: CollectiveName, inside: Numeric) -> Numeric:
    """Ways out of a domain that one member's data can take: a ring uses those of all members inside."""
    return 1.0 if kind in ("all_to_all", "send_recv") else inside


def axis_stride(axis: str, s: Strategies) -> Numeric:
    """Distance in devices between neighbours on an axis, by placement order.

    The product of the sizes of the axes placed nearer; orders that put the same axes nearer share one distance.
    """
    nearer = [frozenset(order.split("-")[: order.split("-").index(axis)]) for order in ORDERS]
    distances = [prod((getattr(s, name) for name in AXES if name in axes), start=np.asarray(1.0)) for axes in nearer]
    stride = distances[0]
    for code in range(1, len(ORDERS)):
        if nearer[code] != nearer[0]:
            stride = np.where(s.order == code, distances[code], stride)
    return stride
