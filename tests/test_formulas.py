"""Every formula, by introspection: the same bits for a scalar and a column, ints as floats, finite, documented.

The table `ARGUMENTS` says what each formula takes. A new formula without an entry fails here.
"""

from __future__ import annotations

import ast
import doctest
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from itertools import count, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from hwsim import formulas
from hwsim.formulas.attention import AttentionMachine
from hwsim.formulas.experts import ExpertsMachine, Routing
from hwsim.formulas.gemm import GemmMachine
from hwsim.formulas.pipeline import INTERLEAVED, SCHEDULES
from hwsim.formulas.ranges import Range
from hwsim.formulas.stream import StreamMachine

ROWS, CHECKED, MILLION = 6000, 300, 1_000_000
GRID = (80, 75)
ALLOWED_IMPORTS = {"__future__", "typing", "collections", "numpy"}
UNITS = {
    "s", "-", "byte", "bytes", "byte/s", "bytes/s", "FLOP", "FLOP/s", "1/s", "W", "J", "USD", "USD/s", "token", "any",
}  # fmt: skip
Column = np.ndarray[Any, np.dtype[Any]]
Row = dict[str, Any]


class Draw:
    """Random columns of one shape, every edge value among them; a grid draws along one axis or the other in turn."""

    def __init__(self, seed: int, rows: int, grid: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.shape: tuple[int, ...] = GRID if grid else (rows,)
        self.shapes = ((GRID[0], 1), (1, GRID[1])) if grid else ((rows,),)
        self.turn = count()

    def _with_edges(self, values: Column, edges: tuple[float, ...]) -> Column:
        at_edge = self.rng.random(values.shape) < 0.2
        return np.where(at_edge, self.rng.choice(np.array(edges), values.shape), values)

    def _spread(self, low: float, high: float) -> Column:
        shape = self.shapes[next(self.turn) % len(self.shapes)]
        return np.exp(self.rng.uniform(np.log(low), np.log(high), shape))

    def whole(self, low: int, high: int) -> Column:
        """Whole numbers over all magnitudes: the ends, powers of two and their neighbours, and what lies between."""
        edges = {low, low + 1, high, high - 1, 1, 2, 3, 5, 7, 12, 63, 64, 65, 127, 128, 129, 1000, 4095, 4096, 50257}
        kept = tuple(float(edge) for edge in sorted(edges) if low <= edge <= high)
        return np.clip(np.floor(self._with_edges(self._spread(max(low, 1), high + 1), kept)), low, high)

    def real(self, low: float, high: float) -> Column:
        """Positive numbers over all magnitudes, and the ends (a low of 0 stands for 0 and up from high * 1e-18)."""
        return self._with_edges(self._spread(low or high * 1e-18, high), (low, high))

    def pick(self, *values: float) -> Column:
        """One of a few values."""
        return self.rng.choice(np.array(values, dtype=np.float64), self.shapes[next(self.turn) % len(self.shapes)])

    def below(self, bound: Column, low: float = 0.0) -> Column:
        """Whole numbers from `low` to less than `bound`."""
        share = self.rng.choice(np.array([0.0, 0.3, 0.5, 0.9, 0.999999999]), self.shape)
        return np.minimum(low + np.floor(share * (bound - low)), bound - 1.0)


def _pipeline(d: Draw) -> Row:
    vpp = d.whole(1, 64)
    plain = d.pick(*(code for code in range(len(SCHEDULES)) if code != INTERLEAVED))
    schedule = np.where(vpp > 1, float(INTERLEAVED), plain)
    return {"pp": d.whole(1, 4096), "vpp": vpp, "micro_batches": d.whole(1, 10**6), "schedule": schedule}


def _bubble(d: Draw) -> Row:
    slowest = (d.real(0, 1e4), d.real(0, 1e4), d.real(0, 1e4))
    stages = _pipeline(d)
    share = stages["pp"] * d.pick(0.999999, 0.7, 1.0)
    return {"slowest": slowest, "whole": (sum(slowest) * share, slowest[2] * share), **stages}


def _in_flight(d: Draw) -> Row:
    stages = _pipeline(d)
    return {**stages, "stage": d.below(stages["pp"])}


def _stage_layers(d: Draw) -> Row:
    pp = d.whole(1, 4096)
    return {"layers": d.whole(1, 10_000), "pp": pp, "vpp": d.whole(1, 64), "stage": d.below(pp)}


def _layers_before(d: Draw) -> Row:
    row = _stage_layers(d)
    return {"first": d.below(row["layers"]), **row}


def _members(d: Draw) -> Row:
    size = d.whole(1, 10**5)
    outside = 1.0 + d.below(size)
    return {"inside": 1.0 + d.below(outside), "outside": outside, "size": size}


def _gemm_machine(d: Draw) -> GemmMachine:
    return GemmMachine(
        d.real(1e6, 1e21), d.real(1e6, 1e18), d.whole(1, 10**5), d.real(1e-4, 1), d.whole(0, 10**5), d.whole(1, 4096),
        d.real(0, 10), d.real(1e-4, 1), d.real(0, 1e4), d.real(0, 1), d.real(0, 1e4), d.real(0, 10), d.real(0, 1e4),
        d.real(0, 1e4), d.real(0, 1e12), d.real(1, 50), d.real(1, 50), d.real(0, 100), d.real(0, 1e4),
    )  # fmt: skip


def _attention_machine(d: Draw) -> AttentionMachine:
    return AttentionMachine(
        d.real(1e6, 1e21), d.real(1e6, 1e18), d.whole(1, 10**5), d.real(0, 1e12), d.real(1e-4, 1), d.real(1e-4, 1),
        d.whole(0, 10**5), d.whole(1, 4096), d.whole(0, 10**5), d.real(0, 10), d.real(1e-4, 1), d.real(0, 1e4),
        d.real(0, 1e4), d.real(0, 1e4), d.real(1, 100), d.whole(1, 4096), d.whole(1, 4096), d.whole(1, 10**5),
        d.whole(0, 10**5), d.pick(0, 0, 128, 512), d.pick(256, 10**6), d.real(1, 100), d.real(0.1, 10),
    )  # fmt: skip


def _experts_machine(d: Draw) -> ExpertsMachine:
    return ExpertsMachine(
        d.real(1e6, 1e21), d.real(1e6, 1e18), d.real(1e-4, 1), d.real(0, 1e4), d.real(1e-4, 1), d.real(0, 1e4),
        d.real(0, 1e-3), d.real(0, 1e4), d.real(0, 100), d.real(0, 1), d.real(0, 100),
    )  # fmt: skip


def _popularity(d: Draw) -> Row:
    experts = d.whole(1, 10**5)
    topk = np.minimum(d.whole(1, 256), experts)
    return {
        "tokens": d.whole(0, 10**8),
        "experts": experts,
        "topk": topk,
        "skew": d.pick(-1, 0, 0.5, 1, 1.01, 1.2, 2, 3),
    }


def _routed(d: Draw) -> Row:
    found = _popularity(d)
    held = np.minimum(d.whole(1, 10**5), found["experts"])
    return found | {"total_experts": found["experts"], "experts": held}


def _expert(d: Draw) -> Row:
    return {"hidden": d.whole(0, 10**6), "ffn": d.whole(0, 10**6), "gated": d.pick(0, 1)}


def _fused_experts(d: Draw) -> Row:
    routed = Routing(d.real(0, 1e12), d.real(0, 1e5), d.real(0, 1e12))
    machine = _experts_machine(d)
    return {
        "tokens": d.whole(0, 10**8),
        "routed": routed,
        "weight_bytes": d.pick(0.5, 1, 2),
        "machine": machine,
    } | _expert(d)


def _multiply(d: Draw) -> Row:
    return {"m": d.whole(0, 10**8), "n": d.whole(0, 10**8), "k": d.whole(0, 10**8), "batch": d.whole(0, 10**5)}


def _elements(d: Draw) -> Row:
    return {name: d.pick(0.5, 1, 2, 4, 8) for name in ("input_bytes", "output_bytes", "weight_bytes")}


def _attend(d: Draw) -> Row:
    q_len = d.whole(0, 10**7)
    return {"q_len": q_len, "kv_len": np.maximum(q_len, d.whole(0, 10**7)), "causal": d.pick(0, 1)}


def _heads(d: Draw) -> Row:
    return {"batch": d.whole(0, 10**5), **_attend(d), "heads": d.whole(0, 10**4), "head_dim": d.whole(0, 4096)}


def _grouped(d: Draw) -> Row:
    return _heads(d) | {"kv_heads": d.whole(0, 10**4)}


def _range(d: Draw) -> Range:
    """Numbers from nothing or little to much, each column in order of size."""
    low, expected = d.real(0, 1e12), d.pick(1, 1, 1.5, 100)
    return Range(low * d.pick(0, 1, 1), low * expected, low * expected * d.pick(1, 1, 2, 1e3))


def _positive(d: Draw) -> Range:
    low = d.real(1e-9, 1e9)
    return Range(low, low * d.pick(1, 2), low * d.pick(2, 50))


def _ranges(d: Draw) -> Row:
    return {"ranges": (_range(d), _range(d), _range(d))}


OPS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv")
ARGUMENTS: dict[str, Callable[[Draw], Row]] = {
    "attention.attended_pairs": _attend,
    "attention.attention_flops": _heads,
    "attention.attention_bytes": lambda d: _grouped(d) | {"kv_bytes": d.pick(0.5, 1, 2, 4), "causal": None},
    "attention.attention_forward_s": lambda d: (
        _grouped(d) | {"machine": _attention_machine(d), "kv_bytes": d.pick(0.5, 1, 2, 4)}
    ),
    "attention.attention_backward_s": lambda d: _grouped(d) | {"machine": _attention_machine(d)},
    "attention.windowed_keys": lambda d: {
        "q_len": (keys := _attend(d))["q_len"],
        "kv_len": keys["kv_len"],
        "window": d.whole(1, 10**7),
    },
    "collectives.ceil_log2": lambda d: {"count": d.whole(0, 2**52)},
    "collectives.wire_bytes": lambda d: {"op": OPS, "total_bytes": d.real(0, 1e18), "devices": d.whole(1, 10**7)},
    "collectives.steps": lambda d: {"op": OPS, "algorithm": ("ring", "tree", "switch"), "devices": d.whole(1, 10**7)},
    "collectives.protocol_s": lambda d: {
        "wire_bytes": d.real(0, 1e18),
        "steps": d.whole(0, 2 * 10**7),
        "latency_s": d.real(0, 1e4),
        "hop_s": d.real(0, 1e4),
        "bandwidth_bytes_per_s": d.real(1, 1e18),
    },
    "collectives.sent_share": lambda d: {"devices": d.whole(1, 10**7), "own_share": d.pick(-0.9, 0, 0.15, 1, 10)},
    "collectives.crowding": lambda d: {"devices": d.whole(1, 10**7), "sharing": d.real(0, 10)},
    "experts.active_experts": _popularity,
    "experts.rows_variation": _popularity,
    "experts.busiest_share": lambda d: {"devices": d.whole(1, 10**5), "variance": d.real(0, 1e4)},
    "experts.busiest_rows": _routed,
    "experts.busiest_experts": _routed,
    "experts.experts_flops": lambda d: {"rows": d.real(0, 1e12), **_expert(d)},
    "experts.experts_bytes": lambda d: (
        {"rows": d.real(0, 1e12), "active": d.real(0, 1e5), "weight_bytes": d.pick(0.5, 1, 2)} | _expert(d)
    ),
    "experts.experts_compute_s": lambda d: (
        {"rows": d.real(0, 1e12), "active": d.real(0, 1e5), "machine": _experts_machine(d)} | _expert(d)
    ),
    "experts.experts_memory_s": _fused_experts,
    "experts.experts_serial_s": lambda d: {
        "hidden": d.whole(0, 10**6),
        "ffn": d.whole(0, 10**6),
        "machine": _experts_machine(d),
    },
    "experts.experts_s": _fused_experts,
    "gemm.gemm_flops": _multiply,
    "gemm.gemm_bytes": lambda d: _multiply(d) | _elements(d),
    "gemm.gemm_compute_s": lambda d: _multiply(d) | {"machine": _gemm_machine(d)},
    "gemm.gemm_memory_s": lambda d: _multiply(d) | _elements(d) | {"machine": _gemm_machine(d)},
    "gemm.joined_s": lambda d: {name: d.real(0, 1e4) for name in ("compute_s", "memory_s", "serial_s", "floor_s")},
    "gemm.gemm_serial_s": lambda d: (
        {name: value for name, value in _multiply(d).items() if name != "n"} | {"machine": _gemm_machine(d)}
    ),
    "gemm.gemm_s": lambda d: _multiply(d) | _elements(d) | {"machine": _gemm_machine(d)},
    "pipeline.stage_layers": _stage_layers,
    "pipeline.layers_before": _layers_before,
    "training.optimal_tokens": lambda d: {"parameters": d.real(0, 1e14)},
    "training.host_update_s": lambda d: {"parameters": d.real(0, 1e14)},
    "pipeline.in_flight_chunks": _in_flight,
    "pipeline.bubble_s": _bubble,
    "power.loaded_w": lambda d: {
        "idle_w": d.real(0, 1e4),
        "full_w": d.real(0, 1e6),
        "awake_share": d.real(0, 1),
        "active_j": d.real(0, 1e12),
        "seconds": d.real(0, 1e6),
    },
    "power.sustained_share": lambda d: {
        "limit_w": d.real(0, 1e6),
        "idle_w": d.real(0, 1e6),
        "unlimited_w": d.real(0, 1e6),
    },
    "ranges.certain": lambda d: {"value": d.real(0, 1e18)},
    "ranges.inverse": lambda d: {"given": _positive(d)},
    "ranges.plus": _ranges,
    "ranges.rest": lambda d: {"share": Range(d.real(0, 0.2), d.real(0.2, 0.5), d.real(0.5, 1))},
    "ranges.scaled": lambda d: {"given": _range(d), "factor": d.real(0, 1e6)},
    "ranges.times": _ranges,
    "ranges.together": _ranges,
    "serving.accepted_tokens": lambda d: {"guesses": d.whole(0, 64), "acceptance": d.real(0, 0.999)},
    "serving.cache_blocks": lambda d: {"tokens": d.whole(0, 10**9), "block_tokens": d.whole(1, 10**4)},
    "stragglers.slowest_of": lambda d: {"count": d.whole(1, 10**7), "delay": d.real(0, 10)},
    "stream.stream_s": lambda d: {
        "bytes_moved": d.real(0, 1e18),
        "machine": StreamMachine(d.real(1, 1e18), d.real(1e-4, 1), d.real(0, 1e4)),
    },
    "topology.members_within": lambda d: {
        "domain": d.whole(1, 10**7),
        "stride": d.whole(1, 10**7),
        "size": d.whole(1, 10**7),
    },
    "topology.boundary_share": _members,
    "topology.line_share": lambda d: _members(d) | {"rounds": d.whole(1, 64)},
    "topology.torus_share": lambda d: {
        "size": d.whole(1, 10**7),
        "edge": d.whole(1, 1000),
        "dimensions": d.pick(1, 2, 3),
        "multiple": d.pick(1, 4, 16),
    },
    "topology.torus_exchange_share": lambda d: {
        "size": d.whole(1, 10**7),
        "edge": d.whole(1, 1000),
        "dimensions": d.pick(1, 2, 3),
        "multiple": d.pick(1, 4, 16),
    },
    "topology.torus_walk": lambda d: {
        "size": d.whole(1, 10**7),
        "edge": d.whole(1, 1000),
        "multiple": d.pick(1, 4, 16),
    },
    "topology.mesh_share": lambda d: {"size": d.whole(1, 10**5), "devices": d.whole(1, 10**5)},
    "training.model_flops": lambda d: {
        "matmul_parameters": d.whole(0, 10**14),
        "tokens": d.whole(0, 10**10),
        "layers": d.whole(0, 10_000),
        "attention_width": d.whole(0, 10**6),
        "kv_len": d.whole(0, 10**8),
    },
    "training.utilization": lambda d: {
        "flops": d.real(0, 1e30),
        "seconds": d.real(1e-9, 1e9),
        "devices": d.whole(1, 10**7),
        "peak_flops_per_s": d.real(1e6, 1e21),
    },
    "training.adam_bytes": lambda d: {
        "parameters": d.whole(0, 10**14),
        "gradient_bytes": d.pick(1, 2, 4, 8),
        "master_bytes": d.pick(0, 2, 4),
        "state_bytes": d.pick(0, 2, 4, 8),
        "weight_bytes": d.pick(0.5, 1, 2, 4),
    },
    "training.exposed_s": lambda d: {
        "communication_s": d.real(0, 1e6),
        "compute_s": d.real(0, 1e6),
        "interference": d.real(0, 1),
    },
}
"""What a formula takes: columns over its documented domain; a tuple of texts stands for each of them in turn."""

LONG = (
    "attention.attention_forward_s",
    "collectives.protocol_s",
    "gemm.gemm_s",
    "pipeline.bubble_s",
    "pipeline.in_flight_chunks",
    "topology.members_within",
)
"""Checked on a million rows too."""


def _modules() -> list[str]:
    return [info.name for info in pkgutil.walk_packages(formulas.__path__, "hwsim.formulas.")]


@cache
def _formulas() -> Mapping[str, Callable[..., Any]]:
    """Every public function of every module of the package, by `module.function`."""
    return {
        f"{name.removeprefix('hwsim.formulas.')}.{member}": function
        for name in _modules()
        for member, function in inspect.getmembers(import_module(name), inspect.isfunction)
        if not member.startswith("_") and function.__module__ == name
    }


FORMULAS = sorted(_formulas())
EVERY = pytest.mark.parametrize("name", FORMULAS)


class Case(NamedTuple):
    """One formula with its texts fixed, and columns for the rest."""

    call: Callable[[Row], Any]
    columns: Row


def _cases(name: str, rows: int = ROWS, grid: bool = False) -> Iterator[Case]:
    assert name in ARGUMENTS, f"hwsim.formulas.{name} has no entry in ARGUMENTS of tests/test_formulas.py: add one"
    function = _formulas()[name]
    given = ARGUMENTS[name](Draw(sum(name.encode()), rows, grid))
    given = {key: value for key, value in given.items() if value is not None}
    texts = [key for key, value in given.items() if isinstance(value, tuple) and isinstance(value[0], str)]
    columns = {key: value for key, value in given.items() if key not in texts}
    for chosen in product(*(given[key] for key in texts)):
        fixed = dict(zip(texts, chosen, strict=True))
        for part in range(3) if name.startswith("ranges.") else (None,):
            yield Case(lambda row, fixed=fixed, part=part: _part(function, fixed | row, part), columns)


def _part(function: Callable[..., Any], row: Row, part: int | None) -> Any:
    """What a formula gives, or one of the numbers of the range it gives; `ranges` are as many as there are."""
    result = function(*row.get("ranges", ()), **{key: value for key, value in row.items() if key != "ranges"})
    return result if part is None else result[part]


def _each(change: Callable[[Column], Any], row: Row) -> Row:
    """Change every column, those inside machines and tuples too."""

    def changed(value: Any) -> Any:
        if isinstance(value, tuple):
            items = [changed(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        return change(value)

    return {key: changed(value) for key, value in row.items()}


def _bits(value: Any) -> bytes:
    return np.asarray(value, dtype=np.float64).tobytes()


def _strided(column: Column) -> Column:
    """The same values, every third element of a longer array, stored backwards."""
    wide = np.full(3 * len(column), -1.0)
    wide[::-3] = column
    return wide[::-3]


def _number(value: float) -> int | float:
    """Make a whole number an int."""
    return int(value) if float(value).is_integer() else float(value)


def _ints(kind: type[np.integer[Any]]) -> Callable[[Column], Column]:
    high = np.iinfo(kind).max

    def change(column: Column) -> Column:
        whole = np.all(column == np.floor(column)) and np.all(np.abs(column) <= high)
        return column.astype(kind) if whole else column

    return change


def test_every_formula_has_example_arguments_and_every_entry_a_formula() -> None:
    missing, stale = sorted(set(FORMULAS) - set(ARGUMENTS)), sorted(set(ARGUMENTS) - set(FORMULAS))
    assert not missing, f"formulas without an entry in ARGUMENTS of tests/test_formulas.py: {missing}"
    assert not stale, f"entries of ARGUMENTS without a formula: {stale}"
    assert set(LONG) <= set(FORMULAS)


@EVERY
def test_arguments_name_every_parameter(name: str) -> None:
    for case in _cases(name, 8):
        signature = inspect.signature(_formulas()[name]).parameters
        texts = {"op", "algorithm"} & set(signature)
        assert set(case.columns) | texts == set(signature)


@EVERY
def test_scalar_and_column_give_the_same_bits(name: str) -> None:
    for case in _cases(name):
        column = np.asarray(case.call(case.columns))
        assert column.shape == (ROWS,)
        for i in np.random.default_rng(1).choice(ROWS, CHECKED, replace=False):
            one = case.call(_each(lambda values, i=i: float(values[i]), case.columns))
            number = case.call(_each(lambda values, i=i: values[i], case.columns))
            single = case.call(_each(lambda values, i=i: values[i : i + 1], case.columns))
            assert np.ndim(one) == 0
            assert _bits(one) == _bits(number) == _bits(single) == _bits(column[i]), i


@EVERY
def test_memory_layout_does_not_change_bits(name: str) -> None:
    for case in _cases(name):
        expected = _bits(case.call(case.columns))
        assert _bits(case.call(_each(_strided, case.columns))) == expected
        halves = [_bits(case.call(_each(lambda c, rows=rows: c[rows], case.columns))) for rows in _split(ROWS)]
        assert b"".join(halves) == expected
        square = case.call(_each(lambda column: column.reshape(GRID), case.columns))
        assert square.shape == GRID
        assert _bits(square) == expected
        flipped = case.call(_each(lambda column: column.reshape(GRID).T, case.columns))
        assert _bits(flipped.T.copy()) == expected


def _split(rows: int) -> tuple[slice, ...]:
    """Odd pieces, so that vector remainders fall elsewhere."""
    return slice(0, 1), slice(1, 1003), slice(1003, 1010), slice(1010, rows)


@EVERY
def test_open_grid_and_full_table_give_the_same_bits(name: str) -> None:
    for case in _cases(name, grid=True):
        full = _each(lambda column: np.broadcast_to(column, GRID).copy(), case.columns)
        expected = np.asarray(case.call(full))
        assert _bits(np.broadcast_to(case.call(case.columns), GRID)) == _bits(expected)
        one = case.call(_each(lambda column: float(column[41, 33]), full))
        assert _bits(one) == _bits(expected[41, 33])


@EVERY
def test_one_number_against_a_column_gives_the_same_bits(name: str) -> None:
    """All but one argument a plain number: what a pinned column looks like."""
    for case in _cases(name):
        fixed = _each(lambda column: np.full(ROWS, column[7]), case.columns)
        numbers = _each(lambda column: float(column[7]), case.columns)
        for key, values in case.columns.items():
            expected = _bits(case.call(fixed | {key: values}))
            got = np.broadcast_to(case.call(numbers | {key: values}), (ROWS,))
            assert _bits(got) == expected, key


@pytest.mark.parametrize("name", LONG)
def test_a_million_rows(name: str) -> None:
    for case in _cases(name, MILLION):
        column = case.call(case.columns)
        assert np.isfinite(column).all()
        for start in (0, 333_333, MILLION - 16_384):
            piece = slice(start, start + 16_384)
            assert _bits(case.call(_each(lambda c, piece=piece: c[piece], case.columns))) == _bits(column[piece])
        for i in np.random.default_rng(2).integers(0, MILLION, 100):
            assert _bits(case.call(_each(lambda c, i=i: float(c[i]), case.columns))) == _bits(column[i])


@EVERY
@pytest.mark.parametrize("kind", [np.int64, np.int32])
def test_int_arrays_count_as_floats(name: str, kind: type[np.integer[Any]]) -> None:
    for case in _cases(name):
        assert _bits(case.call(_each(_ints(kind), case.columns))) == _bits(case.call(case.columns))


@EVERY
def test_python_ints_count_as_floats(name: str) -> None:
    for case in _cases(name):
        column = np.asarray(case.call(case.columns))
        for i in range(CHECKED):
            got = case.call(_each(lambda values, i=i: _number(values[i]), case.columns))
            assert _bits(got) == _bits(column[i]), i


@EVERY
def test_finite_and_without_a_numpy_warning(name: str) -> None:
    for case in _cases(name, 50_000):
        with np.errstate(all="raise"):
            result = np.asarray(case.call(case.columns))
        assert result.dtype == np.float64
        assert np.isfinite(result).all()
        assert (result >= 0).all()


@EVERY
def test_arguments_are_left_alone(name: str) -> None:
    for case in _cases(name, 100):
        _each(lambda column: column.setflags(write=False), case.columns)
        case.call(case.columns)


@EVERY
def test_docstring_states_its_unit(name: str) -> None:
    text = inspect.getdoc(_formulas()[name]) or ""
    head = text.split("Parameters\n---")[0].split("Examples\n---")[0]
    assert UNITS & set(re.findall(r"\[([^\[\]]+)\]", head)), f"no unit of the result, like [s] or [-], in: {head!r}"


@EVERY
def test_docstring_has_a_doctest(name: str) -> None:
    function = _formulas()[name]
    text = inspect.getdoc(function) or ""
    assert re.search(r"^Examples\n--------$", text, re.M), "no Examples section"
    examples = doctest.DocTestParser().get_examples(text.split("Examples\n--------")[1])
    assert any(function.__name__ in example.source and example.want for example in examples)


@pytest.mark.parametrize("name", _modules())
def test_formulas_import_numpy_alone(name: str) -> None:
    tree = ast.parse(Path(str(import_module(name).__file__)).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [str(node.module)]
        else:
            continue
        outside = [module for module in found if not module.startswith("hwsim.formulas")]
        assert {module.split(".")[0] for module in outside} <= ALLOWED_IMPORTS, found
