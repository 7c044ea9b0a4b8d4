"""Fits of collectives, tier by tier, on tables of measured latencies.

A collective of a tier gets a short list of protocols: three, and two more where the switch reduces, fitted together on
cells (size, members), so that a cell measured with ten versions of a library counts once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from hwsim.fitting.collective_rows import Cells, cells, joined, read_rows
from hwsim.fitting.fitted import Column, Fit, errors, left_out, parts_of
from hwsim.fitting.protocols import FEW, IDEAL, Found, Lines, Place, fit_protocols, written
from hwsim.formulas.collectives import crowding, steps
from hwsim.specs.hardware import Cluster, CollectiveName, LibraryName, Protocol, Tier
from hwsim.specs.library import CLUSTERS, find, load_hardware
from hwsim.units import MIB, show

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
MEASURED_GROUP = 8
"""Largest group that was measured."""
RELATIVE_WEIGHT = 0.3
LAUNCHES = np.arange(5e-6, 80e-6, 1e-6)
"""Host times of a call that are tried. [s]"""


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
    sharing = _sharing(target, cluster, tier, rows) if target.shared else 0.0
    tier, by_kind = _nccl_fits(target, cluster, tier.model_copy(update={"sharing": sharing}), rows)
    inner = cluster.model_copy(update={"tiers": (tier, *cluster.tiers[1:])})
    fits = [*by_kind.values(), *_engine_fits(target, inner, tier, rows), *_eager_fits(target, inner, tier, rows)]
    fits += _way_out(target, inner, rows) if target.way_out else []
    if tier.name == PCIE and fits:
        data = "all_reduce with the sharing of large messages" if target.shared else "all_reduce without sharing"
        fits.append(replace(fits[0], path=("tiers", tier.name), values={"sharing": sharing}, data=data))
    return fits


def _nccl_fits(
    target: Target, cluster: Cluster, tier: Tier, rows: pd.DataFrame
) -> tuple[Tier, dict[CollectiveName, Fit]]:
    """The tier with fitted protocols, and the fits; what was not measured borrows."""
    fits: dict[CollectiveName, Fit] = {}
    for kind in get_args(CollectiveName):
        found = fit_protocols(Place(cluster, tier, kind), _nccl_cells(target, kind, rows), _lines(target, kind))
        if not found:
            continue
        protocols = found.protocols
        if kind == "all_reduce" and (tier.size or 0) > MEASURED_GROUP:
            protocols = (*protocols, _tree(protocols[0]))
        tier = tier.model_copy(update={"collectives": {**tier.collectives, kind: protocols}})
        fits[kind] = _as_fit(target, found, {kind: written(protocols)}, "collectives")
    for kind, lender in LENDERS.items():
        if kind not in fits and lender in fits:
            protocols = borrowed(kind, tier.collectives[lender])
            tier = tier.model_copy(update={"collectives": {**tier.collectives, kind: protocols}})
            fits[kind] = replace(fits[lender], values={kind: written(protocols)}, data=f"as {lender}")
    return tier, fits


def _tree(quick: Protocol) -> Protocol:
    """A tree for groups larger than any measured: its steps cost what makes it as quick as the ring at that size."""
    rings, trees = (float(steps("all_reduce", name, MEASURED_GROUP)) for name in ("ring", "tree"))
    change = {"algorithm": "tree", "min_devices": MEASURED_GROUP + 1, "hop_latency": quick.hop_latency * rings / trees}
    return quick.model_copy(update=change)


def borrowed(kind: CollectiveName, lender: tuple[Protocol, ...]) -> tuple[Protocol, ...]:
    """Protocols of a collective that was not measured: those of its lender, for a send without the own share."""
    if kind != "send_recv":
        return lender
    pairs = (protocol for protocol in lender if protocol.min_devices == 2)
    return tuple(protocol.model_copy(update={"own_share": 0.0}) for protocol in pairs)


def _way_out(target: Target, cluster: Cluster, rows: pd.DataFrame) -> Iterator[Fit]:
    """NCCL between full nodes."""
    for kind in get_args(CollectiveName):
        at = _cells_of(rows, target.gpu, "nccl", kind, cluster.tiers[0].size)
        found = fit_protocols(Place(cluster, cluster.tiers[1], kind), at, RINGS[:2])
        if found:
            fit = _as_fit(target, found, {kind: written(found.protocols)}, "collectives")
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


def _sharing(target: Target, cluster: Cluster, tier: Tier, rows: pd.DataFrame) -> float:
    """The crowding of the machine's members."""
    return crowded({kind: _nccl_cells(target, kind, rows) for kind in get_args(CollectiveName)}, cluster, tier)


def crowded(measured: Mapping[CollectiveName, Cells], cluster: Cluster, tier: Tier) -> float:
    """The crowding under which large messages of all group sizes reach the same share of it, over all collectives."""
    flat = tier.model_copy(update={"sharing": 0.0})
    tried = np.arange(0.0, 2.001, 0.05)
    wrong = np.zeros(len(tried))
    for kind, at in measured.items():
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
        found = fit_protocols(place, at, RINGS)
        if not found:
            continue
        hosted = _hosted(place, at)
        values: dict[str, Any] = {"collectives": {"all_reduce": written(found.protocols)}}
        if _wrong(hosted.inside, at) < _wrong(found.inside, at):
            found, values = hosted, {"launch": {"all_reduce": show(hosted.launch_s, "s")}}
        yield _as_fit(target, found, {library: values}, "libraries")


def _eager_fits(target: Target, cluster: Cluster, tier: Tier, rows: pd.DataFrame) -> Iterator[Fit]:
    """What torch.distributed adds: the host's time on one node, and all of an all-reduce over more."""
    at = _cells_of(rows, target.eager, EAGER, "all_reduce")
    if len(at) < FEW:
        return
    host = _hosted(Place(cluster, tier, "all_reduce", EAGER), at)
    times = dict.fromkeys(("all_reduce", "all_gather", "reduce_scatter", "all_to_all"), show(host.launch_s, "s"))
    yield _as_fit(target, host, {EAGER: {"launch": times}}, "libraries")
    out = _cells_of(rows, target.eager, EAGER, "all_reduce", tier.size)
    found = fit_protocols(Place(cluster, cluster.tiers[1], "all_reduce", EAGER, fallback=False), out, RINGS[:2])
    if found:
        values: dict[str, Any] = {EAGER: {"fallback": False, "collectives": {"all_reduce": written(found.protocols)}}}
        yield replace(_as_fit(target, found, values, "libraries"), path=("tiers", cluster.tiers[1].name, "libraries"))


def _hosted(place: Place, at: Cells) -> Found:
    """NCCL's protocols behind the host's time."""
    device = place.seconds(place.tier, at)
    launch = _launch(device, at)
    outside = left_out(at.shapes, lambda kept: lambda: np.maximum(device, _launch(device[kept], at.take(kept))))
    bounds = ("launch",) if launch in (LAUNCHES[0], LAUNCHES[-1]) else ()
    return Found((), at, np.maximum(device, launch), outside, launch, bounds)


def _launch(device_s: Column, at: Cells) -> float:
    """Host time that explains most of the rows whose device time hides behind it. [s]"""
    wrong = [_wrong(np.maximum(device_s, launch), at) for launch in LAUNCHES]
    return float(LAUNCHES[int(np.argmin(wrong))])


def _wrong(predicted_s: Column, at: Cells) -> float:
    """Mean distance of predictions from the cells. [-]"""
    return float(np.abs(np.log(predicted_s / at.seconds)).mean())


def _as_fit(target: Target, found: Found, values: Mapping[str, Any], field: str) -> Fit:
    """A fit of one field of the tier, with its errors on the machine's own cells."""
    own = found.at.weight >= 1.0
    measured, large = found.at.seconds[own], found.at.size[own] >= MIB
    return Fit(
        profile=target.cluster,
        path=("tiers", target.tier, field),
        values=dict(values),
        data=f"{own.sum()} cells of {target.gpu} ({SOURCES})",
        inside=errors(found.inside[own], measured),
        outside=errors(found.outside[own], measured),
        parts=parts_of(found.outside[own], measured, {"from 1 MiB": large, "below 1 MiB": ~large}),
        at_bound=found.at_bound,
    )
