"""One strategy in its setting, and everything about it that may be turned: what a sensitivity reads and turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from hwsim.analytic.estimate import TrainingEstimate, estimates
from hwsim.analytic.inference import InferenceEstimate, estimate
from hwsim.analytic.serving import Served
from hwsim.analytic.setting import Setting
from hwsim.analytic.training import evaluate, illegal
from hwsim.costs.what_if import HOST_LINK, VECTOR, Kind, Lever, hardware_levers, stretched
from hwsim.search.space import divisors
from hwsim.specs.base import Spec
from hwsim.specs.hardware import Hardware
from hwsim.specs.strategy import Strategies
from hwsim.units import TERA, show


class Metric(NamedTuple):
    """What is read off a case."""

    word: str
    unit: str
    """Key of `hwsim.units.DIMENSIONS`, or of what `show` knows."""
    more_is_better: bool
    is_time: bool = False


METRICS: Mapping[str, Metric] = {
    "step_time_s": Metric("step time", "s", False, True),
    "tokens_per_s": Metric("throughput", "count", True),
    "cost_usd_per_trillion_tokens": Metric("cost", "usd", False),
    "energy_j_per_token": Metric("energy", "j", False),
    "ttft_s": Metric("time to first token", "s", False, True),
    "tpot_s": Metric("time per token", "s", False, True),
    "output_tokens_per_s": Metric("throughput", "count", True),
    "output_tokens_per_s_per_device": Metric("throughput of a device", "count", True),
    "cost_usd_per_million_output_tokens": Metric("cost", "usd", False),
    "energy_j_per_output_token": Metric("energy", "j", False),
}
"""By name, as in JSON; a training job has the first four, a deployment the others."""
TRAINING, SERVING = tuple(METRICS)[:4], tuple(METRICS)[4:]


class Reading(NamedTuple):
    """What a case does."""

    metrics: dict[str, float | None]
    fits: bool
    note: str
    """Why it does not fit."""


class End(NamedTuple):
    """One end of a lever: how far it is turned, and the case there; none where there can be none, and why."""

    factor: float
    case: Case | None
    note: str = ""


class Turned(NamedTuple):
    """A lever with both its ends."""

    name: str
    path: str
    value: float
    unit: str
    kind: Kind
    low: End
    high: End
    plans: bool = False
    """Whether another plan may suit an end better: a machine that differs in something the job uses."""


class Case(Protocol):
    """A strategy in its setting."""

    @property
    def hardware(self) -> Hardware:
        """What it runs on."""

    def read(self) -> Reading:
        """What it does."""

    def estimate(self) -> TrainingEstimate | InferenceEstimate:
        """The whole of what it does."""

    def turned(self, change: float) -> list[Turned]:
        """Every lever, turned by a share to either side."""


@dataclass(frozen=True)
class TrainingCase:
    """A training job under one strategy."""

    setting: Setting
    strategy: Strategies
    longest: float
    """Most tokens that the model takes in a sequence."""

    @property
    def hardware(self) -> Hardware:
        """What it runs on."""
        return self.setting.hardware

    def read(self) -> Reading:
        """Time, and cost and energy of a token."""
        s, columns = self.strategy, evaluate(self.setting, self.strategy)
        tokens = s.global_batch * s.seq_len
        found = {
            "step_time_s": columns.step_time_s,
            "tokens_per_s": columns.tokens_per_s,
            "cost_usd_per_trillion_tokens": columns.cost_usd / tokens * TERA,
            "energy_j_per_token": columns.energy_j / tokens,
        }
        needed, there = float(np.max(columns.memory.reserved_bytes)), float(columns.memory.capacity_bytes)
        fits = needed <= there
        note = "" if fits else f"needs {show(needed, 'bytes')} of {show(there, 'bytes')} a device"
        return Reading({name: _known(value) for name, value in found.items()}, fits, note)

    def estimate(self) -> TrainingEstimate:
        """The whole of what it does."""
        return estimates(evaluate(self.setting, self.strategy))[0]

    def on(self, hardware: Hardware) -> TrainingCase:
        """The same on another machine."""
        return replace(self, setting=replace(self.setting, hardware=hardware))

    def turned(self, change: float) -> list[Turned]:
        """Levers of the machine, of the software, and of the job."""
        job, framework = self.setting.job, self.setting.job.framework
        levers = hardware_levers(self.hardware, self.setting.precision.compute)
        joined = self.setting.network.joining
        unused = {VECTOR} | ({HOST_LINK} if not job.offload else set())
        found = [_machine(lever, self.on, change, _plans(lever, unused, joined)) for lever in levers]

        def with_host(factor: float) -> TrainingCase:
            slower = job.model_copy(update={"framework": stretched(framework, factor)})
            return replace(self, setting=replace(self.setting, job=slower))

        path = "framework.step_host, .micro_batch_host, .kernel_dispatch"
        found.append(_software("framework's host time", path, framework, framework.step_host, with_host, change))
        return [*found, *self._job_levers(change)]

    def _job_levers(self, change: float) -> list[Turned]:
        s, model = self.strategy, self.setting.model
        dp, micro, pp, cp, tp = (float(np.max(getattr(s, name))) for name in ("dp", "micro_batch", "pp", "cp", "tp"))
        rounds = pp if float(np.max(s.vpp)) > 1 else 1.0
        batch, length = float(np.max(s.global_batch)), float(np.max(s.seq_len))
        found = [
            self._column("global_batch", "global batch", _multiples(batch, dp * micro * rounds, change)),
            self._column("seq_len", "sequence length", _multiples(length, 2.0 * cp * tp, change)),
            self._column("micro_batch", "micro-batch", _neighbours(micro, divisors(round(batch / dp)))),
        ]
        if model.experts:
            value = self.setting.job.imbalance
            ends = tuple(value * factor if value * factor >= 1.0 else None for factor in (1.0 - change, 1.0 + change))
            found.append(self._imbalance(value, ends))
        return found

    def _column(self, name: str, word: str, ends: tuple[float | None, ...]) -> Turned:
        """A lever of the job that is a column of the strategy."""
        value = float(np.max(getattr(self.strategy, name)))
        low, high = (self._at(name, value, end) for end in ends)
        return Turned(word, f"job.{name}", value, "count", "job", low, high)

    def _at(self, name: str, value: float, end: float | None) -> End:
        if end is None:
            return End(1.0, None, "already the least" if value <= 1.0 else "no other splits the batch")
        if name == "seq_len" and end > self.longest:
            return End(end / value, None, f"{self.setting.model.name} takes {self.longest:,.0f} tokens")
        s = replace(self.strategy, **cast("dict[str, Any]", {name: np.full(self.strategy.shape, end)}))
        broken = [reason for reason, mask in illegal(self.setting.model, s).items() if np.any(mask)]
        if broken:
            return End(end / value, None, broken[0])
        job = self.setting.job
        if name in ("global_batch", "seq_len"):
            job = job.model_copy(update={name: round(end)})
        return End(end / value, TrainingCase(replace(self.setting, job=job), s, self.longest))

    def _imbalance(self, value: float, ends: tuple[float | None, ...]) -> Turned:
        def at(end: float | None) -> End:
            if end is None:
                return End(1.0, None, "even already")
            job = self.setting.job.model_copy(update={"imbalance": end})
            return End(end / value, replace(self, setting=replace(self.setting, job=job)))

        low, high = map(at, ends)
        return Turned("imbalance of experts", "job.imbalance", value, "count", "job", low, high)


@dataclass(frozen=True)
class ServingCase:
    """A static batch on a deployment of one layout."""

    served: Served
    strategy: Strategies
    longest: float
    """Most tokens that the model takes in a sequence."""

    @property
    def hardware(self) -> Hardware:
        """What it runs on."""
        return self.served.hardware

    def read(self) -> Reading:
        """Latency, throughput, and cost and energy of a token."""
        found = self.estimate()
        needed, left = (show(size, "bytes") for size in (found.memory_bytes["kv_cache"], found.cache_room_bytes))
        short = f"needs {needed} of the {left} that are left for the KV cache"
        note = "" if found.fits else short if found.cache_room_bytes else "the weights leave no room for a KV cache"
        return Reading({name: getattr(found, name) for name in SERVING}, bool(found.fits), note)

    def estimate(self) -> InferenceEstimate:
        """The whole of what it does."""
        return estimate(self.served, self.strategy)

    def on(self, hardware: Hardware) -> ServingCase:
        """The same on another machine."""
        return replace(self, served=replace(self.served, hardware=hardware))

    def turned(self, change: float) -> list[Turned]:
        """Levers of the machine, of the software, and of the job."""
        job, engine = self.served.job, self.served.job.engine
        joined = self.served.network.joining
        levers = hardware_levers(self.hardware, self.served.compute)
        unused = {VECTOR, HOST_LINK}
        found = [_machine(lever, self.on, change, _plans(lever, unused, joined)) for lever in levers]

        def with_host(factor: float) -> ServingCase:
            return self._with(engine=stretched(engine, factor))

        path = "engine.step_host, .sequence_host, .request_host, .kernel_dispatch"
        found.append(_software("engine's host time", path, engine, engine.step_host, with_host, change))
        copies = float(np.max(self.strategy.dp))
        sizes = (("batch", "batch", copies), ("input_len", "prompt length", 1.0), ("output_len", "answer length", 1.0))
        for name, word, unit in sizes:
            value = float(getattr(job, name))
            low, high = (self._at(name, value, end) for end in _multiples(value, unit, change))
            found.append(Turned(word, f"job.{name}", value, "count", "job", low, high))
        return found

    def _with(self, **fields: Any) -> ServingCase:
        return replace(self, served=replace(self.served, job=self.served.job.model_copy(update=fields)))

    def _at(self, name: str, value: float, end: float | None) -> End:
        if end is None:
            return End(1.0, None, "already the least")
        job = self.served.job
        if name != "batch" and job.input_len + job.output_len + end - value > self.longest:
            return End(end / value, None, f"{self.served.model.name} takes {self.longest:,.0f} tokens")
        if name == "batch" and end > job.engine.max_sequences * float(np.max(self.strategy.dp)):
            return End(end / value, None, f"{job.engine.name} runs {job.engine.max_sequences:,} requests at once")
        return End(end / value, self._with(**{name: round(end)}))


def _known(value: Any) -> float | None:
    """A number, or none where nobody knows it (the rent of some devices)."""
    number = float(np.max(value))
    return number if isfinite(number) else None


def _plans(lever: Lever, unused: set[str], joined: set[str]) -> bool:
    """Whether a lever may change which plan is best: not the price, and nothing that the job does not touch."""
    tier = lever.path.split(".")[2] if lever.path.startswith("cluster.tiers.") else None
    return lever.kind != "price" and lever.name not in unused and (tier is None or tier in joined)


def _machine(lever: Lever, on: Callable[[Hardware], Case], change: float, plans: bool) -> Turned:
    """A lever of the machine with both its ends."""
    low, high = (End(factor, on(lever.turned(factor))) for factor in (1.0 - change, 1.0 + change))
    return Turned(lever.name, lever.path, lever.value, lever.unit, lever.kind, low, high, plans)


def _software(name: str, path: str, software: Spec, value: float, at: Callable[[float], Case], change: float) -> Turned:
    """What the host's software takes, all of it together."""
    low, high = (End(factor, at(factor)) for factor in (1.0 - change, 1.0 + change))
    return Turned(name, path, value, "s", "duration", low, high)


def _multiples(value: float, unit: float, change: float) -> tuple[float | None, float | None]:
    """The multiples of a unit nearest to a share below and above a value, another one at least."""
    below = min(round(value * (1.0 - change) / unit) * unit, (np.ceil(value / unit) - 1.0) * unit)
    above = max(round(value * (1.0 + change) / unit) * unit, (np.floor(value / unit) + 1.0) * unit)
    return (float(below) if below >= unit else None), float(above)


def _neighbours(value: float, steps: list[int]) -> tuple[float | None, float | None]:
    """The next smaller and the next larger of some steps."""
    below, above = (x for x in steps if x < value), (x for x in steps if x > value)
    return max(map(float, below), default=None), min(map(float, above), default=None)
