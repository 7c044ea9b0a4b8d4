"""How a training step is spread over devices: a strategy is a row, `Strategies` a struct of columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import UsageError, did_you_mean, shorten
from hwsim.formulas.pipeline import SCHEDULES

RECOMPUTES = ("none", "selective", "full")
ORDERS = ("tp-cp-dp-pp", "tp-cp-pp-dp", "tp-dp-cp-pp", "tp-dp-pp-cp", "tp-pp-cp-dp", "tp-pp-dp-cp")
"""Placement orders: the first axis takes neighbouring devices, the last ones far apart. Megatron's is the first."""

CODES: Mapping[str, tuple[str, ...]] = {"recompute": RECOMPUTES, "schedule": SCHEDULES, "order": ORDERS}
"""Columns whose values are names; the column holds the position."""
FLAGS = ("sequence_parallel",)
LIMITS = {"zero": (0, 3)}
Column = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Strategies:
    """Columns of strategies, float64, of shapes that broadcast together (a table: (n,); a grid: open axes)."""

    devices: Column
    """Devices of the job."""
    tp: Column
    """Tensor-parallel size."""
    pp: Column
    """Pipeline stages."""
    vpp: Column
    """Chunks (virtual stages) per pipeline stage."""
    dp: Column
    """Data-parallel size: devices / (tp pp cp)."""
    cp: Column
    """Context-parallel size."""
    ep: Column
    """Expert-parallel size, among the devices of a pipeline stage."""
    etp: Column
    """Devices that share each expert."""
    zero: Column
    """ZeRO stage: 0 none, 1 optimizer, 2 + gradients, 3 + weights (FSDP)."""
    shard: Column
    """Devices over which ZeRO shards; less than dp x cp is hybrid sharding (HSDP)."""
    micro_batch: Column
    """Sequences per micro-batch and data-parallel rank."""
    global_batch: Column
    """Sequences per optimizer step."""
    seq_len: Column
    """Tokens per sequence."""
    recompute: Column
    """Code of RECOMPUTES."""
    sequence_parallel: Column
    """1: norms and residuals are sharded over tp too."""
    schedule: Column
    """Code of SCHEDULES."""
    order: Column
    """Code of ORDERS."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Common shape of all columns."""
        return np.broadcast_shapes(*(getattr(self, field.name).shape for field in fields(self)))

    @property
    def micro_batches(self) -> Column:
        """Micro-batches per step and data-parallel rank."""
        return self.global_batch / (self.dp * self.micro_batch)

    def take(self, index: Any) -> Strategies:
        """Rows of a table."""
        return Strategies(**{f.name: np.broadcast_to(getattr(self, f.name), self.shape)[index] for f in fields(self)})

    def along(self, index: Any) -> Strategies:
        """Some positions of the last axis; columns that do not vary along it stay as they are."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        length = self.shape[-1]
        return Strategies(**{n: c[..., index] if c.ndim and c.shape[-1] == length else c for n, c in columns.items()})

    def row(self, index: int) -> dict[str, int | bool | str]:
        """One row of a table as plain values, codes as names."""
        flat = {
            f.name: float(np.broadcast_to(getattr(self, f.name), self.shape).reshape(-1)[index]) for f in fields(self)
        }
        return {name: plain_value(name, value) for name, value in flat.items()}


def plain_value(name: str, value: float) -> int | bool | str:
    """A column's number as a user writes it."""
    if name in CODES:
        return CODES[name][int(value)]
    return bool(value) if name in FLAGS else int(value)


def as_written(name: str, column: Column) -> npt.NDArray[Any]:
    """A whole column as users write it: names, flags or whole numbers."""
    if name in CODES:
        return np.array(CODES[name], dtype=object)[column.astype(np.int64)]
    return column.astype(bool if name in FLAGS else np.int64)


COLUMN_NAMES = tuple(field.name for field in fields(Strategies))


def strategies(**values: Any) -> Strategies:
    """Build `Strategies` from numbers, names, or arrays of them; what is left out gets a good engineer's default.

    Needs `devices`, `global_batch` and `seq_len`. `dp` follows from the devices. Defaults: no parallelism or
    recompute, micro-batch 1, ZeRO 1 wherever dp x cp > 1, sequence parallelism wherever tp > 1, 1F1B (interleaved where
    vpp > 1).

    Raises
    ------
    UsageError
        For an unknown name or code, a value that is no positive whole number, or columns of different lengths.
    """
    unknown = [name for name in values if name not in COLUMN_NAMES]
    if unknown:
        msg = f"unknown strategy column {shorten(unknown[0])}{did_you_mean(unknown[0], COLUMN_NAMES)}"
        raise UsageError(msg)
    given = {name: _column(name, value) for name, value in values.items() if value is not None}
    one = np.asarray(1.0)
    columns = {name: given.get(name, one) for name in ("tp", "pp", "vpp", "cp", "ep", "etp", "micro_batch")}
    columns["recompute"] = given.get("recompute", np.asarray(0.0))
    columns["order"] = given.get("order", np.asarray(0.0))
    columns |= {name: given[name] for name in ("devices", "global_batch", "seq_len")}
    try:
        np.broadcast_shapes(*(column.shape for column in (*columns.values(), *given.values())))
    except ValueError:
        lengths = {name: column.shape for name, column in given.items() if column.ndim}
        msg = f"strategy columns differ in length: {lengths}"
        raise UsageError(msg) from None
    ranks = columns["tp"] * columns["pp"] * columns["cp"]
    columns["dp"] = given.get("dp", np.maximum(np.floor(columns["devices"] / ranks), 1.0))
    columns["zero"] = given.get("zero", np.where(columns["dp"] * columns["cp"] > 1, 1.0, 0.0))
    columns["shard"] = given.get("shard", columns["dp"] * columns["cp"])
    columns["sequence_parallel"] = given.get("sequence_parallel", np.where(columns["tp"] > 1, 1.0, 0.0))
    interleaved, plain = float(SCHEDULES.index("interleaved")), float(SCHEDULES.index("1f1b"))
    columns["schedule"] = given.get("schedule", np.where(columns["vpp"] > 1, interleaved, plain))
    return Strategies(**columns)


def _column(name: str, value: Any) -> Column:
    """One column as float64: names to codes, flags to 0/1, whole positive numbers checked."""
    items = np.asarray(value)
    if name in CODES and items.dtype.kind in "OUS":
        return _codes(name, items)
    try:
        column = items.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        msg = f"{name}: expected whole numbers, found {shorten(value)}"
        raise UsageError(msg) from None
    low, high = (0, 1) if name in FLAGS else LIMITS.get(name, (1, 10**9))
    if name in CODES:
        low, high = 0, len(CODES[name]) - 1
    if column.ndim > 1 or not np.all((column >= low) & (column <= high) & (column == np.floor(column))):
        msg = f"{name}: must be a whole number from {low} to {high:,}, not {shorten(value)}"
        raise UsageError(msg)
    return column


def _codes(name: str, items: npt.NDArray[Any]) -> Column:
    names = CODES[name]
    for item in np.unique(items.astype(str)):
        if item not in names:
            msg = f"{name}: {shorten(item)} is none of {', '.join(names)}{did_you_mean(str(item), names)}"
            raise UsageError(msg)
    codes = [float(names.index(str(item))) for item in items.reshape(-1)]
    return np.array(codes).reshape(items.shape)
