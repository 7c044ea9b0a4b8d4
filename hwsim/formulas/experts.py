"""Mixtures of experts: how rows spread over experts and devices, and device time of the fused layer on one device.

Every token goes to `topk` of the experts. Popularity follows a bounded power law: what an expert gets is drawn from the
density x^-skew on [1, R], R growing with the tokens, as the benchmark that measured the kernels has it [1]_. Skew 0
sends every token anywhere with the same chance; below 0 tokens are dealt out evenly. Where devices share the experts,
the busiest one counts.

The layer is two grouped multiplies with an activation between, and kernels that put rows in order and sum them up. The
weights of experts that get any row are read once; each pays for some rows beside its own, for tiles are filled in part
and loops start and end [2]_. Some libraries also carry the rows of experts elsewhere through memory, as zeros.

References
----------
.. [1] NVIDIA, aiconfigurator, ``collector/helper.py`` (`power_law_logits_v3`, `balanced_logits`), 2025.
.. [2] Gale et al., "MegaBlocks: efficient sparse training with mixture-of-experts", 2022, arXiv:2211.15841.
.. [3] Blom, "Statistical estimates and transformed beta-variables", 1958.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hwsim.formulas.gemm import joined_s
from hwsim.formulas.types import Numeric

TOP_SHARE, FEW_RANGE = 0.8, 200.0
"""Range R of the power law: the first times the tokens; where rows are fewer than experts, the second [1]_."""
ONE_ROW = 0.5
"""Mean rows from which on an expert counts as active. (Rows that come by chance to log-uniformly popular experts give
exp(-0.577), about the same.)"""
NEAR_ONE = 1e-6
"""How near the exponents may come to those that make logarithms of the integrals."""
RAMP_S = 5e-6
"""Memory time at which half of the latency of memory shows. [s]"""


class ExpertsMachine(NamedTuple):
    """What a device is, for the fused expert layer of one kernel library and dtype.

    Attributes
    ----------
    peak_flops_per_s
        Dense peak of the compute dtype [FLOP/s].
    bandwidth_bytes_per_s
        Data-sheet memory bandwidth [bytes/s].
    efficiency
        Fraction of the peak reached by many rows per expert.
    pad_rows
        Rows that every active expert takes beside its own: tiles in part empty, start and end of their loops.
    memory_efficiency
        Fraction of the memory bandwidth at which weights stream.
    latency_s
        Fixed time of the layer's kernels together [s].
    step_s
        Time per element of the inner dimensions: a tile walks along them one step after the other [s].
    memory_latency_s
        Time until weights stream at their full rate [s].
    passes
        Times that the rows go through memory, in and out of both multiplies.
    remote_share
        Share of those passes that rows of experts elsewhere make too.
    token_passes
        Times that the tokens go through memory, as they come and leave.
    """

    peak_flops_per_s: Numeric
    bandwidth_bytes_per_s: Numeric
    efficiency: Numeric
    pad_rows: Numeric
    memory_efficiency: Numeric
    latency_s: Numeric
    step_s: Numeric = 0.0
    memory_latency_s: Numeric = 0.0
    passes: Numeric = 1.0
    remote_share: Numeric = 0.0
    token_passes: Numeric = 0.0


class Routing(NamedTuple):
    """What falls to the busiest of the devices that share the experts.

    Attributes
    ----------
    rows
        Rows of all its experts together.
    active
        Its experts that get any.
    elsewhere
        Rows of the same tokens for experts of other devices.
    """

    rows: Numeric
    active: Numeric
    elsewhere: Numeric


def _integral(power: Numeric, high: Numeric) -> Numeric:
    """Integral of x^(power - 1) from 1 to `high`."""
    safe = np.where(np.abs(power) < NEAR_ONE, NEAR_ONE, power)
    return np.expm1(safe * np.log(high)) / safe


def _range(tokens: Numeric, experts: Numeric, topk: Numeric) -> Numeric:
    """Most over least popular of all experts."""
    return np.where(1.0 * tokens * topk > experts, np.maximum(TOP_SHARE * tokens, 2.0), FEW_RANGE)


def active_experts(tokens: Numeric, experts: Numeric, topk: Numeric, skew: Numeric) -> Numeric:
    """Expected number of experts that get any row. [-]

    Where all are alike, ``experts (1 - (1 - topk / experts)^tokens)``.

    Parameters
    ----------
    tokens, experts, topk
        Tokens, experts they choose from, and how many of them each token goes to.
    skew
        Exponent of the experts' popularity; 0: all alike; below: dealt out evenly.

    Examples
    --------
    >>> [round(float(active_experts(32, 256, 8, skew)), 1) for skew in (-1.0, 0.0, 1.2)]
    [256.0, 163.3, 98.5]
    """
    chance = np.minimum(topk / experts, 1.0 - NEAR_ONE)
    mean = 1.0 * tokens * topk / experts
    alike = experts * -np.expm1(tokens * np.log1p(-chance))
    high = _range(tokens, experts, topk)
    slope = np.maximum(1.0 - skew, -8.0)
    whole = _integral(slope, high)
    share = _integral(slope + 1.0, high) / whole
    least = np.minimum(np.maximum(ONE_ROW * share / np.maximum(mean, 1e-12), 1.0), high)
    popular = experts * (1.0 - _integral(slope, least) / whole)
    found = np.where(skew > 0.0, np.maximum(popular, np.minimum(topk, 1.0 * experts)), alike)
    found = np.where(skew < 0.0, experts, found)
    return np.minimum(found, np.minimum(1.0 * experts, 1.0 * tokens * topk))


def rows_variation(tokens: Numeric, experts: Numeric, topk: Numeric, skew: Numeric) -> Numeric:
    """Variance of what one expert gets over the square of its mean, by popularity alone. [-]

    Examples
    --------
    >>> round(float(rows_variation(1000, 256, 8, 1.01)), 2)
    2.41
    """
    high = _range(tokens, experts, topk)
    slope = np.maximum(1.0 - skew, -8.0)
    whole, first, second = (_integral(slope + power, high) for power in (0.0, 1.0, 2.0))
    return np.where(skew > 0.0, np.maximum(whole * second / (first * first) - 1.0, 0.0), 0.0)


def busiest_share(devices: Numeric, variance: Numeric) -> Numeric:
    """Expected share of all rows that the busiest of some devices gets. [-]

    The largest of n draws lies at their quantile (n - 3/8) / (n + 1/4) [3]_ (in closed form after Tukey), sums of few
    experts being skewed like gamma distributions (Cornish and Fisher's first term). What it has, the others lack.

    Parameters
    ----------
    devices, variance
        How many, and the variance of what each gets over the square of its mean.

    Examples
    --------
    >>> [round(float(busiest_share(4, variance)), 3) for variance in (0.0, 0.05)]
    [0.25, 0.308]
    """
    low = 0.625 / (devices + 0.25)
    normal = 4.91 * (np.exp(0.14 * np.log(1.0 - low)) - np.exp(0.14 * np.log(low)))
    sigma = np.sqrt(variance)
    extreme = normal + np.maximum(normal * normal - 1.0, 0.0) * sigma / 3.0
    return (1.0 + extreme * sigma) / (devices + extreme * sigma * variance / (1.0 + variance))


def busiest_rows(tokens: Numeric, topk: Numeric, experts: Numeric, total_experts: Numeric, skew: Numeric) -> Numeric:
    """Expected rows of all experts of the busiest device. [-]

    Parameters
    ----------
    tokens, topk
        Tokens of all devices that share the experts, and how many experts each goes to.
    experts, total_experts
        Held by one device, and by all of them.
    skew
        As for `active_experts`.

    Examples
    --------
    >>> [round(float(busiest_rows(1024, 8, 8, 256, skew)), 1) for skew in (-1.0, 0.0, 1.2)]
    [256.0, 290.2, 762.5]
    """
    devices = np.maximum(total_experts / experts, 1.0)
    mean = 1.0 * tokens * topk / devices
    chance = np.where(skew < 0.0, 0.0, 1.0 / np.maximum(mean, 1.0))
    variance = (rows_variation(tokens, total_experts, topk, skew) / experts + chance) * (devices > 1.0)
    most = tokens * np.minimum(1.0 * experts, topk)
    busiest = 1.0 * tokens * topk * busiest_share(devices, variance)
    return np.minimum(np.maximum(busiest, np.minimum(1.0, most)), most)


def busiest_experts(tokens: Numeric, topk: Numeric, experts: Numeric, total_experts: Numeric, skew: Numeric) -> Numeric:
    """Expected experts with a row on the busiest device; parameters as for `busiest_rows`. [-]

    Examples
    --------
    >>> [round(float(busiest_experts(32, 8, 32, 256, skew)), 1) for skew in (-1.0, 0.0, 1.2)]
    [32.0, 20.4, 12.3]
    """
    rows = busiest_rows(tokens, topk, experts, total_experts, skew)
    active = active_experts(tokens, total_experts, topk, skew) / np.maximum(total_experts / experts, 1.0)
    return np.minimum(np.maximum(active, np.minimum(1.0, rows)), rows)


def experts_flops(rows: Numeric, hidden: Numeric, ffn: Numeric, gated: Numeric) -> Numeric:
    """FLOPs of `rows` rows through an expert: up (twice as wide where gated) and down. [FLOP]

    Examples
    --------
    >>> experts_flops(10, 7168, 2048, True)
    880803840.0
    """
    return 2.0 * rows * hidden * ffn * (2.0 + gated)


def experts_bytes(
    rows: Numeric, active: Numeric, hidden: Numeric, ffn: Numeric, gated: Numeric, weight_bytes: Numeric
) -> Numeric:
    """Bytes of the active experts' weights, and of rows in and out of both multiplies at two bytes an element. [bytes]

    Examples
    --------
    >>> experts_bytes(10, 2, 1000, 1000, True, 1.0)
    6100000.0
    """
    width = 2.0 * hidden + (2.0 + gated) * ffn
    return active * hidden * ffn * (2.0 + gated) * weight_bytes + 2.0 * rows * width


def experts_compute_s(
    rows: Numeric, active: Numeric, hidden: Numeric, ffn: Numeric, gated: Numeric, machine: ExpertsMachine
) -> Numeric:
    """Time of both grouped multiplies, operands at hand. [s]

    Examples
    --------
    >>> machine = ExpertsMachine(1e15, 1e12, 0.5, 5.0, 1.0, 3e-6)
    >>> round(1e6 * float(experts_compute_s(10, 2, 1000, 1000, True, machine)), 2)
    0.24
    """
    flops = experts_flops(rows + active * machine.pad_rows, hidden, ffn, gated)
    return flops / (machine.peak_flops_per_s * machine.efficiency)


def experts_memory_s(
    tokens: Numeric,
    routed: Routing,
    hidden: Numeric,
    ffn: Numeric,
    gated: Numeric,
    weight_bytes: Numeric,
    machine: ExpertsMachine,
) -> Numeric:
    """Time to move weights, rows and tokens. [s]

    Parameters
    ----------
    tokens, routed
        Tokens at hand, and what falls to this device.
    hidden, ffn, gated, weight_bytes
        As for `experts_bytes`.

    Examples
    --------
    >>> machine = ExpertsMachine(1e15, 1e12, 1.0, 5.0, 0.5, 3e-6)
    >>> round(1e6 * float(experts_memory_s(10, Routing(10, 2, 0), 1000, 1000, True, 1.0, machine)), 1)
    12.2
    """
    carried = machine.passes * (routed.rows + machine.remote_share * routed.elsewhere)
    moved = experts_bytes(carried, routed.active, hidden, ffn, gated, weight_bytes)
    moved = moved + 2.0 * machine.token_passes * tokens * hidden
    stream = moved / (machine.bandwidth_bytes_per_s * machine.memory_efficiency)
    return stream + machine.memory_latency_s * (stream / (stream + RAMP_S))


def experts_serial_s(hidden: Numeric, ffn: Numeric, machine: ExpertsMachine) -> Numeric:
    """Time that nothing hides: fixed times of the kernels, and the walk along the inner dimensions. [s]

    Examples
    --------
    >>> machine = ExpertsMachine(1e15, 1e12, 1.0, 5.0, 0.5, 3e-6, step_s=1e-9)
    >>> round(1e6 * float(experts_serial_s(7168, 2048, machine)), 1)
    12.2
    """
    return machine.latency_s + machine.step_s * (1.0 * hidden + ffn)


def experts_s(
    tokens: Numeric,
    routed: Routing,
    hidden: Numeric,
    ffn: Numeric,
    gated: Numeric,
    weight_bytes: Numeric,
    machine: ExpertsMachine,
) -> Numeric:
    """Device time of the fused expert layer: serial + sqrt(compute^2 + memory^2). [s]

    Parameters
    ----------
    tokens, routed
        Tokens at hand, and what falls to this device: `busiest_rows`, `busiest_experts`, and the other rows.
    hidden, ffn, gated, weight_bytes
        As for `experts_bytes`; `ffn` is the inner width of this device's part of an expert.

    Examples
    --------
    One token, 8 of 256 experts of DeepSeek-V3 in fp8 at 1 TB/s: 352 MB of weights.

    >>> machine = ExpertsMachine(1e15, 1e12, 1.0, 0.0, 1.0, 0.0)
    >>> round(1e6 * float(experts_s(1, Routing(8, 8, 0), 7168, 2048, True, 1.0, machine)))
    353
    """
    compute = experts_compute_s(routed.rows, routed.active, hidden, ffn, gated, machine)
    memory = experts_memory_s(tokens, routed, hidden, ffn, gated, weight_bytes, machine)
    return joined_s(compute, memory, experts_serial_s(hidden, ffn, machine), 0.0)


__all__ = [
    "FEW_RANGE",
    "NEAR_ONE",
    "ONE_ROW",
    "RAMP_S",
    "TOP_SHARE",
    "ExpertsMachine",
    "Routing",
    "active_experts",
    "busiest_experts",
    "busiest_rows",
    "busiest_share",
    "experts_bytes",
    "experts_compute_s",
    "experts_flops",
    "experts_memory_s",
    "experts_s",
    "experts_serial_s",
    "rows_variation",
]
