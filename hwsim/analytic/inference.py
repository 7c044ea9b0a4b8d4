"""One inference estimate: latency, throughput, memory, traffic, energy and cost of a static batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.analytic.answer import Answer
from hwsim.analytic.batch import Batch, serve_batch
from hwsim.analytic.cache import cache_tokens, held_bytes, most_sequences, most_tokens, room
from hwsim.analytic.estimate import SCHEMA_VERSION, flatten
from hwsim.analytic.pace import Pace
from hwsim.analytic.serving import PARTS, Cost, Served, attention_cost, before_cost, head_cost, rows_cost
from hwsim.costs.energy import Activity, device_power_w, wall_power_w
from hwsim.costs.money import cost_usd
from hwsim.ops.count import parameters
from hwsim.ops.plan import Cached
from hwsim.specs.strategy import Strategies
from hwsim.units import GIB, MILLION

if TYPE_CHECKING:
    import pandas as pd

NAMES = {
    "multiplies": "weights and multiplies", "attention": "attention and KV cache", "experts": "experts",
    "elementwise": "norms and activations", "tp": "tensor-parallel comm", "ep": "expert exchange",
    "pp": "pipeline sends", "host": "host (launches, scheduler)",
    "prompts": "prompts of others",
}  # fmt: skip
AXES = ("tp", "ep", "pp")


@dataclass(frozen=True)
class InferenceEstimate(Answer):
    """The answer for one static batch."""

    values: dict[str, Any]

    def __repr__(self) -> str:
        v = self.values
        used, there = v["memory_allocated_bytes"] / GIB, v["memory_capacity_bytes"] / GIB
        return (
            f"<InferenceEstimate {v['model']['name']} on {v['hardware']['devices']} x {v['hardware']['accelerator']}: "
            f"TTFT {1e3 * v['ttft_s']:.3g} ms, TPOT {1e3 * v['tpot_s']:.3g} ms, "
            f"{v['output_tokens_per_s']:,.0f} output tokens/s, {used:.1f} of {there:.1f} GiB>"
        )


@dataclass(frozen=True)
class Layout:
    """How a batch is dealt out over the devices."""

    replicas: int
    """Groups of devices that serve requests of their own and share nothing."""
    batch: int
    """Requests of the fullest replica."""
    each: int
    """Requests of its fullest device."""


def layout(served: Served, pace: Pace, s: Strategies) -> Layout:
    """Deal the job's batch out over replicas, and over devices with requests of their own."""
    replicas = max(round(float(np.max(s.dp))) // pace.ranks, 1)
    batch = -(-served.job.batch // replicas)
    return Layout(replicas, batch, -(-batch // pace.ranks))


def estimate(served: Served, s: Strategies) -> InferenceEstimate:
    """Latency, memory and cost of one static batch under one strategy."""
    return estimated(Pace(served, s))


def estimated(pace: Pace) -> InferenceEstimate:
    """Latency, memory and cost of the batch that is asked for."""
    served, s = pace.served, pace.strategy
    spread = layout(served, pace, s)
    job = served.job
    done = serve_batch(pace, spread.batch, served.prompt_len, job.output_len)
    ttft_s, tpot_s, e2e_s = done.ttft_s, done.tpot_s(job.output_len), done.e2e_s
    rate = job.batch * job.output_len / e2e_s
    costs = phase_costs(served, s, pace, spread)
    context = served.prompt_len + 0.5 * (1 + job.output_len)
    alone_s = min(pace.run_s(spread.batch, context, 1), tpot_s)
    decode = _shared_out(costs["decode"], alone_s * pace.yield_tokens, pace.yield_tokens)
    time_s = {
        "prefill": _shared_out(costs["prefill"], ttft_s),
        "decode": {**decode, "prompts": tpot_s - alone_s},
    }
    values = {
        "schema_version": SCHEMA_VERSION,
        "kind": "inference",
        **_asked(served, s),
        "ttft_s": ttft_s,
        "tpot_s": tpot_s,
        "e2e_s": e2e_s,
        "output_tokens_per_s": rate,
        "output_tokens_per_s_per_device": rate / served.devices,
        "output_tokens_per_s_per_user": 1.0 / tpot_s if tpot_s else None,
        "prefill_tokens_per_s": job.batch * served.prompt_len / ttft_s,
        **_memory(served, s, spread),
        "time_s": time_s,
        **_traffic(costs, spread, job.output_len),
        **_energy(served, costs, done, job.output_len),
        "bottleneck": bottleneck(time_s, job.output_len, ttft_s, tpot_s),
        "calibration": served.hardware.accelerator.kernels.status,
    }
    return InferenceEstimate(values)


def _asked(served: Served, s: Strategies) -> dict[str, Any]:
    """The resolved inputs."""
    job, hardware, counts = served.job, served.hardware, parameters(served.model)
    sizes = {name: round(float(np.max(getattr(s, name)))) for name in ("tp", "pp", "dp", "ep", "etp")}
    asked = {name: getattr(job, name) for name in ("batch", "input_len", "output_len", "weights", "kv")}
    return {
        "model": {"name": served.model.name, "parameters": counts.total, "active_parameters": counts.active},
        "hardware": {"name": hardware.name, "accelerator": hardware.accelerator.name, "devices": served.devices},
        "strategy": {**sizes, **asked, "engine": job.engine.name, "compute": served.compute},
        "job": {
            "source_len": job.source_len if served.model.encoder else None,
            "images": job.images if served.model.vision else None,
            "prefix_hit": job.prefix_hit,
            "skew": job.skew,
            "draft_tokens": job.draft_tokens,
            "acceptance": job.acceptance if job.draft_tokens else None,
            "draft": job.draft,
        },
    }


def phase_costs(served: Served, s: Strategies, pace: Pace, spread: Layout) -> dict[str, Cost]:
    """Device cost of the prefill of the whole batch, and of one decode step at its mean context."""
    job, prompt = served.job, served.prompt_len
    share = float(min(spread.batch, pace.stages))
    cached = min(int(job.prefix_hit * prompt), prompt - 1)
    read = prompt - cached
    rows = max(spread.each * read / share, 1.0)
    prefill = rows_cost(served, s, rows) + head_cost(served, s, spread.each / share)
    prefill = prefill + attention_cost(served, s, Cached(spread.each / share, read, prompt, job.cache_bytes))
    prefill = prefill + before_cost(served, s, spread.each / share)
    width = 1.0 + job.draft_tokens
    context = prompt + 0.5 * job.output_len
    stepped = max(spread.each / share, 1.0)
    decode = rows_cost(served, s, stepped * width) + head_cost(served, s, stepped * width)
    decode = decode + attention_cost(served, s, Cached(stepped, width, max(context, width), job.cache_bytes))
    return {"prefill": prefill.times(share), "decode": decode}


def _shared_out(cost: Cost, seconds: float, per: float = 1.0) -> dict[str, float]:
    """Parts that sum to the time: of the device in proportion, and what is left for the host."""
    parts = {part: float(np.max(cost.time_s.get(part, 0.0))) for part in PARTS}
    device_s = sum(parts.values())
    scale = min(1.0, seconds / device_s) / per if device_s else 0.0
    shared = {part: value * scale for part, value in parts.items()}
    shared["host"] = seconds / per - sum(shared.values())
    return shared


def _memory(served: Served, s: Strategies, spread: Layout) -> dict[str, Any]:
    left = room(served, s)
    length = served.prompt_len + served.job.output_len
    parts = {
        "weights": left.weights_bytes,
        "kv_cache": spread.each * held_bytes(served, s, float(length)),
        "activations": left.activations_bytes,
        "runtime": left.runtime_bytes,
    }
    allocated = 0.0
    for part in parts.values():
        allocated = allocated + part
    most = most_sequences(served, s, left, float(length))
    ranks = round(float(np.max(s.dp)))
    return {
        "fits": parts["kv_cache"] <= left.room_bytes,
        "memory_bytes": parts,
        "memory_allocated_bytes": allocated,
        "memory_capacity_bytes": left.capacity_bytes,
        "cache_room_bytes": max(left.room_bytes, 0.0),
        "cache_tokens": cache_tokens(served, s, left) * ranks,
        "max_batch": min(most, served.job.engine.max_sequences) * ranks,
        "max_context": most_tokens(served, s, left),
    }


def _traffic(costs: Mapping[str, Cost], spread: Layout, output_len: int) -> dict[str, Any]:
    """Sent per device for one request of the batch, by axis."""
    work = costs["prefill"] + costs["decode"].times(max(output_len - 1, 0))
    sent = {axis: float(np.max(work.sent_bytes.get(axis, 0.0))) for axis in AXES}
    return {"traffic_bytes": {axis: value / spread.batch for axis, value in sent.items()}}


def _energy(served: Served, costs: Mapping[str, Cost], done: Batch, output_len: int) -> dict[str, Any]:
    """Energy and rent per output token."""
    job, hardware = served.job, served.hardware
    tokens = job.batch * output_len
    steps = max(output_len - 1, 0)
    work = costs["prefill"] + costs["decode"].times(steps)
    compute_s = float(np.max(served.device.multiplying_s(work.flops)))
    memory_s = float(np.max(served.device.limits_s(0.0, work.memory_bytes)[1]))
    sent = sum(float(np.max(each)) for each in work.sent_bytes.values())
    activity = Activity(done.e2e_s, done.e2e_s, compute_s, memory_s, sent_bytes=sent)
    device_w = float(device_power_w(hardware, activity))
    wall_w = float(wall_power_w(hardware, device_w))
    dollars = cost_usd(hardware.accelerator, served.devices, done.e2e_s) / tokens
    known = np.isfinite(dollars)
    return {
        "energy_j_per_output_token": wall_w * served.devices * done.e2e_s / tokens,
        "average_power_w_per_device": wall_w,
        "device_power_w": device_w,
        "cost_usd_per_million_output_tokens": float(dollars) * MILLION if known else None,
    }


def bottleneck(time_s: Mapping[str, Mapping[str, float]], output_len: int, ttft_s: float, tpot_s: float) -> str:
    """The part that takes most of a request."""
    decode_s = tpot_s * (output_len - 1)
    phase = "decode" if decode_s >= ttft_s else "prefill"
    part = max(time_s[phase], key=lambda name: time_s[phase][name])
    return f"{phase}: {NAMES[part]}"


def inference_frame(estimates: Sequence[InferenceEstimate]) -> pd.DataFrame:
    """One row per estimate; nested keys become dotted columns, the strategy's stand without prefix."""
    import pandas as pd

    rows = [flatten(one.to_dict()) for one in estimates]
    return pd.DataFrame([{key.removeprefix("strategy."): value for key, value in row.items()} for row in rows])
