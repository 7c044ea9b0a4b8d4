"""The inverse question: how many devices, of which kind, a target needs.

Time is lost to failures, restarts and stragglers: with a headroom h only 1 - h of the hours on a bill make tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

from hwsim.analytic.estimate import SCHEMA_VERSION, TrainingEstimate
from hwsim.analytic.inference import InferenceEstimate
from hwsim.errors import InfeasibleError
from hwsim.units import DAY_S, HOUR_S, show

if TYPE_CHECKING:
    import pandas as pd


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
            days = (
                f"{show(self.days, 'days')}, {_beyond(late, 'late', 'as long')}" if targets.days and self.days else ""
            )
            missed["rate"] = (
                late,
                days or f"{show(self.rate, 'count')} tokens/s, {_percent(1.0 - 1.0 / late)} too slow",
            )
        over = {
            "budget": (self.cost_usd, targets.budget_usd, "usd", "the budget"),
            "power": (self.option.power_w, targets.power_w, "w", "the power cap"),
        }
        for name, (value, most, unit, words) in over.items():
            if most is not None and value is not None and value > most:
                missed[name] = (value / most, f"{show(value, unit)}, {_beyond(value / most, f'over {words}', words)}")
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


def _beyond(ratio: float, few: str, many: str) -> str:
    """How far a value is beyond another one: in per cent, or as a multiple."""
    return f"{ratio:.2g} times {many}" if ratio >= MULTIPLE else f"{_percent(ratio - 1.0)} {few}"


def _percent(share: float) -> str:
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


@dataclass(frozen=True)
class Machine:
    """What was found on one kind of hardware."""

    name: str
    title: str
    options: tuple[Option, ...]
    """What was tried."""
    least: float | None
    """Devices without which the target cannot be met even at the peak rate."""
    binds: str
    """Why nothing meets the targets, and the nearest fix; empty where something does."""

    def best(self, targets: Targets, headroom: float) -> Verdict | None:
        """The option that meets the targets and suits them best."""
        return best_of([Verdict(option, targets, headroom) for option in self.options])


@dataclass(frozen=True)
class Sizing:
    """How many devices a target needs."""

    targets: Targets
    headroom: float
    answer: Verdict
    without: Verdict | None
    """The same if nothing ever failed."""
    runner_up: Verdict | None
    why: str
    """Why the runner-up lost."""
    machines: tuple[Machine, ...]

    @property
    def machine(self) -> Machine:
        """What was found on the answer's hardware."""
        return next(machine for machine in self.machines if machine.name == self.answer.option.hardware)

    @property
    def considered(self) -> list[Verdict]:
        """All that was tried, by hardware and number of devices."""
        return [Verdict(option, self.targets, self.headroom) for machine in self.machines for option in machine.options]

    def to_dict(self) -> dict[str, Any]:
        """The JSON that `hwsim size --json` prints."""
        runner = self.runner_up
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "size",
            "targets": self.targets.to_dict(),
            "headroom": self.headroom,
            "answer": self.answer.to_dict(),
            "least_devices_ideal": self.machine.least,
            "without_headroom": None if self.without is None else self.without.to_dict(plan=False),
            "runner_up": None if runner is None else runner.to_dict(plan=False) | {"why": self.why},
            "considered": [verdict.row() for verdict in self.considered],
            "infeasible": {machine.name: machine.binds for machine in self.machines if machine.binds},
        }

    def rows(self) -> list[dict[str, Any]]:
        """A flat row for all that was tried."""
        return [verdict.row() for verdict in self.considered]

    def to_frame(self) -> pd.DataFrame:
        """All that was tried, one row each."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def __repr__(self) -> str:
        made = self.answer.option
        return f"<Sizing: {made.devices:,} x {made.hardware} ({made.nodes:,} nodes); {made.plan!r}>"


def best_of(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The best of those that meet their targets: the fewest devices where a rate is asked for, else the fastest."""
    kept = [verdict for verdict in verdicts if verdict.meets]
    if not kept:
        return None
    asked = kept[0].targets
    if asked.needed is not None:
        return min(kept, key=lambda verdict: (verdict.option.devices, -verdict.rate))
    return max(kept, key=lambda verdict: (verdict.rate, -verdict.option.devices))


def compared(machines: Sequence[Machine], targets: Targets, headroom: float) -> Sizing:
    """The answer among several kinds of hardware: the cheapest where a rate is asked for, else the fastest.

    Raises
    ------
    InfeasibleError
        If no hardware meets the targets: what binds on each, and the nearest fix.
    """
    found = [(machine, verdict) for machine in machines if (verdict := machine.best(targets, headroom))]
    if not found:
        raise InfeasibleError("\n".join(machine.binds for machine in machines))
    cheap = targets.needed is not None

    def rank(verdict: Verdict) -> tuple[float, ...]:
        rent = verdict.cost_usd if verdict.cost_usd is not None else verdict.option.rent_usd_per_s
        price = float("inf") if rent is None else rent
        return (price, verdict.option.devices) if cheap else (-verdict.rate, price)

    found.sort(key=lambda pair: rank(pair[1]))
    machine, answer = found[0]
    others = [verdict for _, verdict in found[1:]]
    runner = others[0] if others else beside(machine, answer)
    return Sizing(
        targets, headroom, answer, machine.best(targets, 0.0), runner,
        "" if runner is None else lost(runner, answer), tuple(machines),
    )  # fmt: skip


def beside(machine: Machine, answer: Verdict) -> Verdict | None:
    """The other number of devices worth knowing: one that costs less though it is not the fewest, else the next smaller
    one tried where few will do, and the next larger one where many are wanted.
    """
    others = [replace(answer, option=option) for option in machine.options if option.plan is not None]
    smaller = [one for one in others if one.option.devices < answer.option.devices]
    larger = [one for one in others if one.option.devices > answer.option.devices]
    smaller.sort(key=lambda one: -one.option.devices)
    larger.sort(key=lambda one: (not one.meets, one.option.devices))
    if answer.targets.needed is None:
        return next(iter([*sorted(larger, key=lambda one: one.option.devices), *smaller]), None)
    cost = answer.cost_usd or 0.0
    cheaper = [one for one in larger if one.meets and (one.cost_usd or cost) < (1.0 - 2.0 * NOTICED) * cost]
    cheaper.sort(key=lambda one: one.cost_usd or cost)
    return next(iter(cheaper + smaller + larger), None)


def lost(one: Verdict, answer: Verdict) -> str:
    """Why an option is not the answer."""
    if not one.meets:
        return one.why
    more = one.option.devices / answer.option.devices
    alike = one.option.hardware == answer.option.hardware
    said = [_than(more, "more devices", "fewer devices")] if alike and answer.targets.needed is not None else []
    price = one.cost_usd or one.option.rent_usd_per_s, answer.cost_usd or answer.option.rent_usd_per_s
    power = one.option.power_w, answer.option.power_w
    said += ["rent unknown"] if price[0] is None else []
    for (value, base), words in ((price, ("dearer", "cheaper")), (power, ("more power", "less power"))):
        said += [_than(value / base, *words)] if value and base else []
    said.insert(min(len(said), 1 + alike), _than(one.rate / answer.rate, "faster", "slower"))
    return ", ".join(words for words in said if words) or "no better"


def _than(ratio: float, more: str, less: str) -> str:
    """How far a value is from another one, in words; nothing where they are alike."""
    if abs(ratio - 1.0) <= NOTICED:
        return ""
    far = max(ratio, 1.0 / ratio)
    if ratio > 1.0 or far >= MULTIPLE:
        return _beyond(far, more, more) if ratio > 1.0 else _beyond(far, less, less)
    return f"{_percent(1.0 - ratio)} {less}"
