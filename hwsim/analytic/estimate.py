"""One training estimate as a frozen result: the JSON of the contract, a row of a frame, a text for a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.analytic.answer import Answer
from hwsim.analytic.memory import PARTS
from hwsim.analytic.training import TIME_PARTS, TRAFFIC_AXES, TrainingColumns
from hwsim.specs.bands import family
from hwsim.specs.job import TrainingJob
from hwsim.specs.strategy import COLUMN_NAMES, plain_value
from hwsim.units import GIB, TERA

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
CONTRACT_STRATEGY = (
    "tp",
    "pp",
    "vpp",
    "dp",
    "cp",
    "ep",
    "etp",
    "zero",
    "shard",
    "micro_batch",
    "global_batch",
    "seq_len",
)
NAMES = {
    "tp": "tensor-parallel comm", "cp": "context-parallel comm", "ep": "expert-parallel comm",
    "pp": "pipeline sends", "dp": "gradient/weight comm", "offload": "host memory traffic",
    "bubble": "pipeline bubble", "launch": "waiting for host",
}  # fmt: skip
"""Parts of a step as a reader calls them, where their name in JSON is short."""
ARRAYS = (
    "step_time_s",
    "tokens_per_s",
    "mfu",
    "hfu",
    "flops_per_device",
    "energy_j",
    "cost_usd",
    "memory_bound_s",
    "model_flops",
    "busy_s",
)


@dataclass(frozen=True)
class TrainingEstimate(Answer):
    """The answer for one strategy."""

    values: dict[str, Any]

    def __repr__(self) -> str:
        v = self.values
        gib = v["memory_reserved_bytes"] / GIB
        return (
            f"<TrainingEstimate {v['model']['name']} on {v['hardware']['devices']} x {v['hardware']['accelerator']}: "
            f"step {v['step_time_s']:.4g} s, MFU {v['mfu']:.1%}, {gib:.1f} GiB, fits: {v['fits']}>"
        )


def flat(value: Any, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[Any]]:
    """One value per strategy."""
    return np.broadcast_to(np.asarray(value), shape).reshape(-1)


def estimates(columns: TrainingColumns) -> list[TrainingEstimate]:
    """Every strategy of `columns` as an estimate of its own."""
    shape = columns.strategies.shape or (1,)
    arrays = {name: flat(getattr(columns, name), shape) for name in ARRAYS}
    parts = {part: flat(columns.time_s[part], shape) for part in TIME_PARTS}
    traffic = {axis: flat(columns.traffic_bytes[axis], shape) for axis in TRAFFIC_AXES}
    tiers = {tier: flat(value, shape) for tier, value in columns.traffic_tier_bytes.items()}
    memory, phases = (
        {k: flat(v, shape) for k, v in part.items()} for part in (columns.memory.parts, columns.memory.phases)
    )
    busy = {axis: flat(value, shape) for axis, value in columns.communication_s.items()}
    stages = {name: flat(stage.allocated_bytes, shape) for name, stage in columns.memory.stages.items()}
    reserved, fits = flat(columns.memory.reserved_bytes, shape), flat(columns.fits, shape)
    context = flat(columns.memory.context_bytes, shape)
    rows = {name: flat(getattr(columns.strategies, name), shape) for name in COLUMN_NAMES}
    result = []
    for i in range(len(reserved)):
        time_s = {part: float(parts[part][i]) for part in TIME_PARTS}
        memory_bytes = {part: float(memory[part][i]) for part in memory}
        strategy = {name: plain_value(name, float(rows[name][i])) for name in COLUMN_NAMES}
        numbers = {name: float(arrays[name][i]) for name in ARRAYS}
        values = _values(columns, strategy, time_s, memory_bytes, numbers)
        values |= {
            "fits": bool(fits[i]),
            "memory_reserved_bytes": float(reserved[i]),
            "memory_context_bytes": float(context[i]),
            "memory_phases_bytes": {name: float(phases[name][i]) for name in phases},
            "memory_stages_bytes": {name: float(stages[name][i]) for name in stages},
            "communication_s": {axis: float(busy[axis][i]) for axis in busy},
            "traffic_bytes": {axis: float(traffic[axis][i]) for axis in TRAFFIC_AXES},
            "traffic_tier_bytes": {tier: float(tiers[tier][i]) for tier in tiers},
        }
        result.append(TrainingEstimate({key: values[key] for key in _ORDER if key in values}))
    return result


_ORDER = (
    "schema_version", "kind", "model", "hardware", "strategy", "job", "bytes_per_number", "fits", "step_time_s",
    "step_time_low_s", "step_time_high_s", "band", "time_s", "communication_s", "tokens_per_s",
    "tokens_per_s_per_device",
    "model_tflops_per_device", "mfu", "hfu", "memory_bytes", "memory_allocated_bytes", "memory_reserved_bytes",
    "memory_context_bytes", "memory_capacity_bytes", "memory_phases_bytes", "memory_stages_bytes",
    "traffic_bytes", "traffic_tier_bytes",
    "flops_per_device", "energy_j", "cost_usd", "bottleneck", "calibration",
)  # fmt: skip


def _values(
    columns: TrainingColumns,
    strategy: dict[str, Any],
    time_s: dict[str, float],
    memory_bytes: dict[str, float],
    numbers: dict[str, float],
) -> dict[str, Any]:
    """The keys that follow from one row."""
    setting = columns.setting
    devices = int(strategy.pop("devices"))
    job, hardware = setting.job, setting.hardware
    status = hardware.accelerator.kernels.status
    step = added(time_s[part] for part in TIME_PARTS)
    name, band = family(job.framework.name, hardware.accelerator.family, setting.model.experts > 0)
    if job.modules and strategy["recompute"] == "selective":
        strategy["recompute"] = ",".join(job.modules)
    ordered = {name: strategy.pop(name) for name in CONTRACT_STRATEGY}
    counts = setting.parameters
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "training",
        "model": {"name": setting.model.name, "parameters": counts.total, "active_parameters": counts.active},
        "hardware": {"name": hardware.name, "accelerator": hardware.accelerator.name, "devices": devices},
        "strategy": {**ordered, **strategy, "precision": job.precision, "optimizer": job.optimizer},
        "job": {
            "attention": job.attention,
            "graphs": job.graphs,
            "framework": job.framework.name,
            "recompute_modules": list(job.modules),
            "method": job.method,
            "rank": job.rank if job.method != "full" else None,
            "frozen": list(job.frozen),
            "offload": list(job.offload),
            "source_len": job.source_len if setting.model.encoder else None,
            "images": job.images if setting.model.vision else None,
            "imbalance": job.imbalance,
            "capacity": job.capacity,
        },
        "bytes_per_number": number_bytes(job),
        "step_time_s": step,
        "step_time_low_s": step * band.low,
        "step_time_high_s": step * band.high,
        "band": {
            "family": name,
            "measured": " on " in name,
            "coverage": round(band.coverage, 4),
            "rows": band.rows,
            "groups": band.groups,
        },
        "time_s": time_s,
        "tokens_per_s": numbers["tokens_per_s"],
        "tokens_per_s_per_device": numbers["tokens_per_s"] / devices,
        "model_tflops_per_device": numbers["model_flops"] / numbers["step_time_s"] / devices / TERA,
        "mfu": numbers["mfu"],
        "hfu": numbers["hfu"],
        "memory_bytes": memory_bytes,
        "memory_allocated_bytes": added(memory_bytes[part] for part in PARTS),
        "memory_capacity_bytes": columns.memory.capacity_bytes,
        "flops_per_device": numbers["flops_per_device"],
        "energy_j": numbers["energy_j"],
        "cost_usd": numbers["cost_usd"] if np.isfinite(numbers["cost_usd"]) else None,
        "bottleneck": bottleneck(columns, time_s, numbers),
        "calibration": status,
    }


def added(values: Iterable[float]) -> float:
    """Sum in order, as the columns are summed (the built-in `sum` compensates rounding)."""
    result = 0.0
    for value in values:
        result = result + value
    return result


def number_bytes(job: TrainingJob) -> dict[str, float]:
    """Bytes per number in each role, as the job's framework stores and sends them."""
    numbers, framework = job.numbers, job.framework
    return {
        "weight": numbers.weight,
        "gathered_weight": numbers.wire,
        "activation": numbers.activation,
        "gemm_operand": numbers.gemm_input,
        "saved_operand": numbers.gemm_input if framework.saves_quantised else numbers.activation,
        "gathered_activation": numbers.gemm_input if framework.gathers_quantised else numbers.activation,
        "gradient": job.gradient_bytes,
        "reduced_gradient": job.reduce_bytes,
        "master_weight": numbers.master,
        "optimizer_state": job.optimizer_state.matrix,
    }


def bottleneck(columns: TrainingColumns, time_s: dict[str, float], numbers: dict[str, float]) -> str:
    """Name what takes most of the step, and what would relieve it."""
    memory_bound = min(numbers["memory_bound_s"], numbers["busy_s"])
    inner, outer = columns.setting.network.links[0].tier.name, columns.setting.network.links[-1].tier.name
    crosses = columns.setting.devices > columns.setting.network.links[0].domain
    far = outer if crosses else inner
    shares = {
        "compute (matrix units)": numbers["busy_s"] - memory_bound,
        "device memory bandwidth": memory_bound,
        f"tensor-parallel communication ({inner})": time_s["tp"],
        f"context-parallel communication ({inner})": time_s["cp"],
        f"expert-parallel communication ({far})": time_s["ep"],
        f"pipeline sends ({far})": time_s["pp"],
        f"gradient and weight traffic ({far})": time_s["dp"],
        "pipeline bubble": time_s["bubble"],
        "host launches": time_s["launch"],
    }
    return max(shares, key=lambda name: shares[name])


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots.

    Examples
    --------
    >>> flatten({"a": 1, "b": {"c": 2}})
    {'a': 1, 'b.c': 2}
    """
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result |= flatten(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def frame(estimates: Sequence[TrainingEstimate]) -> pd.DataFrame:
    """One row per estimate; nested keys become dotted columns, the strategy's stand without prefix."""
    import pandas as pd

    rows = [flatten(estimate.to_dict()) for estimate in estimates]
    return pd.DataFrame([{key.removeprefix("strategy."): value for key, value in row.items()} for row in rows])
