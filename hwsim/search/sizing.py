"""The inverse question: how many devices, of which kind, a target needs; the answer among what was tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hwsim.analytic.estimate import SCHEMA_VERSION
from hwsim.errors import InfeasibleError
from hwsim.search.targets import MULTIPLE, NOTICED, Option, Targets, Verdict, beyond, percent

if TYPE_CHECKING:
    import pandas as pd


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
    asked: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that ask for the same again, where a call of `hwsim.size` asked for it."""

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
        return beyond(far, more, more) if ratio > 1.0 else beyond(far, less, less)
    return f"{percent(1.0 - ratio)} {less}"
