"""Fits of collective protocols, tier by tier, on tables of measured latencies.

A collective of a tier gets a short list of protocols: three, and two more where the switch reduces. They are fitted
together, with the `Network.seconds` that every estimate uses, on cells (size, members), so that a cell measured with
ten versions of a library counts once. The loss grows with the error itself, not its square: one odd cell costs little.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from hwsim.costs.network import Group, Network, network
from hwsim.fitting.collective_rows import Cells, cells, joined, read_rows
from hwsim.fitting.fitted import Column, Fit, errors, left_out
from hwsim.fitting.solver import scipy_least_squares
from hwsim.formulas.collectives import crowding, steps
from hwsim.specs.hardware import Cluster, CollectiveName, LibraryCollectives, LibraryName, Protocol, Tier
from hwsim.specs.library import CLUSTERS, find, load_hardware

Lines = tuple[tuple[str, int], ...]
"""Algorithm and smallest group of each protocol to fit."""

RINGS: Lines = (("ring", 2),) * 3
LARGE = 2**24
"""Message from which only the bandwidth counts. [byte]"""
SOURCES = "tables of aiconfigurator, apex_plus, vTrain and vidur, published bandwidths"
PCIE = "pcie"
LENDERS: dict[CollectiveName, CollectiveName] = {
    "reduce_scatter": "all_gather",
    "all_to_all": "all_gather",
    "send_recv": "all_to_all",
}
"""Where a collective that was not measured gets its protocols, in this order."""
ENGINES: tuple[LibraryName, ...] = ("vllm", "sglang", "trtllm")
EAGER: LibraryName = "torch.distributed"
IDEAL = Protocol.model_construct(latency=0.0, hop_latency=0.0, efficiency=1.0)
MEASURED_GROUP = 8
"""Largest group that was measured."""
FEW = 5
"""A collective with fewer cells is not fitted."""
RELATIVE_WEIGHT = 0.3
STARTS = 6
SPREAD = 0.03
"""Relative error beyond which the loss grows linearly. [-]"""
LOWEST = np.array([0.3e-6, 0.02e-6, 1e-3, -0.7])
HIGHEST = np.array([5e-3, 300e-6, 4.0, 2.0])
"""Bounds of latency [s], time per step [s], efficiency over the best seen [-] and own share [-]."""
PULL = np.array([0.0, 0.02, 0.0, 0.05])
"""How hard the same four are held to `USUAL` where rows say nothing."""
USUAL_HOP_S = 1e-6
USUAL_SHARE = {"ring": 0.15, "tree": 0.15, "switch": 1.0}


@dataclass(frozen=True)
class Target:
    """A tier to fit, and the machine whose rows speak for it."""

    cluster: str
    gpu: str
    tier: str = "nvlink"
    switch_from: int = 0
    """Smallest group that the switch reduces for; 0: it does not."""
    relative: str = ""
    """Machine with the same switch: speaks for groups that were not measured here and, less loudly, for the rest."""
    shared: bool = False
    """Whether the members of a group crowd a host bridge."""
    eager: str = ""
    """Machine whose rows speak for torch.distributed called eagerly."""
    way_out: bool = False
    """Whether the machine was measured over several full nodes, which says what the next tier does."""
    same: tuple[str, ...] = ()
    """Clusters with the same tier, which take the same values."""


TARGETS = (
    Target("dgx-a100-640", "a100", eager="a100_dgx", same=("aws-p4d",)),
    Target("dgx-h100", "h100", switch_from=5, eager="h100_dgx"),
    Target("dgx-h200", "h200", switch_from=5, relative="h100", eager="h100_dgx"),
    Target("dgx-b200", "b200", switch_from=6),
    Target("dgx-b300", "b300", switch_from=6, relative="b200"),
    Target("gb200-nvl72", "gb200", switch_from=6, relative="b200"),
    Target("gb300-nvl72", "gb300", switch_from=6, relative="b300"),
    Target("l40s-pcie-8", "l40s", "pcie", shared=True),
    Target("pcie-gen5-8", "rtxpro6000", "pcie"),
    Target("arc-b60-pcie-8", "b60", "pcie"),
    Target("pcie-gen3-8", "v100_pcie", "pcie"),
    Target("v100-pcie-4-10gbe", "v100_pcie", "pcie", way_out=True),
)


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


def fit_collectives(folder: Path) -> list[Fit]:
    """Fit the protocols of every measured tier whose cluster has a profile on the tables of a folder."""
    rows = read_rows(folder)
    found = [fit for target in TARGETS if find(CLUSTERS, target.cluster) for fit in fit_target(target, rows)]
    twins = {target.cluster: target.same for target in TARGETS}
    inner = {target.cluster: target.tier for target in TARGETS}
    copied = [fit for fit in found if fit.path[1] == inner[fit.profile]]
    return found + [replace(fit, profile=twin) for fit in copied for twin in twins[fit.profile] if find(CLUSTERS, twin)]


def fit_target(target: Target, rows: pd.DataFrame) -> list[Fit]:
    """Fit one tier: how its members crowd each other, NCCL's protocols, those of other libraries, and the way out."""
    loaded = load_hardware(target.cluster).cluster
    plain = tuple(tier.model_copy(update={"libraries": {}}) for tier in loaded.tiers)
    cluster = loaded.model_copy(update={"tiers": plain})
    tier = next(tier for tier in plain if tier.name == target.tier)
    fits: list[Fit] = []
    tier = tier.model_copy(update={"sharing": _sharing(target, cluster, tier, rows) if target.shared else 0.0})
    for kind in get_args(CollectiveName):
        found = _fitted(Place(cluster, tier, kind), _nccl_cells(target, kind, rows), _lines(target, kind))
        if found and kind == "all_reduce" and (tier.size or 0) > MEASURED_GROUP:
            found = replace(found, protocols=(*found.protocols, _tree(found.protocols[0])))
        if found:
            fits.append(_as_fit(target, found, {kind: _written(found.protocols)}, "collectives"))
            tier = tier.model_copy(update={"collectives": {**tier.collectives, kind: found.protocols}})
    for kind, lender in LENDERS.items():
        if len(_nccl_cells(target, kind, rows)) < FEW:
            protocols = _borrowed(kind, tier.collectives[lender])
            tier = tier.model_copy(update={"collectives": {**tier.collectives, kind: protocols}})
            fits.append(replace(fits[0], values={kind: _written(protocols)}, data=f"as {lender}"))
    inner = cluster.model_copy(update={"tiers": (tier, *cluster.tiers[1:])})
    fits += [*_engine_fits(target, inner, tier, rows), *_eager_fits(target, inner, tier, rows)]
    out = list(_way_out(target, inner, rows)) if target.way_out else []
    slopes = "from large messages over 2, 4 and 8 members" if target.shared else "no sharing seen"
    sharing = [replace(fits[0], path=("tiers", tier.name), values={"sharing": tier.sharing}, data=slopes)]
    return [*fits, *out, *(sharing if tier.name == PCIE else [])]


def _tree(quick: Protocol) -> Protocol:
    """A tree for groups larger than any measured: its steps cost what makes it as quick as the ring at that size."""
    rings, trees = (float(steps("all_reduce", name, MEASURED_GROUP)) for name in ("ring", "tree"))
    change = {"algorithm": "tree", "min_devices": MEASURED_GROUP + 1, "hop_latency": quick.hop_latency * rings / trees}
    return quick.model_copy(update=change)


def _borrowed(kind: CollectiveName, lender: tuple[Protocol, ...]) -> tuple[Protocol, ...]:
    """Protocols of a collective that was not measured: those of its lender, for a send without the own share."""
    if kind != "send_recv":
        return lender
    pairs = (protocol for protocol in lender if protocol.min_devices == 2)
    return tuple(protocol.model_copy(update={"own_share": 0.0}) for protocol in pairs)


def _way_out(target: Target, cluster: Cluster, rows: pd.DataFrame) -> Iterator[Fit]:
    """NCCL between full nodes."""
    for kind in get_args(CollectiveName):
        at = _cells_of(rows, target.gpu, "nccl", kind, cluster.tiers[0].size)
        found = _fitted(Place(cluster, cluster.tiers[1], kind), at, RINGS[:2])
        if found:
            fit = _as_fit(target, found, {kind: _written(found.protocols)}, "collectives")
            yield replace(fit, path=("tiers", cluster.tiers[1].name, "collectives"))


def _lines(target: Target, kind: CollectiveName) -> Lines:
    """Three ring protocols, and two inside the switch for an all-reduce where it can reduce."""
    reduces = kind == "all_reduce" and target.switch_from
    return RINGS + (("switch", target.switch_from),) * 2 if reduces else RINGS


def _nccl_cells(target: Target, kind: CollectiveName, rows: pd.DataFrame) -> Cells:
    """Cells of a collective under NCCL, with those of the relative behind the machine's own."""
    own = _cells_of(rows, target.gpu, "nccl", kind)
    if not target.relative:
        return own
    other = _cells_of(rows, target.relative, "nccl", kind)
    known = np.isin(other.devices, own.devices)
    return joined([own, replace(other, weight=np.where(known, RELATIVE_WEIGHT, 1.0))])


def _cells_of(rows: pd.DataFrame, gpu: str, library: str, kind: CollectiveName, node: int | None = None) -> Cells:
    """Cells of groups within one node, or of those over full nodes of `node` devices."""
    chosen = (rows["gpu"] == gpu) & (rows["library"] == library) & (rows["collective"] == kind)
    local = rows["num_gpus"] == rows["gpus_per_node"]
    return cells(rows[chosen & (~local & (rows["gpus_per_node"] == node) if node else local)])


@dataclass(frozen=True)
class Found:
    """Fitted protocols, and what they and fits without a cell say of it."""

    protocols: tuple[Protocol, ...]
    at: Cells
    inside: Column
    outside: Column
    launch_s: float = 0.0


def _written(protocols: tuple[Protocol, ...]) -> list[dict[str, Any]]:
    """Protocols as a profile writes them."""
    return [_fields(protocol) for protocol in protocols]


def _fields(protocol: Protocol) -> dict[str, Any]:
    fields: dict[str, Any] = {} if protocol.algorithm == "ring" else {"algorithm": protocol.algorithm}
    if protocol.min_devices > 2:
        fields["min_devices"] = protocol.min_devices
    fields["latency"] = f"{protocol.latency * 1e6:.3g} us"
    fields["hop_latency"] = f"{protocol.hop_latency * 1e6:.2g} us"
    fields["efficiency"] = protocol.efficiency
    return fields | ({"own_share": protocol.own_share} if protocol.own_share else {})


def _fitted(place: Place, at: Cells, lines: Lines) -> Found | None:
    """Fit the protocols of one place; none where too little was measured."""
    if len(at) < FEW:
        return None
    protocols = _protocols(place, at, lines)
    outside = left_out(at.shapes, lambda kept: partial(place.predict, _protocols(place, at.take(kept), lines), at))
    return Found(protocols, at, place.predict(protocols, at), outside)


def _protocols(place: Place, at: Cells, lines: Lines) -> tuple[Protocol, ...]:
    """The protocols of least loss, from several starts; those that serve no cell are dropped."""
    least_squares = scipy_least_squares()
    scale = _best_efficiency(place, at)
    share = USUAL_SHARE if place.kind != "send_recv" else dict.fromkeys(USUAL_SHARE, 0.0)
    usual = np.concatenate([[0.0, np.log(USUAL_HOP_S), 0.0, share[algorithm]] for algorithm, _ in lines])
    low, high = (np.tile(_encoded(bound, scale), len(lines)) for bound in (LOWEST, HIGHEST))

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


def _sharing(target: Target, cluster: Cluster, tier: Tier, rows: pd.DataFrame) -> float:
    """The crowding under which large messages of all group sizes reach the same share of it, over all collectives."""
    flat = tier.model_copy(update={"sharing": 0.0})
    tried = np.arange(0.0, 2.001, 0.05)
    wrong = np.zeros(len(tried))
    for kind in get_args(CollectiveName):
        at = _nccl_cells(target, kind, rows)
        large = at.take(at.size >= LARGE)
        if len(large):
            slower = np.log(large.seconds / Place(cluster, flat, kind).predict((IDEAL,), large))
            wrong += [float(np.std(slower + np.log(crowding(large.devices, sharing)))) for sharing in tried]
    return round(float(tried[int(np.argmin(wrong))]), 2)


def _engine_fits(target: Target, cluster: Cluster, tier: Tier, rows: pd.DataFrame) -> Iterator[Fit]:
    """The all-reduces of serving engines, beside the NCCL protocols just fitted."""
    for library in ENGINES:
        own = _cells_of(rows, target.gpu, library, "all_reduce")
        at = own if len(own) else _cells_of(rows, target.relative, library, "all_reduce")
        place = Place(cluster, tier, "all_reduce", library)
        found, hosted = _fitted(place, at, RINGS), _hosted(place, at)
        if found and _wrong(hosted.inside, at) < _wrong(found.inside, at):
            yield _as_fit(target, hosted, {library: {"launch": {"all_reduce": _us(hosted.launch_s)}}}, "libraries")
        elif found:
            values: dict[str, Any] = {library: {"collectives": {"all_reduce": _written(found.protocols)}}}
            yield _as_fit(target, found, values, "libraries")


def _eager_fits(target: Target, cluster: Cluster, tier: Tier, rows: pd.DataFrame) -> Iterator[Fit]:
    """What torch.distributed adds: the host's time on one node, and all of an all-reduce over more."""
    at = _cells_of(rows, target.eager, EAGER, "all_reduce")
    if not len(at):
        return
    host = _hosted(Place(cluster, tier, "all_reduce", EAGER), at)
    times = dict.fromkeys(("all_reduce", "all_gather", "reduce_scatter", "all_to_all"), _us(host.launch_s))
    yield _as_fit(target, host, {EAGER: {"launch": times}}, "libraries")
    out = _cells_of(rows, target.eager, EAGER, "all_reduce", tier.size)
    found = _fitted(Place(cluster, cluster.tiers[1], "all_reduce", EAGER, fallback=False), out, RINGS[:2])
    if found:
        values: dict[str, Any] = {EAGER: {"fallback": False, "collectives": {"all_reduce": _written(found.protocols)}}}
        yield replace(_as_fit(target, found, values, "libraries"), path=("tiers", cluster.tiers[1].name, "libraries"))


def _hosted(place: Place, at: Cells) -> Found:
    """NCCL's protocols behind the host's time."""
    if not len(at):
        return Found((), at, at.seconds, at.seconds)
    device = place.seconds(place.tier, at)
    launch = _launch(device, at)
    outside = left_out(at.shapes, lambda kept: lambda: np.maximum(device, _launch(device[kept], at.take(kept))))
    return Found((), at, np.maximum(device, launch), outside, launch)


def _launch(device_s: Column, at: Cells) -> float:
    """Host time that explains most of the rows whose device time hides behind it. [s]"""
    tried = np.arange(5e-6, 80e-6, 1e-6)
    wrong = [_wrong(np.maximum(device_s, launch), at) for launch in tried]
    return float(tried[int(np.argmin(wrong))])


def _wrong(predicted_s: Column, at: Cells) -> float:
    """Mean distance of predictions from the cells. [-]"""
    return float(np.abs(np.log(predicted_s / at.seconds)).mean())


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.3g} us"


def _as_fit(target: Target, found: Found, values: Mapping[str, Any], field: str) -> Fit:
    """A fit of one field of the tier, with its errors on the machine's own cells."""
    own = found.at.weight >= 1.0
    measured = found.at.seconds[own]
    return Fit(
        profile=target.cluster,
        path=("tiers", target.tier, field),
        values=dict(values),
        data=f"{own.sum()} cells of {target.gpu} ({SOURCES})",
        inside=errors(found.inside[own], measured),
        outside=errors(found.outside[own], measured),
    )
