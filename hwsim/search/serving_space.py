"""The ways to lay a model out for serving: replicas of tp x pp devices, wider where devices share experts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import gcd

import numpy as np

from hwsim.ops.axes.tensor import divided_widths
from hwsim.ops.stacks import stacks
from hwsim.search.space import divisors
from hwsim.specs.model import Model
from hwsim.specs.strategy import Strategies, strategies

SIZES = ("tp", "pp", "dp", "ep", "etp")
MOST_STAGES = 16
GROWTH = 2**0.25
"""Between batches that are tried."""


@dataclass(frozen=True)
class Layout:
    """One replica: `dp` devices with requests of their own share the experts."""

    tp: int
    pp: int
    dp: int
    ep: int
    etp: int

    @property
    def devices(self) -> int:
        """Of the replica."""
        return self.tp * self.pp * self.dp


def illegal(model: Model, sizes: Mapping[str, int]) -> list[str]:
    """What is wrong with the sizes of a strategy, in words."""
    tp, pp, dp, ep = (sizes.get(name, 1) for name in ("tp", "pp", "dp", "ep"))
    etp = sizes.get("etp", max(tp // ep, 1))
    found = []
    for stack in stacks(model):
        if any(width % tp for width in divided_widths(stack)):
            usual = ", ".join(map(str, divisors(gcd(*divided_widths(stack)))))
            found.append(f"tp {tp} must divide {stack.heads} heads and ffn {stack.ffn} ({usual})")
        if (stack.kv_heads % tp if tp <= stack.kv_heads else tp % stack.kv_heads) and not stack.is_mla:
            found.append(f"tp {tp} must divide {stack.kv_heads} kv heads, or be a multiple of them")
    if pp > model.layers:
        found.append(f"pp {pp} is more than the {model.layers} layers")
    if ep > 1 and not model.experts:
        found.append(f"ep {ep}: {model.name} has no experts")
    return found + (_wrong_experts(model, tp * dp, tp, ep, etp) if model.experts else [])


def _wrong_experts(model: Model, stage: int, tp: int, ep: int, etp: int) -> list[str]:
    """What is wrong with how experts are dealt out."""
    found = []
    if ep > model.experts:
        found.append(f"ep {ep} is more than the {model.experts} experts")
    if model.expert_ffn % etp:
        found.append(f"etp {etp} must divide the expert's ffn {model.expert_ffn}")
    if (ep * etp) % tp or stage % (ep * etp):
        found.append(f"ep x etp = {ep} x {etp} must be a multiple of tp {tp} and divide tp x dp = {stage}")
    return found


def layouts(model: Model, devices: int, domain: int, pins: Mapping[str, tuple[int, ...]]) -> Iterator[Layout]:
    """Every legal replica of at most `devices` devices, tensor-parallel inside a domain of the network."""
    for tp in _powers(min(domain, devices)):
        for pp in _powers(min(MOST_STAGES, devices // tp)):
            for ep, dp in _expert_choices(model, tp, devices // (tp * pp)):
                layout = Layout(tp, pp, dp, ep, max(tp // ep, 1))
                pinned = all(getattr(layout, name) in values for name, values in pins.items())
                if pinned and not illegal(model, vars(layout)):
                    yield layout


def _expert_choices(model: Model, tp: int, most: int) -> Iterator[tuple[int, int]]:
    """Expert-parallel sizes, and the devices with requests of their own that they join."""
    yield 1, 1
    if not model.experts:
        return
    if tp > 1:
        yield tp, 1
    for dp in _powers(most)[1:]:
        yield tp * dp, dp


def _powers(most: int) -> list[int]:
    return [2**i for i in range(max(most, 1).bit_length())]


def columns(found: list[Layout]) -> Strategies:
    """Layouts as columns of shape (k, 1)."""
    sizes = {name: np.array([getattr(layout, name) for layout in found], dtype=np.float64) for name in SIZES}
    most = np.array([layout.devices for layout in found], dtype=np.float64)
    s = strategies(devices=most, global_batch=1, seq_len=1, zero=0, sequence_parallel=False, **sizes)
    values = {name: np.broadcast_to(column, most.shape)[:, None] for name, column in vars(s).items()}
    return Strategies(**values)


def one(layout: Layout) -> Strategies:
    """A layout as one strategy."""
    return strategies(
        devices=layout.devices, global_batch=1, seq_len=1, zero=0, sequence_parallel=False,
        **{name: getattr(layout, name) for name in SIZES},
    )  # fmt: skip


def batches(most: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Batches that are tried, four to an octave."""
    steps = [round(GROWTH**i) for i in range(4 * max(most, 1).bit_length())]
    return np.array(sorted({step for step in steps if step <= most}), dtype=np.float64)
