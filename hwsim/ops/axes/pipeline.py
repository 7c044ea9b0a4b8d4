"""Pipeline parallelism (PP), plain or interleaved.

Divides the layers into pp x vpp chunks (see hwsim.formulas.pipeline for the split of uneven models). A chunk sends its
output to the next stage forward and its input gradient back; tensor-parallel peers send 1/tp each (SC'21, section
4.1) or all of it.
"""

from __future__ import annotations

import numpy as np

from hwsim.formulas import pipeline
from hwsim.formulas.types import Numeric
from hwsim.specs.strategy import Strategies

STAGE_CLASSES = ("first", "middle", "last")


def stage_number(stage_class: str, s: Strategies) -> Numeric:
    """The stage that stands for its class: of the middle ones, stage 1 has the most layers and the most in flight."""
    last = s.pp - 1.0
    return {"first": np.zeros_like(s.pp), "middle": np.minimum(1.0, last), "last": last}[stage_class]


def send_bytes(residual_bytes: Numeric, s: Strategies, scatters: Numeric) -> Numeric:
    """Bytes one device sends at one chunk boundary for one micro-batch, given those of the whole residual stream.

    `scatters`: 1 where tensor-parallel peers send 1/tp of it each, 0 where each sends all of it.
    """
    return np.where(s.pp > 1, residual_bytes / np.where(scatters > 0, s.tp, 1.0), 0.0)


def sends(s: Strategies) -> Numeric:
    """Chunk boundaries over which the busiest stage sends per micro-batch: forward but for the last chunk of the model,
    backward but for the first.
    """
    ends = np.where(s.pp > 2, 0.0, 1.0)
    return np.where(s.pp > 1, 2.0 * s.vpp - ends, 0.0)


def illegal(layers: int, s: Strategies) -> dict[str, Numeric]:
    """Reasons against a strategy for a model of so many layers, as masks."""
    chunks = s.pp * s.vpp
    interleaved = s.vpp > 1
    dual = s.schedule == pipeline.DUALPIPE
    return {
        "fewer layers than pipeline chunks": (chunks > 2) & (chunks - 2.0 > layers) | (chunks == 2) & (layers < 2),
        "vpp needs pp > 1": interleaved & (s.pp == 1),
        "vpp > 1 is the interleaved schedule": interleaved & (s.schedule != pipeline.INTERLEAVED),
        "dualpipe needs an even pp and 2 pp micro-batches": dual
        & ((np.mod(s.pp, 2.0) != 0) | (s.micro_batches < 2.0 * s.pp)),
    }
