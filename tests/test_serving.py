"""Serving from the outside: simulations against closed forms, plans against their promises, files that open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hwsim
from hwsim.analytic.pace import Pace
from hwsim.asking_inference import served_asked
from hwsim.cli.app import run
from hwsim.errors import InfeasibleError, UsageError
from hwsim.search.traffic import measured
from hwsim.validation.published import Row
from hwsim.validation.serving import KINDS, score_serving, serving_board, serving_facts, serving_sources

LLAMA: dict[str, Any] = {"model": "llama-3-8b", "hardware": "a100-sxm-80", "gpus": 1}
SERVING_KEYS = {
    "kind", "requests", "completed", "rejected", "preemptions", "ttft_s", "tpot_s", "e2e_s", "queue_s",
    "output_tokens_per_s", "output_tokens_per_s_per_device", "kv_use", "batch", "energy_j", "cost_usd", "elapsed_s",
}  # fmt: skip


@pytest.mark.parametrize("lengths", [(1024, 128), (20_000, 300), (7, 2)])
@pytest.mark.parametrize("engine", ["vllm", "lmdeploy", "tensorrt-llm"])
def test_one_client_sees_what_the_closed_form_says(lengths: tuple[int, int], engine: str) -> None:
    given = {**LLAMA, "input_len": lengths[0], "output_len": lengths[1], "engine": engine}
    found = hwsim.simulate_serving(**given, concurrency=1, requests=5, length_spread=0.0)
    alone = hwsim.estimate_inference(**given)
    assert found.ttft_s["p50"] == pytest.approx(alone.ttft_s, rel=1e-9)
    assert found.tpot_s["p50"] == pytest.approx(alone.tpot_s, rel=1e-9)
    assert found.e2e_s["p99"] == pytest.approx(alone.e2e_s, rel=1e-9)


def test_an_offline_benchmark_repeats_bit_for_bit() -> None:
    asked = served_asked(**LLAMA, input_len=300, output_len=20)
    assert measured(Pace(*asked), "offline", 1.0, 40) == measured(Pace(*asked), "offline", 1.0, 40)


@pytest.mark.parametrize("batch", [4, 24])
def test_clients_that_start_together_are_a_static_batch(batch: int) -> None:
    given = {**LLAMA, "input_len": 700, "output_len": 90}
    found = hwsim.simulate_serving(**given, concurrency=batch, requests=batch, length_spread=0.0)
    together = hwsim.estimate_inference(**given, batch=batch)
    assert found.ttft_s["mean"] == pytest.approx(together.ttft_s, rel=1e-9)
    assert found.tpot_s["mean"] == pytest.approx(together.tpot_s, rel=1e-9)
    assert float(np.max(found.result.e2e_s)) == pytest.approx(together.e2e_s, rel=1e-9)


def test_the_same_seed_gives_the_same_bits_and_another_another_draw() -> None:
    columns = [hwsim.simulate_serving(**LLAMA, qps=5.0, requests=200, seed=seed).result.finish_s for seed in (1, 1, 2)]
    assert np.array_equal(columns[0], columns[1])
    assert not np.array_equal(columns[0], columns[2])


def test_too_much_traffic_is_called_overload() -> None:
    found = hwsim.simulate_serving(**LLAMA, qps=100.0, requests=800)
    assert "overload" in found.overload
    assert hwsim.simulate_serving(**LLAMA, qps=2.0, requests=400).overload is None


def test_two_replicas_serve_twice_the_traffic_as_fast() -> None:
    one = hwsim.simulate_serving(**LLAMA, qps=4.0, requests=600)
    two = hwsim.simulate_serving(**{**LLAMA, "gpus": 2}, tp=1, dp=2, qps=8.0, requests=1200)
    assert two.replicas == 2
    assert two.tpot_s["p50"] == pytest.approx(one.tpot_s["p50"], rel=0.1)


def test_prompts_and_answers_in_pools_of_their_own_keep_answers_steady() -> None:
    given = {**LLAMA, "gpus": 4, "tp": 1, "dp": 4, "qps": 12.0, "requests": 600, "input_len": 3000}
    mixed, apart = hwsim.simulate_serving(**given), hwsim.simulate_serving(**given, prefill_replicas=2)
    assert apart.completed == mixed.completed == 600
    assert apart.tpot_s["p99"] < mixed.tpot_s["p99"]


def test_a_model_that_does_not_fit_says_so() -> None:
    with pytest.raises(InfeasibleError, match=r"does not fit: .* GiB of weights"):
        hwsim.simulate_serving("llama-3-70b", "a100-sxm-80", 1, qps=1.0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give one of qps"),
        ({"qps": 1.0, "concurrency": 2}, "give one of qps"),
        ({"qps": float("nan")}, "qps: must be a positive"),
        ({"qps": 1.0, "routing": "random"}, "routing"),
        ({"qps": 1.0, "length_spread": 2.0}, "length_spread"),
        ({"qps": 1.0, "prefill_replicas": 1}, "leaves none"),
        ({"qps": 1.0, "mttr_s": -1.0}, "mttr_s must be a finite number of at least 0"),
        ({"qps": 1.0, "cold_start_s": float("nan")}, "cold_start_s must be a finite number of at least 0"),
        ({"qps": 1.0, "seed": -5}, "seed: must be a whole number from 0"),
        ({"trace": {"arrival_s": [0.0]}}, "lacks the column input_tokens"),
    ],
)
def test_bad_traffic_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        hwsim.simulate_serving(**LLAMA, **given)


def test_a_trace_is_replayed_into_files_that_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.csv"
    rng = np.random.default_rng(0)
    arrivals = np.cumsum(rng.exponential(0.3, 80))
    rows = [f"{t:.4f},{rng.integers(10, 900)},{rng.integers(1, 90)}" for t in arrivals]
    trace.write_text("arrival_s,input_tokens,output_tokens\n" + "\n".join(rows) + "\n", encoding="utf-8")
    wanted = {"--trace": "t.json", "--plot": "p.png", "--requests-csv": "r.csv"}
    names = {flag: tmp_path / name for flag, name in wanted.items()}
    files = [part for flag, path in names.items() for part in (flag, str(path))]
    command = ["simulate", "serving", "--model", "llama-3-8b", "--hardware", "a100-sxm-80", "--trace-csv", str(trace)]
    assert run([*command, *files, "--json"], debug=False) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) >= SERVING_KEYS
    assert set(found["ttft_s"]) == {"mean", "p50", "p90", "p95", "p99"}
    events = json.loads(names["--trace"].read_text(encoding="utf-8"))["traceEvents"]
    assert {"X", "M", "C"} <= {event["ph"] for event in events}
    assert len(names["--requests-csv"].read_text(encoding="utf-8").splitlines()) == 81
    import matplotlib.image

    picture = matplotlib.image.imread(names["--plot"])
    assert picture.shape[0] > 500
    assert 0.02 < np.mean(picture[..., :3].min(axis=2) < 0.9) < 0.5  # neither blank nor black


PLANS = [
    ("llama-3-70b", "h100-sxm-80", {}),
    ("llama-3-70b", "tpu-v6e", {}),
    ("qwen3-235b-a22b", "h200-sxm-141", {"weights": "fp8", "pin": "ep=8"}),
    ("llama-3-8b", "rtx4090", {"weights": "int4"}),
]


@pytest.mark.parametrize(("model", "hardware", "given"), PLANS, ids=[f"{m}-{h}" for m, h, _ in PLANS])
def test_a_plan_keeps_its_promise_and_one_replica_less_does_not_serve(model: str, hardware: str, given: Any) -> None:
    plan = hwsim.plan_inference(model, hardware, 128, qps=20.0, ttft_ms=1000, tpot_ms=40, **given)
    made = plan.best.deployment
    assert made["ttft_s"]["p95"] <= 1.0
    assert made["tpot_s"]["p95"] <= 0.04
    assert made["qps_capacity"] >= 20.0 > made["qps_capacity"] * (made["replicas"] - 1) / made["replicas"]
    assert made["devices"] == made["replicas"] * made["devices_per_replica"] <= 128
    assert plan.candidates == plan.feasible + sum(plan.rejected.values())


def test_the_front_is_not_dominated() -> None:
    front = hwsim.plan_inference("llama-3-8b", "a100-sxm-80", 8).pareto
    users = [point["output_tokens_per_s_per_user"] for point in front]
    devices = [point["output_tokens_per_s_per_device"] for point in front]
    assert users == sorted(users, reverse=True)
    assert devices == sorted(devices)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"gpus": 1}, "out of memory"),
        ({"gpus": 16, "qps": 20.0, "tpot_ms": 1.0}, "promise is missed even by an idle replica"),
        ({"gpus": 4, "qps": 500.0, "tpot_ms": 60.0}, "no deployment of these devices"),
    ],
)
def test_infeasible_plans_say_what_binds_and_what_would_help(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InfeasibleError, match=said) as caught:
        hwsim.plan_inference("llama-3-70b", "h100-sxm-80", **given)
    assert "Nearest fix" in str(caught.value)


def test_hwsim_plan_hands_serving_over() -> None:
    plan = hwsim.plan("llama-3-8b", "a100-sxm-80", 2, task="infer")
    assert plan.to_dict()["task"] == "infer"
    with pytest.raises(UsageError, match="tokens"):
        hwsim.plan("llama-3-8b", "a100-sxm-80", 2, task="infer", tokens=1e12)


def test_every_serving_figure_has_a_table_and_a_source() -> None:
    facts = serving_facts()
    assert len(facts) > 2000
    assert {fact.source for fact in facts} == set(serving_sources())
    assert all(fact.metric in KINDS and fact.published > 0 for fact in facts)


def test_static_batches_are_on_the_scoreboard() -> None:
    chosen = [f for f in serving_facts() if f.source == "trtllm_static" and f.hardware == "a100-sxm-80"]
    board = serving_board(chosen)
    assert len(board.rows) == len(chosen)
    assert all(group.mean < 0.2 for group in board.groups)


def test_tables_count_every_source_model_and_device_alike() -> None:
    fact = serving_facts()[0]
    near = [Row(fact, fact.published * 1.1, True)] * 9
    other = next(f for f in serving_facts() if f.model != fact.model and f.metric == fact.metric)
    group = score_serving("x", [*near, Row(other, other.published * 1.5, True)])
    assert group.sources == 2
    assert group.mean == pytest.approx(0.3)
