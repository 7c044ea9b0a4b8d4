"""Pipeline parallelism: how layers are split, what the bubble costs, what stays in flight.

A stage holds `vpp` chunks of consecutive layers; chunk ``c * pp + i`` belongs to stage ``i``. The first chunk also
holds the embedding and the last the LM head, so layers left over by an uneven division go to the chunks between them.
"""

from __future__ import annotations

import numpy as np

from hwsim.formulas.types import Numeric

SCHEDULES = ("gpipe", "1f1b", "interleaved", "zb-h1", "dualpipe")
"""Schedule names; a strategy carries the position as its code."""
GPIPE, ONE_F_ONE_B, INTERLEAVED, ZB_H1, DUALPIPE = range(5)


def stage_layers(layers: Numeric, pp: Numeric, vpp: Numeric, stage: Numeric) -> Numeric:
    """Layers of one pipeline stage. [-]

    Every chunk gets ``layers // (pp * vpp)``; the remainder goes, one each, to the chunks after the first.

    Parameters
    ----------
    layers, pp, vpp : numeric
        Layers of the model, stages, chunks per stage. [-]
    stage : numeric
        Stage number from 0. [-]

    Examples
    --------
    Llama 3 405B has 126 layers on 16 stages: 7 on the first and last, 8 between them [1]_.

    >>> [int(stage_layers(126, 16, 1, i)) for i in (0, 1, 14, 15)]
    [7, 8, 8, 7]

    References
    ----------
    .. [1] "The Llama 3 Herd of Models", 2024, section 3.3.2.
    """
    base = np.floor(1.0 * layers / (1.0 * pp * vpp))
    extra = layers - base * pp * vpp
    turn = np.where(np.asarray(stage) == 0, pp, stage)
    return base * vpp + np.floor((extra + pp - turn) / pp)


def layers_before(first: Numeric, layers: Numeric, pp: Numeric, vpp: Numeric, stage: Numeric) -> Numeric:
    """How many of the model's first layers a pipeline stage holds. [-]

    Parameters
    ----------
    first, layers, pp, vpp : numeric
        Layers counted from the start, layers of the model, stages, chunks per stage. [-]
    stage : numeric
        Stage number from 0. [-]

    Examples
    --------
    Of 10 layers in 4 stages (2, 3, 3 and 2), stage 1 holds layers 2 to 4:

    >>> [int(layers_before(first, 10, 4, 1, 1)) for first in (2, 3, 5, 10)]
    [0, 1, 3, 3]
    """
    chunks = 1.0 * pp * vpp
    base = np.floor(1.0 * layers / chunks)
    extra = layers - base * chunks
    among_larger = np.floor((first + 1.0) / (base + 1.0))
    beyond = np.floor((first - extra) / np.maximum(base, 1.0))
    whole = np.where(first + 1.0 <= (base + 1.0) * (extra + 1.0), among_larger, beyond)
    start = base * whole + np.clip(whole - 1.0, 0.0, extra)
    turn = np.where(np.asarray(stage) == 0, pp, stage)
    own = np.maximum(np.ceil((whole - stage) / pp), 0.0)
    larger = np.maximum(np.floor((np.minimum(extra, whole - 1.0) - turn + pp) / pp), 0.0)
    return own * base + larger + np.where(np.mod(whole, pp) == stage, first - start, 0.0)


def in_flight_chunks(pp: Numeric, vpp: Numeric, micro_batches: Numeric, stage: Numeric, schedule: Numeric) -> Numeric:
    """Chunk-sized sets of activations that a stage holds at its peak. [-]

    Parameters
    ----------
    pp, vpp, micro_batches, stage : numeric
        Stages, chunks per stage, micro-batches per step, stage number from 0. [-]
    schedule : numeric
        Code: position in `SCHEDULES`. [-]

    Notes
    -----
    GPipe keeps every micro-batch; 1F1B and ZB-H1 keep ``pp - stage``; interleaved 1F1B keeps
    ``2 (pp - stage - 1) + (vpp - 1) pp + 1`` chunks; DualPipe keeps ``pp + 1``.

    References
    ----------
    .. [1] D. Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters", SC'21, section 2.2.
    .. [2] P. Qi et al., "Zero Bubble Pipeline Parallelism", ICLR 2024.
    .. [3] DeepSeek-AI, "DeepSeek-V3 Technical Report", 2024, table 2.

    Examples
    --------
    >>> float(in_flight_chunks(8, 3, 64, 0, INTERLEAVED)) / 3  # 1 + (p - 1) / (p m) of 8 (Korthikanti 2022)
    10.333333333333334
    """
    everything = 1.0 * micro_batches * vpp
    held = np.where(np.asarray(vpp) > 1, 2.0 * (pp - stage - 1) + (vpp - 1.0) * pp + 1.0, pp - 1.0 * stage)
    held = np.where(np.asarray(schedule) == GPIPE, everything, held)
    held = np.where(np.asarray(schedule) == DUALPIPE, pp + 1.0, held)
    return np.minimum(held, everything)


def bubble_s(
    slowest: tuple[Numeric, Numeric, Numeric],
    whole: tuple[Numeric, Numeric],
    pp: Numeric,
    vpp: Numeric,
    micro_batches: Numeric,
    schedule: Numeric,
) -> Numeric:
    """Time per step that the slowest stage waits for the pipeline to fill and drain. [s]

    Parameters
    ----------
    slowest : tuple of numeric
        Forward, backward-for-inputs and backward-for-weights seconds of one micro-batch on the slowest stage. [s]
    whole : tuple of numeric
        Forward plus backward of one micro-batch through all stages, and the backward-for-weights part of it. [s]
    pp, vpp, micro_batches : numeric
        Stages, chunks per stage, micro-batches per step. [-]
    schedule : numeric
        Code: position in `SCHEDULES`. [-]

    Notes
    -----
    GPipe, 1F1B: the other stages' time for one micro-batch, ``(pp - 1)(F + B + W)`` for equal stages. Interleaving
    divides it by `vpp`; a last group of fewer than `pp` micro-batches leaves ``vpp - 1`` rounds partly empty. ZB-H1
    fills it with weight gradients, as many as there are: ``(pp - 1)(F + B - W)`` [1]_. DualPipe feeds both ends:
    ``(pp/2 - 1)(F&B + B - 3W)`` with F and B overlapped [2]_.

    References
    ----------
    .. [1] P. Qi et al., "Zero Bubble Pipeline Parallelism", ICLR 2024, table 2.
    .. [2] DeepSeek-AI, "DeepSeek-V3 Technical Report", 2024, table 2.

    Examples
    --------
    >>> [float(bubble_s((1.0, 1.0, 1.0), (12.0, 4.0), 4, 1, 8, schedule)) for schedule in (ONE_F_ONE_B, ZB_H1)]
    [9.0, 3.0]
    """
    forward_s, input_s, weight_s = slowest
    total_s, total_weight_s = whole
    stage_s = forward_s + input_s + weight_s
    others_s = np.maximum(total_s - stage_s, 0.0)
    missing = np.mod(pp - np.mod(1.0 * micro_batches, pp), pp)
    waiting = others_s / vpp + (vpp - 1.0) * missing * stage_s / vpp
    filled = np.minimum(2.0 * np.maximum(total_weight_s - weight_s, 0.0), 1.0 * micro_batches * weight_s)
    waiting = np.where(np.asarray(schedule) == ZB_H1, np.maximum(others_s - filled, 0.0), waiting)
    pairs = np.maximum(0.5 * pp - 1.0, 0.0)
    dual = pairs * np.maximum(forward_s + 2.0 * input_s - weight_s, 0.0)
    waiting = np.where(np.asarray(schedule) == DUALPIPE, dual, waiting)
    return np.where(np.asarray(pp) > 1, waiting, 0.0)
