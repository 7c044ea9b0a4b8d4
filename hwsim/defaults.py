"""What a good engineer takes where the user says nothing."""

from __future__ import annotations

from hwsim.arguments import MAX_BATCH
from hwsim.specs.hardware import Hardware

DEFAULT_SEQ_LEN = 8192
DEFAULT_DEVICES, MOST_SERVING = 8, 256
"""Devices of a job, and at most of a deployment for some traffic."""
BATCH_TOKENS = 2**22
"""Tokens per optimizer step when no batch is given: 4 Mi, as for most models of 2020 to 2025 ..."""
BATCH_TOKENS_PER_DEVICE = 2**10
"""... and at least this many per device, so that a large machine has work (Llama 3: 16 Mi on 16,384 devices)."""


def usual_batch(seq_len: int, gpus: int) -> int:
    """About the usual tokens per step, in sequences that the odd part of the devices splits too.

    Examples
    --------
    >>> usual_batch(8192, 64), usual_batch(8192, 96)
    (512, 576)
    """
    batch = max(1, max(BATCH_TOKENS, BATCH_TOKENS_PER_DEVICE * gpus) // seq_len)
    batch = min(batch, MAX_BATCH // 2)
    odd = gpus // (gpus & -gpus)
    if batch % odd == 0:
        return batch
    unit = odd
    while 8 * unit <= batch:
        unit *= 2
    return -(-batch // unit) * unit


def usual_precision(machine: Hardware) -> str:
    """bf16 where the device has it, else the widest half or single format it has."""
    peaks = machine.accelerator.peak
    return next((name for name in ("bf16", "fp16", "fp32") if getattr(peaks, name)), "bf16")
