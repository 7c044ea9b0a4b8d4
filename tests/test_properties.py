"""What must hold for any model, machine and strategy: parts add up, tables equal rows, better machines no slower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from math import lcm
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.analytic import distinct
from hwsim.analytic.estimate import estimates
from hwsim.analytic.memory import PARTS
from hwsim.analytic.setting import Setting
from hwsim.analytic.training import TIME_PARTS, TrainingColumns, evaluate, illegal
from hwsim.costs.network import network
from hwsim.formulas.pipeline import GPIPE, SCHEDULES
from hwsim.formulas.topology import members_within
from hwsim.search.space import Space, build_space
from hwsim.search.training_search import HEADROOM, Found, _least_bytes, search, unwanted
from hwsim.specs.hardware import Hardware
from hwsim.specs.job import TrainingJob
from hwsim.specs.library import load_framework, load_hardware
from hwsim.specs.model import Model
from hwsim.specs.strategy import COLUMN_NAMES, ORDERS, Strategies

MACHINES = ("a100-sxm-80", "h100-sxm-80", "gb200", "mi300x", "tpu-v5p", "tpu-v5e", "a100-pcie-80")
ROWS = 150
ROUNDING = 1e-12
FEW = settings(
    deadline=None,
    max_examples=12,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
MORE = settings(FEW, max_examples=200)
STATE = ("weights", "gradients", "optimizer")
Column = np.ndarray[Any, np.dtype[Any]]


@cache
def _machine(name: str) -> Hardware:
    return load_hardware(name)


@st.composite
def models(draw: Any) -> Model:
    """Small and middling models of every kind."""
    heads = draw(st.sampled_from((1, 2, 4, 6, 8, 12, 16, 64)))
    hidden = heads * draw(st.sampled_from((16, 64, 128)))
    return Model(
        layers=draw(st.sampled_from((1, 2, 3, 4, 6, 7, 8, 12, 13, 24, 96))),
        hidden=hidden,
        heads=heads,
        kv_heads=draw(st.sampled_from([n for n in (1, 2, 4, 8, 64) if heads % n == 0 and n <= heads])),
        head_dim=draw(st.sampled_from((16, 64, 128))),
        ffn=draw(st.sampled_from((2, 3, 4))) * hidden,
        gated=draw(st.booleans()),
        vocab=draw(st.sampled_from((97, 1000, 50257, 128256))),
        tied_embeddings=draw(st.booleans()),
        positions=draw(st.sampled_from(("learned", "rope", "alibi", "none"))),
        max_positions=8192,
        norm=draw(st.sampled_from(("layernorm", "rmsnorm"))),
        qk_norm=draw(st.booleans()),
        embedding_dim=draw(st.sampled_from((None, None, None, hidden // 2, 4 * hidden))),
        dropout=draw(st.booleans()),
        window=draw(st.sampled_from((None, None, 64))),
    )


@st.composite
def jobs(draw: Any) -> TrainingJob:
    """Jobs with the framework's habits varied too."""
    habits = {
        "overlap_gradients": draw(st.booleans()),
        "overlap_parameters": draw(st.booleans()),
        "overlap_pipeline": draw(st.booleans()),
        "interference": draw(st.sampled_from((0.0, 0.1, 0.5))),
        "zero_with_pipeline": draw(st.sampled_from((0, 1, 3))),
        "compiled": draw(st.booleans()),
    }
    return TrainingJob(
        seq_len=draw(st.sampled_from((16, 96, 2048, 8192))),
        global_batch=draw(st.sampled_from((1, 4, 6, 16, 24, 64, 512))),
        precision=draw(st.sampled_from(("bf16", "bf16", "fp32"))),
        attention=draw(st.sampled_from(("flash", "unfused"))),
        graphs=draw(st.sampled_from((None, True, False))),
        framework=load_framework("megatron").model_copy(update=habits),
    )


class Case:
    """A setting, a space for it, and legal candidates of that space as a table."""

    def __init__(self, setting: Setting, space: Space, index: Column) -> None:
        self.setting, self.space, self.index = setting, space, index
        self.table = space.decode(index).take(slice(None))

    def __repr__(self) -> str:
        s = self.setting
        return (
            f"{s.model!r} on {s.devices} x {s.hardware.accelerator.name}, {s.job!r}, rows {self.index[:5].tolist()}..."
        )

    def only(self, rows: Column) -> Case:
        """Some of the rows."""
        return Case(self.setting, self.space, self.index[rows])

    def answers(self, **changed: Any) -> TrainingColumns:
        """Evaluate the table, columns or the hardware changed."""
        hardware = changed.pop("hardware", self.setting.hardware)
        return evaluate(replace(self.setting, hardware=hardware), replace(self.table, **changed))


@st.composite
def cases(
    draw: Any, rows: int = ROWS, schedules: Sequence[float | None] = (None, None, *range(len(SCHEDULES)))
) -> Case:
    """Random legal candidates of a random setting."""
    devices = draw(st.sampled_from((1, 2, 4, 6, 8, 12, 16, 32, 64, 512)))
    setting = Setting(draw(models()), _machine(draw(st.sampled_from(MACHINES))), draw(jobs()), devices)
    assume(getattr(setting.hardware.accelerator.peak, setting.precision.compute))
    schedule = draw(st.sampled_from(schedules))
    pins = {} if schedule is None else {"schedule": (float(schedule),)}
    space = _space(setting, **pins)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    assume(space.size > 0)
    index = rng.integers(0, space.size, 40 * rows)
    index = index[_legal(setting, space.decode(index))][:rows]
    assume(len(index) > 0)
    return Case(setting, space, index)


def _space(setting: Setting, **pins: tuple[float, ...]) -> Space:
    node = setting.hardware.cluster.node.devices
    return build_space(setting.model, setting.devices, setting.job.global_batch, setting.job.seq_len, pins, node)


def _legal(setting: Setting, s: Strategies) -> Column:
    return ~np.any([np.broadcast_to(mask, s.shape) for mask in illegal(setting.model, s).values()], axis=0)


def _numbers(columns: TrainingColumns) -> dict[str, Column]:
    """Every figure of an answer, one value per row."""
    memory = columns.memory
    named: dict[str, Any] = {f"time_s.{name}": value for name, value in columns.time_s.items()}
    named |= {f"traffic.{name}": value for name, value in columns.traffic_bytes.items()}
    named |= {f"tier.{name}": value for name, value in columns.traffic_tier_bytes.items()}
    named |= {f"memory.{name}": value for name, value in memory.parts.items()}
    named |= {f"phase.{name}": value for name, value in memory.phases.items()}
    named |= {f"stage.{name}": value.reserved_bytes for name, value in memory.stages.items()}
    named |= {"allocated": memory.allocated_bytes, "reserved": memory.reserved_bytes, "fits": columns.fits}
    for name in ("step_time_s", "tokens_per_s", "mfu", "hfu", "energy_j", "cost_usd", "flops_per_device", "busy_s"):
        named[name] = getattr(columns, name)
    named["memory_bound_s"] = columns.memory_bound_s
    return {name: np.broadcast_to(np.asarray(v, np.float64), columns.strategies.shape) for name, v in named.items()}


def _same_bits(got: dict[str, Column], expected: dict[str, Column]) -> None:
    assert got.keys() == expected.keys()
    for name, column in got.items():
        assert column.tobytes() == expected[name].tobytes(), name


def _never_above(case: Case, less: Any, more: Any, what: str) -> None:
    """`less` <= `more` in every row, but for rounding; the message shows the worst row."""
    shape = case.table.shape
    low, high = (np.broadcast_to(np.asarray(value, np.float64), shape) for value in (less, more))
    excess = low - high * (1.0 + ROUNDING)
    worst = int(np.argmax(excess))
    assert excess[worst] <= 0, f"{what}: {low[worst]!r} > {high[worst]!r} at {case.table.row(worst)}"


@FEW
@given(cases())
def test_parts_sum_to_the_whole(case: Case) -> None:
    columns = case.answers()
    step: Any = 0.0
    for part in TIME_PARTS:
        assert np.all(np.isfinite(columns.time_s[part]) & (columns.time_s[part] >= 0)), part
        step = step + columns.time_s[part]
    assert np.array_equal(step, columns.step_time_s)
    for memory in (columns.memory, *columns.memory.stages.values()):
        total: Any = 0.0
        assert tuple(memory.parts) == PARTS
        for part in PARTS:
            assert np.all(np.isfinite(memory.parts[part]) & (memory.parts[part] >= 0)), part
            total = total + memory.parts[part]
        assert np.array_equal(total, memory.allocated_bytes)
        for name, peak in memory.phases.items():
            _never_above(case, peak, memory.allocated_bytes, name)
        _never_above(case, memory.allocated_bytes, memory.reserved_bytes, "reserved")
    for stage in columns.memory.stages.values():
        _never_above(case, stage.allocated_bytes, columns.memory.allocated_bytes, "worst stage")


@FEW
@given(cases(rows=10))
def test_estimate_sums_and_equals_the_table(case: Case) -> None:
    columns = case.answers()
    table = _numbers(columns)
    for row, estimate in enumerate(estimates(columns)):
        step, held = 0.0, 0.0
        for seconds in estimate.time_s.values():
            step += seconds
        for size in estimate.memory_bytes.values():
            held += size
        assert tuple(estimate.time_s) == TIME_PARTS
        assert (estimate.step_time_s, estimate.memory_allocated_bytes) == (step, held)
        assert estimate.step_time_s == table["step_time_s"][row]
        assert estimate.memory_reserved_bytes == table["reserved"][row]
        assert estimate.memory_allocated_bytes == table["allocated"][row]
        assert estimate.tokens_per_s == table["tokens_per_s"][row]
        assert {f"memory.{name}": size for name, size in estimate.memory_bytes.items()} == {
            name: column[row] for name, column in table.items() if name.startswith("memory.")
        }


@settings(FEW, max_examples=6)
@given(cases(rows=6))
def test_the_public_functions_agree(case: Case) -> None:
    model, hardware = case.setting.model, case.setting.hardware
    rows = {name: getattr(case.table, name) for name in COLUMN_NAMES}
    frame = hwsim.evaluate(model, hardware, rows, precision=case.setting.job.precision)
    assert frame["legal"].all()
    for row in range(len(frame)):
        given_row = {name: int(column[row]) for name, column in rows.items() if name != "devices"}
        one = hwsim.estimate_training(
            model, hardware, case.setting.devices, **given_row, precision=case.setting.job.precision
        )
        for name in ("step_time_s", "tokens_per_s", "mfu", "hfu", "energy_j", "memory_reserved_bytes", "fits"):
            assert getattr(one, name) == frame[name][row], name
        assert one.memory_allocated_bytes == frame["memory_allocated_bytes"][row]
        for group in ("time_s", "memory_bytes", "traffic_bytes"):
            for part, value in getattr(one, group).items():
                assert value == frame[f"{group}.{part}"][row], (group, part)


@FEW
@given(cases(rows=40))
def test_one_strategy_equals_its_row(case: Case) -> None:
    table = _numbers(case.answers())
    for row in range(0, len(case.index), 6):
        for one in (case.table.take(slice(row, row + 1)), case.space.decode(case.index[row])):
            alone = _numbers(evaluate(case.setting, one))
            _same_bits(alone, {name: column[row].reshape(one.shape) for name, column in table.items()})


@FEW
@given(cases(rows=60))
def test_a_grid_cell_equals_its_row(case: Case) -> None:
    cores = np.unique(case.index % np.prod(case.space.core_shape))
    grid = evaluate(case.setting, case.space.grid(cores))
    cells = _numbers(grid)
    shape = (*case.space.outer_shape, len(cores))
    assert cells["step_time_s"].shape == shape
    outer = [axis.reshape(-1, 1) for axis in np.unravel_index(np.arange(np.prod(shape[:-1])), shape[:-1])]
    flat = case.space.flat_index(outer, cores.reshape(1, -1)).reshape(-1)
    table = _numbers(evaluate(case.setting, case.space.decode(flat)))
    _same_bits({name: np.ascontiguousarray(column).reshape(-1) for name, column in cells.items()}, table)


@settings(FEW, max_examples=8)
@given(cases(rows=400), st.integers(0, 2**32 - 1))
def test_distinct_rows_gathered_equal_rows_computed(case: Case, seed: int) -> None:
    count = distinct.SMALL + 17
    rows = np.random.default_rng(seed).integers(0, len(case.index), count)
    table = case.table.take(rows)
    gathered = _numbers(evaluate(case.setting, table))
    with patch.object(distinct, "SMALL", count + 1):
        direct = _numbers(evaluate(case.setting, table))
    _same_bits(gathered, direct)


@settings(FEW, max_examples=8)
@given(cases(rows=300), st.integers(0, 2**32 - 1))
def test_distinct_rows_with_other_batches_and_lengths(case: Case, seed: int) -> None:
    """The columns a space keeps fixed vary too, as in a table a user brings."""
    rng = np.random.default_rng(seed)
    count = distinct.SMALL + 17
    table = case.table.take(rng.integers(0, len(case.index), count))
    changed = {"seq_len": table.seq_len * rng.choice([1.0, 2.0, 3.0], count)}
    changed["global_batch"] = table.global_batch * rng.choice([1.0, 2.0, 5.0], count)
    table = replace(table, **changed)
    gathered = _numbers(evaluate(case.setting, table))
    with patch.object(distinct, "SMALL", count + 1):
        direct = _numbers(evaluate(case.setting, table))
    _same_bits(gathered, direct)


def _faster(hardware: Hardware, factor: float) -> dict[str, Hardware]:
    """The hardware with more of one resource at a time."""
    device, cluster = hardware.accelerator, hardware.cluster
    memory = device.memory.model_copy(update={"bandwidth": device.memory.bandwidth * factor})
    peaks = {name: value * factor for name, value in device.peak.model_dump().items() if value}
    kernels = device.kernels
    curves = {
        name: getattr(kernels, name).model_copy(update={"latency": getattr(kernels, name).latency / factor})
        for name in ("gemm", "attention", "stream")
    }
    launches = {name: getattr(kernels, name) / factor for name in ("launch", "graph_launch")}
    changes = {
        "memory bandwidth": {"memory": memory},
        "peak": {"peak": device.peak.model_copy(update=peaks)},
        "kernel latency": {"kernels": kernels.model_copy(update=curves)},
        "launch": {"kernels": kernels.model_copy(update=launches)},
    }
    result = {
        name: hardware.model_copy(update={"accelerator": device.model_copy(update=change)})
        for name, change in changes.items()
    }
    return result | {
        f"{tier.name} {what}": hardware.model_copy(update={"cluster": cluster.model_copy(update={"tiers": tiers})})
        for i, tier in enumerate(cluster.tiers)
        for what, better in _better_tiers(hardware, i, factor).items()
        for tiers in ((*cluster.tiers[:i], better, *cluster.tiers[i + 1 :]),)
    }


def _better_tiers(hardware: Hardware, i: int, factor: float) -> dict[str, Any]:
    tier, node = hardware.cluster.tiers[i], hardware.cluster.node
    rate = tier.bandwidth or node.nics * node.nic_bandwidth / node.devices

    def quicker(name: str) -> dict[str, Any]:
        return {
            kind: tuple(p.model_copy(update={name: getattr(p, name) / factor}) for p in protocols)
            for kind, protocols in tier.collectives.items()
        }

    return {
        "bandwidth": tier.model_copy(update={"bandwidth": rate * factor}),
        "latency": tier.model_copy(update={"collectives": quicker("latency")}),
        "hop latency": tier.model_copy(update={"collectives": quicker("hop_latency")}),
    }


def _without_launches(hardware: Hardware) -> Hardware:
    """The hardware with a host that enqueues kernels in no time."""
    kernels = hardware.accelerator.kernels.model_copy(update={"launch": 0.0, "graph_launch": 0.0})
    return hardware.model_copy(update={"accelerator": hardware.accelerator.model_copy(update={"kernels": kernels})})


def _check_better_hardware(case: Case, factor: float, hardware: Hardware) -> None:
    base = case.answers(hardware=hardware)
    for what, faster in _faster(hardware, factor).items():
        better = case.answers(hardware=faster)
        _never_above(case, better.step_time_s, base.step_time_s, what)
        assert np.array_equal(better.memory.reserved_bytes, base.memory.reserved_bytes), what


FACTORS = st.sampled_from((1.1, 2.0, 10.0))


@settings(FEW, max_examples=8)
@given(cases(schedules=(None,)), FACTORS)
def test_better_hardware_is_never_slower(case: Case, factor: float) -> None:
    _check_better_hardware(case, factor, case.setting.hardware)


@pytest.mark.parametrize("schedule", range(len(SCHEDULES)), ids=SCHEDULES)
def test_better_hardware_is_never_slower_without_launches(schedule: int) -> None:
    @settings(FEW, max_examples=5)
    @given(cases(schedules=(schedule,)), FACTORS)
    def check(case: Case, factor: float) -> None:
        framework = case.setting.job.framework.model_copy(update={"kernel_dispatch": 0.0, "micro_batch_host": 0.0})
        setting = replace(case.setting, job=case.setting.job.model_copy(update={"framework": framework}))
        free = Case(setting, case.space, case.index)
        _check_better_hardware(free, factor, _without_launches(setting.hardware))

    check()


@pytest.mark.parametrize("shard", [2.0, 8.0, 512.0])
def test_better_hardware_is_never_slower_with_shard_groups(shard: float) -> None:
    """Gradient shards and their replicas hide behind one backward pass: the same second is not used twice."""
    habits = {"kernel_dispatch": 0.0, "micro_batch_host": 0.0, "interference": 0.0}
    framework = load_framework("megatron").model_copy(update=habits)
    hardware = _without_launches(_machine("a100-sxm-80"))
    model = Model(layers=2, hidden=4096, heads=32, kv_heads=8, vocab=50257)
    setting = Setting(model, hardware, TrainingJob(seq_len=8192, global_batch=64, framework=framework), 512)
    space = _space(setting, pp=(1.0,), order=(0.0,), shard=(shard,), recompute=(0.0,))
    index = np.arange(space.size)
    case = Case(setting, space, index[_legal(setting, space.decode(index))])
    for factor in (1.1, 10.0):
        _check_better_hardware(case, factor, hardware)


@FEW
@given(cases(), st.sampled_from((2.0, 3.0, 8.0)))
def test_more_micro_batches_never_waste_more_in_the_bubble(case: Case, times: float) -> None:
    s = case.table
    even = (s.vpp == 1) | (np.mod(s.micro_batches, s.pp) == 0)
    assume(np.any(even))
    few = case.only(even)
    less, more = few.answers(global_batch=few.table.global_batch * times), few.answers()
    shares = [columns.time_s["bubble"] / columns.step_time_s for columns in (less, more)]
    _never_above(few, *shares, "bubble fraction")
    _never_above(few, more.step_time_s, less.step_time_s, "a bigger batch is faster")


@FEW
@given(cases())
def test_zero_never_holds_more_state(case: Case) -> None:
    answers = [case.answers(zero=np.full(case.table.shape, float(zero))).memory for zero in range(4)]
    for less, more in zip(answers[1:], answers, strict=False):
        for name in less.stages:
            for part in STATE:
                _never_above(case, less.stages[name].parts[part], more.stages[name].parts[part], f"{name} {part}")
        _never_above(case, *(sum(memory.parts[part] for part in STATE) for memory in (less, more)), "state")


@FEW
@given(cases(), st.sampled_from((2, 4)))
def test_a_larger_shard_group_never_holds_more_state(case: Case, times: int) -> None:
    s = case.table
    wide = np.minimum(s.shard * times, s.dp * s.cp)
    less, more = case.answers(shard=wide).memory, case.answers().memory
    for name in less.stages:
        for part in STATE:
            _never_above(case, less.stages[name].parts[part], more.stages[name].parts[part], f"{name} {part}")


@FEW
@given(cases(), st.sampled_from((2, 3, 4)))
def test_tensor_parallelism_never_holds_more(case: Case, times: int) -> None:
    s = case.table
    wider = replace(s, tp=s.tp * times, devices=s.devices * times)
    legal = _legal(case.setting, wider)
    assume(np.any(legal))
    few = case.only(legal)
    wide = wider.take(legal)
    less, more = few.answers(tp=wide.tp, devices=wide.devices).memory, few.answers().memory
    for name in less.stages:
        for part in (*STATE, "activations", "workspace"):
            _never_above(few, less.stages[name].parts[part], more.stages[name].parts[part], f"{name} {part}")


@FEW
@given(cases())
def test_recompute_never_keeps_more_activations(case: Case) -> None:
    answers = [case.answers(recompute=np.full(case.table.shape, float(code))) for code in range(3)]
    for less, more in zip(answers[1:], answers, strict=False):
        for name in less.memory.stages:
            parts = (columns.memory.stages[name].parts["activations"] for columns in (less, more))
            _never_above(case, *parts, f"{name} activations")
        _never_above(case, less.memory.allocated_bytes, more.memory.allocated_bytes, "allocated")
        _never_above(case, more.time_s["recompute"], less.time_s["recompute"], "recompute time")
        _never_above(case, more.step_time_s, less.step_time_s, "step")


@settings(FEW, max_examples=30)
@given(cases())
def test_the_memory_bound_of_the_search_is_a_lower_bound(case: Case) -> None:
    memory = case.answers().memory
    least = _least_bytes(case.setting, case.space, case.table)
    _never_above(case, least, memory.reserved_bytes, "bound on reserved memory")


def _by_row(setting: Setting, space: Space) -> list[tuple[int, float, float]]:
    """Index, step seconds and reserved bytes of every candidate a plan may choose, judged row by row."""
    s = space.decode(np.arange(space.size)).take(slice(None))
    legal, answers = _legal(setting, s), evaluate(setting, s)
    rows = np.broadcast_to(
        np.stack([np.broadcast_to(getattr(s, n), s.shape) for n in COLUMN_NAMES]), (len(COLUMN_NAMES), *s.shape)
    ).T
    kept, seen = [], set()
    limit = setting.job.framework.zero_with_pipeline
    low_stage = bool((space.shardings[:, 0] <= limit).any())
    for index in np.flatnonzero(legal).tolist():
        row = dict(zip(COLUMN_NAMES, rows[index].tolist(), strict=True))
        chunks, m = row["pp"] * row["vpp"], row["global_batch"] / row["dp"] / row["micro_batch"]
        uneven = setting.model.layers % chunks != 0 and (setting.model.layers + 2) % chunks != 0
        if row["vpp"] > 1 and (uneven or m % row["pp"] != 0):
            continue
        if low_stage and row["pp"] > 1 and row["zero"] > limit:
            continue
        key = _identity(row)
        if key not in seen:
            seen.add(key)
            kept.append((index, float(answers.step_time_s[index]), float(answers.memory.reserved_bytes[index])))
    return kept


def _identity(row: dict[str, float]) -> tuple[Any, ...]:
    """Two candidates with one identity put the same work and the same groups on the same devices."""
    strides, near = [], 1.0
    for axis in ORDERS[int(row["order"])].split("-"):
        strides.append((axis, near if row[axis] > 1 else 0.0))
        near *= row[axis]
    data = row["dp"] * row["cp"]
    zero = row["zero"] if data > 1 else 0.0
    sp = row["sequence_parallel"] if row["tp"] > 1 else 0.0
    same = ("tp", "pp", "dp", "cp", "vpp", "micro_batch", "recompute", "schedule")
    return (*(row[name] for name in same), zero, row["shard"] if zero else data, sp, *sorted(strides))


def _front(points: list[tuple[float, float]]) -> set[tuple[float, float]]:
    """Points that no other beats or equals in both respects, the slow way."""
    return {p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}


SEARCHES = {
    "default": {},
    "one recompute": {"recompute": (0.0,)},
    "fsdp": {"zero": (3.0,)},
    "two stages of zero": {"zero": (1.0, 2.0)},
    "shard groups": {"shard": (2.0, 4.0)},
    "odd shard groups": {"shard": (3.0, 4.0)},
    "pipelines": {"pp": (2.0, 4.0), "cp": (1.0,)},
    "gpipe": {"schedule": (float(GPIPE),), "cp": (1.0,)},
    "orders": {"order": (0.0, 2.0, 5.0)},
    "sequence parallel": {"sequence_parallel": (1.0,)},
}


@pytest.mark.parametrize("pins", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("gib", [64.0, 2.6, 0.5])
def test_search_equals_brute_force(pins: dict[str, tuple[float, ...]], gib: float) -> None:
    base = _machine("a100-sxm-80")
    memory = base.accelerator.memory.model_copy(update={"capacity": gib * 2**30, "visible": None})
    machine = base.model_copy(update={"accelerator": base.accelerator.model_copy(update={"memory": memory})})
    node = machine.cluster.node.model_copy(update={"devices": 4})
    inner = machine.cluster.tiers[0].model_copy(update={"size": 4})
    cluster = machine.cluster.model_copy(update={"node": node, "tiers": (inner, *machine.cluster.tiers[1:])})
    machine = machine.model_copy(update={"cluster": cluster})
    model = Model(layers=4, hidden=256, heads=8, kv_heads=4, vocab=50257)
    job = TrainingJob(seq_len=512, global_batch=16, framework=load_framework("megatron"))
    setting = Setting(model, machine, job, 8)
    space = _space(setting, **pins)
    found = Found()
    search(setting, space, lambda columns: columns.step_time_s, found)

    usable = gib * 2**30 * (1.0 - HEADROOM)
    kept = _by_row(setting, space)
    fitting = [row for row in kept if row[2] <= usable]
    assert found.candidates == space.candidates == sum(found.rejected.values()) + found.feasible
    assert all(count > 0 for count in found.rejected.values())
    assert found.feasible == len(fitting)
    assert found.feasible <= found.evaluated <= len(kept)
    points = [(seconds, size) for _, seconds, size in fitting]
    assert {(point[0], point[1]) for point in found.front} == _front(points)
    assert len(found.front) == len(_front(points))
    assert [best[0] for best in sorted(found.best.values(), key=lambda best: best[:2])][:1] == sorted(
        seconds for seconds, _ in points
    )[:1]
    meshes: dict[tuple[float, ...], tuple[float, float]] = {}
    for index, seconds, size in fitting:
        s = space.decode(np.array([index]))
        mesh = tuple(float(getattr(s, axis)[0]) for axis in ("tp", "cp", "dp", "pp"))
        meshes[mesh] = min(meshes.get(mesh, (np.inf, np.inf)), (seconds, size))
    assert {mesh: best[0] for mesh, best in found.best.items()} == {mesh: best[0] for mesh, best in meshes.items()}
    assert {mesh: best[1] for mesh, best in found.best.items()} == {mesh: best[1] for mesh, best in meshes.items()}
    if kept and not fitting:
        assert found.closest_bytes <= min(size for *_, size in kept) * (1.0 + ROUNDING)
    for seconds, size, index, where in found.best.values():
        again = evaluate(setting, where.decode(np.array([index])))
        assert (again.step_time_s[0], again.memory.reserved_bytes[0]) == (seconds, size)


@settings(FEW, max_examples=10)
@given(cases(schedules=(None,)))
def test_what_a_plan_leaves_out_as_a_repeat_is_one(case: Case) -> None:
    """A candidate rejected as the same as another has the same time and memory as one that is kept."""
    setting, space = case.setting, case.space
    cores = np.unique(case.index % np.prod(space.core_shape))[:20]
    s = space.grid(cores)
    shape = (*space.outer_shape, len(cores))
    masks = unwanted(setting, space, s)
    repeated = np.zeros(shape, dtype=bool)
    for reason, mask in masks.items():
        if reason.startswith("same as another candidate"):
            repeated |= mask
    legal = _legal(setting, s)
    columns = evaluate(setting, s)
    seconds, size = (np.broadcast_to(x, shape) for x in (columns.step_time_s, columns.memory.reserved_bytes))
    for core in range(len(cores)):
        kept = {
            (t, b)
            for t, b in zip(*(x[..., core][(legal & ~repeated)[..., core]] for x in (seconds, size)), strict=True)
        }
        gone = {
            (t, b) for t, b in zip(*(x[..., core][(legal & repeated)[..., core]] for x in (seconds, size)), strict=True)
        }
        assert gone <= kept


COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv")
SIZES = np.concatenate([[0.0, 1.0], 2.0 ** np.arange(3, 41, 2), [1e6 / 3, 12345678.0]])


@MORE
@given(
    st.sampled_from(MACHINES),
    st.sampled_from(COLLECTIVES),
    st.sampled_from((2, 3, 4, 6, 8, 16, 24, 64, 72, 256, 1024, 6144)),
    st.sampled_from((1.1, 2.0, 100.0)),
)
def test_collectives_are_never_faster_on_a_slower_tier(name: str, kind: str, devices: int, factor: float) -> None:
    hardware = _machine(name)

    def seconds(machine: Hardware) -> Column:
        members = np.array([[float(d)] for d in range(1, devices + 1) if devices % d == 0])
        lines = network(machine.cluster, devices)
        results = []
        for stride in (1, 2, 8):
            near = np.maximum(np.minimum(members, np.floor(devices / stride)), 1.0)
            results.append(
                np.broadcast_to(lines.seconds(kind, SIZES, lines.group(near, stride)), (len(near), len(SIZES)))
            )
        return np.stack(results)

    base = seconds(hardware)
    assert np.all(np.isfinite(base) & (base >= 0))
    assert np.all(base[:, 0] == 0), "one member costs nothing"
    assert np.all(base[:, :, 0] == 0), "no bytes cost nothing"
    assert np.all(np.diff(base[:, :, 1:], axis=-1)[..., :-2] >= 0), "more bytes take longer"
    for what, better in _faster(hardware, factor).items():
        assert np.all(seconds(better) <= base * (1.0 + ROUNDING)), f"slower with better {what}"


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("kind", COLLECTIVES)
def test_collective_time_of_one_device_is_zero(name: str, kind: str) -> None:
    assert hwsim.collective_time(name, kind, bytes=SIZES, devices=1).tolist() == [0.0] * len(SIZES)
    assert hwsim.collective_time(name, kind, bytes=1e9, devices=8) > 0


def _enumerated_members(domain: int, stride: int, size: int) -> int:
    """Fewest members that a group has in a domain it touches, over all groups of a machine where both end evenly."""
    span = stride * size
    fewest = size
    for start in range(0, lcm(domain, span), span):
        for offset in range(stride):
            homes = [(start + offset + i * stride) // domain for i in range(size)]
            fewest = min(fewest, *(homes.count(home) for home in homes))
    return fewest


@MORE
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
def test_members_within_equals_enumeration(domain: int, stride: int, size: int) -> None:
    got = float(members_within(domain, stride, size))
    assert got == _enumerated_members(domain, stride, size)
