"""Seconds and bytes of collectives on a cluster: groups are placed on tiers, each tier's fastest protocol wins."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from hwsim.formulas import collectives, topology
from hwsim.formulas.types import Numeric
from hwsim.specs.hardware import Cluster, CollectiveName, Protocol, Tier
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
    bandwidth_bytes_per_s: float
    edge: float
    wraps: float


@dataclass(frozen=True)
class Network:
    """The tiers of a cluster for a job of a given number of devices."""

    links: tuple[Link, ...]

    def seconds(self, kind: CollectiveName, total_bytes: Numeric, group: Group) -> Numeric:
        """Time of one collective over `group`; zero for one member or no bytes. [s]

        The outermost tier that the group spans sets the protocol; every tier inside it carries its share, and the
        members that share a domain also share its way out, so the slowest tier rules.
        """
        result: Numeric = 0.0
        inside: Numeric = 1.0
        inner_bytes_per_s: Numeric = np.inf
        for link, members in zip(self.links, group.members, strict=True):
            domains = members / inside
            seconds = self._on_tier(kind, total_bytes, group, link, (inside, domains, inner_bytes_per_s))
            spans = (group.size > inside) & (members >= group.size)
            result = np.where(spans, seconds, result)
            width = _driven(link, group.size) * link.bandwidth_bytes_per_s * _best_efficiency(link.tier, kind)
            carried = np.where(domains > 1, width * _parallel(kind, inside), np.inf)
            inner_bytes_per_s = np.minimum(inner_bytes_per_s, carried)
            inside = members
        return np.where(np.asarray(total_bytes) > 0, result, 0.0)

    def _on_tier(
        self, kind: CollectiveName, total_bytes: Numeric, group: Group, link: Link, below: tuple[Numeric, Numeric, Numeric]
    ) -> Numeric:
        """Time when this tier is the outermost one spanned: the fastest of its protocols. [s]"""
        inside, domains, inner_bytes_per_s = below
        wire = collectives.wire_bytes(kind, total_bytes, group.size)
        best: Numeric = np.inf
        for protocol in link.tier.collectives.get(kind, ()):
            rate = _driven(link, group.size) * link.bandwidth_bytes_per_s * protocol.efficiency * _parallel(kind, inside)
            hops = collectives.steps(kind, protocol.algorithm, domains) + np.where(inside > 1, 1.0, 0.0)
            latency_s, hop_s = protocol.latency, protocol.hop_latency
            seconds = collectives.protocol_s(wire, hops, latency_s, hop_s, np.minimum(rate, inner_bytes_per_s))
            best = np.minimum(best, np.where(domains >= protocol.min_devices, seconds, np.inf))
        return np.where(np.isfinite(best), best, 0.0)

    def tier_shares(self, group: Group) -> dict[str, Numeric]:
        """Share of what a device of the group sends, on average over its ring, that leaves through each tier."""
        shares: dict[str, Numeric] = {}
        inside: Numeric = 1.0
        for link, members in zip(self.links, group.members, strict=True):
            shares[link.tier.name] = topology.boundary_share(inside, members, group.size)
            inside = members
        return shares

    def group(self, size: Numeric, stride: Numeric) -> Group:
        """Every `stride`-th device, `size` of them."""
        return Group(size, tuple(topology.members_within(link.domain, stride, size) for link in self.links))

    def groups(self, s: Strategies) -> dict[str, Group]:
        """The groups of every axis under the placement order of each strategy, and those built from them.

        `data` holds the same weights (cp x dp); ZeRO shards over its nearest `shard` members, `replica` joins the rest;
        `send` is a pair of neighbouring stages where the pipeline crosses its widest gap.
        """
        strides = axis_strides(s)
        groups = {axis: self.group(getattr(s, axis), strides[axis]) for axis in AXES}
        data_size = s.cp * s.dp
        data = tuple(c * d for c, d in zip(groups["cp"].members, groups["dp"].members, strict=True))
        near = tuple(np.minimum(members, s.shard) for members in data)
        far = tuple(np.maximum(np.floor(members / s.shard), 1.0) for members in data)
        groups["data"] = Group(data_size, data)
        groups["shard"] = Group(s.shard, near)
        groups["replica"] = Group(data_size / s.shard, far)
        two = np.minimum(s.pp, 2.0)
        hop = tuple(np.where(members >= s.pp, two, 1.0) for members in groups["pp"].members)
        groups["send"] = Group(two, hop)
        return groups


def network(cluster: Cluster, devices: int) -> Network:
    """Lay a job of `devices` out on a cluster: every domain is filled with as many as divide the job evenly."""
    links: list[Link] = []
    inner = 1
    for tier in cluster.tiers:
        size = tier.size or devices
        inner = next(d for d in range(min(size, devices) // inner * inner, 0, -inner) if devices % d == 0 or d == inner)
        share = cluster.node.nics * cluster.node.nic_bandwidth / cluster.node.devices
        edge, wraps = _slice(tier, devices)
        links.append(Link(tier, inner, (tier.bandwidth or share) / tier.oversubscription, edge, wraps))
    outer = links[-1]
    links[-1] = Link(outer.tier, max(outer.domain, devices), outer.bandwidth_bytes_per_s, outer.edge, outer.wraps)
    return Network(tuple(links))


def _slice(tier: Tier, devices: int) -> tuple[float, float]:
    """Edge of the most cubic torus slice that holds the job, and whether its axes close into rings."""
    if not tier.torus:
        return 1.0, 0.0
    dimensions, chips = len(tier.torus), min(devices, prod(tier.torus))
    edge = next(e for e in range(1, max(tier.torus) + 1) if e**dimensions >= chips)
    return float(edge), float(edge % tier.wrap_multiple == 0)


def _driven(link: Link, size: Numeric) -> Numeric:
    """Share of a device's links on this tier that a group of `size` can use."""
    if link.tier.kind == "torus":
        return topology.torus_share(size, link.edge, float(len(link.tier.torus)), link.wraps)
    if link.tier.kind == "mesh":
        return np.minimum(np.maximum(size - 1.0, 1.0) / max(link.domain - 1.0, 1.0), 1.0)
    return 1.0


def _parallel(kind: CollectiveName, inside: Numeric) -> Numeric:
    """Ways out of a domain that one member's data can take: a ring uses those of all members inside."""
    return 1.0 if kind in ("all_to_all", "send_recv") else inside


def _best_efficiency(tier: Tier, kind: CollectiveName) -> float:
    protocols: tuple[Protocol, ...] = tier.collectives.get(kind, ())
    return max((protocol.efficiency for protocol in protocols), default=1.0)


def axis_strides(s: Strategies) -> dict[str, Numeric]:
    """Distance in devices between neighbours on each axis, by placement order."""
    strides: dict[str, Numeric] = {}
    sizes = {axis: getattr(s, axis) for axis in AXES}
    for axis in AXES:
        stride: Numeric = 1.0
        for code, order in enumerate(ORDERS):
            names = order.split("-")
            inner = [sizes[name] for name in names[: names.index(axis)]]
            distance: Numeric = 1.0
            for size in inner:
                distance = distance * size
            stride = np.where(s.order == code, distance, stride)
        strides[axis] = stride
    return strides
