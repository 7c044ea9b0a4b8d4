"""One step of an inference engine on one replica: seconds by part, launches, FLOPs, bytes.

A step has three kinds of work: what sees rows alone (multiplies, norms, experts, collectives), what looks at the cache
(attention of decodes and of prompt chunks), and what makes tokens (head and sampling). Each is costed on its own, for a
number or a column of them; `hwsim.analytic.pace` puts them together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from hwsim.analytic.blocks import Machine
from hwsim.costs.compute import Device, device, first_dtype, half_dtype, launches
from hwsim.costs.network import Network, network
from hwsim.formulas.types import Numeric
from hwsim.ops import serving
from hwsim.ops.operator import Formats, Operator
from hwsim.ops.plan import Cached, Habits, Plan
from hwsim.ops.whole import Lengths
from hwsim.ops.work import Attention, Collective, Experts, Gemm, Work
from hwsim.specs.engine import InferenceJob
from hwsim.specs.hardware import Hardware
from hwsim.specs.model import Model
from hwsim.specs.strategy import Strategies

COMPUTE_PARTS = ("multiplies", "attention", "experts", "elementwise")
PARTS = (*COMPUTE_PARTS, "tp", "ep", "pp", "host")
AXIS_PART = {"tp": "tp", "cp": "tp", "ep": "ep", "others": "ep", "send": "pp"}
UNPACKING_TILE = 32.0
"""Edge of the largest tile of multiplies that unpack their weights: made for few rows (Frantar et al., "MARLIN", 2024,
pads rows to 16)."""


@dataclass(frozen=True)
class Cost:
    """What some operators take on one device of a replica."""

    time_s: dict[str, Numeric] = field(default_factory=dict)
    """By part."""
    kernels: Numeric = 0.0
    flops: Numeric = 0.0
    memory_bytes: Numeric = 0.0
    sent_bytes: dict[str, Numeric] = field(default_factory=dict)
    """By axis."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            _summed(self.time_s, other.time_s),
            self.kernels + other.kernels,
            self.flops + other.flops,
            self.memory_bytes + other.memory_bytes,
            _summed(self.sent_bytes, other.sent_bytes),
        )

    def times(self, factor: Numeric) -> Cost:
        """As many of them."""
        return Cost(
            {part: factor * value for part, value in self.time_s.items()},
            factor * self.kernels,
            factor * self.flops,
            factor * self.memory_bytes,
            {axis: factor * value for axis, value in self.sent_bytes.items()},
        )

    @property
    def total_s(self) -> Numeric:
        """All parts."""
        total: Numeric = 0.0
        for seconds in self.time_s.values():
            total = total + seconds
        return total


def _summed(a: dict[str, Numeric], b: dict[str, Numeric]) -> dict[str, Numeric]:
    return {name: a.get(name, 0.0) + b.get(name, 0.0) for name in {**a, **b}}


@dataclass(frozen=True)
class Served:
    """Everything but the strategy: which model is served, on which machine, by which engine."""

    model: Model
    hardware: Hardware
    job: InferenceJob
    devices: int

    @cached_property
    def compute(self) -> str:
        """The dtype that the layers multiply in."""
        own = self.job.weights if self.job.weights in self.job.engine.native else self.half
        return first_dtype(self.hardware.accelerator, (own, self.half))

    @cached_property
    def half(self) -> str:
        """The dtype of everything else."""
        return half_dtype(self.hardware.accelerator)

    @cached_property
    def plain(self) -> Device:
        """Kernels outside the layers, and attention."""
        engine, cache = self.job.engine, None if self.job.kv == "bf16" else self.job.kv
        own = device(self.hardware.accelerator, self.half, engine.libraries, cache=cache)
        return own.running(self.compute_share, engine.memory_share, engine.tile)

    @cached_property
    def compute_share(self) -> float:
        """Rate of the engine's multiplies over that of the library's curve."""
        engine = self.job.engine
        return engine.compute_share * (self.hardware.accelerator.half_sums if engine.half_sums else 1.0)

    @cached_property
    def device(self) -> Device:
        """Kernels inside the layers."""
        engine, plain = self.job.engine, self.plain
        own = device(self.hardware.accelerator, self.compute, engine.libraries)
        own = own.running(self.compute_share, engine.memory_share, engine.tile)
        own = replace(own, attention=plain.attention, cached=plain.cached)
        own = own.casting_like(plain) if engine.fused_cast else own
        if not self.unpacks:
            return own
        return own.running(engine.unpacked_compute, engine.unpacked_share, UNPACKING_TILE)

    @cached_property
    def unpacks(self) -> bool:
        """Whether the layers' weights are stored in a format that they are not multiplied in."""
        return self.job.weights not in ("bf16", self.compute)

    @cached_property
    def network(self) -> Network:
        """The cluster laid out for this many devices."""
        return network(self.hardware.cluster, self.devices)

    @cached_property
    def formats(self) -> Formats:
        """Bytes per number in the operators."""
        engine, whole = self.job.engine, 4.0 if self.half == "fp32" else 2.0
        read = {"fp8": 1.0, "int8": 1.0, "fp4": 0.5625}.get(self.compute, whole)
        return Formats(
            whole, read, whole, whole, whole, trains=False, weight=self.job.weight_bytes if self.unpacks else None,
            rank=self.job.rank * (self.job.adapters > 0),
            norm_passes=engine.norm_passes, activation_passes=engine.activation_passes, rope_passes=engine.rope_passes,
        )  # fmt: skip

    @cached_property
    def habits(self) -> Habits:
        """How the engine runs what the model asks for."""
        engine = self.job.engine
        return Habits(
            flash=engine.attention == "flash",
            fused_residual=engine.fused_residual,
            fused_sum=engine.fused_sum,
            cache_passes=engine.cache_passes,
            grouped=engine.grouped,
        )

    @cached_property
    def routing(self) -> serving.Routing:
        """How rows meet their experts."""
        domain = float(self.hardware.cluster.tiers[0].size or 1)
        return serving.Routing(self.job.engine.exchange, self.job.skew, domain)

    @cached_property
    def lengths(self) -> Lengths:
        """What other stacks read per request."""
        return Lengths(float(self.source_len), self.job.images)

    @cached_property
    def source_len(self) -> int:
        """Tokens that an encoder reads."""
        return self.job.source_len or self.job.input_len

    @property
    def prompt_len(self) -> int:
        """Tokens that the decoder reads before it makes any: one, where an encoder reads the prompt."""
        return 1 if self.model.encoder is not None else self.job.input_len


def machine(served: Served, s: Strategies, inside: Device) -> Machine:
    """What durations are asked of: tensor-parallel peers nearest, then devices that share experts, then stages."""
    net = served.network
    others = serving.sharing(s)
    two = np.minimum(s.pp, 2.0)
    groups = {
        "tp": net.group(s.tp, np.ones_like(s.tp)),
        "ep": net.group(s.ep, s.etp),
        "others": net.group(others, s.tp),
        "send": net.group(two, s.tp * s.dp),
        "cp": net.group(s.cp, s.tp),
    }
    return Machine(inside, net, groups, 0.0, library=served.job.engine.collectives)


def costed(operators: Iterable[Operator], on: Machine) -> Cost:
    """Cost of some operators, forward."""
    time_s: dict[str, Numeric] = {}
    sent: dict[str, Numeric] = {}
    kernels: Numeric = 0.0
    flops: Numeric = 0.0
    moved: Numeric = 0.0
    for operator in operators:
        for work in operator.forward:
            part = part_of(work)
            if isinstance(work, Collective):
                time_s[part] = time_s.get(part, 0.0) + on.collective_s(work)
                sent[part] = sent.get(part, 0.0) + on.sent_bytes(work)
                continue
            time_s[part] = time_s.get(part, 0.0) + on.device.seconds(work)
            kernels = kernels + launches(work)
            flops = flops + work.flops
            moved = moved + work.memory_bytes
    return Cost(time_s, kernels, flops, moved, sent)


def part_of(work: Work) -> str:
    """Which part of a step some work belongs to."""
    if isinstance(work, Collective):
        return AXIS_PART[work.axis]
    if isinstance(work, Gemm):
        return "multiplies"
    if isinstance(work, Attention):
        return "attention"
    return "experts" if isinstance(work, Experts) else "elementwise"


def rows_cost(served: Served, s: Strategies, rows: Numeric) -> Cost:
    """What sees rows alone, over all stages: embedding, every layer but its attention, sends between stages."""
    plan = serving.step_plan(served.model, s, served.formats, served.habits, rows)
    inside = machine(served, s, served.device)
    total = costed(serving.embedding(plan), replace(inside, device=served.plain))
    for _, count, operators in serving.layers(plan, served.routing, source_of(served, s, plan)):
        total = total + costed(operators, inside).times(count)
    size = rows * served.model.hidden * served.formats.activation / s.tp * (s.pp > 1)
    sends = Operator("send", (Collective("send_recv", "send", size),))
    return total + costed([sends], inside).times(s.pp - 1.0)


def source_of(served: Served, s: Strategies, plan: Plan) -> Plan | None:
    """The encoder's plan, for what reads its output."""
    if served.model.encoder is None:
        return None
    rows = 1.0 * served.source_len
    return serving.step_plan(served.model.encoder, s, served.formats, served.habits, rows)


def attention_cost(served: Served, s: Strategies, cached: Cached) -> Cost:
    """Attention of some queries on one device, over all layers."""
    return attention_on(served, one_row(served, s), machine(served, s, served.plain), cached)


def one_row(served: Served, s: Strategies) -> Plan:
    """The plan of what does not see the rows of a step."""
    return serving.step_plan(served.model, s, served.formats, served.habits, 1.0)


def attention_on(served: Served, plan: Plan, on: Machine, cached: Cached) -> Cost:
    """The same on a machine that is bound already."""
    total = Cost()
    for _, count, operator in serving.attention(plan, cached):
        total = total + costed([operator], on).times(count)
    if served.model.encoder is not None:
        there = replace(cached, keys=1.0 * served.source_len)
        total = total + costed([serving.cross(plan, there)], on).times(served.model.layers)
    return total


def head_cost(served: Served, s: Strategies, outputs: Numeric) -> Cost:
    """Making `outputs` tokens on one device."""
    plan = serving.step_plan(served.model, s, served.formats, served.habits, 1.0)
    return costed(serving.head(plan, outputs), machine(served, s, served.plain))


def before_cost(served: Served, s: Strategies, prompts: Numeric) -> Cost:
    """What runs once for each of some prompts before the decoder: an encoder, a tower that reads its images."""
    if served.model.encoder is None and not served.job.images:
        return Cost()
    lengths = Lengths(served.lengths.source, served.lengths.images)
    shape = replace(s, micro_batch=1.0 * prompts, seq_len=np.asarray(1.0 * served.job.input_len))
    found = serving.other_stacks(served.model, shape, served.formats, served.habits, lengths)
    inside = machine(served, s, served.device)
    total = Cost()
    for count, operators in found:
        total = total + costed(operators, inside).times(count)
    return total
