"""The same machine with more or less of one thing: what sensitivities and `Plan.helps` turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any, Literal, TypeVar, get_args

from hwsim.costs.money import rent_usd_per_s
from hwsim.specs.base import Quantity, Seconds, Spec
from hwsim.specs.hardware import Accelerator, Cluster, Hardware, Power
from hwsim.specs.tiers import Tier

Kind = Literal["rate", "duration", "size", "price", "power", "job"]
"""rate: time goes down with it; duration: time goes up with it; the others change time indirectly or not at all."""
SpecT = TypeVar("SpecT", bound=Spec)
VECTOR, HOST_LINK = "vector rate", "host bandwidth"


@dataclass(frozen=True)
class Lever:
    """One thing about a machine that may be more or less."""

    name: str
    """As people call it."""
    path: str
    """Of the field, as `--set` writes it."""
    value: float
    """As it is, in SI; of several fields that turn together, the first."""
    unit: str
    """Key of `hwsim.units.DIMENSIONS`."""
    kind: Kind
    turned: Callable[[float], Hardware]
    """The hardware with so many times as much of it."""


def hardware_levers(hardware: Hardware, compute: str | None = None) -> list[Lever]:
    """Everything about a machine that a prediction may depend on.

    Parameters
    ----------
    hardware
        The machine as it is.
    compute
        Dtype whose peak is shown as the value of the matrix units (all of them turn together); none: the first.
    """
    device, cluster = hardware.accelerator, hardware.cluster
    tiers = [lever for place in range(len(cluster.tiers)) for lever in _tier_levers(hardware, place)]
    return [*_device_levers(hardware, compute), *tiers, *_kernel_levers(hardware), *_priced(hardware, device)]


def nudged(hardware: Hardware, factor: float) -> dict[str, Hardware]:
    """The hardware with `factor` times the rate of one resource at a time, by name of the resource."""
    return {lever.name: lever.turned(factor) for lever in hardware_levers(hardware) if lever.kind == "rate"}


def stretched(spec: SpecT, factor: float) -> SpecT:
    """The same description with every duration in it, however deep, times `factor`."""
    fields = type(spec).model_fields
    return spec.model_copy(
        update={
            name: {key: item * factor for key, item in value.items()}
            if isinstance(value, dict) and Seconds in get_args(fields[name].annotation)
            else value * factor
            if any(isinstance(mark, Quantity) and mark.dimension == "s" for mark in fields[name].metadata)
            else _deep(value, factor)
            for name, value in spec
        }
    )


def _deep(value: Any, factor: float) -> Any:
    """What a field holds, with the durations of specs in it stretched."""
    if isinstance(value, Spec):
        return stretched(value, factor)
    if isinstance(value, tuple):
        return tuple(_deep(item, factor) for item in value)
    if isinstance(value, dict):
        return {key: _deep(item, factor) for key, item in value.items()}
    return value


def _with(hardware: Hardware, **fields: Any) -> Hardware:
    """The hardware with some fields of its device changed."""
    return hardware.model_copy(update={"accelerator": hardware.accelerator.model_copy(update=fields)})


def _device_levers(hardware: Hardware, compute: str | None) -> list[Lever]:
    """Rates and sizes of the device."""
    device = hardware.accelerator
    memory, peaks = device.memory, {name: rate for name, rate in device.peak.model_dump().items() if rate}

    def peak(factor: float) -> Hardware:
        return _with(hardware, peak=device.peak.model_copy(update={n: r * factor for n, r in peaks.items()}))

    def faster(factor: float) -> Hardware:
        return _with(hardware, memory=memory.model_copy(update={"bandwidth": memory.bandwidth * factor}))

    def larger(factor: float) -> Hardware:
        visible = memory.visible and memory.visible * factor
        sizes = {"capacity": memory.capacity * factor, "visible": visible}
        return _with(hardware, memory=memory.model_copy(update=sizes))

    shown = peaks.get(compute or "") or next(iter(peaks.values()))
    found = [
        Lever("matrix-unit peak", "accelerator.peak", shown, "flops_per_s", "rate", peak),
        Lever(
            "memory bandwidth", "accelerator.memory.bandwidth", memory.bandwidth, "bytes_per_s", "rate", faster
        ),
        Lever("memory capacity", "accelerator.memory.capacity", memory.usable, "bytes", "size", larger),
    ]  # fmt: skip
    for name, field, unit in ((VECTOR, "vector", "flops_per_s"), (HOST_LINK, "host_bandwidth", "bytes_per_s")):
        value = getattr(device, field)
        if value:
            found.append(Lever(name, f"accelerator.{field}", value, unit, "rate", partial(_scaled, hardware, field)))
    return found


def _scaled(hardware: Hardware, field: str, factor: float) -> Hardware:
    """The hardware with one number of its device times `factor`."""
    return _with(hardware, **{field: getattr(hardware.accelerator, field) * factor})


def _tier_levers(hardware: Hardware, place: int) -> list[Lever]:
    """Bandwidth, and every fixed time of a call, of one tier of the network."""
    cluster = hardware.cluster
    tier = cluster.tiers[place]
    rate = tier.bandwidth or cluster.node.nic_share
    path = f"cluster.tiers.{tier.name}"

    def swapped(changed: Tier) -> Hardware:
        tiers = (*cluster.tiers[:place], changed, *cluster.tiers[place + 1 :])
        return hardware.model_copy(update={"cluster": cluster.model_copy(update={"tiers": tiers})})

    def wider(factor: float) -> Hardware:
        return swapped(tier.model_copy(update={"bandwidth": rate * factor}))

    def slower(factor: float) -> Hardware:
        return swapped(stretched(tier, factor))

    return [
        Lever(f"{tier.name} bandwidth", f"{path}.bandwidth", rate, "bytes_per_s", "rate", wider),
        Lever(f"{tier.name} latency", f"{path}.latency, .collectives.*", tier.latency, "s", "duration", slower),
    ]


def _kernel_levers(hardware: Hardware) -> list[Lever]:
    """What launching a kernel takes the host, and what every kernel takes the device beside its work."""
    kernels = hardware.accelerator.kernels
    launch = {"launch": kernels.launch, "graph_launch": kernels.graph_launch}

    def launched(factor: float) -> Hardware:
        return _with(hardware, kernels=kernels.model_copy(update={n: s * factor for n, s in launch.items()}))

    def fixed(factor: float) -> Hardware:
        return _with(hardware, kernels=stretched(kernels, factor).model_copy(update=launch))

    path = "accelerator.kernels"
    return [
        Lever("launch cost", f"{path}.launch, .graph_launch", kernels.launch, "s", "duration", launched),
        Lever("kernels' fixed time", f"{path}.*.latency", kernels.gemm.latency, "s", "duration", fixed),
    ]


def _priced(hardware: Hardware, device: Accelerator) -> list[Lever]:
    """Rent, and the power limit: the rated power of the node moves with it, so that its other parts keep theirs."""
    price, power, rent = device.price, device.power, rent_usd_per_s(device)

    def dearer(factor: float) -> Hardware:
        rents = {
            name: value and value * factor for name, value in (("rent", price.rent), ("committed", price.committed))
        }
        return _with(hardware, price=price.model_copy(update=rents))

    def hotter(factor: float) -> Hardware:
        changed = _with(hardware, power=power.model_copy(update={"tdp": max(power.tdp * factor, power.idle)}))
        return changed.model_copy(update={"cluster": _rated(hardware.cluster, power, factor)})

    found = [Lever("power limit (TDP)", "accelerator.power.tdp", power.tdp, "w", "power", hotter)]
    if isfinite(rent):
        found.append(Lever("rent", "accelerator.price.rent", rent, "usd_per_s", "price", dearer))
    return found


def _rated(cluster: Cluster, power: Power, factor: float) -> Cluster:
    """The cluster whose nodes are rated for devices with another limit."""
    node = cluster.node
    if node.max_power is None:
        return cluster
    rated = max(node.max_power + node.devices * power.tdp * (factor - 1.0), 0.0)
    return cluster.model_copy(update={"node": node.model_copy(update={"max_power": rated})})
