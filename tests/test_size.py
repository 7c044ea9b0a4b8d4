"""How many devices a target needs: against brute force over every count, and the search against made-up machines."""

import csv
import io
import json
import math
from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.cli.app import run
from hwsim.errors import InfeasibleError, UsageError
from hwsim.search.counting import EXHAUSTIVE, FINE, Trials, odd_part, roundest, seek_largest, seek_smallest
from hwsim.search.targets import Targets, Verdict
from hwsim.units import DAY_S

MODEL, HARDWARE, NODE = "gpt2", "a100-sxm-80", 8
PINS = ["order=tp-cp-dp-pp", "recompute=none", "sequence_parallel=off", "zero=1", "cp=1"]
JOB = {"global_batch": 96, "seq_len": 1024, "pin": PINS}
"""A batch that does not split over every count: what is reached goes up and down; few strategies, to be quick."""
MOST_NODES = 14
TOKENS = 1e12


@pytest.fixture(scope="module")
def every():
    """The best plan of every count of nodes."""
    found = {}
    for nodes in range(1, MOST_NODES + 1):
        try:
            found[nodes] = hwsim.plan(MODEL, HARDWARE, nodes * NODE, top=1, **JOB).best
        except InfeasibleError:
            continue
    return found


def sized(**targets):
    return hwsim.size(MODEL, HARDWARE, **{"max_gpus": MOST_NODES * NODE, **JOB, **targets})


def days(plan, headroom):
    return TOKENS / (plan.tokens_per_s * (1.0 - headroom)) / DAY_S


def cost(plan, headroom):
    return plan.cost_usd / plan.step_time_s * days(plan, headroom) * DAY_S


def power(plan):
    return plan.energy_j / plan.step_time_s


@pytest.mark.parametrize(
    ("most", "reached", "headroom"),
    [(12 * NODE, 0.3, 0.0), (12 * NODE, 0.8, 0.1), (65_536, 0.3, 0.1), (65_536, 0.55, 0.0), (65_536, 0.8, 0.1)],
)
def test_a_deadline_takes_the_fewest_nodes_that_meet_it(every, most, reached, headroom):
    fastest = min(days(plan, headroom) for nodes, plan in every.items() if nodes * NODE <= most)
    deadline = fastest / reached
    wanted = min(nodes for nodes, plan in every.items() if days(plan, headroom) <= deadline)
    found = sized(tokens=TOKENS, target_days=deadline, headroom=headroom, max_gpus=most)
    assert found.answer.option.nodes == wanted
    assert found.answer.days == pytest.approx(days(every[wanted], headroom))
    assert found.answer.cost_usd == pytest.approx(cost(every[wanted], headroom))
    assert found.answer.option.plan.to_dict() == every[wanted].to_dict()


@pytest.mark.parametrize("share", [1.02, 1.1, 1.4])
def test_a_budget_takes_the_fastest_within_it(every, share):
    budget = share * min(cost(plan, 0.1) for plan in every.values())
    kept = {nodes: plan for nodes, plan in every.items() if cost(plan, 0.1) <= budget}
    wanted = min(kept, key=lambda nodes: days(kept[nodes], 0.1))
    for most in (MOST_NODES, EXHAUSTIVE):
        if wanted <= most:
            found = sized(tokens=TOKENS, budget_usd=budget, max_gpus=most * NODE)
            assert found.answer.cost_usd <= budget
            assert found.answer.days == pytest.approx(days(kept[wanted], 0.1))


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_power_cap_is_kept(every, share):
    cap = share * max(power(plan) for plan in every.values())
    wanted = max(plan.tokens_per_s for plan in every.values() if power(plan) <= cap)
    found = sized(power_cap=cap, max_gpus=EXHAUSTIVE * NODE)
    assert found.answer.option.power_w <= cap
    assert found.answer.option.tokens_per_s == pytest.approx(wanted)
    assert sized(power_cap=f"{cap} W", max_gpus=EXHAUSTIVE * NODE).answer.option == found.answer.option


def test_a_throughput_counts_what_is_lost(every):
    rate = 0.5 * max(plan.tokens_per_s for plan in every.values())
    wanted = min(nodes for nodes, plan in every.items() if 0.8 * plan.tokens_per_s >= rate)
    found = sized(target_tokens_per_s=rate, headroom=0.2)
    assert found.answer.option.nodes == wanted
    assert found.answer.days is None
    assert found.answer.rate >= rate


def test_more_headroom_never_takes_fewer_devices(every):
    deadline = min(days(plan, 0.0) for plan in every.values()) / 0.4
    counts = [
        sized(tokens=TOKENS, target_days=deadline, headroom=headroom).answer.option.devices
        for headroom in (0.0, 0.1, 0.25, 0.4)
    ]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_headroom_is_shown_apart(every):
    deadline = min(days(plan, 0.0) for plan in every.values()) / 0.4
    found = sized(tokens=TOKENS, target_days=deadline, headroom=0.3)
    bare = sized(tokens=TOKENS, target_days=deadline, headroom=0.0)
    assert found.without.option.nodes == bare.answer.option.nodes
    assert found.without.days == pytest.approx(bare.answer.days)
    assert bare.without.option == bare.answer.option


def test_no_fewer_than_the_closed_form(every):
    deadline = min(days(plan, 0.1) for plan in every.values()) / 0.4
    found = sized(tokens=TOKENS, target_days=deadline)
    plan = found.answer.option.plan
    peak = plan.model_tflops_per_device / plan.mfu
    per_token = plan.model_tflops_per_device * found.answer.option.devices / plan.tokens_per_s
    assert found.machine.least == ceil(TOKENS / deadline / DAY_S * per_token / peak)
    assert found.machine.least <= found.answer.option.devices


def test_energy_and_cost_count_the_hours_that_are_lost(every):
    deadline = min(days(plan, 0.2) for plan in every.values()) / 0.5
    answer = sized(tokens=TOKENS, target_days=deadline, headroom=0.2).answer
    steps = TOKENS / (JOB["global_batch"] * JOB["seq_len"])
    assert answer.cost_usd == pytest.approx(answer.option.plan.cost_usd * steps / 0.8)
    assert answer.energy_j == pytest.approx(answer.option.plan.energy_j * steps / 0.8)


def test_deadline_and_budget_together(every):
    deadline = min(days(plan, 0.1) for plan in every.values()) / 0.5
    alone = sized(tokens=TOKENS, target_days=deadline).answer
    both = sized(tokens=TOKENS, target_days=deadline, budget_usd=1.5 * alone.cost_usd)
    assert both.answer.option == alone.option
    with pytest.raises(InfeasibleError) as raised:
        sized(tokens=TOKENS, target_days=deadline, budget_usd=0.5 * alone.cost_usd)
    said = str(raised.value)
    assert "misses the budget" in said
    assert "Nearest fix: --budget-usd" in said
    assert raised.value.exit_code == 4
    with pytest.raises(InfeasibleError, match=r"misses the power cap.*Nearest fix: --power-cap '.* kW'"):
        sized(tokens=TOKENS, target_days=deadline, power_cap=0.5 * alone.option.power_w)


def test_the_fix_that_is_named_is_one(every):
    fastest = min(days(plan, 0.1) for plan in every.values())
    with pytest.raises(InfeasibleError, match="is missed with 10% headroom") as raised:
        sized(tokens=TOKENS, target_days=0.9 * fastest)
    later = float(str(raised.value).split("--target-days ")[1].rstrip("."))
    assert later >= fastest
    assert sized(tokens=TOKENS, target_days=later).answer.days <= later
    with pytest.raises(InfeasibleError, match="misses the budget") as raised:
        sized(tokens=TOKENS, budget_usd=1.0)
    budget = float(str(raised.value).split("--budget-usd ")[1].rstrip("."))
    assert sized(tokens=TOKENS, budget_usd=budget).answer.cost_usd <= budget


def test_a_model_that_does_not_fit_says_how_many_it_takes():
    with pytest.raises(InfeasibleError, match=r"out of memory.*Nearest fix: \d+ devices \(--max-gpus"):
        hwsim.size("70b", tokens=1e9, target_days=1000, max_gpus=8)


def test_machines_are_compared_and_the_cheapest_wins(every):
    machines = ["a100-sxm-80", "h100-sxm-80"]
    deadline = min(days(plan, 0.1) for plan in every.values()) / 0.3
    both = hwsim.size(MODEL, machines, tokens=TOKENS, target_days=deadline, max_gpus=96, **JOB)
    alone = [hwsim.size(MODEL, one, tokens=TOKENS, target_days=deadline, max_gpus=96, **JOB) for one in machines]
    best, other = sorted(alone, key=lambda one: one.answer.cost_usd)
    assert both.answer.option == best.answer.option
    assert both.runner_up.option == other.answer.option
    assert "dearer" in both.why
    budget = 2.0 * other.answer.cost_usd
    fastest = hwsim.size(MODEL, machines, tokens=TOKENS, budget_usd=budget, max_gpus=64, **JOB)
    assert fastest.answer.days <= fastest.runner_up.days


def test_a_machine_that_cannot_is_left_out_and_says_why():
    found = hwsim.size("8b", ["rtx4090", "h100-sxm-80"], tokens=1e10, target_days=30, max_gpus=8, seq_len=4096)
    assert found.answer.option.hardware == "dgx-h100"
    assert list(found.to_dict()["infeasible"])


def test_serving_is_what_the_planner_says():
    given = {"qps": 6.0, "ttft_ms": 1500.0, "tpot_ms": 40.0, "input_len": 512, "output_len": 64}
    found = hwsim.size("8b", task="infer", headroom=0.25, max_gpus=64, **given)
    plan = hwsim.plan_inference("8b", gpus=64, **{**given, "qps": 6.0 / 0.75})
    assert found.answer.option.devices == min(ceil(one.deployment["devices"] / 8) * 8 for one in plan.plans)
    made = found.answer.option.plan.deployment
    assert made["qps_capacity"] * 0.75 >= 6.0
    assert made["tpot_s"]["p95"] <= 0.04
    assert found.targets.ttft_s == 1.5
    assert found.answer.rate >= 6.0 * 64
    same = hwsim.size("8b", task="infer", headroom=0.25, max_gpus=64, target_tokens_per_s=6.0 * 64,
                      **{name: value for name, value in given.items() if name != "qps"})  # fmt: skip
    assert same.answer.option.devices == found.answer.option.devices
    with pytest.raises(InfeasibleError, match="misses the power cap"):
        hwsim.size("8b", task="infer", max_gpus=64, power_cap="500 W", **given)
    with pytest.raises(InfeasibleError, match="promise is missed"):
        hwsim.size("8b", task="infer", max_gpus=64, qps=1.0, ttft_ms=0.1)


def test_verdicts_of_one_option(every):
    found = sized(tokens=TOKENS, target_days=1e6).answer
    bound = Targets(tokens=TOKENS, days=found.days, budget_usd=found.cost_usd, power_w=found.option.power_w)
    exact = Verdict(found.option, bound, found.headroom)
    assert exact.meets
    assert exact.why == ""
    for name, value in (("days", 0.99 * found.days), ("budget_usd", 0.4 * found.cost_usd),
                        ("power_w", 0.9 * found.option.power_w)):  # fmt: skip
        missed = replace(exact, targets=replace(bound, **{name: value}))
        assert not missed.meets
        assert len(missed.faults) == 1
        assert missed.why


def least_of(reach, most):
    return next((count for count in range(1, most + 1) if reach(count) >= 1.0), None)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 3000), st.floats(0.3, 1500.0), st.floats(0.3, 1.0), st.floats(0.0, 0.12), st.sampled_from([1.0, 0.6])
)
def test_the_smallest_count_is_found_in_few_trials(most, needed, share, loss, awkward):
    def reach(count):
        odd = odd_part(count)
        split = 1.0 if odd <= 3 else 0.5 * (1.0 + awkward) if odd <= 9 else awkward
        return 0.5 * share * count ** (1.0 - loss) * split / needed

    trials = Trials(reach, most, 14)
    seek_smallest(trials, max(1, ceil(0.5 * needed)), needed)
    wanted = least_of(reach, most)
    met = [count for count, reached in trials.seen.items() if reached >= 1.0]
    assert len(trials.seen) <= 14
    assert bool(met) == (wanted is not None)
    if wanted is not None:
        slack = max(0.0, wanted / FINE if awkward == 1.0 else 0.15 * wanted)
        assert wanted <= min(met) <= wanted + slack


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5000), st.floats(1.0, 4000.0), st.floats(0.02, 1.0))
def test_the_largest_count_is_found_in_few_trials(most, limit, slope):
    def reach(count):
        return (limit / count) ** slope

    trials = Trials(reach, most, 14)
    seek_largest(trials, 8)
    wanted = min(most, math.floor(limit))
    met = [count for count, reached in trials.seen.items() if reached >= 1.0]
    assert len(trials.seen) <= max(14, EXHAUSTIVE)
    assert max(met) <= most
    assert max(met) >= wanted - max(1.0, 0.1 * wanted)


def test_round_counts():
    assert [odd_part(count) for count in (1, 8, 12, 37)] == [1, 1, 3, 37]
    assert roundest(1000, 0, 2000) in range(960, 1041)
    assert odd_part(roundest(1000, 0, 2000)) <= 31
    assert roundest(7, 6, 8) == 7
    assert roundest(100, 0, 50) <= 49


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({}, "needs a target"),
        ({"tokens": 1e12}, "needs a target"),
        ({"tokens": -1.0, "target_days": 3.0}, "tokens: must be a positive number"),
        ({"tokens": math.nan, "target_days": 3.0}, "tokens: must be a positive number"),
        ({"tokens": 1e12, "target_days": 1e99}, "target_days: must be a positive number"),
        ({"tokens": 1e12, "target_days": True}, "target_days: must be a positive number"),
        ({"target_days": 3.0}, "target_days needs tokens"),
        ({"tokens": 1e12, "target_days": 3.0, "target_tokens_per_s": 1.0}, "excludes target_tokens_per_s"),
        ({"budget_usd": 5.0}, "budget_usd needs tokens"),
        ({"tokens": 1e12, "budget_usd": "much"}, "budget_usd: must be a positive number"),
        ({"power_cap": "2"}, "power_cap: '2' needs a unit"),
        ({"power_cap": "2 GB"}, "power_cap: unit 'GB' does not fit"),
        ({"power_cap": "-2 MW"}, "power_cap: must be a positive number"),
        ({"power_cap": "2 MW", "headroom": 1.0}, "headroom: must be numbers from 0 to 0.9"),
        ({"power_cap": "2 MW", "headroom": math.nan}, "headroom"),
        ({"power_cap": "2 MW", "headroom": [0.1]}, "headroom: must be one number"),
        ({"power_cap": "2 MW", "max_gpus": 0}, "max_gpus: must be a whole number"),
        ({"power_cap": "2 MW", "max_gpus": 4}, "a node of dgx-a100-640 has 8 devices"),
        ({"power_cap": "2 MW", "qps": 3.0}, "qps: is for task infer"),
        ({"power_cap": "2 MW", "ttft_ms": 3.0}, "ttft_ms: is for task infer"),
        ({"power_cap": "2 MW", "input_len": 3}, "input_len: is for task infer"),
        ({"power_cap": "2 MW", "tp": 3}, "tp: the strategy is searched for; fix it with pin=['tp=3']"),
        ({"power_cap": "2 MW", "tpp": 3}, "unknown argument 'tpp'"),
        ({"task": "infer", "tokens": 1e9, "target_days": 3.0}, "tokens: is for training"),
        ({"task": "infer", "ttft_ms": 3.0}, "needs one of qps and target_tokens_per_s"),
        ({"task": "infer", "qps": 3.0, "target_tokens_per_s": 3.0}, "needs one of qps and target_tokens_per_s"),
        ({"task": "infer", "qps": 3.0, "global_batch": 3}, "global_batch: is for training"),
        ({"task": "draw", "qps": 3.0}, "task: 'draw' is none of"),
    ],
)
def test_wrong_targets_are_refused(targets, message):
    with pytest.raises(UsageError) as raised:
        hwsim.size(MODEL, HARDWARE, **targets)
    assert message in str(raised.value)


def test_wrong_hardware_is_refused():
    for hardware, message in (([], "none given"), (["dgx-h100", "h100-sxm-80"], "is given twice")):
        with pytest.raises(UsageError, match=message):
            hwsim.size(MODEL, hardware, power_cap="20 kW", **JOB)
    with pytest.raises(UsageError, match="the rent of tpu-8t is unknown"):
        hwsim.size(MODEL, "tpu-8t", tokens=1e9, budget_usd=1e6, **JOB)


COMMAND = ["size", "--model", MODEL, "--hardware", HARDWARE, "--global-batch", "96", "--seq-len", "1024", "--tokens",
           "1T", "--max-gpus", "64", *(word for pin in PINS for word in ("--pin", pin))]  # fmt: skip


def test_command_table_json_and_csv(capsys, every):
    deadline = days(every[4], 0.1) * 1.01
    command = [*COMMAND, "--target-days", str(deadline)]
    assert run(command, debug=True) == 0
    text = capsys.readouterr().out
    for word in ("Best plan", "Headroom", "At least", "Runner-up", "→", "hwsim.size(model='gpt2'", "100 % MFU"):
        assert word in text
    assert run([*command, "--json"], debug=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema_version"], found["kind"], found["headroom"]) == (1, "size", 0.1)
    assert found["targets"] == {"tokens": 1e12, "target_days": deadline}
    answer = {"hardware", "devices", "nodes", "days", "cost_usd", "energy_j", "average_power_w", "tokens_per_s", "plan"}
    assert answer <= set(found["answer"])
    assert found["answer"]["devices"] == NODE * found["answer"]["nodes"] == 32
    assert found["answer"]["plan"]["kind"] == "training"
    assert found["runner_up"]["why"]
    assert isinstance(found["least_devices_ideal"], float)
    for one in found["considered"]:
        keys = {"hardware", "devices", "tokens_per_s", "days", "cost_usd", "power_w", "meets", "why"}
        assert set(one) == keys
        assert one["meets"] == (not one["why"])
    assert found == hwsim.size(MODEL, HARDWARE, tokens=1e12, target_days=deadline, max_gpus=64, **JOB).to_dict()
    assert run([*command, "--format", "csv"], debug=True) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == len(found["considered"])


def test_command_exit_codes(capsys):
    for flags, code in (
        ([], 2),
        (["--target-days", "nan"], 2),
        (["--target-days", "-3"], 2),
        (["--budget-usd", "5 GB"], 2),
        (["--target-days", "3", "--power-cap", "2 bananas"], 2),
        (["--target-days", "3", "--qps", "4"], 2),
        (["--target-days", "0.001"], 4),
        (["--budget-usd", "1"], 4),
    ):
        assert run([*COMMAND, *flags], debug=False) == code, flags
        said = capsys.readouterr()
        assert said.out == ""
        assert len(said.err.strip().splitlines()) == 1


def test_command_for_serving(capsys):
    flags = ["--task", "infer", "--qps", "4", "--tpot-ms", "50", "--max-gpus", "16"]
    assert run(["size", "--model", "8b", *flags], debug=True) == 0
    text = capsys.readouterr().out
    for word in ("4 requests/s", "p95 TPOT", "replica", "Runner-up"):
        assert word in text
