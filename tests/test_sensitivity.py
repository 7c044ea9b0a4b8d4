"""What a little more or less of each thing does: against theory, against single evaluations, from the command line."""

import csv
import io
import json
import math
from pathlib import Path

import pytest

import hwsim
from hwsim.cli.app import run
from hwsim.costs.what_if import hardware_levers, nudged, stretched
from hwsim.errors import InfeasibleError, UsageError
from hwsim.formulas import experts, gemm
from hwsim.search.cases import METRICS, TRAINING
from hwsim.search.sensitivity import elasticity

JOB = {"tp": 4, "pp": 2, "micro_batch": 1, "recompute": "full"}
SERVED = {"task": "infer", "tp": 8, "batch": 16}
TINY = {"global_batch": 64, "seq_len": 1024}


@pytest.fixture(scope="module")
def kept():
    return hwsim.sensitivity("8b", gpus=16, change=1e-3, **JOB)


@pytest.fixture(scope="module")
def served():
    return hwsim.sensitivity("70b", gpus=8, change=1e-3, **SERVED)


def lever(found, name):
    return next(each for each in found.levers if each.name == name)


def slope(found, name, metric="step_time_s"):
    return lever(found, name).metrics[metric]["elasticity"]


def test_elasticity_of_a_power_is_its_exponent():
    for power in (-2.0, -0.5, 1.0, 3.0):
        assert elasticity(1.0, (0.8**power, 0.8), (1.3**power, 1.3)) == pytest.approx(power)
        assert elasticity(1.0, (None, 0.8), (1.3**power, 1.3)) == pytest.approx(power)
        assert elasticity(1.0, (0.8**power, 0.8), (None, 1.0)) == pytest.approx(power)
    assert elasticity(1.0, (None, 1.0), (None, 1.0)) is None
    assert elasticity(0.0, (0.0, 0.9), (0.0, 1.1)) is None
    assert elasticity(1.0, (math.nan, 0.9), (math.inf, 1.1)) is None


@pytest.mark.parametrize("job", [JOB, {"tp": 8, "zero": 3}, {"cp": 2, "tp": 2, "graphs": True}])
def test_rates_and_durations_account_for_all_of_the_time(job, monkeypatch):
    """Euler: a time is homogeneous of degree -1 in rates and inverse durations. What is missing are the time constants
    of the curves; scale those too, and nothing is."""
    at = []
    for factor in (1.0 - 1e-4, 1.0 + 1e-4):
        with monkeypatch.context() as patch:
            for module, name in ((gemm, "THROTTLE_S"), (gemm, "RAMP_S"), (experts, "RAMP_S")):
                patch.setattr(module, name, getattr(module, name) * factor)
            at.append(hwsim.estimate_training("8b", gpus=16, **job).step_time_s)
    constants = elasticity(1.0, (at[0], 1.0 - 1e-4), (at[1], 1.0 + 1e-4))
    found = hwsim.sensitivity("8b", gpus=16, change=1e-4, **job)
    assert found.covered["step_time_s"] + constants == pytest.approx(1.0, abs=2e-3)
    assert found.covered["step_time_s"] == pytest.approx(1.0, abs=0.05)
    assert found.to_dict()["fixed_share"]["step_time_s"] == pytest.approx(1.0 - found.covered["step_time_s"])


def test_the_same_for_serving(served):
    for name in ("ttft_s", "tpot_s"):
        assert served.covered[name] == pytest.approx(1.0, abs=0.02)


def test_everything_twice_as_fast_takes_half_of_the_time():
    hardware = hwsim.load_hardware("dgx-h100")
    fast = hardware
    for one in hardware_levers(hardware):
        if one.kind in ("rate", "duration"):
            again = next(each for each in hardware_levers(fast) if each.name == one.name)
            fast = again.turned(2.0 if one.kind == "rate" else 0.5)
    quiet = ["framework.step_host=0 s", "framework.micro_batch_host=0 s", "framework.kernel_dispatch=0 s"]
    slow, quick = (
        hwsim.estimate_training("8b", machine, 16, settings=quiet, **JOB).step_time_s for machine in (hardware, fast)
    )
    assert quick == pytest.approx(0.5 * slow, rel=0.03)  # less than exactly: long multiplies lose less clock


def test_price_moves_cost_alone_and_in_proportion(kept, served):
    assert slope(kept, "rent", "cost_usd_per_trillion_tokens") == pytest.approx(1.0, abs=1e-9)
    assert slope(served, "rent", "cost_usd_per_million_output_tokens") == pytest.approx(1.0, abs=1e-9)
    for name in ("step_time_s", "tokens_per_s", "energy_j_per_token"):
        assert slope(kept, "rent", name) == 0.0


def test_cost_moves_as_time_does(kept):
    for each in kept.levers:
        if each.kind in ("rate", "duration"):
            time, cost = (each.metrics[name]["elasticity"] for name in ("step_time_s", "cost_usd_per_trillion_tokens"))
            assert cost == pytest.approx(time, abs=1e-9)
            assert each.metrics["tokens_per_s"]["elasticity"] == pytest.approx(-time, abs=1e-9)


def test_a_job_of_multiplies_goes_with_their_peak():
    found = hwsim.sensitivity("70b", gpus=8, tp=8, recompute="full", global_batch=8, change=1e-2)
    assert -1.05 < slope(found, "matrix-unit peak") < -0.6
    alone = hwsim.sensitivity("8b", gpus=1, method="qlora", change=1e-2, global_batch=4, micro_batch=4)
    assert slope(alone, "matrix-unit peak") < -0.8
    assert slope(alone, "nvlink bandwidth") == slope(alone, "rail bandwidth") == 0.0


def test_decode_goes_with_memory_bandwidth_and_prefill_with_the_peak(served):
    assert slope(served, "memory bandwidth", "tpot_s") < -0.3 < slope(served, "memory bandwidth", "ttft_s")
    assert slope(served, "matrix-unit peak", "ttft_s") < -0.4 < slope(served, "matrix-unit peak", "tpot_s")


def test_every_sign_is_as_anyone_would_have_it(kept, served):
    for found, time in ((kept, "step_time_s"), (served, "tpot_s"), (served, "ttft_s")):
        for each in found.levers:
            way = {"rate": -1.0, "duration": 1.0}.get(each.kind, 0.0)
            assert way * each.metrics[time]["elasticity"] >= -1e-9 or not way, (each.name, time)


def test_ends_equal_single_evaluations(kept):
    """Levers of the machine against --set, levers of the job against estimates of their own."""
    hardware = hwsim.load_hardware("h100-sxm-80").accelerator
    for name, path, value, unit in (
        ("memory bandwidth", "accelerator.memory.bandwidth", hardware.memory.bandwidth, "B/s"),
        ("launch cost", "accelerator.kernels.launch", hardware.kernels.launch, "s"),
        ("rent", "accelerator.price.rent", hardware.price.rent * 3600, "USD/h"),
    ):
        turned = hwsim.estimate_training("8b", gpus=16, settings=f"{path}={1.001 * value!r} {unit}", **JOB)
        tokens = turned.strategy["global_batch"] * turned.strategy["seq_len"]
        metrics = lever(kept, name).metrics
        assert metrics["step_time_s"]["high"] == pytest.approx(turned.step_time_s, rel=1e-12)
        assert metrics["energy_j_per_token"]["high"] == pytest.approx(turned.energy_j / tokens, rel=1e-12)
        assert metrics["cost_usd_per_trillion_tokens"]["high"] == pytest.approx(turned.cost_usd / tokens * 1e12)
    for name in ("global_batch", "seq_len", "micro_batch"):
        each = next(one for one in kept.levers if one.path == f"job.{name}")
        for end, value in (("low", each.low_value), ("high", each.high_value)):
            if value is None:
                assert each.metrics["step_time_s"][end] is None
                assert not each.fits[end]
                continue
            one = hwsim.estimate_training("8b", gpus=16, **{**JOB, name: round(value)})
            assert each.metrics["step_time_s"][end] == one.step_time_s
            assert each.metrics["tokens_per_s"][end] == one.tokens_per_s
            assert each.fits[end] == one.fits


def test_serving_ends_equal_single_evaluations(served):
    for name in ("batch", "input_len", "output_len"):
        each = next(one for one in served.levers if one.path == f"job.{name}")
        for end, value in (("low", each.low_value), ("high", each.high_value)):
            one = hwsim.estimate_inference("70b", gpus=8, **{"tp": 8, "batch": 16, name: round(value)})
            for metric in each.metrics:
                assert each.metrics[metric][end] == getattr(one, metric)


def test_the_base_is_the_plan_or_the_strategy_given(kept):
    one = hwsim.estimate_training("8b", gpus=16, **JOB)
    assert kept.base.metrics["step_time_s"] == one.step_time_s
    assert kept.case.estimate().to_dict() == one.to_dict()
    found = hwsim.sensitivity("gpt2", "a100-sxm-80", 8, **TINY)
    best = hwsim.plan("gpt2", "a100-sxm-80", 8, **TINY, top=1).best
    assert found.case.estimate().to_dict() == best.to_dict()
    assert found.to_dict()["base"]["energy_j_per_token"] == pytest.approx(best.energy_j / 64 / 1024)


def test_helps_of_a_plan_are_the_same_levers():
    plan = hwsim.plan("gpt2", "a100-sxm-80", 8, **TINY, top=1)
    found = hwsim.sensitivity("gpt2", "a100-sxm-80", 8, **TINY)
    for name, gain in plan.helps.items():
        each = lever(found, name)
        assert each.kind == "rate"
        assert each.shift("tokens_per_s", "high") == pytest.approx(gain, abs=1e-12)
    assert set(plan.helps) == {each.name for each in found.levers if each.kind == "rate"}


def test_memory_that_is_not_there_is_said_and_planned_around():
    kept = hwsim.sensitivity("8b", gpus=8, change=0.5, global_batch=64)
    assert not lever(kept, "memory capacity").fits["low"]
    assert any("memory capacity: the plan does not fit (needs" in said for said in kept.sentences())
    anew = hwsim.sensitivity("8b", gpus=8, change=0.5, global_batch=64, replan=True)
    capacity = lever(anew, "memory capacity")
    assert capacity.fits["low"]
    assert capacity.notes["low"].startswith("another plan: ")
    assert capacity.shift("tokens_per_s", "low") < 0.0 <= capacity.shift("tokens_per_s", "high")
    assert anew.to_dict()["fixed_share"] is None
    for each in kept.levers:
        for end in ("low", "high"):
            if each.kind != "job" and each.fits[end]:
                better = lever(anew, each.name).metrics["tokens_per_s"][end]
                assert better >= each.metrics["tokens_per_s"][end] * (1.0 - 1e-12), (each.name, end)


def test_replanned_serving_is_no_worse():
    given = {"task": "infer", "gpus": 4, "change": 0.3}
    kept, anew = (hwsim.sensitivity("8b", **given, replan=replan) for replan in (False, True))
    assert anew.metric == "output_tokens_per_s_per_device"
    for each in kept.levers:
        for end in ("low", "high"):
            if each.kind != "job" and each.fits[end]:
                better = lever(anew, each.name).metrics[anew.metric][end]
                assert better >= each.metrics[anew.metric][end] * (1.0 - 1e-12)


def test_a_plan_with_replicas_is_read_as_a_whole():
    found = hwsim.sensitivity("8b", gpus=4, task="infer")
    best = hwsim.plan_inference("8b", gpus=4).best
    assert found.case.estimate().hardware["devices"] == best.deployment["devices"]
    assert found.base.metrics["tpot_s"] == pytest.approx(best.tpot_s)


def test_experts_have_a_lever_of_their_own():
    found = hwsim.sensitivity("mixtral-8x7b", gpus=16, tp=2, ep=8)
    each = lever(found, "imbalance of experts")
    assert each.low_value is None
    assert each.high_value == pytest.approx(1.1)
    assert each.shift("tokens_per_s", "high") < 0.0


def test_durations_are_found_however_deep():
    hardware = hwsim.load_hardware("dgx-h100")
    tier, kernels = hardware.cluster.tiers[0], hardware.accelerator.kernels
    slow = stretched(tier, 3.0)
    assert slow.latency == 3.0 * tier.latency
    assert slow.bandwidth == tier.bandwidth
    before, after = (one.collectives["all_reduce"][2] for one in (tier, slow))
    assert (after.latency, after.hop_latency) == (3.0 * before.latency, 3.0 * before.hop_latency)
    assert after.efficiency == before.efficiency
    launch = slow.libraries["torch.distributed"].launch["all_reduce"]
    assert launch == 3.0 * tier.libraries["torch.distributed"].launch["all_reduce"]
    more = stretched(kernels, 2.0)
    assert more.gemm.dtypes["fp8"].latency == 2.0 * kernels.gemm.dtypes["fp8"].latency
    assert more.gemm.efficiency == kernels.gemm.efficiency
    assert more.libraries["sglang"].gemm.latency == 2.0 * kernels.libraries["sglang"].gemm.latency
    assert stretched(kernels, 1.0) == kernels


def test_every_profile_can_be_turned():
    from hwsim.specs.library import CLUSTERS, names

    for name in names(CLUSTERS):
        hardware = hwsim.load_hardware(name)
        for each in hardware_levers(hardware):
            assert each.turned(1.0).accelerator.peak == hardware.accelerator.peak
            assert each.turned(1.1) != hardware or each.value == 0.0, (name, each.name)
        assert {f"{tier.name} bandwidth" for tier in hardware.cluster.tiers} <= set(nudged(hardware, 1.1))


def test_devices_without_a_price_have_no_cost():
    found = hwsim.sensitivity("gpt2", "tpu-8t", 4, tp=4, **TINY)
    assert found.base.metrics["cost_usd_per_trillion_tokens"] is None
    assert not [each for each in found.levers if each.kind == "price"]
    assert lever(found, "matrix-unit peak").metrics["cost_usd_per_trillion_tokens"]["elasticity"] is None


def test_json_frame_and_sentences(kept):
    found = kept.to_dict()
    assert (found["schema_version"], found["kind"], found["task"]) == (1, "sensitivity", "train")
    assert {*TRAINING} <= set(found["base"])
    assert found["change"] == 1e-3
    assert found["replan"] is False
    for each in found["levers"]:
        assert {"name", "path", "value", "unit", "metrics", "fits"} <= set(each)
        assert set(each["fits"]) == {"low", "high"}
        for values in each["metrics"].values():
            assert set(values) == {"low", "high", "elasticity"}
    swings = [each.swing("tokens_per_s") for each in kept.levers]
    assert swings == sorted(swings, reverse=True)
    frame = kept.to_frame()
    assert len(frame) == len(kept.levers) * len(TRAINING)
    assert json.loads(json.dumps(found)) == found
    said = hwsim.sensitivity("8b", gpus=16, **JOB).sentences()
    assert said[0].startswith("10 % more matrix-unit peak buys ")
    assert said[0].endswith(" % of throughput")
    assert all(METRICS[name].word for name in TRAINING)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"change": 0.0}, "change"),
        ({"change": math.nan}, "change"),
        ({"change": 1.5}, "change"),
        ({"change": [0.1, 0.2]}, "change"),
        ({"metric": "speed"}, "metric: 'speed' is none of step_time_s"),
        ({"task": "draw"}, "task: 'draw' is none of"),
        ({"qps": 3.0}, "qps: is for task infer"),
        ({"task": "infer", "seq_len": 3}, "seq_len: is for training"),
        ({"tp": [1, 2]}, "one strategy, not arrays"),
        ({"tp": 2, "pin": "pp=2"}, "pin narrows the search"),
        ({"objective": "joy"}, "objective: 'joy' is none of"),
        ({"tpp": 2}, "unknown argument 'tpp' - did you mean tp"),
        ({"gpus": -1}, "gpus"),
    ],
)
def test_wrong_arguments_are_refused(given, message):
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        hwsim.sensitivity("gpt2", "a100-sxm-80", **{"gpus": 8, **given})


def test_no_plan_is_infeasible_with_a_fix():
    with pytest.raises(InfeasibleError, match=r"out of memory.*Nearest fix: \d+ devices"):
        hwsim.sensitivity("70b", gpus=8)


def test_command_table_json_csv_and_picture(capsys, tmp_path: Path):
    command = ["sensitivity", "--model", "gpt2", "--hardware", "a100-sxm-80", "--gpus", "8", "--tp", "2",
               "--global-batch", "64", "--seq-len", "1024"]  # fmt: skip
    picture = tmp_path / "tornado.png"
    assert run([*command, "--plot", str(picture)], debug=True) == 0
    text = capsys.readouterr().out
    for word in ("matrix-unit peak", "elasticities", "│", "Fixed times", "hwsim.sensitivity(model='gpt2'"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 120
    import matplotlib.image

    pixels = matplotlib.image.imread(picture)
    assert pixels.shape[1] > 1000
    assert pixels[..., :3].std() > 0.1
    edge = [pixels[0, :, :3], pixels[-1, :, :3], pixels[:, 0, :3], pixels[:, -1, :3]]
    assert all(side.min() > 0.99 for side in edge)
    assert run([*command, "--json"], debug=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["levers"][0]["metrics"]["tokens_per_s"]["elasticity"]
    assert run([*command, "--format", "csv", "--metric", "energy_j_per_token"], debug=True) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["metric"] for row in rows} == {*TRAINING}
    assert run(["sensitivity", "--model", "8b", "--task", "infer", "--gpus", "1", "--batch", "2"], debug=True) == 0
    assert "TTFT" in capsys.readouterr().out


def test_command_refuses_in_one_line(capsys, tmp_path: Path):
    for flags, code in (
        (["--plot", "tornado.gif"], 2),
        (["--plot", str(tmp_path / "no" / "tornado.png")], 2),
        (["--change", "much"], 2),
        (["--metric", "speed"], 2),
        (["--ttft-ms", "3"], 2),
    ):
        assert run(["sensitivity", "--model", "gpt2", "--gpus", "8", *flags], debug=False) == code
        said = capsys.readouterr()
        assert said.out == ""
        assert len(said.err.strip().splitlines()) == 1


def test_a_strategy_that_does_not_fit_is_warned_of(capsys):
    assert run(["sensitivity", "--model", "70b", "--gpus", "8", "--tp", "8"], debug=True) == 0
    said = capsys.readouterr()
    assert "does not fit in device memory" in said.err
    assert "matrix-unit peak buys" in said.out
