"""Mixtures of experts against counts made by hand: rows routed one by one, devices dealt out one by one."""

from collections import Counter
from itertools import product
from math import prod

import numpy as np
import pytest

import hwsim
from hwsim.costs.network import network
from hwsim.errors import UsageError
from hwsim.ops.axes import expert
from hwsim.specs.library import load_hardware, load_model
from hwsim.specs.strategy import ORDERS, strategies

MOE = {"layers": 4, "hidden": 64, "heads": 4, "kv_heads": 2, "ffn": 96, "gated": True, "vocab": 128, "norm": "rmsnorm",
       "positions": "rope", "tied_embeddings": False, "experts": 8, "experts_per_token": 2,
       "expert_ffn": 48}  # fmt: skip
SHARED = MOE | {"shared_experts": 1, "dense_layers": 1}


def estimate(model=MOE, gpus=8, **given):
    return hwsim.estimate_training(
        model, "h100-sxm-80", gpus, framework="megatron", seq_len=32, global_batch=16, **given
    )


# ---- parameters ------------------------------------------------------------------------------------------------------


def test_parameters_one_matrix_after_another():
    h, d, f, e = 64, 16, 48, 8
    attention = h * 4 * d + 2 * h * 2 * d + 4 * d * h + h
    experts, router = e * 3 * h * f, h * e
    layer = attention + h + router + experts
    dense = attention + h + 3 * h * 96
    shared = layer + 3 * h * f
    ends = 2 * 128 * h + h
    assert hwsim.count_parameters(MOE).total == 4 * layer + ends
    counted = hwsim.count_parameters(SHARED)
    assert counted.total == dense + 3 * shared + ends
    assert counted.active == counted.total - 3 * (e - 2) * 3 * h * f


@pytest.mark.parametrize(
    ("preset", "published_b", "active_b"),
    [("deepseek-v3", 671.0, 37.0), ("mixtral-8x7b", 46.7, 12.9), ("qwen3-235b-a22b", 235.0, 22.0),
     ("gpt-oss-120b", 117.0, 5.1), ("kimi-k2", 1026.0, 32.0), ("glm-4.5", 355.0, 32.0)],
)  # fmt: skip
def test_active_parameters_are_those_that_papers_name(preset, published_b, active_b):
    model = load_model(preset).model_copy(update={"mtp_layers": 0})
    counted = hwsim.count_parameters(model)
    assert counted.total / 1e9 == pytest.approx(published_b, rel=0.02)
    assert counted.active / 1e9 == pytest.approx(active_b, rel=0.16)


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ep", "etp"), [(1, 1), (2, 1), (8, 1), (2, 2), (4, 2)])
def test_a_device_holds_its_experts_and_shards_them_over_their_copies(ep, etp):
    h, f, e, devices = 64, 48, 8, 8
    routed = 4 * e * 3 * h * f
    others = hwsim.count_parameters(MOE).total - routed
    held = others + routed // (ep * etp)
    memory = estimate(ep=ep, etp=etp, zero=1).memory_bytes
    assert memory["weights"] == 2 * held
    copies = devices // (ep * etp)
    assert memory["optimizer"] == pytest.approx(12 * (others / devices + routed / (ep * etp) / copies))
    assert estimate(ep=ep, etp=etp, zero=3).memory_bytes["weights"] == pytest.approx(2 * (others + routed) / devices)


def test_more_rows_for_the_busiest_experts_take_more_memory_and_time():
    even, uneven = estimate(ep=8), estimate(ep=8, imbalance=2.0)
    assert uneven.memory_bytes["activations"] > even.memory_bytes["activations"]
    assert uneven.flops_per_device > even.flops_per_device
    assert estimate(ep=8, capacity=2.0).memory_bytes == uneven.memory_bytes


# ---- rows and messages -----------------------------------------------------------------------------------------------


def routed_messages(ep: int, rows: int, experts: int, chosen: int) -> Counter:
    """Rows that each device of a group sends to each other one when every expert is chosen as often."""
    sent: Counter = Counter()
    turn = 0
    for device, _ in product(range(ep), range(rows)):
        for _ in range(chosen):
            sent[device, turn % experts // (experts // ep)] += 1
            turn += 1
    return sent


@pytest.mark.parametrize("ep", [2, 4, 8])
def test_bytes_of_the_exchange_row_by_row(ep):
    """Forward there and back, backward the same: four times the rows that leave a device, 2 bytes a number."""
    micro_batches, rows = 2, 32
    sent = routed_messages(ep, rows, 8, 2)
    leaving = {device: sum(n for (a, b), n in sent.items() if a == device != b) for device in range(ep)}
    assert len(set(leaving.values())) == 1
    expected = 4 * leaving[0] * 64 * 2 * 4 * micro_batches
    assert estimate(ep=ep, micro_batch=1).traffic_bytes["ep"] == expected


def test_a_token_travels_once_to_a_node_that_holds_its_experts():
    """Chosen experts drawn at random: distinct nodes counted by drawing, against the expectation."""
    rng = np.random.default_rng(3)
    nodes, chosen = 4, 8
    drawn = [len(set(rng.integers(0, nodes, chosen))) for _ in range(20_000)]
    s = strategies(devices=32, global_batch=32, seq_len=8, ep=32)
    model = load_model(MOE | {"experts": 32, "experts_per_token": chosen})
    assert float(expert.destinations(model, 8.0, s)) == pytest.approx(np.mean(drawn), rel=0.01)
    assert float(expert.destinations(model, 0.0, s)) == chosen
    limited = model.model_copy(update={"routed_nodes": 2})
    assert float(expert.destinations(limited, 8.0, s)) == 2


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("tp", "pp", "cp", "ep", "etp"), [(1, 1, 1, 16, 1), (2, 2, 1, 8, 1), (2, 4, 2, 4, 2),
                                                          (4, 2, 1, 4, 4), (1, 4, 1, 2, 1)])  # fmt: skip
def test_groups_of_experts_are_placed_as_devices_dealt_out_one_by_one(order, tp, pp, cp, ep, etp):
    devices, domain = 64, 8
    dp = devices // (tp * pp * cp)
    sizes = {"tp": tp, "cp": cp, "dp": dp, "pp": pp}
    stage0 = []
    for device in range(devices):
        rest, at = device, {}
        for axis in order.split("-"):
            rest, at[axis] = divmod(rest, sizes[axis])
        if at["pp"] == 0:
            stage0.append(device)
    most = Counter()
    for first in range(0, len(stage0), ep * etp):
        group = [stage0[first + k * etp] for k in range(ep)]
        most[max(Counter(device // domain for device in group).values())] += 1
    s = strategies(devices=devices, global_batch=64, seq_len=64, tp=tp, pp=pp, cp=cp, ep=ep, etp=etp, order=order)
    net = network(load_hardware("dgx-h100").cluster, devices)
    group = net.expert_groups(s, expert.copies(s), expert.shard(s))["ep"]
    assert float(group.size) == ep
    assert float(group.members[0]) == max(most)
    assert prod(most) >= 1


def test_an_exchange_inside_a_node_is_faster_than_across():
    """Pipeline stages placed nearest leave two devices of each expert-parallel group in a node."""
    near, far = (estimate(gpus=32, pp=4, ep=8, micro_batch=2, order=order) for order in ("tp-cp-dp-pp", "tp-pp-cp-dp"))
    assert near.time_s["ep"] < far.time_s["ep"]
    assert near.traffic_bytes["ep"] == far.traffic_bytes["ep"]


# ---- rules and search ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"ep": 3}, "ep 3 must divide 8 experts"),
        ({"ep": 8, "etp": 2}, "ep x etp = 8 x 2 must divide tp x cp x dp = 8"),
        ({"tp": 2, "sequence_parallel": False}, "experts with tp 2 need sequence parallelism"),
        ({"etp": 5}, "etp 5 must divide the expert's ffn 48"),
    ],
)
def test_what_is_not_legal_says_why(given, reason):
    with pytest.raises(UsageError, match=reason):
        estimate(**given)


def test_the_search_finds_the_best_expert_parallel_size():
    plan = hwsim.plan("mixtral-8x7b", "h100-sxm-80", 16, global_batch=64, seq_len=4096, pin=["tp=1", "pp=1", "cp=1"])
    sizes = [1, 2, 4, 8]
    best = min(
            e.step_time_s
            for ep in sizes
            for zero in (0, 1, 2, 3)
            for recompute in ("none", "selective", "full")
            for micro in (1, 2, 4)
            if (e := hwsim.estimate_training("mixtral-8x7b", "h100-sxm-80", 16, global_batch=64, seq_len=4096, ep=ep,
                                             zero=zero, recompute=recompute, micro_batch=micro))
            and e.memory_reserved_bytes <= 0.96 * e.memory_capacity_bytes
    )  # fmt: skip
    assert plan.best.step_time_s == pytest.approx(best)
    assert plan.best.strategy["ep"] in sizes
