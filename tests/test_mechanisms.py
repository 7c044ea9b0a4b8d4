"""Mechanisms of frameworks and machines, each against arithmetic by hand or a measured run."""

import numpy as np
import pytest

import hwsim
from hwsim.formulas.power import sustained_share
from hwsim.formulas.stragglers import slowest_of

SMALL = {"name": "small", "layers": 12, "hidden": 1024, "heads": 16, "vocab": 51200, "max_positions": 2048}
JOB = {"tp": 1, "pp": 1, "zero": 0, "seq_len": 1024, "attention": "unfused", "framework": "deepspeed"}


def estimate(*settings, devices=1, model=SMALL, hardware="a100-sxm-80", **given):
    return hwsim.estimate_training(model, hardware, devices, settings=list(settings), **{**JOB, **given})


def test_a_small_micro_batch_takes_what_its_host_takes():
    """vTrain on one A100: layers of hidden size 1024 take 3.0 ms each and 3 ms around them, however small the batch."""
    eager = {"micro_batch": 1, "global_batch": 16, "recompute": "full"}
    found = estimate(**eager)
    per_micro_batch_s = (found.step_time_s - found.time_s["optimizer"]) / 16
    assert per_micro_batch_s == pytest.approx(12 * 3.0e-3 + 3e-3, rel=0.15)
    more = estimate("framework.micro_batch_host=4.6 ms", **eager)
    assert more.step_time_s - found.step_time_s == pytest.approx(16 * 2e-3, rel=1e-6)


def test_a_large_micro_batch_hides_its_host():
    large = {"micro_batch": 16, "global_batch": 64, "recompute": "full"}
    found = estimate(**large)
    assert found.time_s["launch"] == pytest.approx(0.003), "the host's part of the step alone"
    assert estimate("framework.micro_batch_host=8 ms", **large).step_time_s == pytest.approx(found.step_time_s)


def test_unfused_softmax_moves_the_square_of_scores_again():
    """A pass reads and writes 2 bytes per score forward, and moves three such tensors backward."""
    shape = {"micro_batch": 4, "global_batch": 4, "recompute": "none"}
    times = [estimate(f"framework.score_passes={passes}", **shape).step_time_s for passes in (2, 3)]
    scores = 4 * 16 * 1024**2 * 12
    at_peak_s = scores * 2 * (2 + 3) / 2.039e12
    assert times[1] - times[0] == pytest.approx(at_peak_s, rel=0.25)


def test_tensor_parallel_communication_is_four_all_reduces_a_layer_and_hides_by_half_at_most():
    """Megatron without sequence parallelism: two all-reduces forward, two backward (Shoeybi et al. 2019)."""
    job = {"tp": 8, "micro_batch": 1, "global_batch": 8, "seq_len": 2048, "devices": 8, "model": "gpt-3-13b"}
    plain, hidden = (
        estimate(f"framework.overlap_tensor={share}", recompute="none", precision="fp16", **job) for share in (0, 0.5)
    )
    layers, message = 40, 2 * 2048 * 5120
    all_reduce_s = hwsim.collective_time("dgx-a100-640", "all_reduce", bytes=message, devices=8)
    assert plain.time_s["tp"] == pytest.approx(8 * 4 * layers * all_reduce_s, rel=0.05)
    assert 0.3 < 1 - hidden.time_s["tp"] / plain.time_s["tp"] <= 0.5
    assert hidden.communication_s["tp"] == plain.communication_s["tp"]


def test_clocks_sink_with_the_cube_root_of_the_power_there_is():
    """At 8 times the power over idle the clock would be twice what the limit holds."""
    assert sustained_share(400.0, 0.0, 3200.0) == pytest.approx(0.5)
    assert sustained_share(400.0, 50.0, 400.0) == 1.0
    column = sustained_share(np.array([300.0, 400.0, 500.0]), 50.0, 450.0)
    assert (np.diff(column) > 0).all()


def test_a_power_cap_slows_multiplies_but_not_small_batches_of_a_host():
    job = {"micro_batch": 4, "global_batch": 4, "recompute": "none", "model": "gpt-3-13b", "framework": "megatron"}
    free, capped = (estimate(f"accelerator.power.tdp={watts} W", tp=8, devices=8, **job) for watts in (400, 250))
    assert 1.05 < capped.step_time_s / free.step_time_s < 1.25
    assert capped.time_s["dp"] == free.time_s["dp"]


def test_stragglers_grow_with_the_logarithm_of_nodes():
    """The mean of the largest of n exponential delays is the harmonic number: simulated, and near ln n."""
    rng = np.random.default_rng(0)
    for nodes in (8, 64, 512):
        delays = rng.exponential(0.01, (4000, nodes)).max(axis=1).mean() - 0.01
        assert slowest_of(nodes, 0.01) == pytest.approx(delays, rel=0.25)
    assert slowest_of(1, 0.01) == 0.0
