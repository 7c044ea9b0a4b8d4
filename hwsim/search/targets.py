"""What a size is asked for, what some nodes do, and the one held against the other.

Time is lost to failures, restarts and stragglers: with a headroom h only 1 - h of the hours on a bill make tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

from hwsim.analytic.estimate import TrainingEstimate
from hwsim.analytic.inference import InferenceEstimate
from hwsim.units import DAY_S, HOUR_S, show

MULTIPLE = 2.0
"""From here on a ratio is said as a multiple, not in per cent."""
NOTICED = 0.005
"""Difference below which two options are alike."""


@dataclass(frozen=True)
class Targets:
    """What is asked for; none: nothing of the kind."""

    tokens: float | None = None
    """To train on."""
    days: float | None = None
    """Deadline for them."""
    budget_usd: float | None = None
    """Most rent for them."""
    tokens_per_s: float | None = None
    """Slowest mean rate that will do, hours lost counted in: of training, or of output."""
    qps: float | None = None
    """Requests per second to serve."""
    request_tokens: float | None = None
    """That each of them makes."""
    ttft_s: float | None = None
    tpot_s: float | None = None
    percentile: int | None = None
    power_w: float | None = None
    """Most mean power of the job's nodes, cooling not counted."""

    @property
    def needed(self) -> float | None:
        """The mean rate that the deadline, the rate or the traffic asks for. [token/s]"""
        if self.days is not None and self.tokens is not None:
            return self.tokens / self.days / DAY_S
        if self.qps is not None and self.request_tokens is not None:
            return self.qps * self.request_tokens
        return self.tokens_per_s

    def to_dict(self) -> dict[str, Any]:
        """What was given, by name with its unit."""
        named = {
            "tokens": self.tokens, "target_days": self.days, "budget_usd": self.budget_usd,
            "target_tokens_per_s": self.tokens_per_s, "qps": self.qps, "ttft_s": self.ttft_s, "tpot_s": self.tpot_s,
            "percentile": self.percentile, "power_cap_w": self.power_w,
        }  # fmt: skip
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class Option:
    """Some nodes of some hardware with the best plan on them."""

    hardware: str
    title: str
    devices: int
    nodes: int
    tokens_per_s: float
    """While nothing fails; 0: nothing fits."""
    power_w: float | None
    rent_usd_per_s: float | None
    """Of all devices."""
    plan: TrainingEstimate | InferenceEstimate | None
    why: str = ""
    """Why nothing fits, or is not fast enough."""


@dataclass(frozen=True)
class Verdict:
    """An option held against targets."""

    option: Option
    targets: Targets
    headroom: float

    @property
    def rate(self) -> float:
        """Mean rate, hours lost counted in. [token/s]"""
        return self.option.tokens_per_s * (1.0 - self.headroom)

    @property
    def days(self) -> float | None:
        """Calendar days for the tokens."""
        tokens = self.targets.tokens
        return tokens / self.rate / DAY_S if tokens is not None and self.rate > 0.0 else None

    @property
    def cost_usd(self) -> float | None:
        """Rent for those days."""
        return _product(self.option.rent_usd_per_s, self.days, DAY_S)

    @property
    def energy_j(self) -> float | None:
        """Energy of the nodes in those days: what is lost takes power too."""
        return _product(self.option.power_w, self.days, DAY_S)

    @property
    def faults(self) -> dict[str, tuple[float, str]]:
        """Targets that are missed, each with how many times too much it is, and in words."""
        targets, missed = self.targets, {}
        if self.option.why:
            return {"fits": (float("inf"), self.option.why)}
        if targets.needed is not None and self.rate < targets.needed:
            late = targets.needed / self.rate
            days = f"{show(self.days, 'days')}, {beyond(late, 'late', 'as long')}" if targets.days and self.days else ""
            missed["rate"] = (
                late,
                days or f"{show(self.rate, 'count')} tokens/s, {percent(1.0 - 1.0 / late)} too slow",
            )
        over = {
            "budget": (self.cost_usd, targets.budget_usd, "usd", "the budget"),
            "power": (self.option.power_w, targets.power_w, "w", "the power cap"),
        }
        for name, (value, most, unit, words) in over.items():
            if most is not None and value is not None and value > most:
                missed[name] = (value / most, f"{show(value, unit)}, {beyond(value / most, f'over {words}', words)}")
        return missed

    @property
    def meets(self) -> bool:
        """Whether every target is met."""
        return not self.faults

    @property
    def why(self) -> str:
        """What is missed, in words."""
        return "; ".join(words for _, words in self.faults.values())

    def to_dict(self, *, plan: bool = True) -> dict[str, Any]:
        """The JSON of an answer."""
        made = self.option
        hourly = made.rent_usd_per_s
        found = {
            "hardware": made.hardware,
            "devices": made.devices,
            "nodes": made.nodes,
            "days": self.days,
            "cost_usd": self.cost_usd,
            "rent_usd_per_hour": None if hourly is None else hourly * HOUR_S,
            "energy_j": self.energy_j,
            "average_power_w": made.power_w,
            "tokens_per_s": made.tokens_per_s,
            "mean_tokens_per_s": self.rate,
        }
        return found | ({"plan": made.plan.to_dict() if made.plan is not None else None} if plan else {})

    def row(self) -> dict[str, Any]:
        """The JSON of an option that was considered."""
        made = self.option
        return {
            "hardware": made.hardware,
            "devices": made.devices,
            "tokens_per_s": made.tokens_per_s,
            "days": self.days,
            "cost_usd": self.cost_usd,
            "power_w": made.power_w,
            "meets": self.meets,
            "why": self.why,
        }


def beyond(ratio: float, few: str, many: str) -> str:
    """How far a value is beyond another one: in per cent, or as a multiple."""
    times = f"{ratio:,.0f}" if ratio >= 10.0 else f"{ratio:.2g}"
    return f"{times} times {many}" if ratio >= MULTIPLE else f"{percent(ratio - 1.0)} {few}"


def percent(share: float) -> str:
    """A share above 0 in per cent, never as none."""
    return f"{share:.0%}" if share >= 0.01 else f"{max(share, 1e-4):.2%}"


def _product(*factors: float | None) -> float | None:
    """A product, or none where a factor is unknown."""
    result = 1.0
    for factor in factors:
        if factor is None:
            return None
        result *= factor
    return result if isfinite(result) else None
