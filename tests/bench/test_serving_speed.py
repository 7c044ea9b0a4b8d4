"""How fast traffic is simulated. Run: ``pytest tests/bench --benchmark-only`` (the ordinary run skips these).

``extra_info`` carries the figures to quote: simulated requests per second on one core, memory per request.
"""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from math import ceil, inf

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from hwsim.events.engine import Engine
from hwsim.events.fleet import Fleet, Pool
from hwsim.events.results import Result
from hwsim.events.serving import simulate
from hwsim.events.workload import Lengths, Workload, arrivals, closed_loop, poisson

REQUESTS, MANY = 19_366, 200_000
LENGTHS = Lengths(1155, "lognormal", 0.95), Lengths(211, "lognormal", 0.8)
"""About those of the Azure conversation trace of 2023."""
LEAST_PER_S = 10_000
"""Requests per second below which something is wrong, even on a busy machine; 25,000 is the aim."""


@dataclass(frozen=True)
class TablePace:
    """Steps of 8 ms and 0.02 ms per decode, looked up, and 0.06 ms per prompt token."""

    table_s: tuple[float, ...] = tuple(8e-3 + 2e-5 * decodes for decodes in range(1025))

    def step_s(self, decodes: int, context: float, chunks: int, tokens: int, past: float, ended: int) -> float:
        return self.table_s[decodes] + 6e-5 * tokens

    def run(self, decodes: int, context: float, most: int, seconds: float = inf) -> tuple[int, float]:
        each = self.table_s[decodes]
        steps = max(ceil(min(seconds / each, most)), 1)
        return steps, steps * each


def _trace(hours: float) -> Workload:
    """As many requests as the trace has, at a rate that varies within the hour as it does there."""
    rng = np.random.default_rng(0)
    at = np.sort(rng.beta(1.3, 1.3, REQUESTS)) * 3600.0 * hours
    return arrivals(at, *(lengths.draw(REQUESTS, rng) for lengths in LENGTHS))


CASES = {
    "an hour on one replica that keeps up": (_trace(1.0), 1),
    "the same in three minutes: saturated": (_trace(0.05), 1),
    "the same in six minutes on four replicas": (_trace(0.1), 4),
    "closed loop of 64 clients": (closed_loop(REQUESTS, 64, *LENGTHS), 1),
}


def _check(benchmark: BenchmarkFixture, result: Result) -> None:
    assert np.all(result.completed)
    per_s = result.workload.size / benchmark.stats.stats.min
    benchmark.extra_info["requests_per_s"] = round(per_s)
    assert per_s > LEAST_PER_S


@pytest.mark.parametrize(("work", "replicas"), CASES.values(), ids=CASES)
def test_trace_replay(benchmark: BenchmarkFixture, work: Workload, replicas: int) -> None:
    fleet = Fleet((Pool(TablePace(), Engine(kv_blocks=30_000), replicas),))
    result = benchmark.pedantic(simulate, (fleet, work), rounds=5, warmup_rounds=1)
    _check(benchmark, result)


def test_many_requests(benchmark: BenchmarkFixture) -> None:
    work = poisson(MANY, 6.0, *LENGTHS)
    fleet = Fleet.single(TablePace(), Engine(kv_blocks=30_000))
    _check(benchmark, benchmark.pedantic(simulate, (fleet, work), rounds=1))


def test_memory_grows_little_with_requests(benchmark: BenchmarkFixture) -> None:
    """A million requests stay below 1 GiB, workload included."""
    fleet = Fleet.single(TablePace(), Engine(kv_blocks=30_000))

    def peak_bytes() -> int:
        tracemalloc.start()
        simulate(fleet, poisson(20_000, 6.0, *LENGTHS))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    each = benchmark.pedantic(peak_bytes, rounds=1) / 20_000
    benchmark.extra_info["bytes_per_request"] = round(each)
    assert each < 2**30 / 1e6
