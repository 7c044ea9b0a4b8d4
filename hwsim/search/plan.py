"""The best ways to train a model on a cluster: search, rank, explain what was rejected and what would help."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.analytic.estimate import SCHEMA_VERSION, TrainingEstimate, estimates, frame
from hwsim.analytic.setting import Setting
from hwsim.analytic.training import TrainingColumns, evaluate
from hwsim.costs.bill import Bill
from hwsim.costs.what_if import nudged
from hwsim.errors import InfeasibleError
from hwsim.search.bills import training_bill
from hwsim.search.space import Pins, Space, build_space
from hwsim.search.training_search import HEADROOM, Found, search
from hwsim.specs.economy import Grid, Prices
from hwsim.specs.hardware import Hardware
from hwsim.specs.job import TrainingJob
from hwsim.specs.model import Model
from hwsim.specs.strategy import plain_value
from hwsim.units import DAY_S, TERA, show

if TYPE_CHECKING:
    import pandas as pd

OBJECTIVES: Mapping[str, Callable[[TrainingColumns], Any]] = {
    "throughput": lambda columns: columns.step_time_s,
    "latency": lambda columns: columns.step_time_s,
    "cost": lambda columns: columns.cost_usd,
    "energy": lambda columns: columns.energy_j,
}
"""What is minimised, by name; the batch is given, so throughput and latency both mean the shortest step."""
NUDGE = 1.1
REACH = 4096
"""How many times the devices a fix may propose ..."""
MOST_DEVICES = 1_000_000
"""... and how many at most."""


@dataclass(frozen=True)
class Plan:
    """What a search found."""

    setting: Setting
    objective: str
    candidates: int
    evaluated: int
    feasible: int
    elapsed_s: float
    rejected: dict[str, int]
    plans: tuple[TrainingEstimate, ...]
    pareto: tuple[TrainingEstimate, ...]
    helps: dict[str, float]
    """Gain in throughput of the best plan from 10 % more of each resource."""
    tokens: float | None
    target_tokens_per_s: float | None
    prices: Prices | None = None
    grid: Grid | None = None

    @property
    def best(self) -> TrainingEstimate:
        """The first plan."""
        return self.plans[0]

    def days(self, estimate: TrainingEstimate) -> float | None:
        """Calendar days for the token budget, without interruptions."""
        return None if self.tokens is None else self.tokens / estimate.tokens_per_s / DAY_S

    @property
    def bill(self) -> Bill | None:
        """What the best plan costs for the token budget, or for a trillion tokens; None without prices and a grid."""
        if self.prices is None or self.grid is None:
            return None
        return training_bill(self.setting.hardware, self.best, self.tokens or TERA, self.prices, self.grid)

    def to_dict(self) -> dict[str, Any]:
        """The JSON that `hwsim plan --json` prints."""
        made = self.bill
        return {
            "schema_version": SCHEMA_VERSION,
            "task": "train",
            "objective": self.objective,
            "tokens": self.tokens,
            "target_tokens_per_s": self.target_tokens_per_s,
            "days": self.days(self.best),
            "candidates": self.candidates,
            "evaluated": self.evaluated,
            "feasible": self.feasible,
            "elapsed_s": self.elapsed_s,
            "rejected": self.rejected,
            "helps": self.helps,
            "bill": None if made is None else {"tokens": self.tokens or TERA, **made.to_dict()},
            "plans": [plan.to_dict() for plan in self.plans],
            "pareto": [plan.to_dict() for plan in self.pareto],
        }

    def to_frame(self) -> pd.DataFrame:
        """The plans as a table, one row each."""
        return frame(self.plans)

    def explain(self) -> pd.DataFrame:
        """The per-operator table of the best plan."""
        import pandas as pd

        from hwsim.analytic.explain import operator_rows

        return pd.DataFrame(operator_rows(self.setting, strategy_of(self.best)))

    def __repr__(self) -> str:
        return f"<Plan: {self.feasible:,} of {self.candidates:,} candidates fit; best {self.best!r}>"


def strategy_of(estimate: TrainingEstimate) -> Any:
    """The strategy of an estimate as a one-row table."""
    from hwsim.specs.strategy import COLUMN_NAMES, RECOMPUTES, strategies

    given = {name: value for name, value in estimate.strategy.items() if name in COLUMN_NAMES}
    if given["recompute"] not in RECOMPUTES:  # modules by name, which its job has
        given["recompute"] = "selective"
    return strategies(
        devices=estimate.hardware["devices"], **{name: np.atleast_1d(value) for name, value in given.items()}
    )


@dataclass(frozen=True)
class Request:
    """What is asked of the planner."""

    model: Model
    hardware: Hardware
    job: TrainingJob
    devices: int
    objective: str
    top: int
    pins: Pins
    tokens: float | None
    """Budget, for days and cost."""
    target_tokens_per_s: float | None
    """Slowest throughput that will do; plans may then use fewer devices."""
    usual_batch: Callable[[int], int] | None = None
    """Global batch by number of devices, where the user chose none."""

    @property
    def setting(self) -> Setting:
        """What a strategy is evaluated in."""
        return Setting(self.model, self.hardware, self.job, self.devices)

    def on(self, devices: int) -> Request:
        """The same request on another number of devices."""
        batch = self.job.global_batch if self.usual_batch is None else self.usual_batch(devices)
        return replace(self, devices=devices, job=self.job.model_copy(update={"global_batch": batch}))


def plan_training(request: Request) -> Plan:
    """Search every legal strategy.

    Raises
    ------
    InfeasibleError
        If none fits, or none meets the deadline: says what binds, by how much, and the nearest change that fits.
    """
    started = time.perf_counter()
    found = Found()
    counts = device_counts(request)
    for devices in counts:
        _search(request, devices, found)
    if not found.best:
        raise InfeasibleError(f"{why_none(request, found)} {nearest_fix(request, found)}".strip())
    ranked = sorted(found.best.values(), key=lambda item: (item[0], item[1]))
    ranked = [item for item in ranked if item[3].devices == request.devices or request.target_tokens_per_s]
    considered = ranked if request.target_tokens_per_s else ranked[: request.top]
    chosen = _on_time(request, _detail(request, [(item[2], item[3]) for item in considered]))
    front = _detail(request, [(item[3], item[4]) for item in sorted(found.front, key=lambda point: point[:3])])
    setting = Setting(request.model, request.hardware, request.job, chosen[0].hardware["devices"])
    return Plan(
        setting=setting,
        objective=request.objective,
        candidates=found.candidates,
        evaluated=found.evaluated,
        feasible=found.feasible,
        elapsed_s=time.perf_counter() - started,
        rejected=dict(found.most_rejected()),
        plans=tuple(chosen[: request.top]),
        pareto=tuple(front),
        helps=what_helps(setting, chosen[0]),
        tokens=request.tokens,
        target_tokens_per_s=request.target_tokens_per_s,
    )


def best_on(request: Request) -> tuple[TrainingEstimate | None, Found]:
    """The best strategy on exactly the devices asked for, if any fits, and what the search saw."""
    found = Found()
    _search(request, request.devices, found)
    if not found.best:
        return None, found
    _, _, index, space = min(found.best.values(), key=lambda item: (item[0], item[1]))
    return _detail(request, [(index, space)])[0], found


def device_counts(request: Request) -> list[int]:
    """The devices asked for, and halves of them down to one node: a plan may leave some idle."""
    node = request.hardware.cluster.node.devices
    counts = [request.devices]
    while counts[-1] % 2 == 0 and counts[-1] // 2 >= node:
        counts.append(counts[-1] // 2)
    return counts[:4]


def _search(request: Request, devices: int, found: Found) -> None:
    setting = Setting(request.model, request.hardware, request.job, devices)
    node, job = request.hardware.cluster.node.devices, request.job
    for schedule in request.pins.get("schedule", (None,)):
        pins = dict(request.pins) if schedule is None else {**request.pins, "schedule": (schedule,)}
        space = build_space(request.model, devices, job.global_batch, job.seq_len, pins, node)
        if space.candidates:
            search(setting, space, OBJECTIVES[request.objective], found)


def _detail(request: Request, candidates: Sequence[tuple[int, Space]]) -> list[TrainingEstimate]:
    """Candidates as full estimates, in the order given."""
    result: dict[int, TrainingEstimate] = {}
    for space in {id(space): space for _, space in candidates}.values():
        mine = [i for i, (_, owner) in enumerate(candidates) if owner is space]
        setting = Setting(request.model, request.hardware, request.job, space.devices)
        rows = estimates(evaluate(setting, space.decode(np.array([candidates[i][0] for i in mine]))))
        result.update(zip(mine, rows, strict=True))
    return [result[i] for i in sorted(result)]


def _on_time(request: Request, chosen: list[TrainingEstimate]) -> list[TrainingEstimate]:
    """Plans that are fast enough; InfeasibleError names the gap if none is."""
    needed = request.target_tokens_per_s
    if needed is None:
        return chosen
    kept = [plan for plan in chosen if plan.tokens_per_s >= needed]
    if kept:
        return kept
    fastest = max(float(plan.tokens_per_s) for plan in chosen)
    asked, reached = (f"{show(rate, 'count')} tokens/s" for rate in (needed, fastest))
    if request.tokens is not None:
        asked = f"{show(request.tokens / needed / DAY_S, 'days')} ({asked})"
        reached = f"{show(request.tokens / fastest / DAY_S, 'days')} ({reached})"
    fix = _faster(request, needed, fastest)
    msg = f"the target of {asked} is missed: the fastest plan on {request.devices} devices reaches {reached}. {fix}"
    raise InfeasibleError(msg)


def _faster(request: Request, needed: float, fastest: float) -> str:
    """Smallest doubling of the devices, checked by a search, that is fast enough."""
    devices = request.devices
    while devices * fastest < needed * request.devices:
        devices *= 2
    for count in (devices, devices * 2):
        if count > _reach(request):
            break
        larger, found = request.on(count), Found()
        _search(larger, count, found)
        rates = [larger.job.global_batch * larger.job.seq_len / step for step, *_ in found.front]
        if rates and max(rates) >= needed:
            return f"Nearest fix: {count} devices (--gpus {count})."
    return "No number of devices within reach does: try other hardware, a larger global batch, or a later target."


def _reach(request: Request) -> float:
    """Most devices that a fix may propose: the cluster connects them and a search of them ends soon."""
    return min(REACH * request.devices, MOST_DEVICES, request.hardware.cluster.most_devices)


def why_none(request: Request, found: Found) -> str:
    """Name what binds where nothing fits, and by how much."""
    where = f"{request.model.name} on {request.devices} x {request.hardware.accelerator.name}"
    capacity = request.hardware.accelerator.memory.usable
    usable, needed = capacity * (1.0 - HEADROOM), found.closest_bytes
    if not np.isfinite(needed):
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in found.most_rejected(3))
        pins = " ".join(f"{name}={','.join(plain(name, v) for v in values)}" for name, values in request.pins.items())
        none = "no sizes multiply to the devices"
        return f"{where}: no legal strategy{f' with {pins}' if pins else ''}: {reasons or none}"
    return (
        f"{where}: out of memory: the smallest strategy needs {show(needed, 'bytes')} a device of "
        f"{show(usable, 'bytes')} ({show(capacity, 'bytes')} less {HEADROOM:.0%} headroom), "
        f"{show(needed / usable, 'count', 2)} times too much."
    )


def plain(name: str, value: float) -> str:
    """A pinned value as the user wrote it."""
    return str(plain_value(name, value)).lower()


def nearest_fix(request: Request, found: Found) -> str:
    """Smallest doubling of the devices that fits; nothing where no strategy is legal."""
    if not np.isfinite(found.closest_bytes):
        return ""
    devices = request.devices
    while devices * 2 <= _reach(request):
        devices *= 2
        larger = Found()
        _search(request.on(devices), devices, larger)
        if larger.best:
            return f"Nearest fix: {devices} devices (--gpus {devices})."
    return "No number of devices within reach fits: try a device with more memory, or fewer pins."


def what_helps(setting: Setting, best: TrainingEstimate) -> dict[str, float]:
    """Gain in throughput from 10 % more of each resource, the strategy kept; largest first."""
    s = strategy_of(best)
    base = float(evaluate(setting, s).step_time_s[0])
    gains = {}
    for name, hardware in nudged(setting.hardware, NUDGE).items():
        step = float(evaluate(Setting(setting.model, hardware, setting.job, setting.devices), s).step_time_s[0])
        gains[name] = base / step - 1.0
    return dict(sorted(gains.items(), key=lambda item: -item[1]))
