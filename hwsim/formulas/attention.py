"""Fused attention (FlashAttention): FLOPs, bytes and device time.

A kernel deals blocks of query rows to the compute units; each block walks along its keys. Three things keep it from the
matmul roofline: the softmax, which overlaps the multiplies only in part and does not shrink with the head dimension;
what a block pays whatever its length (launch, prologue, the masked diagonal, padding to whole tiles, epilogue); and the
longest block, which ends after the others. With one query per sequence (decode) the heads that share keys are packed
into one tile, the keys are split over idle units and the parts are combined; libraries run a kernel of its own for it.
Prefill also writes the new keys and values to the cache, in kernels that a library puts around the fused one.

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
"""Query rows that one compute unit works on; keys that a block sees beyond the band of a sliding window."""
SPLIT_KEYS = 256.0
"""Shortest stretch of keys given to a unit of its own when there are few sequences (decode)."""
CACHE_GAIN = 0.4
"""Time saved on tensors that were left in the last-level cache."""


class AttentionMachine(NamedTuple):
    """What a device is, for the fused attention of one kernel library.

    Attributes
    ----------
    peak_flops_per_s
        Dense peak of the compute dtype [FLOP/s].
    bandwidth_bytes_per_s
        Data-sheet memory bandwidth [bytes/s].
    units
        Compute units sharing the query blocks.
    cache_bytes
        Last-level cache [bytes]; 0: none.
    forward_efficiency, backward_efficiency
        Fraction of the peak of the matmuls alone, at long sequences.
    softmax_width
        Time of the softmax per query-key pair, in head dimensions of matmul time.
    query_rows
        Query rows of one head are padded to a multiple of this.
    overhead_keys
        Time a query block takes beside its keys, in keys.
    tail
        Share of the longest block that does not hide behind the other blocks.
    memory_efficiency
        Fraction of the memory bandwidth reached when reading the KV cache.
    latency_s
        Fixed time of the smallest kernel [s].
    split_latency_s
        Added where long stretches of keys are split and combined [s].
    prefill_latency_s
        Added by the kernels around a prefill [s].
    prefill_passes
        Times a prefill moves its tensors: once for the kernel itself, more for writing the cache.
    decode_rows, lone_rows
        Rows that a decode block is charged: heads sharing keys are padded to a multiple of the first; a head on its
        own (no sharing, or more heads than `packed_heads`) takes the second.
    packed_heads
        Most query heads per key head that the decode kernel packs.
    decode_overhead_keys
        As `overhead_keys`, for a decode block.
    mask_keys
        Keys that a causal mask spares together or not at all, where that is more than `query_rows`.
    split_keys
        Shortest stretch of keys given to a unit of its own in a decode; as many as there are: keys are not split.
    decode_passes
        Times a decode moves its queries and outputs: once, more where parts are written out and combined.
    decode_rate
        Rate of a decode's multiplies over that of a prefill's, where libraries have a kernel of its own for it.
    """

    peak_flops_per_s: Numeric
    bandwidth_bytes_per_s: Numeric
    units: Numeric
    cache_bytes: Numeric
    forward_efficiency: Numeric
    backward_efficiency: Numeric
    softmax_width: Numeric
    query_rows: Numeric
    overhead_keys: Numeric
    tail: Numeric
    memory_efficiency: Numeric
    latency_s: Numeric
    split_latency_s: Numeric
    prefill_latency_s: Numeric
    prefill_passes: Numeric
    decode_rows: Numeric
    lone_rows: Numeric
    packed_heads: Numeric
    decode_overhead_keys: Numeric
    mask_keys: Numeric = 0.0
    split_keys: Numeric = SPLIT_KEYS
    decode_passes: Numeric = 1.0
    decode_rate: Numeric = 1.0


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


def windowed_keys(q_len: Numeric, kv_len: Numeric, window: Numeric) -> Numeric:
    """Mean number of keys that each of the last ``q_len`` of ``kv_len`` positions sees in a causal window. [-]

    Position i sees min(i, window) keys. Pass it as ``kv_len`` with ``causal`` 0.

    Examples
    --------
    >>> float(windowed_keys(4, 4, 2))  # 1, 2, 2, 2 keys
    1.75
    """
    width = np.minimum(1.0 * kv_len, window)
    growing = np.maximum(width - 1.0 - (1.0 * kv_len - q_len), 0.0)
    return width - growing * (growing + 1.0) / (2.0 * np.maximum(q_len, 1.0))


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


def _decode_pairs(batch: Numeric, kv_len: Numeric, heads: Numeric, kv_heads: Numeric, m: AttentionMachine) -> Numeric:
    """Query-key pairs of the busiest unit times the number of units, for one query per sequence."""
    group: Numeric = np.maximum(heads / np.maximum(kv_heads, 1.0), 1.0)
    lone = (group < 2.0) | (group > m.packed_heads)
    rows = np.where(lone, m.lone_rows, m.decode_rows * np.ceil(group / m.decode_rows))
    streams = 1.0 * batch * np.where(lone, heads, kv_heads)
    part = np.maximum(kv_len * np.minimum(streams / m.units, 1.0), np.minimum(1.0 * kv_len, m.split_keys))
    own = m.decode_overhead_keys
    pairs: Numeric = rows * (streams * (kv_len + own) + m.tail * m.units * (part + own))
    return pairs


def _pairs(
    batch: Numeric,
    q_len: Numeric,
    kv_len: Numeric,
    heads: Numeric,
    kv_heads: Numeric,
    causal: Numeric,
    m: AttentionMachine,
) -> Numeric:
    """Query-key pairs of the busiest unit times the number of units; a prefill is never cheaper than a decode."""
    decode = _decode_pairs(batch, kv_len, heads, kv_heads, m)
    rows = m.query_rows * np.ceil(q_len / m.query_rows)
    seen = np.maximum(kv_len, np.minimum(kv_len + QUERY_BLOCK, q_len))
    spared = np.minimum(rows - m.query_rows, kv_len)
    if np.any(np.asarray(m.mask_keys) > 0):
        spared = np.minimum(spared, np.maximum(np.minimum(rows, kv_len) - m.mask_keys, 0.0))
    keys = seen - 0.5 * causal * spared + m.overhead_keys
    longest = np.minimum(rows, QUERY_BLOCK) * (seen + m.overhead_keys)
    prefill = 1.0 * batch * heads * rows * keys + m.tail * m.units * longest
    pairs: Numeric = np.where(np.less_equal(q_len, 1.0), decode, np.maximum(prefill, decode))
    return pairs


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
    """Device time of one fused forward kernel: prefill, chunked prefill or decode (``q_len`` 1) [s].

    latency + sqrt(compute^2 + memory^2), and no less than the bytes take at the full bandwidth; heads counted on this
    device. Multiplies and softmax overlap likewise: a pair takes sqrt(head_dim^2 + softmax_width^2).

    Examples
    --------
    Decode over 2 GiB of keys and values on a 2 TB/s device takes their reading time, 1.26 ms at 85 %:

    >>> machine = AttentionMachine(312e12, 2e12, 108, 4e7, 0.8, 0.7, 80, 64, 90, 0.5, 0.85, 8e-6, 2e-6, 2e-6, 2.0,
    ...     16, 16, 64, 500)
    >>> round(1e3 * float(attention_forward_s(16, 1, 32768, 32, 8, 128, 0, machine)), 1)
    1.3
    """
    pairs = _pairs(batch, q_len, kv_len, heads, kv_heads, causal, machine)
    width = np.sqrt(1.0 * head_dim * head_dim + 1.0 * machine.softmax_width * machine.softmax_width)
    many = np.greater(q_len, 1.0)
    rate = machine.forward_efficiency * np.where(many, 1.0, machine.decode_rate)
    compute = 4.0 * width * pairs / (machine.peak_flops_per_s * rate)
    moved = attention_bytes(batch, q_len, kv_len, heads, kv_heads, head_dim, kv_bytes)
    floor = moved / machine.bandwidth_bytes_per_s
    kept = np.minimum(np.maximum(2.0 - 2.0 * moved / np.maximum(machine.cache_bytes, 1.0), 0.0), 1.0)
    again = np.where(many, 0.0, machine.decode_passes - 1.0) * (4.0 * batch * head_dim * q_len * heads)
    passes = np.where(many, machine.prefill_passes, 1.0) / machine.memory_efficiency
    memory = (floor + again / machine.bandwidth_bytes_per_s) * passes * (1.0 - CACHE_GAIN * kept)
    split = machine.split_latency_s * (1.0 - machine.split_keys / np.maximum(kv_len, machine.split_keys))
    fixed = machine.latency_s + split + machine.prefill_latency_s * many
    seconds: Numeric = np.maximum(fixed + np.sqrt(compute * compute + memory * memory), floor)
    return seconds


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
    >>> machine = AttentionMachine(312e12, 2e12, 108, 0, 0.8, 0.8, 0, 64, 0, 0.5, 0.85, 0, 0, 0, 1, 16, 16, 64, 0)
    >>> shape = (4, 4096, 4096, 32, 32, 128, 1)
    >>> round(float(attention_backward_s(*shape, machine) / attention_forward_s(*shape, machine)), 2)
    2.49
    """
    pairs = _pairs(batch, q_len, kv_len, heads, kv_heads, causal, machine)
    matmul = BACKWARD_FLOPS * head_dim
    width = np.sqrt(matmul * matmul + 1.0 * machine.softmax_width * machine.softmax_width)
    compute = 4.0 * width * pairs / (machine.peak_flops_per_s * machine.backward_efficiency)
    moved = 2.0 * attention_bytes(batch, q_len, kv_len, heads, kv_heads, head_dim)
    memory = moved / (machine.bandwidth_bytes_per_s * machine.memory_efficiency)
    joined: Numeric = np.sqrt(compute * compute + memory * memory)
    return machine.latency_s + joined


__all__ = [
    "BACKWARD_FLOPS",
    "CACHE_GAIN",
    "QUERY_BLOCK",
    "SPLIT_KEYS",
    "AttentionMachine",
    "attended_pairs",
    "attention_backward_s",
    "attention_bytes",
    "attention_flops",
    "attention_forward_s",
    "windowed_keys",
]
