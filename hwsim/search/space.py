"""The space of strategies: an integer range decoded by np.unravel_index; nothing is materialised.

A candidate index runs over (order, recompute, sharding, sequence parallel, vpp, micro-batch, mesh). The last three form
the core: most of them are illegal together, so they are checked and squeezed first; the first four are open axes that
broadcast against the surviving cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.costs.network import AXES, axis_stride
from hwsim.errors import UsageError, did_you_mean, shorten
from hwsim.formulas.pipeline import SCHEDULES
from hwsim.specs.model import Model
from hwsim.specs.strategy import CODES, ORDERS, RECOMPUTES, Strategies

Column = npt.NDArray[np.float64]
Index = npt.NDArray[np.signedinteger[Any]]
OUTER = ("order", "recompute", "sharding", "sequence_parallel")
CORE = ("vpp", "micro_batch", "mesh")
PINS = (
    "tp",
    "pp",
    "vpp",
    "dp",
    "cp",
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
    """(mesh, 4): tp, cp, dp, pp of every factorisation of the devices."""
    vpps: Column
    micro_batches: Column
    orders: Column
    recomputes: Column
    shardings: Column
    """(sharding, 2): ZeRO stage and shard group; 0 stands for the whole dp x cp."""
    sequence_parallels: Column
    schedule: float | None
    """Pinned schedule code; default: interleaved where vpp > 1, else 1F1B."""

    @property
    def outer_shape(self) -> tuple[int, ...]:
        """Lengths of the open axes."""
        return len(self.orders), len(self.recomputes), len(self.shardings), len(self.sequence_parallels)

    @property
    def core_shape(self) -> tuple[int, ...]:
        """Lengths of the core axes."""
        return len(self.vpps), len(self.micro_batches), len(self.meshes)

    @property
    def candidates(self) -> int:
        """Size of the space."""
        return prod(self.outer_shape) * prod(self.core_shape)

    def decode(self, index: npt.NDArray[np.int64]) -> Strategies:
        """Candidates by flat index, as a table."""
        order, recompute, sharding, sp, *core = np.unravel_index(index, self.outer_shape + self.core_shape)
        return self._strategies(order, recompute, sharding, sp, self._core(*core))

    def grid(self, core_index: npt.NDArray[np.int64]) -> Strategies:
        """All candidates with these cores: open axes (order, recompute, sharding, sp, 1) against (cores,)."""
        order, recompute, sharding, sp = (
            np.arange(n).reshape([-1 if i == axis else 1 for i in range(5)]) for axis, n in enumerate(self.outer_shape)
        )
        core = self._core(*np.unravel_index(core_index, self.core_shape))
        return self._strategies(order, recompute, sharding, sp, core)

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

    def _strategies(
        self, order: Index, recompute: Index, sharding: Index, sp: Index, core: dict[str, Column]
    ) -> Strategies:
        zero, shard = self.shardings[sharding, 0], self.shardings[sharding, 1]
        data = core["dp"] * core["cp"]
        plain = np.where(core["vpp"] > 1, float(SCHEDULES.index("interleaved")), float(SCHEDULES.index("1f1b")))
        scalar = {name: np.asarray(float(getattr(self, name))) for name in ("devices", "global_batch", "seq_len")}
        return Strategies(
            **scalar,
            **core,
            zero=zero,
            shard=np.where(shard > 0, np.minimum(shard, data), data),
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


def factorisations(devices: int) -> list[tuple[int, int, int, int]]:
    """All (tp, cp, dp, pp) whose product is `devices`."""
    result = []
    for tp in divisors(devices):
        for cp in divisors(devices // tp):
            result += [(tp, cp, dp, devices // (tp * cp * dp)) for dp in divisors(devices // (tp * cp))]
    return result


def build_space(model: Model, devices: int, global_batch: int, seq_len: int, pins: Pins, node_devices: int) -> Space:
    """Every strategy for `devices`, narrowed by `pins` (name to allowed values)."""

    def pinned(name: str, values: Sequence[float]) -> Column:
        return np.array([float(v) for v in pins.get(name, tuple(values))])

    meshes = np.array(
        [
            mesh
            for mesh in factorisations(devices)
            if all(size in pins.get(axis, (size,)) for axis, size in zip(AXES, mesh, strict=True))
        ],
        dtype=np.float64,
    ).reshape(-1, 4)
    stages = sorted({int(pp) for pp in meshes[:, 3]})
    chunks = sorted({d for pp in stages if pp > 1 for d in divisors(-(-model.layers // pp))} | {1})
    shardings = [(0.0, 0.0), (1.0, 0.0), (2.0, 0.0), (3.0, 0.0), (3.0, float(node_devices))]
    shardings = [pair for pair in shardings if pair[0] in pins.get("zero", (pair[0],))]
    if "shard" in pins:
        shardings = sorted({(zero, shard) for zero, _ in shardings for shard in pins["shard"]})
    return Space(
        devices=devices,
        global_batch=global_batch,
        seq_len=seq_len,
        meshes=meshes,
        vpps=pinned("vpp", chunks),
        micro_batches=pinned("micro_batch", divisors(global_batch)),
        orders=pinned("order", range(len(ORDERS))),
        recomputes=pinned("recompute", range(len(RECOMPUTES))),
        shardings=np.array(shardings, dtype=np.float64).reshape(-1, 2),
        sequence_parallels=pinned("sequence_parallel", (0, 1)),
        schedule=pins["schedule"][0] if "schedule" in pins else None,
    )


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
        pins[name] = tuple(_pin_value(name, item.strip()) for item in value.split(","))
    return pins


def _pin_value(name: str, text: str) -> float:
    if name in CODES:
        if text not in CODES[name]:
            msg = f"--pin {name}={shorten(text)}: is none of {', '.join(CODES[name])}{did_you_mean(text, CODES[name])}"
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


def duplicates(s: Strategies) -> npt.NDArray[np.bool_]:
    """Candidates that place every group exactly as an earlier order does, or shard exactly as plain ZeRO."""
    distances = (np.where(getattr(s, axis) > 1, axis_stride(axis, s), 0.0) for axis in AXES)
    placed = np.broadcast_arrays(s.order, *distances)[1:]
    repeated = np.zeros(placed[0].shape, dtype=bool)
    for later in range(1, len(repeated)):
        for earlier in range(later):
            same = np.ones(repeated.shape[1:], dtype=bool)
            for stride in placed:
                same = same & (stride[later] == stride[earlier])
            repeated[later] = repeated[later] | same
    return repeated
