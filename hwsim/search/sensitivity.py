"""What a little more or less of each thing does to time, cost and energy: finite differences over the whole model.

A strategy's time is a function of rates (which it goes down with) and of durations such as latencies (which it goes up
with). Scale every rate by k and every duration by 1 / k, and it takes 1 / k of the time; so (Euler's theorem on
homogeneous functions) the elasticities of a time over all rates, less those over all durations, add up to -1. What they
lack belongs to fixed times that no lever turns: the curves' own time constants.

References
----------
.. [1] R. G. D. Allen, "Mathematical Analysis for Economists", Macmillan, 1938, section 12.4 (Euler's theorem).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite, log
from typing import TYPE_CHECKING, Any

from hwsim.analytic.estimate import SCHEMA_VERSION
from hwsim.costs.what_if import Kind
from hwsim.errors import InfeasibleError
from hwsim.search.cases import METRICS, Case, End, Reading, Turned
from hwsim.specs.hardware import Hardware

if TYPE_CHECKING:
    import pandas as pd

NOTICED = 0.0005
"""Share below which a change is not worth a sentence."""
Replan = Callable[[Hardware], Case]
"""The best plan on a machine; raises InfeasibleError if there is none."""
BY_OBJECTIVE = {
    "training": {"throughput": "tokens_per_s", "latency": "step_time_s", "cost": "cost_usd_per_trillion_tokens",
                 "energy": "energy_j_per_token"},
    "inference": {"throughput": "output_tokens_per_s_per_device", "latency": "tpot_s",
                  "cost": "output_tokens_per_s_per_device", "energy": "energy_j_per_output_token"},
}  # fmt: skip
"""The metric that an objective means, by kind of estimate."""


@dataclass(frozen=True)
class Effect:
    """What one lever does."""

    name: str
    path: str
    value: float
    unit: str
    kind: Kind
    low_value: float | None
    high_value: float | None
    metrics: dict[str, dict[str, float | None]]
    """Metric to its value at the low and the high end, and its elasticity."""
    fits: dict[str, bool]
    """Whether the plan runs at the low and the high end."""
    notes: dict[str, str]
    """Why an end does not run, and where another plan was found better."""

    base_fits: bool = True

    def runs(self, end: str) -> bool:
        """Whether an end counts: it runs, or nothing does."""
        return self.fits[end] or not self.base_fits

    def gain(self, metric: str) -> tuple[float, str]:
        """The better end's relative gain in a metric, and that end; 0 where neither gains."""
        sign = 1.0 if METRICS[metric].more_is_better else -1.0
        found = [(sign * (self.shift(metric, end) or 0.0), end) for end in ("low", "high") if self.runs(end)]
        return max([(0.0, "high"), *found])

    def swing(self, metric: str) -> float:
        """Largest relative change of a metric at an end that runs. [-]"""
        return max((abs(self.shift(metric, end) or 0.0) for end in ("low", "high") if self.runs(end)), default=0.0)

    def shift(self, metric: str, end: str) -> float | None:
        """Relative change of a metric at an end; none where nobody knows. [-]"""
        at, base = self.metrics[metric][end], self.metrics[metric]["base"]
        return at / base - 1.0 if at is not None and base else None

    def to_dict(self) -> dict[str, Any]:
        """The JSON of one lever."""
        ends = {"low": self.low_value, "high": self.high_value}
        shown = {name: {key: v for key, v in of.items() if key != "base"} for name, of in self.metrics.items()}
        named = {"name": self.name, "path": self.path, "value": self.value, "unit": self.unit, "kind": self.kind}
        return {**named, "ends": ends, "metrics": shown, "fits": self.fits, "notes": self.notes}


@dataclass(frozen=True)
class Sensitivity:
    """What every lever does to one plan."""

    case: Case
    base: Reading
    change: float
    replan: bool
    metric: str
    """The metric that the plan was made for."""
    levers: tuple[Effect, ...]
    """Largest swing of that metric first."""

    @property
    def covered(self) -> dict[str, float]:
        """How far the elasticities of every time over rates, less those over durations, account for it: 1 is all."""
        found: dict[str, float] = {}
        for name in self.base.metrics:
            signs = {"rate": -1.0, "duration": 1.0}
            parts = [signs.get(each.kind, 0.0) * (each.metrics[name]["elasticity"] or 0.0) for each in self.levers]
            found |= {name: sum(parts)} if METRICS[name].is_time else {}
        return found

    def to_dict(self) -> dict[str, Any]:
        """The JSON that `hwsim sensitivity --json` prints."""
        whole = self.case.estimate().to_dict()
        asked = {name: whole[name] for name in ("model", "hardware", "strategy", "job")}
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "sensitivity",
            "task": {"training": "train", "inference": "infer"}[whole["kind"]],
            **asked,
            "metric": self.metric,
            "base": {**self.base.metrics, "fits": self.base.fits},
            "change": self.change,
            "replan": self.replan,
            "levers": [each.to_dict() for each in self.levers],
            "fixed_share": None if self.replan else {name: 1.0 - share for name, share in self.covered.items()},
        }

    def rows(self) -> list[dict[str, Any]]:
        """A flat row per lever, metric and end."""
        return [
            {
                "lever": each.name, "path": each.path, "metric": metric, "base": values["base"], "low": values["low"],
                "high": values["high"], "elasticity": values["elasticity"], "fits_low": each.fits["low"],
                "fits_high": each.fits["high"],
            }
            for each in self.levers
            for metric, values in each.metrics.items()
        ]  # fmt: skip

    def to_frame(self) -> pd.DataFrame:
        """A row per lever and metric: base, both ends, elasticity, whether the ends fit."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def sentences(self, metric: str | None = None) -> list[str]:
        """What is worth knowing, largest gain first: "10 % more matrix-unit peak buys 8.5 % of throughput"."""
        chosen = metric or self.metric
        gains = sorted(((each.gain(chosen), each) for each in self.levers), key=lambda pair: -pair[0][0])
        said = [_sentence(each, chosen, gain, end) for (gain, end), each in gains if gain > NOTICED]
        return said + [_lost(each, end) for each in self.levers for end in ("low", "high") if self._lost(each, end)]

    def _lost(self, each: Effect, end: str) -> bool:
        """Whether a plan that runs does not at an end of a lever of the machine."""
        return not each.runs(end) and each.kind != "job"

    def __repr__(self) -> str:
        first = self.sentences()[:1]
        return f"<Sensitivity of {self.case.estimate()!r}: {first[0] if first else 'nothing matters'}>"


def sensitivity(
    case: Case,
    change: float,
    metric: str,
    replan: Replan | None = None,
    progress: Callable[[str], object] | None = None,
) -> Sensitivity:
    """Turn every lever of a case by a share `change` to either side.

    Parameters
    ----------
    case
        A strategy in its setting.
    change
        Share of each value, above 0 and below 1. [-]
    metric
        What the plan is made for; sorts the levers, and chooses between the plan and another one.
    replan
        Finds the best plan on a machine that differs; none: the strategy stays.
    progress
        Called with the name of each lever as its turn comes.
    """
    base, found = case.read(), []
    for lever in case.turned(change):
        if progress is not None:
            progress(lever.name)
        ends = {}
        for name, end in (("low", lever.low), ("high", lever.high)):
            ends[name] = _read(end, metric, replan if lever.plans else None)
        found.append(_effect(lever, base, ends))
    found.sort(key=lambda each: -each.swing(metric))
    return Sensitivity(case, base, change, replan is not None, metric, tuple(found))


def _read(end: End, metric: str, replan: Replan | None) -> Reading:
    """What happens at one end: under the same strategy, or under a better one where that is asked for."""
    if end.case is None:
        return Reading({}, False, end.note)
    kept = end.case.read()
    if replan is None:
        return kept
    try:
        case = replan(end.case.hardware)
    except InfeasibleError as error:
        return kept if kept.fits else Reading({}, False, f"{kept.note}; no other plan fits: {error}")
    other = case.read()
    if kept.fits and not _better(other, kept, metric):
        return kept
    return other._replace(note=f"another plan: {plan_words(case)}")


def _better(one: Reading, other: Reading, metric: str) -> bool:
    """Whether one reading beats another."""
    a, b = one.metrics[metric], other.metrics[metric]
    if a is None or b is None:
        return False
    return a > b if METRICS[metric].more_is_better else a < b


def plan_words(case: Case) -> str:
    """A strategy in a few words."""
    s = case.estimate().strategy
    sizes = [f"{name} {s[name]}" for name in ("tp", "pp", "vpp", "cp", "dp", "ep") if s.get(name, 1) > 1]
    more = [f"ZeRO {s['zero']}"] if s.get("zero") else []
    more += [f"micro-batch {s['micro_batch']}", f"recompute {s['recompute']}"] if "micro_batch" in s else []
    more += [f"batch {s['batch']}"] if "batch" in s else []
    return " ".join([*sizes, *more])


def _effect(lever: Turned, base: Reading, ends: Mapping[str, Reading]) -> Effect:
    factors = {"low": lever.low.factor, "high": lever.high.factor}
    metrics = {}
    for name, value in base.metrics.items():
        low, high = (ends[end].metrics.get(name) for end in ("low", "high"))
        slope = elasticity(value, (low, factors["low"]), (high, factors["high"]))
        metrics[name] = {"base": value, "low": low, "high": high, "elasticity": slope}
    low_value, high_value = (None if end.case is None else lever.value * end.factor for end in (lever.low, lever.high))
    return Effect(
        *lever[:5], low_value, high_value, metrics,
        fits={end: reading.fits for end, reading in ends.items()},
        notes={end: reading.note for end, reading in ends.items() if reading.note},
        base_fits=base.fits,
    )  # fmt: skip


def elasticity(base: float | None, low: tuple[float | None, float], high: tuple[float | None, float]) -> float | None:
    """d ln metric / d ln lever between two ends, or between one and the base; none where there is nothing to go by.

    Parameters
    ----------
    base
        The metric as it is.
    low, high
        The metric at each end, and how many times the lever's value that end is.

    Examples
    --------
    >>> round(elasticity(1.0, (1 / 0.9, 0.9), (1 / 1.1, 1.1)), 9)
    -1.0
    """
    ends = [end for end in (low, high) if _logs(end[0]) and end[1] != 1.0]
    if len(ends) < 2:
        ends = [*ends, (base, 1.0)]
    if len(ends) < 2 or not _logs(base):
        return None
    (a, x), (b, y) = ends
    return log((b or 1.0) / (a or 1.0)) / log(y / x)


def _logs(value: float | None) -> bool:
    """Whether a number has a logarithm."""
    return value is not None and isfinite(value) and value > 0.0


def _sentence(each: Effect, metric: str, gain: float, end: str) -> str:
    """What one lever buys."""
    what, good = METRICS[metric].word, METRICS[metric].more_is_better
    bought = f"{'buys' if good else 'saves'} {gain:.1%} of {what if good else f'the {what}'}".replace("%", " %")
    value = each.low_value if end == "low" else each.high_value
    plan = f" ({each.notes[end]})" if each.fits[end] and end in each.notes else ""
    if each.kind == "job" and value is not None:
        said = f"{value:,.4g} instead of {each.value:,.4g}"
        return f"{each.name} {said} {bought}{plan}"
    return f"{_turn(each, end)} {bought}{plan}"


def _turn(each: Effect, end: str) -> str:
    """How far a lever is turned, in words."""
    value = each.low_value if end == "low" else each.high_value
    share = abs((value or 0.0) / each.value - 1.0) if each.value else 0.0
    return f"{100 * share:.3g} % {'less' if end == 'low' else 'more'} {each.name}"


def _lost(each: Effect, end: str) -> str:
    """That a plan no longer runs."""
    return f"{_turn(each, end)}: the plan does not fit ({each.notes[end]})"
