"""The bill of a run: rent, the cost of machines of one's own, energy and carbon, each part as a range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hwsim.costs.energy import rated_power_w
from hwsim.formulas.ranges import Range, certain, inverse, plus, rest, scaled, times, together
from hwsim.formulas.types import Numeric
from hwsim.specs.economy import Grid, Market, Prices
from hwsim.specs.hardware import Accelerator, Hardware
from hwsim.specs.tiers import source_of
from hwsim.units import HOUR_S

Parts = Mapping[str, Range | None]
"""What a total consists of, by name; what nobody knows the price of is None, and so is its total."""


@dataclass(frozen=True)
class Bill:
    """What a run costs: by the hour on somebody's machines, or as its share of one's own."""

    devices: Numeric
    seconds: Range
    prices: str
    """Price book."""
    date: str
    """Of its newest prices."""
    grid: str
    """Where the electricity comes from."""
    rent_usd: Parts
    """Devices with their nodes, on demand, committed for a year and at spot prices: alternatives, not parts. [USD]"""
    ownership_usd: Parts
    """Parts of what the run costs on machines of one's own. [USD]"""
    owned_usd: Range | None
    """All of them. [USD]"""
    energy_j: Range
    """At the nodes. [J]"""
    facility_energy_j: Range
    """With cooling and power conversion. [J]"""
    carbon_kg: Parts
    """Operational and embodied emissions. [kgCO2e]"""
    total_carbon_kg: Range
    """Both. [kgCO2e]"""
    sources: Mapping[str, str] = field(default_factory=dict)
    """What each part rests on, with its date."""

    @property
    def device_hours(self) -> Range:
        """Devices times hours. [h]"""
        return scaled(self.seconds, self.devices / HOUR_S)

    def to_dict(self) -> dict[str, Any]:
        """The bill for JSON: ranges as `{low, expected, high}`, units in the keys, null where nobody knows."""
        kinds = {"on_demand": "rent_usd", "committed": "rent_committed_usd", "spot": "rent_spot_usd"}
        return {
            "prices": self.prices,
            "prices_date": self.date,
            "grid": self.grid,
            "devices": _plain(self.devices),
            "time_s": _shown(self.seconds),
            "device_hours": _shown(self.device_hours),
            **{key: _shown(self.rent_usd[kind]) for kind, key in kinds.items()},
            "ownership_usd": _shown(self.owned_usd),
            "ownership_parts_usd": {name: _shown(part) for name, part in self.ownership_usd.items()},
            "energy_j": _shown(self.energy_j),
            "facility_energy_j": _shown(self.facility_energy_j),
            "carbon_kg": _shown(self.total_carbon_kg),
            "carbon_parts_kg": {name: _shown(part) for name, part in self.carbon_kg.items()},
            "sources": dict(self.sources),
        }


def _plain(value: Numeric) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _shown(value: Range | None) -> dict[str, Any] | None:
    return None if value is None else {name: _plain(each) for name, each in value._asdict().items()}


def bill(
    hardware: Hardware,
    devices: Numeric,
    seconds: Range,
    energy_j: Range,
    prices: Prices,
    grid: Grid,
    parameters: Numeric | None = None,
) -> Bill:
    """What `devices` of some hardware cost for a while.

    Parameters
    ----------
    hardware, devices
        The machine, and how many devices of it are used.
    seconds : Range
        For how long. [s]
    energy_j : Range
        Energy of the nodes in that time, at their plugs. [J]
    prices, grid
        The price book, and the place.
    parameters : numeric, optional
        Of a model whose checkpoints are kept meanwhile; without it nothing is stored.
    """
    used = scaled(seconds, devices)
    facility = times(energy_j, grid.pue.range)
    electricity = times(facility, grid.electricity.range)
    parts, by_time = _ownership(hardware, prices, used)
    if parameters is not None:
        storage = times(seconds, scaled(_storage_usd_per_s(prices), parameters))
        parts, by_time = {**parts, "storage": storage}, by_time and plus(by_time, storage)
    parts = {**parts, "electricity": electricity}
    carbon = {
        "operational": times(facility, grid.carbon.range),
        "embodied": times(used, _embodied_kg_per_s(hardware.accelerator, prices)),
    }
    rents = rents_usd_per_s(hardware.accelerator, prices)
    return Bill(
        devices=devices,
        seconds=seconds,
        prices=prices.name,
        date=prices.date,
        grid=grid.name,
        rent_usd={kind: rent and times(used, rent) for kind, rent in rents.items()},
        ownership_usd=parts,
        owned_usd=by_time and _exact(plus(by_time, electricity), parts),
        energy_j=energy_j,
        facility_energy_j=facility,
        carbon_kg=carbon,
        total_carbon_kg=_exact(plus(*carbon.values()), carbon),
        sources=_sources(hardware, prices, grid),
    )


def rents_usd_per_s(accelerator: Accelerator, prices: Prices) -> Parts:
    """Rent of one device on demand, for a year and at spot prices; None where no price is known. [USD/s]

    A rent that the asker set is certain, and goes before the book's.
    """
    own = is_given(accelerator, "rent") or is_given(accelerator, "committed")
    market = None if own else prices.markets.get(accelerator.name)
    listed, rental = accelerator.price, prices.rental
    spread = certain(1.0) if own else rental.on_demand_share.range
    on_demand = _given(market, "on_demand") or (None if listed.rent is None else scaled(spread, listed.rent))
    committed, spot = _given(market, "committed"), _given(market, "spot")
    if committed is None and listed.committed is not None and not _given(market, "on_demand"):
        committed = scaled(spread, listed.committed)
    return {
        "on_demand": on_demand,
        "committed": committed or (on_demand and times(on_demand, rental.committed_share.range)),
        "spot": spot or (on_demand and times(on_demand, rental.spot_share.range)),
    }


def price_usd(hardware: Hardware, prices: Prices) -> Range | None:
    """Price of one device with its share of the node; None where none is known. [USD]"""
    own = is_given(hardware.accelerator, "purchase")
    market = None if own else _given(prices.markets.get(hardware.accelerator.name), "bought")
    if market is not None:
        return market
    node, device, owned = hardware.cluster.node, hardware.accelerator.price.purchase, prices.ownership
    if node.price is not None and not own:
        return scaled(owned.price_spread.range, node.price / node.devices)
    if device is None:
        return None
    spread = certain(1.0) if own else owned.price_spread.range
    return times(scaled(spread, device), plus(certain(1.0), owned.node_share.range))


def is_given(accelerator: Accelerator, price: str) -> bool:
    """Whether the asker set a price of a device."""
    return source_of(accelerator.sources, ("price", price)).kind == "given"


def _given(market: Market | None, name: str) -> Range | None:
    quoted = getattr(market, name, None)
    return None if quoted is None else quoted.range


def _ownership(hardware: Hardware, prices: Prices, used: Range) -> tuple[dict[str, Range | None], Range | None]:
    """Parts that grow with the device-seconds used, and their sum: machines, their network, and where they stand."""
    owned, price = prices.ownership, price_usd(hardware, prices)
    idle_too = inverse(owned.used_share.range)
    hosting = times(scaled(owned.hosting.range, rated_power_w(hardware)), idle_too)
    if price is None:
        return {"nodes": None, "network": None, "hosting": times(used, hosting)}, None
    worn = times(price, rest(owned.residual_share.range), inverse(owned.life.range), idle_too)
    network = owned.network_share.range
    whole = plus(times(worn, plus(certain(1.0), network)), hosting)
    parts: dict[str, Range | None] = {"nodes": times(used, worn), "network": times(used, worn, network)}
    return parts | {"hosting": times(used, hosting)}, times(used, whole)


def _storage_usd_per_s(prices: Prices) -> Range:
    """Keeping the checkpoints, per parameter. [USD/s]"""
    stored = prices.storage
    return times(stored.price.range, stored.bytes_per_parameter.range, stored.checkpoints.range)


def _embodied_kg_per_s(accelerator: Accelerator, prices: Prices) -> Range:
    """Emissions of making one device and its share of the node, per second of use. [kgCO2e/s]"""
    made, market = prices.embodied, _given(prices.markets.get(accelerator.name), "embodied")
    by_memory = scaled(made.memory.range, accelerator.memory.capacity)
    device = market or together(made.device.range, by_memory)
    idle_too = inverse(prices.ownership.used_share.range)
    return times(plus(device, made.node.range), inverse(made.life.range), idle_too)


def _exact(total: Range, parts: Parts) -> Range:
    """The total with its expected value the sum of its parts to the last bit."""
    expected = sum(part.expected for part in parts.values() if part is not None)
    return Range(total.low, expected, total.high)


def _sources(hardware: Hardware, prices: Prices, grid: Grid) -> dict[str, str]:
    """What each part rests on."""
    market = prices.markets.get(hardware.accelerator.name)
    device, cluster = hardware.accelerator, hardware.cluster
    listed = source_of(device.sources, ("price", "rent"))
    bought = ("price", "purchase")
    own = is_given(device, "purchase")
    of_node = cluster.node.price and not own
    price = source_of(cluster.sources, ("node", "price")) if of_node else source_of(device.sources, bought)
    found = {
        "rent_usd": market.source if market and market.on_demand and listed.kind != "given" else listed,
        "nodes": market.source if market and market.bought and not own else price,
        **{name: source_of(prices.sources, ("ownership", key)) for name, key in OWNED.items()},
        "storage": source_of(prices.sources, ("storage", "price")),
        "embodied": source_of(prices.sources, ("embodied", "memory")),
        **{name: source_of(grid.sources, (name,)) for name in ("electricity", "pue", "carbon")},
    }
    return {name: str(source) for name, source in found.items()}


OWNED = {"life": "life", "residual": "residual_share", "used": "used_share", "network": "network_share",
         "hosting": "hosting"}  # fmt: skip
"""Fields of a book's ownership, by the name a bill gives their source."""
