"""What moved against the base, by how much, and because of which part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hwsim.analytic.estimate import NAMES as TRAINING
from hwsim.analytic.inference import NAMES as INFERENCE
from hwsim.scenarios.answers import Estimate, Outcome
from hwsim.scenarios.measures import MEASURES, Measure
from hwsim.units import HOUR_S, show

SAME = 0.005
"""Relative change that nobody would call one."""
PARTS = {**TRAINING, **INFERENCE, "kv_cache": "KV cache"}
"""Parts of time and memory as a reader calls them."""
MOST_REASONS = 3
RATES = {"cost": "price of a device-hour", "owned_cost": "cost of an owned device-hour", "energy": "power of a device",
         "carbon": "emissions of a device-hour"}  # fmt: skip
"""What a figure is, over the hours of all devices."""


@dataclass(frozen=True)
class Change:
    """How one figure moved."""

    measure: Measure
    base: float
    value: float
    reason: str

    @property
    def ratio(self) -> float:
        """New over old; 1 where both are nothing."""
        return self.value / self.base if self.base else (1.0 if self.value == self.base else float("inf"))

    @property
    def shown(self) -> str:
        """The change for a person."""
        return self.measure.moved(self.base, self.value)

    @property
    def better(self) -> bool | None:
        """Whether that is good; None where it hardly moved."""
        if abs(self.ratio - 1.0) < SAME:
            return None
        return (self.ratio > 1.0) == self.measure.rises

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "measure": self.measure.key,
            "base": self.base,
            "value": self.value,
            "change": self.ratio - 1.0,
            "reason": self.reason,
        }


def changes(base: Outcome, other: Outcome) -> tuple[Change, ...]:
    """What moved from one answer to another, figure by figure; nothing where either has no answer."""
    both = [name for name in MEASURES if name in base.measures and name in other.measures]
    return tuple(
        Change(MEASURES[name], base.measures[name], other.measures[name], reason(name, base, other)) for name in both
    )


def reason(name: str, base: Outcome, other: Outcome) -> str:
    """Which part of time, memory, price or machine made a figure move."""
    old, new = base.estimate, other.estimate
    if old is None or new is None:
        return ""
    before, after = base.measures[name], other.measures[name]
    if abs(after - before) < SAME * abs(before):
        return ""
    if not before:
        return "nothing in the base"
    said: list[str] = []
    if name in ("step_time", "tokens_per_s", "mfu", "days"):
        said = _time(name, old, new) + _machine(old, new)
    elif name in ("ttft", "tpot"):
        phase = "prefill" if name == "ttft" else "decode"
        said = _moved(old.time_s[phase], new.time_s[phase], "s")
    elif name == "memory":
        said = _moved(old.memory_bytes, new.memory_bytes, "bytes")
    elif name == "devices":
        said = _layout(old, new)
    else:
        said = _spent(name, base, other)
    return "; ".join([*said, *(_layout(old, new) if name in ("step_time", "tokens_per_s", "tpot") else [])])


def _moved(old: Mapping[str, float], new: Mapping[str, float], dimension: str) -> list[str]:
    """The parts that moved most, largest first."""
    parts = {name: new.get(name, 0.0) - old.get(name, 0.0) for name in {**old, **new}}
    total = sum(abs(value) for value in parts.values())
    largest = sorted(parts.items(), key=lambda item: -abs(item[1]))[:MOST_REASONS]
    return [
        f"{PARTS.get(name, name)} {'+' if value > 0 else '−'}{show(abs(value), dimension)}"
        for name, value in largest
        if abs(value) > 0.1 * total
    ]


def _time(name: str, old: Estimate, new: Estimate) -> list[str]:
    """The parts of a step, for the same number of tokens, that got longer or shorter."""
    tokens = [each.strategy["global_batch"] * each.strategy["seq_len"] for each in (old, new)]
    same = {part: value * tokens[0] / tokens[1] for part, value in new.time_s.items()}
    return _moved(old.time_s, new.time_s if name == "step_time" else same, "s")


def _machine(old: Estimate, new: Estimate) -> list[str]:
    """Another number of devices, or another device."""
    said = []
    if old.hardware["accelerator"] != new.hardware["accelerator"]:
        said.append(f"{new.hardware['accelerator']} instead of {old.hardware['accelerator']}")
    if old.hardware["devices"] != new.hardware["devices"]:
        said.append(f"{new.hardware['devices']:,} devices instead of {old.hardware['devices']:,}")
    return said


def _layout(old: Estimate, new: Estimate) -> list[str]:
    """What of the strategy is another."""
    names = ("tp", "pp", "vpp", "cp", "dp", "ep", "zero", "micro_batch", "recompute", "batch")
    both = [name for name in names if name in old.strategy and name in new.strategy]
    return [
        f"{name.replace('_', '-')} {old.strategy[name]} to {new.strategy[name]}"
        for name in both
        if old.strategy[name] != new.strategy[name]
    ][: 2 * MOST_REASONS]


def _spent(name: str, base: Outcome, other: Outcome) -> list[str]:
    """A cost, an energy or an emission as its factors: how long, how many, at what rate."""
    grown = other.measures[name] / base.measures[name] if base.measures[name] else 1.0
    if name == "power":
        count = other.measures["devices"] / base.measures["devices"]
        factors = {"devices": count, "power of a device": grown / count}
    else:
        hours = [_device_hours(outcome) for outcome in (base, other)]
        longer = hours[1] / hours[0] if all(hours) else 1.0
        factors = {"device-hours": longer, RATES.get(name, "rate"): grown / longer}
    moved = {what: f"{change - 1.0:+.0%}" for what, change in factors.items() if abs(change - 1.0) > SAME}
    return [f"{what} {change}".replace(" -", " −") for what, change in moved.items()]


def _device_hours(outcome: Outcome) -> float:
    bill = outcome.bill
    return float(bill.seconds.expected) * float(bill.devices) / HOUR_S if bill else 0.0


__all__ = ["Change", "changes", "reason"]
