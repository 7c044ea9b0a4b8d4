"""A replica under traffic: what a benchmark would measure, and the most traffic within a promise.

The event model serves the requests; this file sets it up from an estimate's setting and reads what it found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hwsim.analytic.cache import cache_tokens, room
from hwsim.analytic.inference import InferenceEstimate, estimated
from hwsim.analytic.pace import Pace
from hwsim.analytic.serving import Served
from hwsim.errors import InfeasibleError
from hwsim.events.engine import Engine as Scheduler
from hwsim.events.fleet import Fleet, Pool
from hwsim.events.results import Result
from hwsim.events.serving import simulate
from hwsim.events.slo import Slo
from hwsim.events.workload import Lengths, arrivals, closed_loop, poisson
from hwsim.specs.strategy import Strategies
from hwsim.units import show

SPREAD = 0.1
"""Half the range of lengths over their mean: benchmark clients draw them so (and those that do not are set apart by the
ways of their requests); requests all alike would march in step."""
REPEATS = 10
"""Requests of each client of a closed loop."""
MOST_REQUESTS = 1000
OFFLINE_WAVES = 4
"""Requests of an offline run over those that fit at once."""
TRIALS, TRIAL_REQUESTS = 7, 600
"""Rates tried by bisection, and requests of each."""


@dataclass(frozen=True)
class Promise:
    """Latencies that a percentile of the requests must keep."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    percentile: int = 95

    @property
    def given(self) -> bool:
        """Whether anything is promised."""
        return self.ttft_s is not None or self.tpot_s is not None


@dataclass(frozen=True)
class Measured:
    """What a benchmark would print."""

    ttft_s: float
    tpot_s: float
    e2e_s: float
    output_tokens_per_s: float
    estimate: InferenceEstimate


@dataclass(frozen=True)
class Held:
    """Most traffic of one replica within a promise, and the latencies there."""

    qps: float
    ttft_s: dict[str, float]
    tpot_s: dict[str, float]


def static(pace: Pace) -> Measured:
    """A batch whose requests start together."""
    e = estimated(pace)
    return Measured(e.ttft_s, e.tpot_s - e.time_s["decode"]["prompts"], e.e2e_s, e.output_tokens_per_s, e)


def scheduler(pace: Pace) -> Scheduler:
    """The scheduler of a replica: its budget and the cache that its memory leaves.

    Raises
    ------
    InfeasibleError
        If not even one block is left.
    """
    served, s, engine = pace.served, pace.strategy, pace.engine
    left = room(served, s)
    blocks = cache_tokens(served, s, left) // engine.block_tokens
    if blocks < 1:
        msg = (
            f"{served.model.name} does not fit: {show(left.weights_bytes, 'bytes')} of weights, "
            f"{show(left.activations_bytes + left.runtime_bytes, 'bytes')} of activations and runtime leave nothing of "
            f"{show(left.capacity_bytes, 'bytes')} for the KV cache. Nearest fix: more tp or pp, or narrower weights"
        )
        raise InfeasibleError(msg)
    budget = engine.token_budget * pace.ranks * pace.stages
    most = min(engine.max_sequences * pace.ranks, budget)
    return Scheduler(
        kv_blocks=blocks * pace.ranks,
        block_tokens=engine.block_tokens,
        token_budget=budget,
        max_sequences=most,
        chunked=engine.chunked,
        mixed=engine.mixed,
        prefix_hit_share=served.job.prefix_hit,
    )


def fleet(pace: Pace, replicas: int = 1) -> Fleet:
    """Replicas of one layout."""
    engine = pace.engine
    pool = Pool(pace, scheduler(pace), replicas)
    return Fleet((pool,), request_s=engine.request_host, prompt_token_s=engine.prompt_host)


def measured(pace: Pace, load: str, clients: float, requests: int | None, spread: float = SPREAD) -> Measured:
    """A benchmark: `clients` in a closed loop (load "concurrency"), so many requests per second ("qps", all at once
    where infinite), or as many in flight as fit ("offline"); lengths are those of the job, `spread` apart.
    """
    served, job = pace.served, pace.served.job
    lengths = Lengths(float(job.input_len), "uniform", spread), Lengths(float(job.output_len), "uniform", spread)
    serving = fleet(pace, max(round(float(np.max(pace.strategy.dp))) // pace.ranks, 1))
    if load == "concurrency":
        count = requests or min(max(round(REPEATS * clients), 8), max(MOST_REQUESTS, round(2 * clients)))
        work = closed_loop(count, max(round(clients), 1), *lengths)
    elif load == "qps" and np.isfinite(clients):
        work = poisson(requests or MOST_REQUESTS // 2, clients, *lengths)
    else:
        most = min(serving.pools[0].engine.kv_tokens // (job.input_len + job.output_len), job.engine.max_sequences)
        count = requests or min(max(OFFLINE_WAVES * most, 16), MOST_REQUESTS)
        rng = np.random.default_rng(0)
        work = arrivals(np.zeros(count), lengths[0].draw(count, rng), lengths[1].draw(count, rng))
    found = simulate(serving, work).summary()
    busy = max(round(found["batch"]["mean"]), 1)
    e = estimated(pace.asked(replace(served, job=job.model_copy(update={"batch": busy}))))
    mean = {name: found[name]["mean"] or float("nan") for name in ("ttft_s", "tpot_s", "e2e_s")}
    return Measured(**mean, output_tokens_per_s=found["output_tokens_per_s"], estimate=e)


def most_traffic(served: Served, s: Strategies, promise: Promise, rate: float, seed: int) -> Held:
    """Most Poisson traffic of one replica that keeps a promise, by bisection on the event model.

    `rate` is an upper bound in closed form: what a replica can do without queues.
    """
    serving = fleet(Pace(served, s))
    bounds = {name: bound for name in ("ttft_s", "tpot_s") if (bound := getattr(promise, name)) is not None}
    slo = Slo(**bounds, percentile=float(promise.percentile))
    low, high, best = 0.0, rate, None
    for trial in range(TRIALS):
        tried = 0.5 * (low + high) if trial else rate
        found = _trial(serving, served, tried, slo, seed)
        if found.meets(slo):
            low, best = tried, found
            if tried == rate:
                break
        else:
            high = tried
    if best is None:
        return Held(0.0, {}, {})
    summary = best.summary()
    return Held(low, summary["ttft_s"], summary["tpot_s"])


def _trial(serving: Fleet, served: Served, qps: float, slo: Slo, seed: int) -> Result:
    """Serve a few hundred Poisson requests, or fewer once the promise is lost."""
    lengths = Lengths(float(served.job.input_len)), Lengths(float(served.job.output_len))
    return simulate(serving, poisson(TRIAL_REQUESTS, qps, *lengths, seed=seed), seed, stop=slo)
