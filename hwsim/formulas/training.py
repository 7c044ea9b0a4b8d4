"""One training step: model FLOPs, optimizer work, gradient traffic and what of it stays exposed."""

from __future__ import annotations

import numpy as np

from hwsim.formulas.types import Numeric


def model_flops(
    matmul_parameters: Numeric, tokens: Numeric, layers: Numeric, attention_width: Numeric, kv_len: Numeric
) -> Numeric:
    """Floating-point operations of the model itself for forward and backward, without recompute. [FLOP]

    ``6 N`` per token for the matrix parameters (embedding look-up left out, LM head counted) plus ``12 l (a d) s`` for
    attention over the full, unmasked sequence, as the Megatron papers count it.

    Parameters
    ----------
    matmul_parameters : numeric
        Parameters that take part in a matrix multiply. [-]
    tokens : numeric
        Tokens processed. [-]
    layers, attention_width, kv_len : numeric
        Layers, heads times head width, keys per query. [-]

    References
    ----------
    .. [1] D. Narayanan et al., SC'21, appendix: ``96 B s l h^2 (1 + s/6h + V/16lh)`` with recompute; without, 72.

    Examples
    --------
    >>> l, h, s, v = 96, 12288, 2048, 51200
    >>> megatron = 72 * s * l * h * h * (1 + s / (6 * h) + v / (12 * l * h))
    >>> float(model_flops(12 * l * h * h + v * h, s, l, h, s)) / megatron
    1.0
    """
    return 6.0 * matmul_parameters * tokens + 12.0 * layers * attention_width * kv_len * tokens


def utilization(flops: Numeric, seconds: Numeric, devices: Numeric, peak_flops_per_s: Numeric) -> Numeric:
    """Fraction of the dense peak that `flops` in `seconds` amount to (MFU, HFU). [-]

    Parameters
    ----------
    flops : numeric
        Work of all devices. [FLOP]
    seconds : numeric
        Time taken. [s]
    devices : numeric
        Devices that worked. [-]
    peak_flops_per_s : numeric
        Dense peak of one. [FLOP/s]

    Examples
    --------
    >>> float(utilization(156e12, 1.0, 1, 312e12))
    0.5
    """
    return flops / (1.0 * seconds * devices * peak_flops_per_s)


def adam_bytes(
    parameters: Numeric, gradient_bytes: Numeric, master_bytes: Numeric, state_bytes: Numeric, weight_bytes: Numeric
) -> Numeric:
    """Device-memory traffic of one fused Adam step with gradient clipping. [byte]

    The norm reads the gradients once; the update reads gradient, master weight and both moments, and writes master,
    moments and the compute-precision weight.

    Parameters
    ----------
    parameters : numeric
        Parameters this rank updates. [-]
    gradient_bytes, master_bytes, state_bytes, weight_bytes : numeric
        Bytes per parameter of the gradient, the master copy (0: the weight itself is updated), both moments together,
        and the weight. [byte]

    Examples
    --------
    >>> float(adam_bytes(1, 4, 4, 8, 2))
    34.0
    """
    updated = np.where(np.asarray(master_bytes) > 0, master_bytes, weight_bytes)
    copied = np.where(np.asarray(master_bytes) > 0, weight_bytes, 0.0)
    return 1.0 * parameters * (2.0 * gradient_bytes + 2.0 * (updated + state_bytes) + copied)


def optimal_tokens(parameters: Numeric) -> Numeric:
    """Training tokens at which a budget of compute gives the lowest loss: about 20 per parameter. [-]

    Parameters
    ----------
    parameters : numeric
        Of the model, as one token uses them. [-]

    References
    ----------
    .. [1] J. Hoffmann et al., "Training Compute-Optimal Large Language Models", 2022, table 3: Chinchilla's 70 billion
       parameters take 1.4 trillion tokens.

    Examples
    --------
    >>> float(optimal_tokens(70e9))
    1400000000000.0
    """
    return 20.0 * parameters


def host_update_s(parameters: Numeric) -> Numeric:
    """Time of a vectorised Adam on the processors of one node. [s]

    Parameters
    ----------
    parameters : numeric
        Parameters that the node updates. [-]

    References
    ----------
    .. [1] J. Ren et al., "ZeRO-Offload", ATC 2021, table 4: 2.6 s for 10 billion parameters.

    Examples
    --------
    >>> round(float(host_update_s(10e9)), 2)
    2.6
    """
    return 0.26e-9 * parameters


def exposed_s(communication_s: Numeric, compute_s: Numeric, interference: Numeric) -> Numeric:
    """What a communication that runs beside a computation adds to it. [s]

    The part that outlasts the computation, plus the slow-down the hidden part causes by taking compute units.

    Parameters
    ----------
    communication_s, compute_s : numeric
        Both durations when run alone. [s]
    interference : numeric
        Share of the compute units (or memory bandwidth) the communication kernels take. [-]

    Examples
    --------
    >>> float(exposed_s(3.0, 2.0, 0.0)), float(exposed_s(1.0, 2.0, 0.1))
    (1.0, 0.1)
    """
    hidden = np.minimum(communication_s, compute_s)
    return np.maximum(communication_s - compute_s, 0.0) + interference * hidden
