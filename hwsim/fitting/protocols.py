"""Protocols of one collective from measured cells: several straight lines, of which the lowest holds, fitted together.

The model is the `Network.seconds` that every estimate uses. The loss grows with the error itself, not its square, so
that one odd cell costs little.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from hwsim.costs.network import Group, Network, network
from hwsim.fitting.collective_rows import Cells
from hwsim.fitting.fitted import Column, left_out
from hwsim.fitting.solver import scipy_least_squares
from hwsim.specs.hardware import Cluster, CollectiveName, LibraryCollectives, LibraryName, Protocol, Tier
from hwsim.units import show

Lines = tuple[tuple[str, int], ...]
"""Algorithm and smallest group of each protocol to fit."""
IDEAL = Protocol.model_construct(latency=0.0, hop_latency=0.0, efficiency=1.0)
FEW = 5
"""A collective with fewer cells is not fitted."""
STARTS = 6
SPREAD = 0.03
"""Relative error beyond which the loss grows linearly. [-]"""
LOWEST = np.array([0.3e-6, 0.02e-6, 1e-3, -0.7])
HIGHEST = np.array([5e-3, 300e-6, 4.0, 2.0])
"""Bounds of latency [s], time per step [s], efficiency over the best seen [-] and own share [-]."""
MOST_EFFICIENT = 1.999
"""What a profile may hold. [-]"""
PULL = np.array([0.0, 0.02, 0.0, 0.05])
"""How hard the same four are held to `USUAL` where rows say nothing."""
USUAL_HOP_S = 1e-6
USUAL_SHARE = {"ring": 0.15, "tree": 0.15, "switch": 1.0}


@dataclass(frozen=True)
class Place:
    """One collective of one tier of one cluster, as NCCL or another library runs it."""

    cluster: Cluster
    tier: Tier
    kind: CollectiveName
    library: LibraryName | None = None
    fallback: bool = True
    """Whether NCCL's protocols stand beside those of the library."""

    def predict(self, protocols: tuple[Protocol, ...], at: Cells) -> Column:
        """Seconds of every cell with these protocols in the place of those of the profile."""
        if self.library is None:
            change: dict[str, Any] = {"collectives": {**self.tier.collectives, self.kind: protocols}}
        else:
            own = {self.kind: protocols}
            given = LibraryCollectives.model_construct(launch={}, collectives=own, fallback=self.fallback)
            change = {"libraries": {self.library: given}}
        return self.seconds(self.tier.model_copy(update=change), at)

    def seconds(self, tier: Tier, at: Cells) -> Column:
        """Seconds of every cell with `tier` in the place of the one of its name."""
        laid = network(self.cluster, int(max(at.devices.max(), self.cluster.tiers[0].size or 1)))
        links = tuple(replace(link, tier=tier) if link.tier.name == tier.name else link for link in laid.links)
        members = (at.per_node, *(np.minimum(at.devices, link.domain) for link in links[1:]))
        group = Group(at.devices, members)
        return np.asarray(Network(links).seconds(self.kind, at.size, group, self.library), np.float64)


@dataclass(frozen=True)
class Found:
    """Fitted protocols, and what they and fits without a cell say of it."""

    protocols: tuple[Protocol, ...]
    at: Cells
    inside: Column
    outside: Column
    launch_s: float = 0.0
    at_bound: tuple[str, ...] = ()
    """What ended at a bound of its range."""


def written(protocols: tuple[Protocol, ...]) -> list[dict[str, Any]]:
    """Protocols as a profile writes them."""
    return [_fields(protocol) for protocol in protocols]


def _fields(protocol: Protocol) -> dict[str, Any]:
    fields: dict[str, Any] = {} if protocol.algorithm == "ring" else {"algorithm": protocol.algorithm}
    if protocol.min_devices > 2:
        fields["min_devices"] = protocol.min_devices
    fields["latency"] = show(protocol.latency, "s")
    fields["hop_latency"] = show(protocol.hop_latency, "s", digits=2)
    fields["efficiency"] = protocol.efficiency
    return fields | ({"own_share": protocol.own_share} if protocol.own_share else {})


def fit_protocols(place: Place, at: Cells, lines: Lines) -> Found | None:
    """Fit the protocols of one place; none where too little was measured."""
    if len(at) < FEW:
        return None
    protocols = _protocols(place, at, lines)
    outside = left_out(at.shapes, lambda kept: partial(place.predict, _protocols(place, at.take(kept), lines), at))
    bounds = at_bounds(protocols, _best_efficiency(place, at))
    return Found(protocols, at, place.predict(protocols, at), outside, at_bound=bounds)


def at_bounds(protocols: tuple[Protocol, ...], scale: float) -> tuple[str, ...]:
    """What of the protocols ended at a bound of its range, by protocol and field."""
    names = ("latency", "hop_latency", "efficiency", "own_share")
    unit = np.array([1.0, 1.0, scale, 1.0])
    found = []
    for number, protocol in enumerate(protocols):
        values = np.array([getattr(protocol, name) for name in names])
        near = [np.isclose(values, bound * unit, rtol=0.01, atol=0.0) for bound in (LOWEST, HIGHEST)]
        found += [f"{number}.{name}" for name, edge in zip(names, near[0] | near[1], strict=True) if edge]
    return tuple(found)


def _protocols(place: Place, at: Cells, lines: Lines) -> tuple[Protocol, ...]:
    """The protocols of least loss, from several starts; those that serve no cell are dropped."""
    least_squares = scipy_least_squares()
    scale = _best_efficiency(place, at)
    share = USUAL_SHARE if place.kind != "send_recv" else dict.fromkeys(USUAL_SHARE, 0.0)
    usual = np.concatenate([[0.0, np.log(USUAL_HOP_S), 0.0, share[algorithm]] for algorithm, _ in lines])
    low, high = (np.tile(_encoded(bound, scale), len(lines)) for bound in (LOWEST, HIGHEST))
    high[2::4] = np.minimum(high[2::4], np.log(MOST_EFFICIENT))

    def miss(x: Column) -> Column:
        ratio = np.log(place.predict(_decoded(x, lines), at) / at.seconds) * at.weight
        return np.concatenate((ratio, np.tile(PULL, len(lines)) * (x - usual)))

    def solve(start: Column) -> Any:
        start = np.clip(start, low + 1e-6, high - 1e-6)
        return least_squares(miss, start, bounds=(low, high), loss="soft_l1", f_scale=SPREAD, max_nfev=150)

    rng = np.random.default_rng(0)
    tries = [solve(_start(usual, at, lines, scale, rng)) for _ in range(STARTS)]
    best = min(tries, key=lambda tried: float(tried.cost))
    return _useful(place, _decoded(best.x, lines), at)


def _best_efficiency(place: Place, at: Cells) -> float:
    """The best efficiency that any cell shows."""
    seconds = replace(place, library=None).predict((IDEAL,), at) - place.tier.latency
    return float(np.quantile(seconds / at.seconds, 0.98))


def _encoded(values: Column, scale: float) -> Column:
    """Latency, time per step and efficiency by their logarithms; the own share as it is."""
    return np.array([np.log(values[0]), np.log(values[1]), np.log(values[2] * scale), values[3]])


def _start(usual: Column, at: Cells, lines: Lines, scale: float, rng: np.random.Generator) -> Column:
    """A quick protocol of little bandwidth, a slow one of much, and those between, shaken."""
    rings = sum(algorithm == "ring" for algorithm, _ in lines)
    rank = np.minimum(np.arange(len(lines)) / (rings - 1.0), 0.9)
    start = usual.reshape(-1, 4).copy()
    start[:, 0] = np.log(at.seconds.min()) + 2.2 * rank
    start[:, 2] = np.log(scale) - 3.7 * (1.0 - rank)
    start[:, :3] += rng.normal(0.0, 0.3, (len(lines), 3))
    return start.reshape(-1)


def _decoded(x: Column, lines: Lines) -> tuple[Protocol, ...]:
    """Protocols with as many digits as a profile writes."""
    return tuple(
        Protocol.model_construct(
            algorithm=algorithm,  # type: ignore[arg-type]
            min_devices=smallest,
            latency=float(np.exp(latency)),
            hop_latency=float(np.exp(hop)),
            efficiency=float(np.exp(efficiency)),
            own_share=float(own_share),
        )
        for (algorithm, smallest), (latency, hop, efficiency, own_share) in zip(lines, x.reshape(-1, 4), strict=True)
    )


def _useful(place: Place, protocols: tuple[Protocol, ...], at: Cells) -> tuple[Protocol, ...]:
    """The protocols without which some cell would be slower, to the digits that a profile writes."""
    kept = tuple(
        protocol.model_copy(
            update={"efficiency": float(f"{protocol.efficiency:.3g}"), "own_share": round(protocol.own_share, 2)}
        )
        for protocol in protocols
    )
    for protocol in kept:
        rest = tuple(other for other in kept if other is not protocol)
        serves = any(other.min_devices == 2 for other in rest)
        if serves and np.allclose(place.predict(rest, at), place.predict(kept, at), rtol=1e-3):
            kept = rest
    return kept
