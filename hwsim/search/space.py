"""The space of strategies: an integer range decoded by np.unravel_index; nothing is materialised.

A candidate index runs over (order, recompute, sharding, sequence parallel, experts, vpp, micro-batch, mesh). The last
three form the core: most of them are illegal together, so they are checked and squeezed first; the first five are open
axes that broadcast against the surviving cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import gcd, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.costs.network import AXES, axis_stride
from hwsim.errors import UsageError, did_you_mean, shorten
from hwsim.formulas.pipeline import SCHEDULES
from hwsim.ops.axes.tensor import divided_widths
from hwsim.ops.stacks import count_layers, stacks
from hwsim.specs.job import MODULES
from hwsim.specs.model import Model
from hwsim.specs.strategy import CODES, ORDERS, RECOMPUTES, Strategies

Column = npt.NDArray[np.float64]
Index = npt.NDArray[np.signedinteger[Any]]
PINS = (
    "tp",
    "pp",
    "vpp",
    "dp",
    "cp",
    "ep",
    "etp",
    "zero",
    "shard",
    "micro_batch",
    "recompute",
    "sequence_parallel",
    "schedule",
    "order",
)
Pins = Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Space:
    """Axes of the candidates for one number of devices."""

    devices: int
    global_batch: int
    seq_len: int
    meshes: Column
    """(mesh, 4): tp, cp, dp, pp of every factorisation of the devices that some strategy can use."""
    dropped: Mapping[str, int]
    """Other factorisations, counted by the rule they break."""
    vpps: Column
    micro_batches: Column
    orders: Column
    recomputes: Column
    shardings: Column
    """(sharding, 2): ZeRO stage and shard group; 0 stands for the whole dp x cp."""
    sequence_parallels: Column
    experts: Column
    """(choice, 2): expert-parallel size, and devices that share an expert."""
    schedule: float | None
    """Pinned schedule code, one per space; default: interleaved where vpp > 1, else 1F1B."""

    @property
    def outer_shape(self) -> tuple[int, ...]:
        """Lengths of the open axes."""
        axes = (self.orders, self.recomputes, self.shardings, self.sequence_parallels, self.experts)
        return tuple(len(axis) for axis in axes)

    @property
    def core_shape(self) -> tuple[int, ...]:
        """Lengths of the core axes."""
        return len(self.vpps), len(self.micro_batches), len(self.meshes)

    @property
    def size(self) -> int:
        """Candidates that an index can name."""
        return self.per_mesh * len(self.meshes)

    @property
    def candidates(self) -> int:
        """Size of the space, factorisations dropped at the door included."""
        return self.per_mesh * (len(self.meshes) + sum(self.dropped.values()))

    @property
    def per_mesh(self) -> int:
        """Candidates that share a mesh."""
        return prod(self.outer_shape) * len(self.vpps) * len(self.micro_batches)

    def decode(self, index: npt.NDArray[np.int64]) -> Strategies:
        """Candidates by flat index, as a table."""
        places, axes = np.unravel_index(index, self.outer_shape + self.core_shape), len(self.outer_shape)
        return self._strategies(places[:axes], self._core(*places[axes:]))

    def grid(self, core_index: Index, picks: Sequence[Index] | None = None) -> Strategies:
        """Candidates with these cores: the open axes, each a dimension of its own, against (cores,).

        `picks` narrows each open axis to some positions.
        """
        chosen = [np.arange(n) for n in self.outer_shape] if picks is None else picks
        dimensions = range(len(chosen) + 1)
        outer = [at.reshape([-1 if i == axis else 1 for i in dimensions]) for axis, at in enumerate(chosen)]
        return self._strategies(outer, self._core(*np.unravel_index(core_index, self.core_shape)))

    def flat_index(
        self, outer: Sequence[npt.NDArray[np.int64]], core_index: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Flat candidate index of outer coordinates and core indices."""
        return np.ravel_multi_index(tuple(outer), self.outer_shape) * prod(self.core_shape) + core_index

    def _core(self, vpp: Index, micro_batch: Index, mesh: Index) -> dict[str, Column]:
        tp, cp, dp, pp = (self.meshes[mesh, column] for column in range(4))
        return {
            "tp": tp,
            "cp": cp,
            "dp": dp,
            "pp": pp,
            "vpp": self.vpps[vpp],
            "micro_batch": self.micro_batches[micro_batch],
        }

    def _strategies(self, outer: Sequence[Index], core: dict[str, Column]) -> Strategies:
        order, recompute, sharding, sp, experts = outer
        zero, shard = self.shardings[sharding, 0], self.shardings[sharding, 1]
        data = core["dp"] * core["cp"]
        plain = np.where(core["vpp"] > 1, float(SCHEDULES.index("interleaved")), float(SCHEDULES.index("1f1b")))
        scalar = {name: np.asarray(float(getattr(self, name))) for name in ("devices", "global_batch", "seq_len")}
        return Strategies(
            **scalar,
            **core,
            ep=self.experts[experts, 0],
            etp=self.experts[experts, 1],
            zero=zero,
            shard=np.where(shard > 0, shard, data),
            recompute=self.recomputes[recompute],
            sequence_parallel=self.sequence_parallels[sp],
            schedule=plain if self.schedule is None else np.full_like(plain, self.schedule),
            order=self.orders[order],
        )

    def core_chunks(self, size: int) -> Iterator[npt.NDArray[np.int64]]:
        """Core indices in order, `size` at a time."""
        total = prod(self.core_shape)
        for start in range(0, total, size):
            yield np.arange(start, min(start + size, total))


def divisors(number: int) -> list[int]:
    """All divisors, ascending."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})


Mesh = tuple[int, int, int, int]
TP_RULE = "tp does not divide heads and ffn"
CP_RULE = "cp does not divide the sequence into 2 cp chunks"
DP_RULE = "global batch does not split into dp x micro-batch"
PP_RULE = "fewer layers than pipeline chunks"


def factorisations(
    model: Model, devices: int, global_batch: int, seq_len: int, pins: Pins
) -> tuple[list[Mesh], dict[str, int]]:
    """All (tp, cp, dp, pp) whose product is `devices` and that the model and batch allow, and how many they do not.

    The rest is counted, not listed: a number of devices with many divisors has millions of factorisations.
    """
    meshes: list[Mesh] = []
    dropped: dict[str, int] = {}

    def pinned(axis: str, number: int) -> list[int]:
        return [size for size in divisors(number) if size in pins.get(axis, (size,))]

    def drop(rule: str, count: int) -> None:
        dropped[rule] = dropped.get(rule, 0) + count

    layers = count_layers(model)
    widths = gcd(*(width for stack in stacks(model) for width in divided_widths(stack)))
    for tp in pinned("tp", devices):
        rest = devices // tp
        if widths % tp:
            drop(TP_RULE, ordered_products(rest, 3))
            continue
        for cp in pinned("cp", rest):
            if cp > 1 and seq_len % (2 * cp):
                drop(CP_RULE, ordered_products(rest // cp, 2))
                continue
            for dp in pinned("dp", rest // cp):
                pp = rest // (cp * dp)
                if pp not in pins.get("pp", (pp,)):
                    continue
                rule = DP_RULE if global_batch % dp else PP_RULE if pp > layers + 2 else None
                meshes += [(tp, cp, dp, pp)] if rule is None else []
                if rule is not None:
                    drop(rule, 1)
    return meshes, dropped


def ordered_products(number: int, factors: int) -> int:
    """In how many ways `number` is a product of `factors` ordered positive integers.

    Examples
    --------
    >>> ordered_products(8, 2), ordered_products(12, 3)
    (4, 18)
    """
    if factors == 1:
        return 1
    return (
        sum(ordered_products(number // d, factors - 1) for d in divisors(number))
        if factors > 2
        else len(divisors(number))
    )


def build_space(model: Model, devices: int, global_batch: int, seq_len: int, pins: Pins, node_devices: int) -> Space:
    """Every strategy for `devices`, narrowed by `pins` (name to allowed values)."""

    def pinned(name: str, values: Sequence[float]) -> Column:
        return np.array([float(v) for v in pins.get(name, tuple(values))])

    meshes, dropped = factorisations(model, devices, global_batch, seq_len, pins)
    depths = sorted({pp for _, _, _, pp in meshes})
    layers = count_layers(model)
    chunks = sorted({d for pp in depths if pp > 1 for d in divisors(-(-layers // pp))} | {1})
    shardings = [(0.0, 0.0), (1.0, 0.0), (2.0, 0.0), (3.0, 0.0), (3.0, float(node_devices))]
    shardings = [pair for pair in shardings if pair[0] in pins.get("zero", (pair[0],))]
    if "shard" in pins:
        stages = [zero for zero, _ in shardings if zero > 0] or [0.0]
        shardings = sorted({(zero, shard) for zero in stages for shard in pins["shard"]})
    experts = [(ep, etp) for ep in pinned("ep", expert_sizes(model, devices)) for etp in pinned("etp", (1,))]
    return Space(
        devices=devices,
        global_batch=global_batch,
        seq_len=seq_len,
        meshes=np.array(meshes, dtype=np.float64).reshape(-1, 4),
        dropped=dropped,
        vpps=pinned("vpp", chunks),
        micro_batches=pinned("micro_batch", divisors(global_batch)),
        orders=pinned("order", range(len(ORDERS))),
        recomputes=pinned("recompute", range(len(RECOMPUTES))),
        shardings=np.array(shardings, dtype=np.float64).reshape(-1, 2),
        sequence_parallels=pinned("sequence_parallel", (0, 1)),
        experts=np.array(experts),
        schedule=pins["schedule"][0] if "schedule" in pins else None,
    )


def expert_sizes(model: Model, devices: int) -> list[int]:
    """Expert-parallel sizes worth trying."""
    return [ep for ep in divisors(model.experts) if devices % ep == 0] if model.experts else [1]


def parse_pins(settings: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Read ``tp=8``, ``recompute=full`` or ``micro_batch=1,2`` settings.

    Raises
    ------
    UsageError
        For an unknown name or value.
    """
    pins: dict[str, tuple[float, ...]] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        name = {"sp": "sequence_parallel"}.get(name.strip(), name.strip()).replace("-", "_")
        if not equals or name not in PINS:
            msg = f"--pin {shorten(setting)}: expected NAME=VALUE with NAME one of {', '.join(PINS)}"
            raise UsageError(msg + did_you_mean(name, PINS))
        if name in pins:
            msg = f"--pin {name}: given twice; list several values as {name}=1,2"
            raise UsageError(msg)
        pins[name] = tuple(dict.fromkeys(_pin_value(name, item.strip()) for item in value.split(",")))
    return pins


def _pin_value(name: str, text: str) -> float:
    if name in CODES:
        if text not in CODES[name]:
            msg = f"--pin {name}={shorten(text)}: is none of {', '.join(CODES[name])}{did_you_mean(text, CODES[name])}"
            if text in MODULES:
                msg += " (a plan runs whole kinds of recompute; modules: hwsim estimate train --recompute)"
            raise UsageError(msg)
        return float(CODES[name].index(text))
    flags = {"true": 1.0, "false": 0.0, "on": 1.0, "off": 0.0}
    if name == "sequence_parallel" and text.lower() in flags:
        return flags[text.lower()]
    low = 0 if name in ("zero", "sequence_parallel") else 1
    high = {"zero": 3, "sequence_parallel": 1}.get(name, 10**9)
    if not text.isdecimal() or not text.isascii() or not low <= int(text[:12]) <= high or len(text) > 12:
        msg = f"--pin {name}={shorten(text)}: must be a whole number from {low} to {high:,}"
        raise UsageError(msg)
    return float(text)


def repeated_orders(s: Strategies) -> npt.NDArray[np.bool_]:
    """Candidates of a grid that place every group exactly as an earlier order does."""
    distances = (np.where(getattr(s, axis) > 1, axis_stride(axis, s), 0.0) for axis in AXES)
    placed = np.broadcast_arrays(s.order, *distances)[1:]
    return _repeats(placed, axis=0)


def repeated_shardings(s: Strategies) -> npt.NDArray[np.bool_]:
    """Candidates of a grid that keep and send exactly what an earlier sharding does: over one device none shards."""
    sharded = np.where(s.shard > 1, s.zero, 0.0)
    return _repeats(np.broadcast_arrays(sharded, np.where(sharded > 0, s.shard, 0.0)), axis=2)


def _repeats(columns: Sequence[npt.NDArray[np.float64]], axis: int) -> npt.NDArray[np.bool_]:
    """Where all columns equal those at an earlier position along `axis`."""
    moved = [np.moveaxis(column, axis, 0) for column in columns]
    repeated = np.zeros(moved[0].shape, dtype=bool)
    for later in range(1, len(repeated)):
        for earlier in range(later):
            same = np.ones(repeated.shape[1:], dtype=bool)
            for column in moved:
                same = same & (column[later] == column[earlier])
            repeated[later] = repeated[later] | same
    return np.moveaxis(repeated, 0, axis)
