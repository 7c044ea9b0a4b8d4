"""Grids and price books: what energy, devices and carbon cost, each as a range with its source and date."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from hwsim.formulas.ranges import Range
from hwsim.specs.base import (
    Bytes,
    Count,
    Fraction,
    Kilograms,
    KilogramsPerByte,
    KilogramsPerJoule,
    Lifetime,
    Name,
    Quantity,
    Ratio,
    Spec,
    Text,
    Usd,
    UsdPerByteSecond,
    UsdPerJoule,
    UsdPerSecond,
    UsdPerWattSecond,
)
from hwsim.specs.tiers import Source
from hwsim.units import show

QuantityT = TypeVar("QuantityT")
Date = Annotated[str, Field(max_length=10, pattern=r"^\d{4}(-\d{2}){0,2}$")]
"""Year, month or day: 2026-11."""


class Between(Spec, Generic[QuantityT]):
    """A quantity known within a range; written as one quantity it is certain."""

    low: QuantityT
    """Few are lower."""
    expected: QuantityT
    """The best single figure."""
    high: QuantityT
    """Few are higher."""

    @model_validator(mode="wrap")
    @classmethod
    def _one_quantity_is_certain(cls, value: Any, read: ModelWrapValidatorHandler[Any]) -> Any:
        if isinstance(value, Mapping | cls):
            return read(value)
        one: Any = cls.quantity().read(value)
        return cls.model_construct(low=one, expected=one, high=one)

    @model_validator(mode="after")
    def _in_order(self) -> Between[QuantityT]:
        low, expected, high = self.range
        if not low <= expected <= high:
            low, expected, high = (show(each, self.quantity().dimension) for each in self.range)
            msg = f"must be in order: low {low}, expected {expected}, high {high}"
            raise ValueError(msg)
        return self

    @classmethod
    def quantity(cls) -> Quantity:
        """What it is a range of."""
        return next(each for each in cls.model_fields["expected"].metadata if isinstance(each, Quantity))

    @property
    def range(self) -> Range:
        """Low, expected and high, in SI."""
        return Range(self.low, self.expected, self.high)


class Grid(Spec):
    """A place to run: its electricity, what that costs and emits, and how much of it data centres there lose."""

    name: Name
    """Preset id."""
    title: Text = ""
    """Country or region."""
    year: Count
    """Of the carbon intensity."""
    carbon: Between[KilogramsPerJoule]
    """Emitted per energy drawn from the grid, averaged over the year and located there (no certificates)."""
    electricity: Between[UsdPerJoule]
    """Paid by large consumers."""
    pue: Between[Annotated[float, Quantity("ratio", 1.0, 5.0)]]
    """Energy of the facility over that of its machines."""
    confidence: Literal["exact", "mixed", "recalled"] = "mixed"
    notes: Text = ""
    sources: dict[str, Source]
    """Field path to source; `default` covers the rest."""


class Market(Spec):
    """What one kind of device costs; what is missing follows from the others and the book's general shares."""

    on_demand: Between[UsdPerSecond] | None = None
    """Rented by the hour, per device with its share of the node."""
    committed: Between[UsdPerSecond] | None = None
    """Rented for a year."""
    spot: Between[UsdPerSecond] | None = None
    """Rented until somebody pays more."""
    bought: Between[Usd] | None = None
    """Bought, per device with its share of the node."""
    embodied: Between[Kilograms] | None = None
    """Emitted to make one device; none: by its memory."""
    source: Source


class Rental(Spec):
    """Rents of devices without a market of their own here, against the list price in their profile."""

    on_demand_share: Between[Ratio]
    """Rent by the hour over the list price."""
    committed_share: Between[Ratio]
    """Rent for a year over that by the hour."""
    spot_share: Between[Ratio]
    """Spot rent over that by the hour."""


class Ownership(Spec):
    """What it costs to have machines of one's own."""

    life: Between[Lifetime]
    """Until they are written off."""
    residual_share: Between[Ratio]
    """What they sell for then, of their price."""
    used_share: Between[Fraction]
    """Of the calendar that they work: the rest is paid for by the work too."""
    price_spread: Between[Ratio]
    """Price paid over the one in a profile."""
    node_share: Between[Ratio]
    """The rest of a node over its devices, where no price of the node is known."""
    network_share: Between[Ratio]
    """Network over the machines it joins."""
    hosting: Between[UsdPerWattSecond]
    """Space, cooling and power connection per rated power; electricity is paid apart."""


class Storage(Spec):
    """What is kept of a training run while it lasts."""

    price: Between[UsdPerByteSecond]
    bytes_per_parameter: Between[Bytes]
    """Of one checkpoint: weights and optimizer state."""
    checkpoints: Between[Annotated[float, Quantity("ratio", 0.0, 1e4)]]
    """Kept at a time."""


class Embodied(Spec):
    """Emissions of making the machines."""

    device: Between[Kilograms]
    """One device but for its memory."""
    memory: Between[KilogramsPerByte]
    """Its memory."""
    node: Between[Kilograms]
    """Per device: its share of the node around it."""
    life: Between[Lifetime]
    """Over which they are spread."""


class Prices(Spec):
    """A price book: a date's prices, and how prices that nobody quoted follow from others."""

    name: Name
    """Preset id."""
    title: Text = ""
    date: Date
    """Of the newest prices in it."""
    markets: dict[Name, Market] = Field(default_factory=dict)
    """By accelerator id."""
    rental: Rental
    ownership: Ownership
    storage: Storage
    embodied: Embodied
    notes: Text = ""
    sources: dict[str, Source]
    """Field path to source; `default` covers the rest."""
