"""How fast serving questions are answered (`make bench`)."""

from __future__ import annotations

import numpy as np
import pytest

import hwsim
from hwsim.asking_inference import served_asked
from hwsim.events.serving import simulate
from hwsim.events.workload import arrivals
from hwsim.search.simulation import Deployment, build

REQUESTS = 19_366
"""As many as the Azure 2023 conversation trace has, at its mean rate and lengths."""


def test_plan_70b_on_64_gpus_within_a_promise(benchmark):
    given = {"qps": 20.0, "ttft_ms": 1000, "tpot_ms": 40}
    plan = benchmark.pedantic(
        lambda: hwsim.plan_inference("llama-3-70b", "h100-sxm-80", 64, **given), rounds=3, iterations=1
    )
    assert plan.best.deployment["qps_capacity"] >= 20


@pytest.mark.parametrize("tables", ["cold", "warm"])
def test_replay_of_an_hour_on_llama_3_8b(benchmark, tables):
    rng = np.random.default_rng(0)
    at = np.sort(rng.uniform(0, 3505, REQUESTS))
    sizes = [np.clip(rng.lognormal(np.log(m), 0.8, REQUESTS).astype(int), 1, 14_000) for m in (840, 150)]
    work = arrivals(at, *sizes)
    asked = served_asked("llama-3-8b", "a100-sxm-80", 1, input_len=1155, output_len=211)
    kept = build(*asked, Deployment())
    simulate(kept, work)
    fleet = (lambda: build(*asked, Deployment())) if tables == "cold" else (lambda: kept)
    result = benchmark.pedantic(lambda: simulate(fleet(), work), rounds=3, iterations=1)
    benchmark.extra_info["requests_per_s"] = REQUESTS / benchmark.stats.stats.min
    assert np.all(result.completed)


def test_estimate_of_one_static_batch(benchmark):
    given = {"batch": 16, "input_len": 1024, "output_len": 128}
    assert benchmark(lambda: hwsim.estimate_inference("llama-3-70b", "h100-sxm-80", 4, **given)).fits
