"""Fused attention (FlashAttention): FLOPs, bytes and device time.

A kernel deals blocks of query rows to the compute units; each block walks along its keys. Three things keep it from the
matmul roofline: the softmax (a cost per query-key pair that does not shrink with the head dimension), what a block pays
whatever its length (prologue, the half-masked diagonal, epilogue) and the longest block, which ends after the others.
With few query rows (decode) the heads that share keys are packed into one block and the keys are split over idle units.

References
----------
.. [1] Dao, "FlashAttention-2: faster attention with better parallelism and work partitioning", 2023, arXiv:2307.08691.
.. [2] Shah et al., "FlashAttention-3: fast and accurate attention with asynchrony and low-precision", 2024,
   arXiv:2407.08608 (softmax against matmul throughput).
.. [3] Dao et al., "Flash-Decoding for long-context inference", 2023 (keys split over units).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hwsim.formulas.types import Numeric

BACKWARD_FLOPS = 2.5
"""Backward matmul FLOPs over forward: five multiplies (S again, dV, dP, dQ, dK) against two."""
QUERY_BLOCK = 128.0
"""Query rows that one compute unit works on."""
ROW_PADDING = 16.0
"""Query rows are padded to a multiple of this (height of a matrix instruction)."""
SPLIT_KEYS = 512.0
"""Shortest stretch of keys given to a unit of its own when one block holds all query rows (decode)."""
TAIL = 0.5
"""Share of the longest block that does not hide behind the other blocks."""


class AttentionMachine(NamedTuple):
    """What a device is, for fused attention.

    Attributes
    ----------
    peak_flops_per_s
        Dense peak of the compute dtype [FLOP/s].
    bandwidth_bytes_per_s
        Data-sheet memory bandwidth [bytes/s].
    units
        Compute units sharing the query blocks.
    forward_efficiency, backward_efficiency
        Fraction of the peak of the matmuls alone, at long sequences.
    softmax_width
        Time of the softmax per query-key pair, in head dimensions of matmul time.
    overhead_keys
        Time a query block takes beside its keys, in keys.
    memory_efficiency
        Fraction of the memory bandwidth reached when reading the KV cache.
    latency_s
        Fixed time of the smallest kernel [s].
    """

    peak_flops_per_s: Numeric
    bandwidth_bytes_per_s: Numeric
    units: Numeric
    forward_efficiency: Numeric
    backward_efficiency: Numeric
    softmax_width: Numeric
    overhead_keys: Numeric
    memory_efficiency: Numeric
    latency_s: Numeric


def attended_pairs(q_len: Numeric, kv_len: Numeric, causal: Numeric) -> Numeric:
    """Query-key pairs of one head: all of them, or those a causal mask leaves. [-]

    Row i of a causal mask sees kv - q + i keys (i from 1 to q): q * (kv - (q - 1) / 2) pairs. Queries are the last
    ``q_len`` of ``kv_len`` positions; the caller caps ``kv_len`` at a sliding window.

    Parameters
    ----------
    q_len, kv_len
        Queries, and keys they attend to (past ones included).
    causal
        1 with a causal mask, 0 without.

    Examples
    --------
    >>> float(attended_pairs(4, 4, 1)), float(attended_pairs(4, 4, 0)), float(attended_pairs(2, 4, 1))
    (10.0, 16.0, 7.0)
    """
    masked: Numeric = 0.5 * causal * np.maximum(np.minimum(q_len, kv_len) - 1.0, 0.0)
    return 1.0 * q_len * (kv_len - masked)


def attention_flops(
    batch: Numeric, q_len: Numeric, kv_len: Numeric, heads: Numeric, head_dim: Numeric, causal: Numeric
) -> Numeric:
    """Forward matmul FLOPs of softmax(q k') v: two multiply-adds per pair and head dimension. [FLOP]

    Examples
    --------
    >>> float(attention_flops(1, 4096, 4096, 32, 128, 0))
    274877906944.0
    """
    return 4.0 * batch * heads * head_dim * attended_pairs(q_len, kv_len, causal)


def attention_bytes(
    batch: Numeric,
    q_len: Numeric,
    kv_len: Numeric,
    heads: Numeric,
    kv_heads: Numeric,
    head_dim: Numeric,
    kv_bytes: Numeric = 2.0,
) -> Numeric:
    """Bytes of q, k, v read and o written once; q and o take two bytes an element, k and v ``kv_bytes`` [bytes].

    Examples
    --------
    >>> attention_bytes(1, 1, 1000, 32, 8, 128)
    4112384.0
    """
    return 2.0 * batch * head_dim * (2.0 * q_len * heads + kv_bytes * (1.0 * kv_len * kv_heads))


def _pair_units(
    batch: Numeric,
    q_len: Numeric,
    kv_len: Numeric,
    heads: Numeric,
    kv_heads: Numeric,
    causal: Numeric,
    machine: AttentionMachine,
) -> Numeric:
    """Query-key pairs the busiest unit works through, times the number of units."""
    group: Numeric = np.maximum(heads / np.maximum(kv_heads, 1.0), 1.0)
    rows = q_len * group
    padded_rows = ROW_PADDING * np.ceil(rows / ROW_PADDING)
    queries = padded_rows / group
    pairs = attended_pairs(queries, np.maximum(kv_len, queries), causal)
    spread = 1.0 * batch * heads * (pairs + queries * machine.overhead_keys)
    blocks = 1.0 * batch * kv_heads * np.ceil(rows / QUERY_BLOCK)
    split = np.maximum(kv_len * np.minimum(blocks / machine.units, 1.0), np.minimum(1.0 * kv_len, SPLIT_KEYS))
    keys = np.where(rows > QUERY_BLOCK, kv_len, split)
    longest = np.minimum(padded_rows, QUERY_BLOCK) * (keys + machine.overhead_keys)
    return spread + TAIL * longest * machine.units


def attention_forward_s(
    batch: Numeric,
    q_len: Numeric,
    kv_len: Numeric,
    heads: Numeric,
    kv_heads: Numeric,
    head_dim: Numeric,
    causal: Numeric,
    machine: AttentionMachine,
    kv_bytes: Numeric = 2.0,
) -> Numeric:
    """Device time of one fused forward kernel: prefill, chunked prefill or decode [s].

    latency + sqrt(compute^2 + memory^2), heads counted on this device.

    Examples
    --------
    Decode over 2 GiB of keys and values on a 2 TB/s device takes their reading time, 1.26 ms at 85 %:

    >>> machine = AttentionMachine(312e12, 2e12, 108, 0.8, 0.7, 50, 300, 0.85, 8e-6)
    >>> round(1e3 * float(attention_forward_s(16, 1, 32768, 32, 8, 128, 0, machine)), 1)
    1.3
    """
    pairs = _pair_units(batch, q_len, kv_len, heads, kv_heads, causal, machine)
    width = head_dim + machine.softmax_width
    compute = 4.0 * width * pairs / (machine.peak_flops_per_s * machine.forward_efficiency)
    moved = attention_bytes(batch, q_len, kv_len, heads, kv_heads, head_dim, kv_bytes)
    memory = moved / (machine.bandwidth_bytes_per_s * machine.memory_efficiency)
    joined: Numeric = np.sqrt(compute * compute + memory * memory)
    return machine.latency_s + joined


def attention_backward_s(
    batch: Numeric,
    q_len: Numeric,
    kv_len: Numeric,
    heads: Numeric,
    kv_heads: Numeric,
    head_dim: Numeric,
    causal: Numeric,
    machine: AttentionMachine,
) -> Numeric:
    """Device time of the fused backward (the scores are computed again) [s].

    2.5 times the forward matmuls, one softmax, and twice the bytes: q, k, v, o, do read, dq, dk, dv written.

    Examples
    --------
    >>> machine = AttentionMachine(312e12, 2e12, 108, 0.8, 0.8, 0, 0, 0.85, 0.0)
    >>> shape = (4, 4096, 4096, 32, 32, 128, 1)
    >>> round(float(attention_backward_s(*shape, machine) / attention_forward_s(*shape, machine)), 2)
    2.49
    """
    pairs = _pair_units(batch, q_len, kv_len, heads, kv_heads, causal, machine)
    width = BACKWARD_FLOPS * head_dim + machine.softmax_width
    compute = 4.0 * width * pairs / (machine.peak_flops_per_s * machine.backward_efficiency)
    moved = 2.0 * attention_bytes(batch, q_len, kv_len, heads, kv_heads, head_dim)
    memory = moved / (machine.bandwidth_bytes_per_s * machine.memory_efficiency)
    joined: Numeric = np.sqrt(compute * compute + memory * memory)
    return machine.latency_s + joined


__all__ = [
    "BACKWARD_FLOPS",
    "QUERY_BLOCK",
    "ROW_PADDING",
    "SPLIT_KEYS",
    "TAIL",
    "AttentionMachine",
    "attended_pairs",
    "attention_backward_s",
    "attention_bytes",
    "attention_flops",
    "attention_forward_s",
]
