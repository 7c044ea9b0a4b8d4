"""The discrete-event serving model: equal to a plain scheduler and to queueing theory, honest about bad input."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from math import ceil, factorial, inf, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference_serving import replay
from scipy import stats

from hwsim.errors import InputFileError, UsageError
from hwsim.events import serving
from hwsim.events.blocks import Blocks
from hwsim.events.chrome_trace import MOST_EVENTS, MOST_REQUESTS, chrome_trace
from hwsim.events.engine import Engine
from hwsim.events.fleet import Autoscale, Failures, Fleet, Link, Pool
from hwsim.events.ledger import COMPLETED, REJECTED, UNFINISHED
from hwsim.events.results import Result, Run, collect
from hwsim.events.serving import simulate
from hwsim.events.slo import Slo
from hwsim.events.timeline import MOST_POINTS
from hwsim.events.trace_file import read_trace
from hwsim.events.workload import Lengths, Workload, arrivals, bursty, closed_loop, poisson


@dataclass(frozen=True)
class LinearPace:
    """Steps that cost so much each, and so much per decode, per token in its cache, per prompt token, ..."""

    base_s: float = 8e-3
    decode_s: float = 2e-5
    context_s: float = 0.0
    token_s: float = 6e-5
    past_s: float = 0.0
    ended_s: float = 0.0

    def step_s(self, decodes: int, context: float, chunks: int, tokens: int, past: float, ended: int) -> float:
        attention_s = self.context_s * decodes * context + self.past_s * tokens * (past + 0.5 * tokens / max(chunks, 1))
        return self.base_s + self.decode_s * decodes + self.token_s * tokens + attention_s + self.ended_s * ended

    def run(self, decodes: int, context: float, most: int, seconds: float = inf) -> tuple[int, float]:
        bend = 0.5 * self.context_s * decodes
        first = self.base_s + self.decode_s * decodes + bend * (2 * context - 1)
        steps = seconds / first if bend == 0 else (sqrt(first**2 + 4 * bend * seconds) - first) / (2 * bend)
        count = max(ceil(min(steps, most)), 1)
        return count, count * (first + bend * count)


PACE = LinearPace()
ROOMY = Engine(kv_blocks=30_000)
LOGNORMAL = Lengths(500, "lognormal", 1.0), Lengths(100, "lognormal", 1.0)
LARGE = 10**9


def one(engine: Engine = ROOMY, pace: LinearPace = PACE, **fleet: Any) -> Fleet:
    return Fleet((Pool(pace, engine),), **fleet)


def same(first: Result, second: Result) -> bool:
    """Bit for bit."""
    columns = ("arrival_s", "admitted_s", "first_s", "finish_s", "preemptions", "replica", "status")
    return all(getattr(first, name).tobytes() == getattr(second, name).tobytes() for name in columns)


def check_ends(result: Result) -> None:
    """Every request ends exactly once, in order of its stages, and replicas are busy no longer than on."""
    assert not np.any(result.status == UNFINISHED)
    done = result.completed
    stages = [result.arrival_s, result.admitted_s, result.first_s, result.finish_s]
    assert all(np.all(np.isfinite(stage[done])) for stage in stages)
    for early, late in pairwise(stages):
        assert np.all(early[done] <= late[done] + 1e-9)
    assert np.all(np.isnan(result.finish_s[~done]))
    assert np.all(result.replica[done] >= 0)
    for record in result.replicas:
        assert record.busy_s <= record.on_s + 1e-6
        assert record.most_blocks <= record.kv_blocks


# ---- against the plain scheduler ----


def random_case(seed: int) -> tuple[LinearPace, Engine, Workload]:
    """Bursts, tiny caches, priorities, prefixes, closed loops: whatever one replica may meet."""
    rng = np.random.default_rng(seed)
    requests, block = int(rng.integers(1, 40)), int(rng.choice([1, 2, 4, 16]))
    longest = int(rng.choice([5, 30, 80]))
    engine = Engine(
        kv_blocks=int(rng.integers(longest // block + 2, 4 * longest // block + 9)) if rng.random() < 0.7 else 10_000,
        block_tokens=block,
        token_budget=int(rng.choice([16, 40, 200])),
        max_sequences=int(rng.choice([1, 2, 4, 16])),
        chunked=bool(rng.random() < 0.7),
        mixed=bool(rng.random() < 0.7),
        preemption="recompute" if rng.random() < 0.5 else "swap",
        swap_s_per_token=1e-4 * float(rng.random()) * bool(rng.random() < 0.7),
        watermark=float(rng.choice([0.0, 0.01, 0.1])),
        prefix_hit_share=float(rng.choice([0.0, 0.0, 0.5])),
    )
    closed = rng.random() < 0.3
    gaps_s = rng.exponential(float(rng.choice([0.01, 0.1, 1.0])), requests) * (rng.random(requests) < 0.7)
    inputs, outputs = (rng.integers(1, longest + 1, requests) for _ in range(2))
    more: dict[str, Any] = {}
    if rng.random() < 0.5:
        more["priority"] = rng.integers(-1, 2, requests)
    if rng.random() < 0.5:
        more["prefix"] = rng.integers(-1, 3, requests)
        more["prefix_tokens"] = rng.integers(0, longest, requests)
    work = arrivals(
        np.zeros(requests) if closed else np.cumsum(gaps_s),
        inputs,
        outputs,
        clients=int(rng.integers(1, 8)) if closed else 0,
        **more,
    )
    slope = 1e-6 * float(rng.integers(0, 3))
    return LinearPace(1e-3 + 0.01 * float(rng.random()), 2e-5, slope, 6e-5, 1e-7, 1e-3), engine, work


@pytest.mark.parametrize("group", range(10))
def test_equals_a_scheduler_that_goes_token_by_token(group: int) -> None:
    preempted = rejected = 0
    for seed in range(120 * group, 120 * (group + 1)):
        pace, engine, work = random_case(seed)
        expected = replay(pace, engine, work)
        for never in (None, Failures(mtbf_s=LARGE, mttr_s=1.0)):  # its own arrivals, and arrivals it is told of
            found = simulate(one(engine, pace, failures=never), work)
            for name, column in expected.items():
                told = f"seed {seed}: {name}"
                np.testing.assert_allclose(getattr(found, name), column, rtol=1e-9, atol=1e-12, err_msg=told)
            assert np.array_equal(found.completed, np.isfinite(expected["finish_s"]))
        preempted += int(np.sum(expected["preemptions"]))
        rejected += int(np.count_nonzero(found.status == REJECTED))
    assert preempted > 20
    assert rejected > 5


def test_replicas_in_turn_equal_schedulers_of_their_own() -> None:
    pace, engine = LinearPace(context_s=1e-7), Engine(kv_blocks=300, token_budget=512, max_sequences=64)
    work = poisson(300, 60.0, Lengths(300, "lognormal", 1.0), Lengths(80, "lognormal", 1.0))
    result = simulate(Fleet((Pool(pace, engine, 3),), "round_robin"), work)
    for replica in range(3):
        mine = slice(replica, None, 3)
        own = arrivals(work.arrival_s[mine], work.input_tokens[mine], work.output_tokens[mine])
        for name, column in replay(pace, engine, own).items():
            np.testing.assert_allclose(getattr(result, name)[mine], column, rtol=1e-9, err_msg=name)
    assert np.sum(result.preemptions) > 0


@pytest.mark.parametrize("clients", [1, 3, 8])
def test_clients_that_ask_again_at_once_equal_the_scheduler(clients: int) -> None:
    """Long stretches whose steps get slower: a request that comes as one ends must not cut it."""
    pace, engine = LinearPace(context_s=1e-5), Engine(kv_blocks=1000)
    work = closed_loop(60, clients, Lengths(50, "lognormal", 1.0), Lengths(200, "lognormal", 1.0))
    result = simulate(one(engine, pace), work)
    for name, column in replay(pace, engine, work).items():
        np.testing.assert_allclose(getattr(result, name), column, rtol=1e-9, err_msg=name)


def test_a_short_case_by_hand() -> None:
    """Two prompts of 30 and 50 tokens, a budget of 40, steps of 1 s and 0.1 s per prompt token."""
    pace = LinearPace(base_s=1.0, decode_s=0.0, token_s=0.1)
    engine = Engine(kv_blocks=100, block_tokens=1, token_budget=40, max_sequences=4, watermark=0.0)
    result = simulate(one(engine, pace), arrivals([0.0, 2.0], [30, 50], [3, 2]))
    # first: prompt until 4; both: 1 decode and 39 tokens until 8.9; 1 decode and 11 tokens until 11; then 1 decode
    assert result.first_s.tolist() == pytest.approx([4.0, 11.0])
    assert result.finish_s.tolist() == pytest.approx([11.0, 12.0])
    assert result.ttft_s.tolist() == pytest.approx([4.0, 9.0])
    assert result.queue_s.tolist() == pytest.approx([0.0, 2.0])
    assert result.tpot_s.tolist() == pytest.approx([3.5, 1.0])


def test_a_prefix_is_computed_once_while_it_is_cached() -> None:
    engine = Engine(kv_blocks=64, block_tokens=10, watermark=0.0)
    pace = LinearPace(base_s=1.0, decode_s=0.0, token_s=0.1)

    def ttft(blocks: int, other: int = 20) -> list[float]:
        work = arrivals([0, 100, 200], [105, other, 105], 1, prefix=[7, -1, 7], prefix_tokens=100)
        return simulate(one(replace(engine, kv_blocks=blocks), pace), work).ttft_s.tolist()

    assert ttft(64) == pytest.approx([11.5, 3.0, 1.5])
    assert ttft(12, 110) == pytest.approx([11.5, 12.0, 11.5]), "evicted by the request between"
    shared = arrivals([0, 12, 12], [105, 105, 105], 40, prefix=7, prefix_tokens=100)
    assert simulate(one(replace(engine, kv_blocks=30), pace), shared).replicas[0].most_blocks <= 10 + 3 * 5


def test_a_cached_share_of_every_prompt_needs_no_work() -> None:
    pace = LinearPace(base_s=1.0, token_s=0.1)
    engine = Engine(kv_blocks=64, block_tokens=10, prefix_hit_share=0.5)
    assert simulate(one(engine, pace), arrivals([0], [100], [1])).ttft_s.tolist() == pytest.approx([6.0])


def test_urgent_requests_overtake() -> None:
    engine = Engine(kv_blocks=100, max_sequences=1)
    result = simulate(one(engine), arrivals([0, 0.001, 0.002], 10, 50, priority=[0, 1, 0]))
    assert result.first_s[2] < result.first_s[1]


def test_cost_does_not_grow_with_tokens() -> None:
    """A stretch is one event, however long."""
    calls = 0

    class Counting(LinearPace):
        def run(self, decodes: int, context: float, most: int, seconds: float = inf) -> tuple[int, float]:
            nonlocal calls
            calls += 1
            return super().run(decodes, context, most, seconds)

    for tokens in (100, 1_000_000):
        calls = 0
        engine = Engine(kv_blocks=10**6, block_tokens=16)
        result = simulate(one(engine, Counting()), arrivals(np.arange(10) * 1e-3, 10, tokens))
        assert np.all(result.completed)
        assert calls < 40


def test_blocks_of_a_stretch_are_counted_exactly() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 3, 16):
        for _ in range(50):
            tokens = rng.integers(0, 100, 7)
            blocks, step = Blocks(1000, size), int(rng.integers(0, 50))
            for count in tokens.tolist():
                blocks.crossing[(step - count) % size] += 1
            needs = [sum((count + done) % size == 0 for count in tokens.tolist()) for done in range(60)]
            for steps in range(60):
                blocks.available = 1000
                blocks.grow(step, steps, 7)
                assert 1000 - blocks.available == sum(needs[:steps])
            blocks.available = int(rng.integers(0, 80))
            most = next((done for done in range(60) if sum(needs[: done + 1]) > blocks.available), 60)
            assert blocks.most_steps(step, 60, 7) == most


# ---- against queueing theory ----

TICK_S = 1e-3
"""A service of 1 s is about 1,000 tokens."""


def waits(servers: int, rate_per_s: float, outputs: np.ndarray, seed: int) -> np.ndarray:
    """Queueing times with `servers` places and a constant step: service is tokens times step. [s]"""
    pace = LinearPace(base_s=TICK_S, decode_s=0.0, token_s=0.0)
    engine = Engine(kv_blocks=LARGE, max_sequences=servers, chunked=True)
    gaps_s = np.random.default_rng(seed).exponential(1.0 / rate_per_s, len(outputs))
    return simulate(one(engine, pace), arrivals(np.cumsum(gaps_s), 1, outputs)).queue_s


def erlang_wait_s(servers: int, load: float) -> float:
    """Mean wait of M/M/c with services of 1 s. [s]"""
    full = load**servers / factorial(servers) / (1 - load / servers)
    return full / (sum(load**k / factorial(k) for k in range(servers)) + full) / (servers - load)


THEORY = {
    "M/M/1": (1, 0.7, True, erlang_wait_s(1, 0.7)),
    "M/D/1": (1, 0.7, False, 0.5 * erlang_wait_s(1, 0.7)),
    "M/M/4": (4, 3.0, True, erlang_wait_s(4, 3.0)),
    "M/M/16": (16, 13.0, True, erlang_wait_s(16, 13.0)),
}


@pytest.mark.parametrize(("servers", "load", "exponential", "expected_s"), THEORY.values(), ids=THEORY)
def test_queueing_theory(servers: int, load: float, exponential: bool, expected_s: float) -> None:
    """Mean wait over independent replications, inside the 99 % confidence interval of Student's t."""
    means = []
    for seed in range(16):
        service_s = np.random.default_rng(1000 + seed).exponential(1.0, 5000) if exponential else np.ones(5000)
        outputs = np.maximum(np.rint(service_s / TICK_S), 1)
        means.append(float(np.mean(waits(servers, load, outputs, seed)[1000:])))
    half = float(stats.t.ppf(0.995, len(means) - 1)) * float(np.std(means, ddof=1)) / sqrt(len(means))
    assert half < 0.25 * expected_s, "too few requests to say anything"
    assert abs(np.mean(means) - expected_s) < half + TICK_S


@pytest.mark.parametrize("chunked", [True, False])
def test_littles_law(chunked: bool) -> None:
    """Requests in the batch, over time, are residence times, over requests: exactly, from empty to empty."""
    work = poisson(2000, 8.0, *LOGNORMAL)
    result = simulate(one(replace(ROOMY, chunked=chunked)), work)
    assert result.replicas[0].batch_s == pytest.approx(float(np.sum(result.finish_s - result.admitted_s)), rel=1e-9)
    assert result.replicas[0].busy_s <= result.makespan_s


def test_a_closed_loop_keeps_its_concurrency() -> None:
    result = simulate(one(), closed_loop(500, 20, *LOGNORMAL))
    events = np.sort(np.concatenate([result.arrival_s, result.finish_s]))
    inside = [np.count_nonzero((result.arrival_s <= t) & (result.finish_s > t)) for t in events[:-40].tolist()]
    assert set(inside) == {20}
    assert result.steady_tokens_per_s > result.output_tokens_per_s
    assert result.overload is None


# ---- fleets ----

WORK = poisson(1500, 10.0, *LOGNORMAL, seed=3)
SMALL = Engine(kv_blocks=1500)
SPLIT = (Pool(PACE, SMALL, 2, "prefill"), Pool(PACE, SMALL, 2, "decode"))
FLEETS = {
    "one": one(SMALL),
    "round robin": Fleet((Pool(PACE, SMALL, 3),), "round_robin"),
    "least outstanding": Fleet((Pool(PACE, SMALL, 3),), "least_outstanding"),
    "kv aware": Fleet((Pool(PACE, SMALL, 3),), "kv_aware"),
    "power of two": Fleet((Pool(PACE, SMALL, 3),), "power_of_two"),
    "two kinds": Fleet((Pool(PACE, SMALL), Pool(LinearPace(2e-2), Engine(kv_blocks=600, chunked=False), 2))),
    "client": one(SMALL, request_s=0.01, prompt_token_s=1e-6),
    "fifo link": Fleet(SPLIT, link=Link(1e-5, 1e-3)),
    "fair link": Fleet(SPLIT, link=Link(1e-5, 1e-3, "fair")),
    "autoscale": Fleet((Pool(PACE, SMALL, 1, autoscale=Autoscale(1, 5, 8, 1.0, 5.0)),)),
    "failures": Fleet((Pool(PACE, SMALL, 3),), failures=Failures(30.0, 10.0)),
    "swap": Fleet((Pool(PACE, Engine(kv_blocks=400, preemption="swap", swap_s_per_token=1e-6), 2),)),
    "split failures": Fleet(SPLIT, link=Link(1e-4), failures=Failures(20.0, 5.0)),
    "split autoscale": Fleet(
        tuple(replace(pool, autoscale=Autoscale(1, 4, 4, 1.0, 3.0)) for pool in SPLIT), link=Link(1e-5)
    ),
}


def collect_when_empty(fleet: Fleet, work: Workload, run: Run) -> Result:
    """Close the books of a run that has left nothing behind: no request, no block in use."""
    for replica in (replica for group in run.members for replica in group.replicas):
        left = replica.waiting, replica.parked, replica.decodes, replica.held, replica.prompt
        assert not any(left)
        assert replica.kv.available == replica.kv.total
        assert (replica.outstanding, replica.leads, replica.promised) == (0, 0, 0)
        assert not any(replica.kv.crossing)
    return collect(fleet, work, run)


@pytest.mark.parametrize("fleet", FLEETS.values(), ids=FLEETS)
@pytest.mark.parametrize("clients", [0, 30])
def test_every_request_ends_once_and_the_same_seed_gives_the_same_bits(
    fleet: Fleet, clients: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = replace(WORK, arrival_s=np.zeros(WORK.size), clients=clients) if clients else WORK
    monkeypatch.setattr(serving, "collect", collect_when_empty)
    result = simulate(fleet, work, seed=1)
    check_ends(result)
    assert same(result, simulate(fleet, work, seed=1))
    assert np.count_nonzero(result.completed) > 0.95 * work.size
    if fleet.routing == "power_of_two" or fleet.failures:
        assert not same(result, simulate(fleet, work, seed=2))
    json.dumps(result.summary(Slo(1.0, 0.05)))


def test_two_replicas_halve_the_load() -> None:
    pool = Pool(PACE, ROOMY, 2)
    work = poisson(3000, 12.0, *LOGNORMAL)
    single, double = simulate(one(), work), simulate(Fleet((pool,), "round_robin"), work)
    counts = np.bincount(double.replica)
    assert counts.tolist() == [1500, 1500]
    assert double.summary()["e2e_s"]["mean"] < single.summary()["e2e_s"]["mean"]
    assert double.summary()["batch"]["mean"] < 0.5 * single.summary()["batch"]["mean"]


def test_better_routing_shortens_queues() -> None:
    engine = Engine(kv_blocks=30_000, max_sequences=16)
    work = poisson(3000, 36.0, *LOGNORMAL)
    queue_s = {
        routing: simulate(Fleet((Pool(PACE, engine, 4),), routing), work).summary()["queue_s"]["mean"]
        for routing in ("round_robin", "power_of_two", "least_outstanding")
    }
    assert queue_s["least_outstanding"] < queue_s["power_of_two"] < queue_s["round_robin"]


def test_kv_aware_routing_goes_where_there_is_room() -> None:
    work = arrivals([0.0, 1.0, 1.1, 1.2, 1.3], [8000, 10, 10, 10, 10], 1000)
    for routing, counts in (("kv_aware", [1, 4]), ("least_outstanding", [3, 2])):
        result = simulate(Fleet((Pool(PACE, ROOMY, 2),), routing), work)  # type: ignore[arg-type]
        assert np.bincount(result.replica).tolist() == counts


def test_requests_go_where_they_fit() -> None:
    fleet = Fleet((Pool(PACE, Engine(kv_blocks=10)), Pool(PACE, Engine(kv_blocks=1000))), "round_robin")
    result = simulate(fleet, arrivals(np.arange(6), [100, 1000, 1000, 100, 100, 20_000], 50))
    assert result.status.tolist() == [COMPLETED] * 5 + [REJECTED]
    assert set(result.replica[[1, 2]].tolist()) == {1}
    assert result.replica[5] == -1


def test_transfers_show_between_the_first_token_and_the_second() -> None:
    """100 tokens at 1 ms each and 0.5 s of latency; the second of two that meet waits, or both share."""
    pace = LinearPace(base_s=0.0, decode_s=0.0, token_s=1e-2, ended_s=0.0)
    pace = replace(pace, base_s=1e-9)
    pools = Pool(pace, ROOMY, 2, "prefill"), Pool(pace, ROOMY, 1, "decode")
    work = arrivals([0.0, 0.0], 100, 2)
    fifo, fair = (simulate(Fleet(pools, link=Link(1e-3, 0.5, how)), work) for how in ("fifo", "fair"))
    for result in (fifo, fair):
        assert result.ttft_s.tolist() == pytest.approx([1.0, 1.0])
    assert fifo.tpot_s.tolist() == pytest.approx([0.6, 0.7])
    assert fair.tpot_s.tolist() == pytest.approx([0.7, 0.7])
    alone = simulate(Fleet(pools), work)
    assert alone.tpot_s.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_a_fair_link_shares_among_those_that_are_there() -> None:
    """300 and then, 1 s later, 100 tokens at 10 ms: the second is done 2 s after it came, the first after 4 s."""
    pools = tuple(Pool(LinearPace(1e-9, 0.0, token_s=0.0), ROOMY, 1, role) for role in ("prefill", "decode"))
    work = arrivals([0.0, 1.0], [300, 100], 2)
    result = simulate(Fleet(pools, link=Link(1e-2, sharing="fair")), work)
    assert result.finish_s.tolist() == pytest.approx([4.0, 3.0], abs=1e-6)


def test_a_fair_link_remembers_what_was_sent() -> None:
    """Two of 300 and, 2 s later, one of 100 tokens at 10 ms: that is done after 3 s, the two after 2 s more."""
    pools = tuple(Pool(LinearPace(1e-9, 0.0, token_s=0.0), ROOMY, 1, role) for role in ("prefill", "decode"))
    result = simulate(Fleet(pools, link=Link(1e-2, sharing="fair")), arrivals([0.0, 0.0, 2.0], [300, 300, 100], 2))
    assert result.finish_s.tolist() == pytest.approx([7.0, 7.0, 5.0], abs=1e-6)


def test_a_pool_grows_with_the_load_and_shrinks_after_it() -> None:
    pool = Pool(PACE, SMALL, 1, autoscale=Autoscale(1, 8, 4, interval_s=1.0, cold_start_s=4.0))
    quiet, busy = np.arange(0, 100, 2.0), 100 + np.arange(0, 60, 0.05)
    work = arrivals(np.concatenate([quiet, busy, 160 + quiet]), 500, 100)
    result = simulate(Fleet((pool,)), work)
    check_ends(result)
    fixed = simulate(Fleet((Pool(PACE, SMALL, 1),)), work)
    assert result.summary()["ttft_s"]["p90"] < fixed.summary()["ttft_s"]["p90"]
    on_s = sum(record.on_s for record in result.replicas)
    assert result.over_s < on_s < 1.1 * result.over_s + 8 * 90, "switched off again"
    used = np.unique(result.replica[result.arrival_s < 100])
    assert used.tolist() == [0], "no more than one replica before the load"


def test_a_patient_pool_waits_for_the_next_burst() -> None:
    work = arrivals(np.repeat(np.arange(0, 100, 5.0), 4), 100, 50)

    def on_s(patience: int) -> float:
        pool = Pool(PACE, SMALL, 1, autoscale=Autoscale(1, 4, 1.0, 0.25, 0.0, patience))
        return sum(record.on_s for record in simulate(Fleet((pool,)), work).replicas)

    assert on_s(100) > 3.5 * 95 > 2 * on_s(1)


def test_failures_cost_time_and_no_request() -> None:
    fleet = Fleet((Pool(PACE, SMALL, 3),), failures=Failures(15.0, 5.0))
    broken, sound = simulate(fleet, WORK), simulate(replace(fleet, failures=None), WORK)
    check_ends(broken)
    assert np.all(broken.completed)
    assert sum(record.failures for record in broken.replicas) > 3
    assert broken.summary()["e2e_s"]["p99"] > sound.summary()["e2e_s"]["p99"]


def test_tokens_made_before_a_failure_are_not_made_again() -> None:
    """Steps of 1 s: a failure costs the step in progress, since the cache is computed again for nothing."""
    pace = LinearPace(1.0, 0.0, token_s=0.0)
    result = simulate(one(pace=pace, failures=Failures(20.0, 0.0)), arrivals([0.0], 10, 100))
    failures = result.replicas[0].failures
    assert failures > 2
    assert 100 < result.finish_s[0] < 100 + failures


def test_a_fleet_that_breaks_all_the_time_gives_up() -> None:
    fleet = one(failures=Failures(0.01, 0.01, most_restarts=5))
    result = simulate(fleet, arrivals([0.0, 1.0], 100_000, 100))
    assert result.status.tolist() == [REJECTED, REJECTED]


def test_clients_see_what_lies_between() -> None:
    work = arrivals([0.0], [100], [3])
    near, far = simulate(one(), work), simulate(one(request_s=0.5, prompt_token_s=0.01), work)
    assert far.ttft_s[0] == pytest.approx(near.ttft_s[0] + 1.5)
    assert far.queue_s[0] == pytest.approx(0.0)
    assert far.tpot_s[0] == pytest.approx(near.tpot_s[0])


# ---- results ----


def test_overload_is_called_so_and_balance_is_not() -> None:
    found = {}
    for rate in (2.0, 8.0, 12.0, 30.0, 60.0):
        for limit in (16, 4096):
            engine = Engine(kv_blocks=10**6, max_sequences=limit)
            found[rate, limit] = simulate(one(engine), poisson(4000, rate, *LOGNORMAL)).overload
    assert [key for key, verdict in found.items() if verdict] == [(30.0, 16), (60.0, 16), (60.0, 4096)]
    worst = found[60.0, 16]
    assert worst is not None
    assert worst.offered_per_s == pytest.approx(60, rel=0.1)
    assert worst.served_per_s < 20
    assert "overload" in str(worst)
    slow = LinearPace(decode_s=1e-3)
    engine = Engine(kv_blocks=10**6, max_sequences=4096, token_budget=10**6)
    crushed = simulate(one(engine, slow), poisson(2000, 20.0, *LOGNORMAL))
    assert crushed.overload is not None
    assert crushed.summary()["queue_s"]["p99"] < 5.0, "nobody queues for longer than a step: the batch grows"


def test_a_fleet_that_fills_up_is_not_overloaded() -> None:
    """Answers that outlast the arrivals: all requests run side by side, hardly slower than alone."""
    result = simulate(one(Engine(kv_blocks=10**6)), poisson(200, 20.0, Lengths(100), Lengths(2000)))
    assert np.min(result.finish_s) > np.max(result.arrival_s)
    assert result.overload is None


def test_a_run_stops_when_its_bounds_are_out_of_reach() -> None:
    engine, work = Engine(kv_blocks=10**6, max_sequences=16), poisson(4000, 40.0, *LOGNORMAL)
    slo = Slo(ttft_s=1.0, tpot_s=0.1)
    full, short = simulate(one(engine), work), simulate(one(engine), work, stop=slo)
    assert not full.meets(slo)
    assert not short.meets(slo)
    assert short.stopped == "bounds missed"
    assert short.over_s < 0.5 * full.over_s
    easy = simulate(one(), poisson(500, 2.0, *LOGNORMAL), stop=slo)
    assert easy.meets(slo)
    assert easy.goodput_per_s(slo) == pytest.approx(500 / easy.makespan_s)


@pytest.mark.parametrize("copies", [1, 2])
def test_an_interrupted_run_keeps_what_finished(copies: int) -> None:
    def interrupt(ended: int, total: int) -> None:
        if ended >= 0.5 * total:
            raise KeyboardInterrupt

    work = poisson(6000, 5.0 * copies, *LOGNORMAL)
    fleet = Fleet((Pool(PACE, ROOMY, copies),))
    result, whole = simulate(fleet, work, progress=interrupt), simulate(fleet, work)
    assert result.interrupted
    assert 3000 <= np.count_nonzero(result.completed) < 5000
    assert np.array_equal(result.finish_s[result.completed], whole.finish_s[result.completed])
    assert result.summary()["unfinished"] == np.count_nonzero(result.status == UNFINISHED)
    assert not whole.interrupted


def test_a_time_limit_ends_a_run() -> None:
    result = simulate(one(), poisson(6000, 5.0, *LOGNORMAL), until_s=100.0)
    assert result.stopped == "time limit"
    assert result.end_s <= 100.0 == result.over_s
    assert 400 < np.count_nonzero(result.completed) < 600


def test_summary_figures() -> None:
    work = arrivals([0, 0, 5, 5], [10, 10, 10, 10**6], [1, 11, 11, 5])
    result = simulate(one(Engine(kv_blocks=100), LinearPace(1.0, 0.0, token_s=0.0)), work)
    found = result.summary(Slo(ttft_s=1.5, tpot_s=1.0))
    assert {name: found[name] for name in ("requests", "completed", "rejected", "unfinished", "preemptions")} == {
        "requests": 4, "completed": 3, "rejected": 1, "unfinished": 0, "preemptions": 0,
    }  # fmt: skip
    assert found["makespan_s"] == pytest.approx(16.0)
    assert found["output_tokens_per_s"] == pytest.approx(23 / 16)
    assert found["tpot_s"]["mean"] == pytest.approx(1.0)
    assert found["e2e_s"]["p50"] == pytest.approx(11.0)
    assert found["batch"] == {"mean": pytest.approx(23 / 16), "max": 2}
    assert found["goodput_per_s"] == pytest.approx(3 / 16)
    assert found["kv_use"]["max"] == pytest.approx(0.03)
    none = simulate(one(Engine(kv_blocks=1, block_tokens=8)), work).summary()
    assert none["completed"] == 0
    assert none["ttft_s"]["mean"] is None


def test_timeline_and_trace_are_bounded() -> None:
    result = simulate(Fleet((Pool(PACE, ROOMY, 3),)), poisson(20_000, 40.0, *LOGNORMAL))
    for record in result.replicas:
        assert MOST_POINTS // 4 < len(record.points) <= MOST_POINTS
        ends_s = np.array([point.end_s for point in record.points])
        assert np.all(np.diff(ends_s) > 0)
        assert ends_s[-1] > 0.99 * record.on_s
        assert np.max(np.diff(ends_s)) < 0.02 * record.on_s
    events = chrome_trace(result)
    assert len(json.dumps(events)) < 40_000_000
    assert len(events) < MOST_EVENTS + 8 * MOST_REQUESTS + 100
    assert {event["ph"] for event in events} == {"M", "X", "C", "b", "e"}
    assert {event["tid"] for event in events if event["ph"] == "X"} == {0, 1, 2}
    opened = sum(event["ph"] == "b" for event in events)
    assert opened == sum(event["ph"] == "e" for event in events) > 1000


# ---- workloads and bad input ----


def test_makers_give_what_they_are_asked_for() -> None:
    work = bursty(200_000, 5.0, 3.0, Lengths(1000, "uniform", 0.5), Lengths(200, "lognormal", 0.8), seed=1)
    gaps_s = np.diff(work.arrival_s)
    assert np.mean(gaps_s) == pytest.approx(0.2, rel=0.03)
    assert np.std(gaps_s) / np.mean(gaps_s) == pytest.approx(3.0, rel=0.05)
    assert (work.input_tokens.min(), work.input_tokens.max()) == (500, 1500)
    assert np.mean(work.output_tokens) == pytest.approx(200, rel=0.01)
    assert np.std(work.output_tokens) / 200 == pytest.approx(0.8, rel=0.03)
    again = bursty(200_000, 5.0, 3.0, Lengths(1000, "uniform", 0.5), Lengths(200, "lognormal", 0.8), seed=1)
    assert all(np.array_equal(getattr(work, f.name), getattr(again, f.name)) for f in fields(work))
    regular = bursty(10, 2.0, 0.0, Lengths(10), Lengths(5))
    assert np.allclose(np.diff(regular.arrival_s), 0.5)


HEADER = "arrival_s,input_tokens,output_tokens\n"
BAD_TRACES = {
    "missing column": ("arrival_s,input_tokens\n0,1\n", ["row 1", "output_tokens", "missing"]),
    "doubled column": ("arrival_s,arrived_at,input_tokens,output_tokens\n0,0,1,1\n", ["row 1", "arrival_s", "2 times"]),
    "negative time": (HEADER + "-1,5,5\n", ["row 2", "arrival_s", "0 to 10,000,000,000"]),
    "negative tokens": (HEADER + "0,5,5\n1,-5,5\n", ["row 3", "input_tokens", "1 to 10,000,000"]),
    "zero tokens": (HEADER + "0,5,0\n", ["row 2", "output_tokens", "1 to 10,000,000"]),
    "too many tokens": (HEADER + "0,5,10000001\n", ["row 2", "output_tokens", "1 to 10,000,000"]),
    "part of a token": (HEADER + "0,5,1.5\n", ["row 2", "output_tokens", "whole"]),
    "nan": (HEADER + "0,1,1\nnan,5,5\n", ["row 3", "arrival_s", "'nan'"]),
    "inf": (HEADER + "inf,5,5\n", ["row 2", "arrival_s", "'inf'"]),
    "word": (HEADER + "0,many,5\n", ["row 2", "input_tokens", "'many'"]),
    "short row": (HEADER + "0,1\n", ["row 2", "output_tokens", "''"]),
    "unordered": (HEADER + "5,1,1\n4,1,1\n", ["row 3", "arrival_s", "order"]),
    "empty": ("", ["row 1", "missing"]),
    "no rows": (HEADER, ["no requests"]),
    "long line": (HEADER + "0,1," + "1" * 20_000, ["row 2", "longer"]),
    "priority": ("arrival_s,input_tokens,output_tokens,priority\n0,1,1,high\n", ["row 2", "priority", "'high'"]),
}


@pytest.mark.parametrize(("text", "told"), BAD_TRACES.values(), ids=BAD_TRACES)
def test_bad_traces_are_told_by_row_and_column(tmp_path: Path, text: str, told: list[str]) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputFileError) as error:
        read_trace(path)
    assert all(word in str(error.value) for word in [*told, "trace.csv"]), str(error.value)


def test_files_that_are_no_traces(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(b"no gzip")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with gzip.open(tmp_path / "c.csv.gz", "wt") as file:
        file.write(HEADER + "0,1,1\n" * 1000)
    (tmp_path / "d.csv.gz").write_bytes((tmp_path / "c.csv.gz").read_bytes()[:40])
    with (tmp_path / "e.csv").open("wb") as sparse:
        sparse.truncate(10 * 2**30)
    for name, told in {
        "a.csv.gz": "gzip", "b.csv": "UTF-8", "d.csv.gz": "end", "e.csv": "10 GiB", "none.csv": "No such",
        ".": "folder", "nul\0": "path",
    }.items():  # fmt: skip
        with pytest.raises(InputFileError, match=told):
            read_trace(str(tmp_path / name))
    many = tmp_path / "many.csv"
    many.write_text(HEADER + "x,1,1\n" * 10_000, encoding="utf-8")
    with pytest.raises(InputFileError) as error:
        read_trace(many)
    assert len(str(error.value)) < 2000


def test_traces_are_read(tmp_path: Path) -> None:
    plain, packed = tmp_path / "t.csv", tmp_path / "t.csv.gz"
    plain.write_text("priority, input_tokens,arrival_s,output_tokens,x\n2,10,0.5,3,a\n\n0,20.0,1e1,4,b\n", "utf-8-sig")
    work = read_trace(plain)
    assert work.arrival_s.tolist() == [0.5, 10.0]
    assert work.input_tokens.tolist() == [10, 20]
    assert work.output_tokens.tolist() == [3, 4]
    assert work.priority.tolist() == [2, 0]
    with gzip.open(packed, "wt") as file:
        file.write("arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,374,44\n4.314579,396,109\n")
    work = read_trace(packed)
    assert (work.size, work.clients, work.output_tokens.tolist()) == (2, 0, [44, 109])


REFUSED = {
    "no blocks": lambda: Engine(kv_blocks=0),
    "small budget": lambda: Engine(kv_blocks=1, token_budget=10, max_sequences=20),
    "watermark": lambda: Engine(kv_blocks=1, watermark=1.5),
    "preemption": lambda: Engine(kv_blocks=1, preemption="drop"),  # type: ignore[arg-type]
    "swap": lambda: Engine(kv_blocks=1, swap_s_per_token=float("nan")),
    "role": lambda: Pool(PACE, ROOMY, role="other"),  # type: ignore[arg-type]
    "replicas": lambda: Pool(PACE, ROOMY, 0),
    "scale": lambda: Pool(PACE, ROOMY, 9, autoscale=Autoscale(1, 5, 1.0)),
    "target": lambda: Autoscale(1, 5, 0.0),
    "half a fleet": lambda: Fleet((Pool(PACE, ROOMY, role="prefill"),)),
    "no fleet": lambda: Fleet(()),
    "routing": lambda: Fleet((Pool(PACE, ROOMY),), "random"),  # type: ignore[arg-type]
    "link": lambda: Link(-1.0),
    "mtbf": lambda: Failures(0.0, 1.0),
    "slo": lambda: Slo(ttft_s=0.0),
    "rate": lambda: poisson(10, 0.0, Lengths(1), Lengths(1)),
    "requests": lambda: poisson(0, 1.0, Lengths(1), Lengths(1)),
    "lengths": lambda: poisson(1, 1.0, Lengths(0), Lengths(1)),
    "kind": lambda: poisson(1, 1.0, Lengths(9, "zipf", 1.0), Lengths(1)),  # type: ignore[arg-type]
    "clients": lambda: closed_loop(10, 0, Lengths(1), Lengths(1)),
    "order": lambda: arrivals([1.0, 0.0], 1, 1),
    "tokens": lambda: arrivals([1.0], 0, 1),
    "columns": lambda: arrivals([1.0], [1, 2], 1),
    "until": lambda: simulate(one(), WORK, until_s=-1.0),
    "until nan": lambda: simulate(one(), WORK, until_s=float("nan")),
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_bad_arguments_are_refused(make: Any) -> None:
    with pytest.raises(UsageError):
        make()


def test_slo_without_bounds_is_met() -> None:
    assert Slo() == Slo(inf, inf, 99.0)
    assert simulate(one(), WORK).meets(Slo())
