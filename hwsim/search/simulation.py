"""Traffic on a deployment: the event model set up from a setting, and what it found as a frozen result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hwsim.analytic.answer import Answer
from hwsim.analytic.cache import cache_bytes
from hwsim.analytic.inference import InferenceEstimate, estimate
from hwsim.analytic.pace import Pace
from hwsim.analytic.serving import Served
from hwsim.costs.energy import idle_power_w, wall_power_w
from hwsim.costs.host import transfer_s
from hwsim.costs.money import cost_usd
from hwsim.errors import UsageError
from hwsim.events.engine import at_least
from hwsim.events.fleet import Autoscale, Failures, Fleet, Link, Pool, Routing
from hwsim.events.results import Result
from hwsim.events.serving import simulate
from hwsim.events.slo import Slo
from hwsim.events.workload import Workload
from hwsim.search.traffic import scheduler
from hwsim.specs.strategy import Strategies
from hwsim.units import MILLION

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Deployment:
    """How replicas are joined."""

    routing: Routing = "least_outstanding"
    prefill_replicas: int = 0
    """Replicas that read prompts alone, the others make tokens alone; 0: all do both."""
    most_replicas: int = 0
    """Replicas that an autoscaler may switch on; 0: none scales."""
    target: float = 32.0
    """Outstanding requests per replica that it aims at."""
    cold_start_s: float = 60.0
    mtbf_s: float = 0.0
    """Mean time between failures of a replica; 0: none fails."""
    mttr_s: float = 600.0
    preemption: Literal["recompute", "swap"] = "recompute"

    def __post_init__(self) -> None:
        for name in ("prefill_replicas", "most_replicas", "target", "cold_start_s", "mtbf_s", "mttr_s"):
            at_least(name, getattr(self, name), 0.0)


@dataclass(frozen=True)
class ServingSimulation(Answer):
    """What happened to some traffic."""

    served: Served
    strategy: Strategies
    workload: Workload
    result: Result
    values: dict[str, Any]
    slo: Slo | None = None
    """What was promised."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that ask for the same again, where a call of `hwsim.simulate_serving` asked for it."""

    def to_frame(self) -> pd.DataFrame:
        """The requests, one row each."""
        import pandas as pd

        from hwsim.events.ledger import STATUS

        r = self.result
        names = ("arrival_s", "admitted_s", "first_s", "finish_s", "ttft_s", "tpot_s", "e2e_s", "queue_s")
        columns: dict[str, Any] = {name: getattr(r, name) for name in names}
        columns |= {"input_tokens": self.workload.input_tokens, "output_tokens": self.workload.output_tokens}
        columns |= {"preemptions": r.preemptions, "replica": r.replica, "status": np.array(STATUS)[r.status]}
        return pd.DataFrame(columns)

    def __repr__(self) -> str:
        v = self.values
        return (
            f"<ServingSimulation {v['model']['name']} on {v['hardware']['devices']} x {v['hardware']['accelerator']}: "
            f"{v['completed']:,} of {v['requests']:,} requests, {v['output_tokens_per_s']:,.0f} output tokens/s>"
        )


def build(served: Served, s: Strategies, deployed: Deployment) -> Fleet:
    """The fleet of a strategy: as many replicas as its copies make."""
    pace, engine = Pace(served, s), served.job.engine
    count = max(round(float(np.max(s.dp))) // pace.ranks, 1)
    plan = replace(scheduler(pace), preemption=deployed.preemption, swap_s_per_token=swap_s(served, s))
    scale = None
    if deployed.most_replicas:
        scale = Autoscale(count, deployed.most_replicas, deployed.target, cold_start_s=deployed.cold_start_s)
    pools: tuple[Pool, ...] = (Pool(pace, plan, count, autoscale=scale),)
    link = None
    if deployed.prefill_replicas:
        if not 0 < deployed.prefill_replicas < count:
            msg = f"prefill_replicas {deployed.prefill_replicas}: leaves none of the {count} replicas to decode"
            raise UsageError(msg)
        pools = (
            Pool(pace, plan, deployed.prefill_replicas, "prefill"),
            Pool(pace, plan, count - deployed.prefill_replicas, "decode"),
        )
        link = transfer_link(served, s)
    failures = Failures(deployed.mtbf_s, deployed.mttr_s) if deployed.mtbf_s else None
    return Fleet(pools, deployed.routing, link, failures, engine.request_host, engine.prompt_host)


def transfer_link(served: Served, s: Strategies) -> Link:
    """The way of a cache from one replica to another: every device sends its part over its own link."""
    tokens = float(served.prompt_len)
    sent = cache_bytes(served, s, tokens)
    group = served.network.group(np.asarray(2.0), s.tp * s.pp)
    seconds, latency = (float(np.max(served.network.seconds("send_recv", size, group))) for size in (sent, 1.0))
    return Link(max(seconds - latency, 0.0) / tokens, latency, "fair")


def swap_s(served: Served, s: Strategies) -> float:
    """Moving the cache of one token to the host's memory. [s]"""
    tokens = float(served.prompt_len)
    return float(transfer_s(served.hardware, cache_bytes(served, s, tokens) / tokens))


def simulate_traffic(
    served: Served,
    s: Strategies,
    deployed: Deployment,
    workload: Workload,
    slo: Slo | None,
    seed: int,
    progress: Callable[[int, int], object] | None = None,
) -> ServingSimulation:
    """Serve a workload on a deployment."""
    started = time.perf_counter()
    fleet = build(served, s, deployed)
    result = simulate(fleet, workload, seed, progress=progress)
    found = result.summary(slo)
    values = {**_head(served, s, workload, seed), **found, **_spent(served, s, found, result)}
    values["output_tokens_per_s_per_device"] = values["output_tokens_per_s"] / served.devices
    values["elapsed_s"] = time.perf_counter() - started
    return ServingSimulation(served, s, workload, result, values, slo)


def _head(served: Served, s: Strategies, workload: Workload, seed: int) -> dict[str, Any]:
    """The resolved inputs."""
    job, hardware = served.job, served.hardware
    sizes = {name: round(float(np.max(getattr(s, name)))) for name in ("tp", "pp", "dp", "ep")}
    means = {name: float(np.mean(getattr(workload, name))) for name in ("input_tokens", "output_tokens")}
    return {
        "schema_version": 1,
        "kind": "serving",
        "model": {"name": served.model.name},
        "hardware": {"name": hardware.name, "accelerator": hardware.accelerator.name, "devices": served.devices},
        "strategy": {**sizes, "weights": job.weights, "kv": job.kv, "engine": job.engine.name},
        "workload": {"clients": workload.clients, "mean": means, "seed": seed},
    }


def _spent(served: Served, s: Strategies, found: dict[str, Any], result: Result) -> dict[str, Any]:
    """Energy and rent: devices draw what their mean batch makes them draw while they work, little while they wait."""
    on_s, busy_s = sum(found["on_s"]), sum(found["busy_s"])
    replicas = max(len(found["on_s"]), 1)
    each = served.devices / max(round(float(np.max(s.dp))) // Pace(served, s).ranks, 1)
    working = mean_estimate(served, s, found)
    idle_w = wall_power_w(served.hardware, idle_power_w(served.hardware))
    wall_w = working.average_power_w_per_device
    joules = each * (busy_s * wall_w + max(on_s - busy_s, 0.0) * idle_w)
    dollars = cost_usd(served.hardware.accelerator, each, on_s)
    tokens = float(np.sum(result.workload.output_tokens[result.completed]))
    known = bool(np.isfinite(dollars)) and tokens > 0
    return {
        "replicas": replicas,
        "energy_j": float(joules),
        "energy_j_per_output_token": float(joules) / tokens if tokens else None,
        "cost_usd": float(dollars) if np.isfinite(dollars) else None,
        "cost_usd_per_million_output_tokens": float(dollars) / tokens * MILLION if known else None,
    }


def mean_estimate(served: Served, s: Strategies, found: dict[str, Any]) -> InferenceEstimate:
    """The static batch that keeps a device as busy as the mean of a run did."""
    on_s, busy_s = sum(found["on_s"]), sum(found["busy_s"])
    batch = found["batch"]["mean"] * (on_s / busy_s if busy_s else 1.0)
    ranks = max(round(float(np.max(s.dp))) // Pace(served, s).ranks, 1)
    job = served.job.model_copy(update={"batch": max(round(batch), 1) * ranks})
    return estimate(replace(served, job=job), s)
