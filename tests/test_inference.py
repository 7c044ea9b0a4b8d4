"""Inference in closed form: memory against published figures, look-ups against plain sums, parts against totals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.analytic.batch import serve_batch
from hwsim.analytic.cache import cache_bytes, held_bytes, weights_bytes
from hwsim.analytic.pace import KNOTS, Pace
from hwsim.analytic.serving import Served, attention_cost, attention_on, machine, one_row
from hwsim.analytic.steady import steady
from hwsim.asking_inference import served_asked
from hwsim.errors import InputFileError, UsageError
from hwsim.ops.plan import Cached
from hwsim.ops.serving import layers, step_plan
from hwsim.ops.work import Collective
from hwsim.search.serving_space import Layout, columns, illegal, layouts
from hwsim.search.simulation import swap_s, transfer_link
from hwsim.specs.library import ENGINES, load_engine, load_model, names
from hwsim.specs.strategy import Strategies


def asked(
    model: Any = "llama-3-8b", hardware: str = "a100-sxm-80", gpus: int = 1, **given: Any
) -> tuple[Served, Strategies]:
    return served_asked(model, hardware, gpus, **given)


def pace_of(**given: Any) -> Pace:
    return Pace(*asked(**given))


@pytest.mark.parametrize(
    ("model", "kilobytes"), [("deepseek-v3", 70.272), ("qwen2.5-72b", 327.680), ("llama-3.1-405b", 516.096)]
)
def test_cache_bytes_per_token_are_those_of_deepseeks_paper(model: str, kilobytes: float) -> None:
    """DeepSeek-AI, "Insights into DeepSeek-V3", ISCA 2025, table 1."""
    served, s = asked(model, "h200-sxm-141", settings="engine.block_tokens=1")
    assert cache_bytes(served, s, 1000.0) == pytest.approx(1000 * kilobytes * 1e3)


def test_tensor_parallelism_divides_heads_and_not_latents() -> None:
    whole, parts = asked("llama-3-70b", "h100-sxm-80", 1), asked("llama-3-70b", "h100-sxm-80", 8, tp=8)
    assert cache_bytes(*parts, 1024.0) * 8 == cache_bytes(*whole, 1024.0)
    latent = [cache_bytes(*asked("deepseek-v3", "h200-sxm-141", n, tp=n), 1024.0) for n in (1, 8)]
    assert latent[0] == latent[1]


def test_an_indexer_bounds_what_attention_reads_and_has_keys_of_its_own() -> None:
    """DeepSeek-V3.2: 61 keys of 128 numbers in 8 bits, with a scale each; 2,048 of them are attended to."""
    dense, sparse = (asked(name, "h200-sxm-141", 8, tp=8) for name in ("deepseek-v3", "deepseek-v3.2"))
    assert cache_bytes(*sparse, 1024.0) - cache_bytes(*dense, 1024.0) == pytest.approx(1024 * 61 * 132)
    spans = []
    for served, s in (dense, sparse):
        short, long = (attention_cost(served, s, Cached(64.0, 1.0, keys, 2.0)) for keys in (2048.0, 65536.0))
        spans.append((float(np.max(short.total_s)), float(np.max(long.total_s))))
    assert spans[1][0] > spans[0][0]
    assert spans[1][1] < 0.5 * spans[0][1]


def test_a_norm_over_all_heads_is_summed_over_peers() -> None:
    """MiniMax-M2: 48 + 8 heads of 128 have a weight each; tensor-parallel peers add up two numbers a row."""
    served, s = asked("minimax-m2", "h100-sxm-80", 8, tp=8, ep=8)
    plan = step_plan(served.model, s, served.formats, served.habits, 16.0)
    norm = next(op for _, _, ops in layers(plan, served.routing) for op in ops if op.name == "qk norm")
    assert float(np.max(norm.parameters)) == (48 + 8) * 128 / 8
    (summed,) = (work for work in norm.forward if isinstance(work, Collective))
    assert (summed.kind, summed.axis, float(np.max(summed.total_bytes))) == ("all_reduce", "tp", 16 * 2 * 4)


def test_a_sum_over_peers_carries_the_norm_after_it() -> None:
    apart, inside = (
        hwsim.estimate_inference("llama-3-70b", gpus=8, tp=8, settings=[f"engine.fused_sum={on}"]).tpot_s
        for on in ("false", "true")
    )
    assert 0.8 * apart < inside < apart


def test_shared_experts_of_few_rows_run_beside_the_routed_ones() -> None:
    served, s = asked("deepseek-v3", "h200-sxm-141", 8, tp=8)
    few, many = (step_plan(served.model, s, served.formats, served.habits, np.array([rows])) for rows in (64.0, 4096.0))
    hidden = [
        {op.name: op for _, _, ops in layers(plan, served.routing) for op in ops}["shared down"].forward
        for plan in (few, many)
    ]
    assert not hidden[0]
    assert hidden[1]


def test_windows_bound_the_cache() -> None:
    short, long = (cache_bytes(*asked("mistral-7b"), tokens) for tokens in (4096.0, 32768.0))
    assert long < 1.01 * short  # every layer sees 4,096 tokens


@pytest.mark.parametrize("model", ["llama-3-8b", "gpt-j-6b", "qwen3-30b-a3b", "deepseek-v2-lite", "t5-3b"])
def test_weights_in_half_precision_are_two_bytes_a_parameter(model: str) -> None:
    served, s = asked(model, "h200-sxm-141", output_len=16, input_len=64)
    assert weights_bytes(served, s) == pytest.approx(2.0 * hwsim.count_parameters(model).total, rel=2e-3)


def test_a_quantised_70b_takes_what_its_checkpoint_does() -> None:
    """Llama 3.1 70B Instruct AWQ in 4 bits: 39.8 GB on disk; the FP8 one: 70.6 GB (Hugging Face)."""
    sizes = [weights_bytes(*asked("llama-3.1-70b", "h200-sxm-141", weights=name)) / 1e9 for name in ("int4", "fp8")]
    assert sizes == pytest.approx([39.8, 72.6], rel=0.02)


@settings(max_examples=60, deadline=None)
@given(decodes=st.integers(1, 40), context=st.floats(1, 5000), steps=st.integers(1, 400))
def test_a_stretch_is_the_sum_of_its_steps(decodes: int, context: float, steps: int) -> None:
    pace = PACE
    plain = sum(pace.step_s(decodes, context + i, 0, 0, 0.0, 0) for i in range(steps))
    assert pace.run_s(decodes, context, steps) == pytest.approx(plain, rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(decodes=st.integers(1, 40), context=st.floats(1, 5000), share=st.floats(0, 1.2), most=st.integers(1, 400))
def test_the_fewest_steps_that_take_so_long(decodes: int, context: float, share: float, most: int) -> None:
    seconds = share * PACE.run_s(decodes, context, most)
    steps, taken_s = PACE.run(decodes, context, most, seconds)
    assert 1 <= steps <= most
    assert steps == most or PACE.run_s(decodes, context, steps) >= seconds * (1 - 1e-12)
    assert steps == 1 or PACE.run_s(decodes, context, steps - 1) < seconds * (1 + 1e-12)
    assert taken_s == pytest.approx(PACE.run_s(decodes, context, steps), rel=1e-12)


PACE = pace_of()


def test_look_ups_are_the_operators_at_the_knots() -> None:
    """Steps read off the tables equal the same step costed in columns."""
    served, s = asked(engine="vllm")
    pace = Pace(served, s)
    grid = np.array([1.0, 7.0, 64.0])
    place = 55
    job = served.job.model_copy(update={"input_len": KNOTS[place] - 1, "output_len": 2})
    found = steady(replace(served, job=job), columns([Layout(1, 1, 1, 1, 1)]), grid)
    prompts = found.batch * np.maximum(
        found.tpot_s - np.array([[pace.run_s(int(n), KNOTS[place], 1) for n in grid]]), 0
    )
    assert np.all(prompts >= 0)
    assert pace.rows[64][0] < pace.rows[4096][0]


def test_only_images_pass_the_tower() -> None:
    """Gemma 3's reads 4,096 patches of an image through 0.41 B parameters (SigLIP So400m), beside attention."""
    text, images = (pace_of(model="gemma-3-27b", hardware="h100-sxm-80", images=count).before_s for count in (0, 2))
    assert text[1] == images[0] == 0.0
    bound_s = 2 * 4096 * 2 * 0.41e9 / 989.4e12
    assert bound_s < images[1] < 4 * bound_s
    assert 3 * images[1] < images[4] < 4 * images[1]


@pytest.mark.parametrize("engine", names(ENGINES))
def test_parts_sum_to_the_times(engine: str) -> None:
    e = hwsim.estimate_inference("llama-3-8b", "a100-sxm-80", 2, tp=2, batch=8, engine=engine)
    assert sum(e.time_s["prefill"].values()) == pytest.approx(e.ttft_s)
    assert sum(e.time_s["decode"].values()) == pytest.approx(e.tpot_s)
    assert all(value >= -1e-12 for part in e.time_s.values() for value in part.values())
    assert sum(e.memory_bytes.values()) == pytest.approx(e.memory_allocated_bytes)


def test_the_largest_batch_fits_and_one_more_does_not() -> None:
    most = hwsim.estimate_inference("llama-3-70b", "h100-sxm-80", 4, batch=1).max_batch
    fits = [hwsim.estimate_inference("llama-3-70b", "h100-sxm-80", 4, batch=most + extra).fits for extra in (0, 1)]
    assert fits == [True, False]


def test_a_batch_in_one_step_waits_for_nobody() -> None:
    pace = pace_of(batch=4, input_len=512, output_len=32)
    done = serve_batch(pace, 4, 512, 32)
    engine = pace.engine
    first = engine.request_host + 512 * engine.prompt_host + pace.step_s(0, 0.0, 4, 2048, 0.0, 4)
    assert done.first_s == pytest.approx([first] * 4)
    assert done.finish_s == pytest.approx([first + pace.run_s(4, 513.0, 31)] * 4)


def test_prompts_beyond_the_budget_come_later() -> None:
    done = serve_batch(pace_of(), 16, 2048, 64)
    assert sorted(done.first_s) == list(done.first_s)
    assert done.first_s[-1] > 3 * done.first_s[0]
    assert len(done.finish_s) == 16


def test_arrays_equal_scalars_bit_for_bit() -> None:
    batches = [1, 8, 64]
    table = hwsim.estimate_inference("llama-3-8b", "h100-sxm-80", 1, batch=np.array(batches))
    single = [hwsim.estimate_inference("llama-3-8b", "h100-sxm-80", 1, batch=n) for n in batches]
    for name in ("ttft_s", "tpot_s", "e2e_s", "memory_allocated_bytes"):
        assert table[name].tolist() == [getattr(e, name) for e in single]


def test_speculation_pays_with_right_guesses_and_costs_with_wrong_ones() -> None:
    given = {"model": "llama-3-70b", "hardware": "h100-sxm-80", "gpus": 4, "output_len": 256}
    plain = hwsim.estimate_inference(**given).tpot_s
    good, bad = (
        hwsim.estimate_inference(**given, draft_tokens=4, draft="llama-3-8b", acceptance=a).tpot_s for a in (0.9, 0.0)
    )
    assert good < 0.7 * plain < plain < bad


def test_a_cached_prefix_is_not_read_again() -> None:
    none, most = (hwsim.estimate_inference("llama-3-8b", gpus=1, input_len=8192, prefix_hit=hit) for hit in (0.0, 0.9))
    assert most.ttft_s < 0.3 * none.ttft_s
    assert most.memory_bytes["kv_cache"] == none.memory_bytes["kv_cache"]


def test_without_the_host_only_the_device_is_left() -> None:
    busy, quiet = (
        hwsim.estimate_inference("llama-3-8b", gpus=1, engine="vllm", engine_overhead=on) for on in (True, False)
    )
    assert quiet.tpot_s < busy.tpot_s
    assert quiet.time_s["decode"]["host"] == pytest.approx(0.0, abs=1e-9)


def test_every_layout_is_legal_and_fits_the_devices() -> None:
    model = load_model("deepseek-v3")
    found = list(layouts(model, 32, 8, {}))
    assert {layout.ep for layout in found} >= {1, 8, 32}
    for layout in found:
        assert layout.devices <= 32
        assert not illegal(model, vars(layout))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tp": 3, "gpus": 3}, "tp 3 must divide"),
        ({"tp": 2, "gpus": 3}, "tp x pp x dp"),
        ({"ep": 2, "gpus": 2}, "has no experts"),
        ({"weights": "int3"}, "weights: 'int3' is none of"),
        ({"batch": 0}, "batch: must be a whole number from 1"),
        ({"batch": float("nan")}, "batch: must be a whole number"),
        ({"prefix_hit": 1.5}, "prefix_hit: must be numbers from 0 to 1"),
        ({"engine": "vlm"}, "did you mean vllm"),
        ({"draft": "llama-3-8b"}, "needs draft_tokens"),
        ({"quantity": 1}, "unknown argument"),
        ({"batch": [1, 2], "tp": [1]}, "arrays differ in length"),
    ],
)
def test_bad_arguments_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        hwsim.estimate_inference("llama-3-8b", "h100-sxm-80", **given)


def test_bad_settings_name_the_field() -> None:
    with pytest.raises(InputFileError, match=r"token_budgt.*did you mean token_budget"):
        hwsim.estimate_inference("llama-3-8b", settings="engine.token_budgt=5")


@pytest.mark.parametrize("name", names(ENGINES))
def test_engines_say_where_their_numbers_come_from(name: str) -> None:
    assert len(load_engine(name).source) > 40


def test_adapters_take_memory_each_and_time_once() -> None:
    """A LoRA of rank 16 on every linear layer of Llama 2 7B has 39,976,960 parameters (PEFT, all-linear)."""
    none, one, many = (
        hwsim.estimate_inference("llama-2-7b", "a100-sxm-80", 1, output_len=16, **given)
        for given in ({}, {"adapters": 1, "rank": 16}, {"adapters": 100, "rank": 16})
    )
    each = (many.memory_bytes["weights"] - one.memory_bytes["weights"]) / 99
    assert each == pytest.approx(2 * 39_976_960, rel=1e-6)
    assert one.memory_bytes["weights"] - none.memory_bytes["weights"] == pytest.approx(each)
    assert none.tpot_s < one.tpot_s == many.tpot_s


def test_a_second_cache_takes_memory_and_is_not_sent() -> None:
    one, two = (
        served_asked("llama-3-8b", "a100-sxm-80", 1, settings=f"engine.cache_copies={copies}") for copies in (1, 2)
    )
    assert held_bytes(*two, 1000.0) == 2 * held_bytes(*one, 1000.0) == 2 * 1008 * 131_072  # whole blocks; 128 KiB each
    assert transfer_link(*two) == transfer_link(*one)
    assert swap_s(*two) == swap_s(*one)


def alone_s(pace: Pace, chunks: int, tokens: int, past: int) -> float:
    """Attention of prompt chunks, costed by itself and not in a table."""
    served, s = pace.served, pace.strategy
    cached = Cached(float(chunks), float(tokens), float(past + tokens), served.job.cache_bytes)
    return float(np.max(attention_on(served, one_row(served, s), machine(served, s, served.plain), cached).total_s))


@pytest.mark.parametrize("model", ["llama-3-8b", "deepseek-v3", "gemma-2-9b"])
def test_tables_of_prompts_hold_what_each_costs_by_itself(model: str) -> None:
    pace = pace_of(model=model, hardware="h200-sxm-141", gpus=8, tp=8)
    for tokens in (1, 63, 64, 255, 256, 1000, 5000):
        assert pace.prompts_s(1, tokens, 0.0) == pace.prompt_attention[1][tokens][0] == alone_s(pace, 1, tokens, 0)
    for chunks, tokens in ((1, 70), (2, 16), (3, 1008), (5, 4000)):
        for place in (0, 7, 60):
            assert pace.prompts_s(chunks, tokens, KNOTS[place]) == alone_s(pace, chunks, tokens, KNOTS[place])
