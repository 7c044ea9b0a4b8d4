"""Matrix multiplies: FLOPs, bytes and device time.

The output y[m, n] is cut into tiles, the tiles are dealt to the compute units in waves, and each tile walks along k.
A library picks the tile shape (and splits k when there are too few tiles), so the time is a minimum over a few shapes.
Operands stream from memory meanwhile; the two times join as the root of the sum of their squares, at most 1.41 times
the larger: neither hides the other fully (a plain maximum fits the measured tables of A100, H100 and B200 worse).

References
----------
.. [1] Williams, Waterman, Patterson, "Roofline: an insightful visual performance model", CACM 52(4), 2009.
.. [2] NVIDIA, "Matrix multiplication background user's guide" (tile and wave quantisation), 2023.
.. [3] Osama et al., "Stream-K: work-centric parallel decomposition for dense GEMM", PPoPP 2023.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hwsim.formulas.types import Numeric

TILE_SHAPES = ((1.0, 2.0), (1.0, 1.0), (0.5, 1.0), (0.5, 0.5))
"""Output tiles a library chooses from, as (rows, columns) in units of the machine's tile edge, largest first."""
WAVE_HARDNESS = 0.25
"""Weight of ideal wave quantisation (whole waves) against perfectly dealt tiles; real libraries lie between."""
SPLIT_COST = 1.75
"""Main-loop time of splitting k over idle units, relative to not splitting: partial sums are stored and added."""


class GemmMachine(NamedTuple):
    """What a device is, for matrix multiplies in one compute dtype.

    Attributes
    ----------
    peak_flops_per_s
        Dense peak of the compute dtype [FLOP/s].
    bandwidth_bytes_per_s
        Data-sheet memory bandwidth [bytes/s].
    units
        Compute units (SMs, CUs, MXUs) sharing the output tiles.
    efficiency
        Fraction of the peak reached by many waves of the largest tiles at large k.
    k_half
        Inner dimension at which the main loop runs at half its asymptotic rate (prologue and epilogue of a tile).
    tile
        Edge of the reference tile; the largest tile has one edge twice as long.
    tile_loss
        Relative time lost by a tile of half the edges is 1.25 times this (operands are fetched more often).
    split_k
        Shortest stretch of k worth giving to a unit of its own.
    memory_efficiency
        Fraction of the memory bandwidth reached by a skinny multiply.
    latency_s
        Fixed time of the smallest kernel [s].
    """

    peak_flops_per_s: Numeric
    bandwidth_bytes_per_s: Numeric
    units: Numeric
    efficiency: Numeric
    k_half: Numeric
    tile: Numeric
    tile_loss: Numeric
    split_k: Numeric
    memory_efficiency: Numeric
    latency_s: Numeric


def gemm_flops(m: Numeric, n: Numeric, k: Numeric, batch: Numeric = 1.0) -> Numeric:
    """FLOPs of ``batch`` multiplies y[m, n] = x[m, k] w[k, n]: a multiply and an add per product. [FLOP]

    Examples
    --------
    >>> gemm_flops(4096, 4096, 4096)
    137438953472.0
    """
    return 2.0 * batch * m * n * k


def gemm_bytes(
    m: Numeric, n: Numeric, k: Numeric, batch: Numeric, input_bytes: Numeric, output_bytes: Numeric
) -> Numeric:
    """Bytes through device memory when each operand moves once [bytes].

    Parameters
    ----------
    m, n, k, batch
        Shape, and how many independent multiplies.
    input_bytes, output_bytes
        Size of one element of x and w, and of y [bytes].

    Examples
    --------
    >>> gemm_bytes(1024, 1024, 1024, 1.0, 2.0, 2.0)
    6291456.0
    """
    inputs = input_bytes * (1.0 * m * k + 1.0 * k * n)
    return batch * (inputs + output_bytes * (1.0 * m * n))


def _tiled_s(
    tile: tuple[float, float], m: Numeric, n: Numeric, k: Numeric, machine: GemmMachine, batch: Numeric
) -> Numeric:
    """Time of the main loops with one tile shape [s]."""
    rows, columns = tile
    high, wide = rows * machine.tile, columns * machine.tile
    waves = batch * np.ceil(m / high) * np.ceil(n / wide) / machine.units
    dealt = np.maximum(waves, 1.0)
    whole = (WAVE_HARDNESS * np.ceil(waves) + (1.0 - WAVE_HARDNESS) * dealt) * k
    split = SPLIT_COST * np.maximum(waves * k, np.minimum(1.0 * k, machine.split_k))
    steps = np.minimum(whole, split) + machine.k_half * dealt
    slowdown = 1.0 + machine.tile_loss * (0.5 / rows + 0.5 / columns - 0.75)
    return 2.0 * high * wide * steps * slowdown * machine.units / (machine.peak_flops_per_s * machine.efficiency)


def gemm_compute_s(m: Numeric, n: Numeric, k: Numeric, machine: GemmMachine, batch: Numeric = 1.0) -> Numeric:
    """Time of the main loops with the best tile shape, operands at hand [s].

    Examples
    --------
    One full wave of 100 ideal units at 1 TFLOP/s each, tiles of 128 x 256 over k = 1000:

    >>> machine = GemmMachine(100e12, 2e12, 100, 1.0, 0.0, 128, 0.0, 256, 1.0, 0.0)
    >>> round(1e6 * float(gemm_compute_s(1280, 2560, 1000, machine)), 3)
    65.536
    """
    best: Numeric = _tiled_s(TILE_SHAPES[0], m, n, k, machine, batch)
    for tile in TILE_SHAPES[1:]:
        best = np.minimum(best, _tiled_s(tile, m, n, k, machine, batch))
    return best


def gemm_memory_s(
    m: Numeric,
    n: Numeric,
    k: Numeric,
    machine: GemmMachine,
    batch: Numeric = 1.0,
    input_bytes: Numeric = 2.0,
    output_bytes: Numeric = 2.0,
) -> Numeric:
    """Time to move each operand once [s].

    Examples
    --------
    >>> machine = GemmMachine(100e12, 2e12, 100, 1.0, 0.0, 128, 0.0, 256, 0.5, 0.0)
    >>> round(1e6 * float(gemm_memory_s(1000, 1000, 1000, machine)), 3)
    6.0
    """
    rate = machine.bandwidth_bytes_per_s * machine.memory_efficiency
    return gemm_bytes(m, n, k, batch, input_bytes, output_bytes) / rate


def gemm_s(
    m: Numeric,
    n: Numeric,
    k: Numeric,
    machine: GemmMachine,
    batch: Numeric = 1.0,
    input_bytes: Numeric = 2.0,
    output_bytes: Numeric = 2.0,
) -> Numeric:
    """Device time of ``batch`` independent multiplies y[m, n] = x[m, k] w[k, n] in one launch [s].

    latency + sqrt(compute^2 + memory^2). Non-decreasing in every size and never below the roofline.

    Examples
    --------
    An A100 with its fitted curve; 3456 x 5120 over k = 6912 was measured at 986 us:

    >>> a100 = GemmMachine(312e12, 2039e9, 108, 0.8, 124, 128, 0.129, 478, 0.848, 3.11e-6)
    >>> round(1e6 * float(gemm_s(3456, 5120, 6912, a100)))
    1005
    """
    compute = gemm_compute_s(m, n, k, machine, batch)
    memory = gemm_memory_s(m, n, k, machine, batch, input_bytes, output_bytes)
    return joined_s(compute, memory, machine.latency_s)


def joined_s(compute_s: Numeric, memory_s: Numeric, latency_s: Numeric) -> Numeric:
    """Time of a kernel whose main loops and memory traffic overlap as far as measured devices let them. [s]

    Parameters
    ----------
    compute_s, memory_s
        Both durations when the other costs nothing [s].
    latency_s
        Fixed time [s].

    Examples
    --------
    >>> float(joined_s(3.0, 4.0, 1.0))
    6.0
    """
    return latency_s + np.sqrt(compute_s * compute_s + memory_s * memory_s)


__all__ = [
    "SPLIT_COST",
    "TILE_SHAPES",
    "WAVE_HARDNESS",
    "GemmMachine",
    "gemm_bytes",
    "gemm_compute_s",
    "gemm_flops",
    "gemm_memory_s",
    "gemm_s",
    "joined_s",
]
