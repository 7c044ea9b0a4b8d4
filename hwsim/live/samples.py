"""Timed steps as the rows that curves are fitted on: multiplies, attention, memory-bound kernels, updates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from hwsim.fitting.attention_rows import Rows
from hwsim.fitting.fitted import Column
from hwsim.fitting.gemm import Shapes
from hwsim.formulas.training import adam_bytes
from hwsim.live.measure import Call, Steps

LOGIT_TRAFFIC = 6.0
"""Arrays of logits that a plain cross-entropy moves, forward and backward (frameworks/pytorch.yaml)."""
ARRAYS = {
    "native_layer_norm": ("norm", 2.0),
    "native_layer_norm_backward": ("norm", 3.0),
    "gelu": ("activation", 2.0),
    "gelu_backward": ("activation", 3.0),
    "add": ("residual", 3.0),
    "add_": ("residual", 3.0),
    "embedding": ("embedding", 2.0),
    "embedding_dense_backward": ("embedding", 2.0),
    "sum": ("bias", 1.0),
}
"""Operator to the kind of memory-bound kernel it is, and the arrays it moves."""
LOSS = ("_log_softmax", "nll_loss_forward", "nll_loss_backward", "_log_softmax_backward_data")
ATTENTION = "_scaled_dot_product"


@dataclass(frozen=True)
class Streams:
    """Memory-bound kernels of one kind."""

    size: Column
    """Moved. [byte]"""
    seconds: Column


@dataclass(frozen=True)
class Samples:
    """All rows of one machine."""

    gemm: Shapes
    forward: Rows
    backward: Rows
    streams: dict[str, Streams]
    overhead_s: float
    """What Python and autograd add to a kernel in a step; the rows have it."""
    busy: float = 0.0
    """Share of the moments looked at in which others used the machine."""


def samples(steps: Sequence[Steps], element_bytes: float, hidden_host: bool = False) -> Samples:
    """Rows of steps; equal calls of one step are one row.

    Every kernel carries its share of what is no kernel, so much for each and so much of its time, unless the host works
    ahead of the device.
    """
    between = overhead_s(steps)
    added = 0.0 if hidden_host else between
    longer = 1.0 if hidden_host else release(steps, between)
    gemm: list[tuple[float, ...]] = []
    attention: list[tuple[float, ...]] = []
    streams: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for each in steps:
        for call, alone in _distinct(each):
            name, sizes, seconds = _plain(call.name), call.shapes, longer * alone
            if name in ("mm", "addmm"):
                (m, k), (_, n) = sizes[-2:]
                gemm.append((m, n, k, seconds + added))
            elif name.startswith(ATTENTION):
                attention.append((*_attention(name, call), seconds + added))
            elif name in ARRAYS and call.phase != "optimizer" and (found := _moved(name, sizes)):
                streams[ARRAYS[name][0]].append((found * element_bytes, seconds + added))
        _add_loss(each, element_bytes, (added, longer), streams["loss"])
        if each.parameters:
            moved = float(adam_bytes(each.parameters, element_bytes, 0.0, 2.0 * element_bytes, element_bytes))
            streams["optimizer"].append((moved, each.wall["optimizer"]))
    backward = np.array([row[0] for row in attention]) > 0
    rows = np.array([row[1:] for row in attention]).reshape(len(attention), 9)
    return Samples(
        gemm=_shapes(gemm, element_bytes),
        forward=Rows(*rows[~backward].T),
        backward=Rows(*rows[backward].T),
        streams={kind: Streams(*np.array(rows).T) for kind, rows in streams.items() if rows},
        overhead_s=between,
    )


def overhead_s(steps: Sequence[Steps]) -> float:
    """Time per kernel of the smallest training step that no kernel explains: Python, autograd, views. [s]"""
    whole = [each for each in steps if each.parameters]
    if not whole:
        return 0.0
    wall, spent, kernels = _inside(min(whole, key=lambda each: each.wall["forward"]))
    return max(wall - spent, 0.0) / max(kernels, 1)


def release(steps: Sequence[Steps], between_s: float) -> float:
    """Time of training steps over that of their kernels, beside the host's: memory given back and taken again. [-]"""
    found = []
    for wall, spent, kernels in (_inside(each) for each in steps if each.parameters):
        if kernels:
            found.append((wall - between_s * kernels) / max(spent, 1e-9))
    return float(np.clip(np.median(found), 1.0, MOST_RELEASE)) if found else 1.0


def _inside(steps: Steps) -> tuple[float, float, int]:
    """Seconds of forward and backward pass, seconds of their operators without views, and their kernels."""
    inside = [(call, s) for call, s in zip(steps.calls, steps.seconds, strict=True) if call.phase != "optimizer"]
    spent = sum(float(s) for call, s in inside if _plain(call.name) not in VIEWS)
    kernels = sum(_is_kernel(_plain(call.name)) for call, _ in inside)
    return steps.wall["forward"] + steps.wall["backward"], spent, kernels


MOST_RELEASE = 1.25
VIEWS = ("view", "t", "transpose", "detach", "split", "expand", "_unsafe_view", "unsqueeze", "squeeze", "alias")
"""Operators that move nothing: their time counts as that of the host."""


def _is_kernel(name: str) -> bool:
    return name in ("mm", "addmm", *ARRAYS, *LOSS) or name.startswith(ATTENTION)


def _plain(name: str) -> str:
    """The name of an operator without its namespace and overload.

    Examples
    --------
    >>> _plain("aten.mm.default")
    'mm'
    """
    return name.split(".")[1] if "." in name else name


def _distinct(steps: Steps) -> list[tuple[Call, float]]:
    """Each different call of a step, and its mean time."""
    found: Mapping[Call, list[float]] = defaultdict(list)
    for call, seconds in zip(steps.calls, steps.seconds, strict=True):
        found[call].append(float(seconds))
    return [(call, float(np.mean(seconds))) for call, seconds in found.items()]


def _moved(name: str, sizes: tuple[tuple[int, ...], ...]) -> float:
    """Numbers that a memory-bound kernel moves; none for one that is not of its kind."""
    arrays = ARRAYS[name][1]
    if name.startswith("add"):
        alike = len(sizes) == 2 and sizes[0] == sizes[1]
        return arrays * prod(sizes[0]) if alike else 0.0
    if name == "embedding":
        return arrays * prod(sizes[1]) * sizes[0][1]
    return arrays * prod(sizes[0])


def _add_loss(steps: Steps, element_bytes: float, more: tuple[float, float], found: list[tuple[float, float]]) -> None:
    parts = [(call, s) for call, s in zip(steps.calls, steps.seconds, strict=True) if _plain(call.name) in LOSS]
    if parts:
        logits = prod(next(call.shapes[0] for call, _ in parts if _plain(call.name) == LOSS[0]))
        added, longer = more
        seconds = longer * sum(s for _, s in parts) + added * len(parts)
        found.append((LOGIT_TRAFFIC * element_bytes * logits, seconds))


def _attention(name: str, call: Call) -> tuple[float, ...]:
    """Whether a call is a backward one, then its sizes as `Rows` has them."""
    back = "backward" in name
    query, key = call.shapes[back], call.shapes[back + 1]
    batch, heads, q_len, width = query
    causal = float(call.causal)
    return (float(back), batch, q_len, key[2], heads, key[1], width, causal, 2.0)


def _shapes(rows: list[tuple[float, ...]], element_bytes: float) -> Shapes:
    m, n, k, seconds = np.array(rows, np.float64).T
    return Shapes(m, n, k, seconds, np.ones(len(rows)), element_bytes, element_bytes)


def weights_by_time(seconds: Column) -> npt.NDArray[np.float64]:
    """Rows count by the cube root of their time: large kernels decide how long a step is, small ones are many."""
    return np.asarray(np.cbrt(seconds / seconds.mean()), np.float64)
