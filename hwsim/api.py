"""The facade: load, plan, estimate, evaluate. The command line and scripts both come through here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from hwsim.analytic.estimate import TrainingEstimate, estimates, frame
from hwsim.analytic.setting import Setting
from hwsim.analytic.training import evaluate as evaluate_columns
from hwsim.analytic.training import illegal
from hwsim.costs.compute import device
from hwsim.costs.network import network
from hwsim.errors import InfeasibleError, UsageError, did_you_mean, shorten
from hwsim.ops.count import Parameters, parameters
from hwsim.ops.work import Attention, Gemm, Stream, Work
from hwsim.search.plan import OBJECTIVES, Plan, Request, plan_training
from hwsim.search.space import parse_pins
from hwsim.specs.hardware import Hardware
from hwsim.specs.job import TrainingJob
from hwsim.specs.library import Reference, load_framework, load_hardware, load_model, split_settings
from hwsim.specs.model import Model
from hwsim.specs.strategy import COLUMN_NAMES, Strategies, strategies
from hwsim.units import DAY_S

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_HARDWARE = "h100-sxm-80"
DEFAULT_SEQ_LEN = 8192
BATCH_TOKENS = 2**22
"""Tokens per optimizer step when no batch is given: 4 Mi, as for most models of 2020 to 2025 ..."""
BATCH_TOKENS_PER_DEVICE = 2**10
"""... and at least this many per device, so that a large machine has work (Llama 3: 16 Mi on 16,384 devices)."""
MAX_DEVICES = 10**7
ModelLike = Reference | Model
HardwareLike = Reference | Hardware


def plan(
    model: ModelLike,
    hardware: HardwareLike = DEFAULT_HARDWARE,
    gpus: int = 8,
    *,
    task: str = "train",
    objective: str = "throughput",
    top: int = 10,
    pin: Sequence[str] = (),
    tokens: float | None = None,
    target_days: float | None = None,
    target_tokens_per_s: float | None = None,
    settings: Sequence[str] = (),
    profiles: str | Path | None = None,
    **job: Any,
) -> Plan:
    """Search every legal strategy and return the best ones.

    Parameters
    ----------
    model, hardware
        Preset, alias, file, dict or spec.
    gpus
        Devices of the job.
    task
        `train`.
    objective
        `throughput`, `latency`, `cost` or `energy`.
    top
        Plans to return, at most one per combination of tp, pp, cp and dp.
    pin
        Fixed columns such as ``"tp=8"`` or ``"recompute=full"``.
    tokens, target_days, target_tokens_per_s
        Token budget, deadline [day] and slowest throughput that will do [1/s]; a deadline needs a budget. With a
        target, plans may leave devices idle.
    settings
        Overrides such as ``"accelerator.memory.bandwidth=4 TB/s"``.
    profiles
        Folder of hardware profiles to look in first.
    job
        `global_batch`, `seq_len`, `precision`, `optimizer`, `attention`, `graphs`, `framework`.

    Raises
    ------
    UsageError, InputFileError
        For wrong arguments and files.
    InfeasibleError
        If nothing fits: what binds, by how much, and the nearest change that fits.
    """
    if task != "train":
        msg = f"task {shorten(task)} is not supported yet: only 'train' is"
        raise UsageError(msg)
    if objective not in OBJECTIVES:
        msg = f"objective {shorten(objective)} is none of {', '.join(OBJECTIVES)}{did_you_mean(objective, OBJECTIVES)}"
        raise UsageError(msg)
    targets = {"tokens": tokens, "target_days": target_days, "target_tokens_per_s": target_tokens_per_s}
    for name, value in targets.items():
        if value is not None and not 0 < value < 1e30:
            msg = f"{name}: must be a positive number, not {shorten(value)}"
            raise UsageError(msg)
    if target_days is not None:
        if tokens is None or target_tokens_per_s is not None:
            msg = "target_days needs tokens (a deadline for which budget?) and excludes target_tokens_per_s"
            raise UsageError(msg)
        target_tokens_per_s = tokens / (target_days * DAY_S)
    _check_whole("top", top, 1000)
    setting = make_setting(model, hardware, gpus, settings=settings, profiles=profiles, **job)
    shape = (setting.model, setting.hardware, setting.job, gpus)
    return plan_training(Request(*shape, objective, top, parse_pins(pin), tokens, target_tokens_per_s))


def make_setting(
    model: ModelLike,
    hardware: HardwareLike,
    gpus: int,
    *,
    settings: Sequence[str] = (),
    profiles: str | Path | None = None,
    global_batch: int | None = None,
    seq_len: int | None = None,
    framework: str | None = None,
    **job: Any,
) -> Setting:
    """Load and check everything but the strategy, filling in a good engineer's defaults."""
    _check_whole("gpus", gpus, MAX_DEVICES)
    over = split_settings(settings)
    spec = load_model(model, over.get("model"))
    machine = load_hardware(hardware, profiles, {k: over[k] for k in ("accelerator", "cluster") if k in over})
    length = min(DEFAULT_SEQ_LEN, spec.max_positions) if seq_len is None else seq_len
    _check_whole("seq_len", length, 10**8)
    tokens = max(BATCH_TOKENS, BATCH_TOKENS_PER_DEVICE * gpus)
    batch = max(1, tokens // length) if global_batch is None else global_batch
    _check_whole("global_batch", batch, 10**7)
    given = {name: value for name, value in job.items() if value is not None}
    habits = load_framework(framework or machine.accelerator.usual_framework, over.get("framework"))
    given.setdefault("precision", _usual_precision(machine))
    try:
        asked = TrainingJob(seq_len=length, global_batch=batch, framework=habits, **given)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, p['loc']))}: {p['msg'][:1].lower()}{p['msg'][1:]}" for p in error.errors()
        )
        raise UsageError(problems) from None
    setting = Setting(spec, machine, asked, gpus)
    device(machine.accelerator, asked.numbers.compute)
    return setting


def _usual_precision(machine: Hardware) -> str:
    """bf16 where the device has it, else the widest half or single format it has."""
    peaks = machine.accelerator.peak
    return next((name for name in ("bf16", "fp16", "fp32") if getattr(peaks, name)), "bf16")


def _check_whole(name: str, value: Any, high: int) -> None:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not 1 <= value <= high:
        msg = f"{name}: must be a whole number from 1 to {high:,}, not {shorten(value)}"
        raise UsageError(msg)


def estimate_training(
    model: ModelLike,
    hardware: HardwareLike = DEFAULT_HARDWARE,
    gpus: int = 8,
    *,
    settings: Sequence[str] = (),
    profiles: str | Path | None = None,
    **arguments: Any,
) -> Any:
    """Estimate one explicit strategy, or a table of them.

    Parameters
    ----------
    model, hardware, gpus, settings, profiles
        As for `plan`.
    arguments
        Strategy columns (`tp`, `pp`, `vpp`, `cp`, `zero`, `shard`, `micro_batch`, `recompute`, `sequence_parallel`,
        `schedule`, `order`, and `global_batch`, `seq_len`), numbers or arrays of equal length, and job fields
        (`precision`, `optimizer`, `attention`, `graphs`, `framework`).

    Returns
    -------
    TrainingEstimate or pandas.DataFrame
        A frame if any strategy argument is an array.

    Raises
    ------
    UsageError, InputFileError
        For wrong arguments and files, and for strategies that are not legal.
    """
    columns = {
        name: arguments.pop(name) for name in COLUMN_NAMES if arguments.get(name) is not None and name != "devices"
    }
    scalar = {
        name: columns[name] for name in ("global_batch", "seq_len") if name in columns and np.ndim(columns[name]) == 0
    }
    setting = make_setting(model, hardware, gpus, settings=settings, profiles=profiles, **scalar, **arguments)
    table = any(np.ndim(value) for value in columns.values())
    s = _checked_strategies(setting, columns)
    if table:
        return frame(estimates(evaluate_columns(setting, s.take(slice(None)))))
    return estimates(evaluate_columns(setting, s))[0]


def _checked_strategies(setting: Setting, columns: Mapping[str, Any]) -> Strategies:
    """The strategies asked for, with the job's batch and the framework's habits where nothing was; legal ones only."""
    job = setting.job
    base: dict[str, Any] = {"global_batch": job.global_batch, "seq_len": job.seq_len}
    if job.framework.usual_zero != 1:
        base["zero"] = job.framework.usual_zero
    s = strategies(devices=setting.devices, **{**base, **columns})
    _refuse_illegal(setting, s)
    return s


def _refuse_illegal(setting: Setting, s: Strategies) -> None:
    """UsageError naming every rule that the first illegal row breaks."""
    masks = {reason: np.broadcast_to(mask, s.shape).reshape(-1) for reason, mask in illegal(setting.model, s).items()}
    rows = np.flatnonzero(np.any(np.stack(list(masks.values())), axis=0))
    if len(rows):
        row, shown = int(rows[0]), s.row(int(rows[0]))
        broken = "; ".join(reason for reason, mask in masks.items() if mask[row])
        values = " ".join(
            f"{name}={shown[name]}"
            for name in ("tp", "pp", "vpp", "dp", "cp", "micro_batch", "global_batch", "seq_len")
        )
        where = f"strategy {row}: " if s.shape else ""
        msg = f"{where}{broken} (devices={shown['devices']} {values} zero={shown['zero']} shard={shown['shard']})"
        raise UsageError(msg)


def evaluate(
    model: ModelLike,
    hardware: HardwareLike,
    strategies_table: pd.DataFrame | Mapping[str, Any] | Strategies,
    **job: Any,
) -> pd.DataFrame:
    """Evaluate a whole table of strategies; nothing is refused, `legal` says which rows are.

    Parameters
    ----------
    model, hardware
        As for `plan`.
    strategies_table
        Columns as `estimate_training` takes them, and `devices` (or `gpus`).
    job
        Job fields as for `plan`.

    Returns
    -------
    pandas.DataFrame
        The strategy columns, `legal`, `fits`, `step_time_s`, `tokens_per_s`, `mfu`, `hfu`, `memory_allocated_bytes`,
        `memory_reserved_bytes`, the parts `time_s.*`, `memory_bytes.*`, `traffic_bytes.*`, `energy_j`, `cost_usd`.
    """
    import pandas as pd

    columns = _table(strategies_table)
    counts = np.unique(columns.devices)
    if len(counts) > 1:
        parts = [columns.take(np.flatnonzero(np.broadcast_to(columns.devices, columns.shape) == n)) for n in counts]
        index = [np.flatnonzero(np.broadcast_to(columns.devices, columns.shape) == n) for n in counts]
        frames = [
            evaluate(model, hardware, part, **job).set_index(rows) for part, rows in zip(parts, index, strict=True)
        ]
        return pd.concat(frames).sort_index()
    first = {name: int(np.max(getattr(columns, name))) for name in ("global_batch", "seq_len")}
    setting = make_setting(model, hardware, int(counts[0]), **{**job, **first})
    pieces = [
        _evaluated(setting, columns.take(slice(i, i + CHUNK_ROWS))) for i in range(0, columns.shape[0], CHUNK_ROWS)
    ]
    return pd.DataFrame({name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]})


CHUNK_ROWS = 1 << 16


def _table(given: Any) -> Strategies:
    """A frame, mapping or Strategies as a one-dimensional table."""
    if isinstance(given, Strategies):
        columns = given
    else:
        named = {"gpus": "devices", "chips": "devices"}
        values = {named.get(str(name), str(name)): np.asarray(given[name]) for name in given}
        missing = [name for name in ("devices", "global_batch", "seq_len") if name not in values]
        if missing:
            msg = f"the table of strategies lacks {', '.join(missing)}"
            raise UsageError(msg)
        columns = strategies(**values)
    return (
        columns.take(slice(None))
        if columns.shape
        else strategies(**{n: np.atleast_1d(getattr(columns, n)) for n in COLUMN_NAMES})
    )


def _evaluated(setting: Setting, s: Strategies) -> dict[str, npt.NDArray[Any]]:
    result = evaluate_columns(setting, s)
    broken = np.zeros(s.shape, dtype=bool)
    for mask in illegal(setting.model, s).values():
        broken = broken | mask
    values: dict[str, Any] = {name: getattr(s, name) for name in COLUMN_NAMES}
    values |= {"legal": ~broken, "fits": result.fits & ~broken, "step_time_s": result.step_time_s}
    values |= {
        name: getattr(result, name)
        for name in ("tokens_per_s", "mfu", "hfu", "energy_j", "cost_usd", "flops_per_device")
    }
    values["memory_allocated_bytes"] = result.memory.allocated_bytes
    values["memory_reserved_bytes"] = result.memory.reserved_bytes
    for name, parts in (
        ("time_s", result.time_s),
        ("memory_bytes", result.memory.parts),
        ("traffic_bytes", result.traffic_bytes),
    ):
        values |= {f"{name}.{part}": value for part, value in parts.items()}
    return {name: np.broadcast_to(value, s.shape) for name, value in values.items()}


def explain(
    model: ModelLike, hardware: HardwareLike = DEFAULT_HARDWARE, gpus: int = 8, **arguments: Any
) -> list[dict[str, Any]]:
    """List the operators behind an estimate, one micro-batch on one device (see hwsim.analytic.explain)."""
    from hwsim.analytic.explain import operator_rows

    columns = {
        name: arguments.pop(name) for name in COLUMN_NAMES if arguments.get(name) is not None and name != "devices"
    }
    given = {name: columns[name] for name in ("global_batch", "seq_len") if name in columns}
    setting = make_setting(model, hardware, gpus, **given, **arguments)
    s = _checked_strategies(setting, columns)
    return operator_rows(setting, s)


def count_parameters(model: ModelLike) -> Parameters:
    """Parameter counts of a model: total, active, non_embedding, matmul, layer."""
    return parameters(load_model(model))


def operator_time(hardware: HardwareLike, operator: str, *, dtype: str = "bf16", **shape: Any) -> Any:
    """Seconds the models use for one kernel on one device, for scalars or arrays.

    Parameters
    ----------
    hardware
        As for `plan`.
    operator
        `gemm` (`m`, `n`, `k`, `batch`), `attention` (`batch`, `q_len`, `kv_len`, `heads`, `kv_heads`, `head_dim`,
        `causal`, `backward`) or `stream` (`bytes`).
    dtype
        Compute dtype.

    Examples
    --------
    >>> 0.5e-3 < operator_time("a100-sxm-80", "gemm", m=4096, n=4096, k=4096) < 0.7e-3
    True
    """
    element = {"fp32": 4.0, "tf32": 4.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5}.get(dtype, 2.0)
    output = max(element, 2.0)
    built: dict[str, Any] = {
        "gemm": lambda: Gemm(**_floats(shape), input_bytes=element, output_bytes=output),
        "attention": lambda: Attention(**{"batch": 1.0, "causal": 1.0, **_floats(shape)}, element_bytes=output),
        "stream": lambda: Stream(np.asarray(shape["bytes"], np.float64)),
    }
    if operator not in built:
        msg = f"operator {shorten(operator)} is none of {', '.join(built)}{did_you_mean(operator, built)}"
        raise UsageError(msg)
    try:
        work: Work = built[operator]()
    except (TypeError, KeyError) as error:
        msg = f"{operator}: wrong or missing sizes: {error}"
        raise UsageError(msg) from None
    return _plain(device(load_hardware(hardware).accelerator, dtype).seconds(work))


def collective_time(hardware: HardwareLike, collective: str, *, bytes: Any, devices: Any) -> Any:
    """Seconds the models use for one collective over neighbouring devices, for scalars or arrays.

    Parameters
    ----------
    hardware
        As for `plan`.
    collective
        `all_reduce`, `all_gather`, `reduce_scatter`, `all_to_all` or `send_recv`.
    bytes
        Size in the nccl-tests sense (the whole buffer). [byte]
    devices
        Members of the group. [-]
    """
    kinds = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv")
    if collective not in kinds:
        msg = f"collective {shorten(collective)} is none of {', '.join(kinds)}{did_you_mean(collective, kinds)}"
        raise UsageError(msg)
    members, size = np.broadcast_arrays(np.asarray(devices, np.float64), np.asarray(bytes, np.float64))
    if not np.all((members >= 1) & (members == np.floor(members)) & (size >= 0) & np.isfinite(size)):
        msg = "collective_time: devices must be whole numbers from 1, bytes must not be negative"
        raise UsageError(msg)
    cluster = load_hardware(hardware).cluster
    seconds = np.zeros(members.shape)
    for count in np.unique(members):
        lines = network(cluster, int(count))
        one = lines.seconds(collective, size, lines.group(members, 1.0))  # type: ignore[arg-type]
        seconds = np.where(members == count, one, seconds)
    return _plain(seconds)


def _floats(shape: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, bool) else np.asarray(value, np.float64) for name, value in shape.items()}


def _plain(value: Any) -> Any:
    array = np.asarray(value)
    return float(array) if array.ndim == 0 else array


__all__ = [
    "Hardware",
    "InfeasibleError",
    "Model",
    "Plan",
    "Strategies",
    "TrainingEstimate",
    "collective_time",
    "count_parameters",
    "estimate_training",
    "evaluate",
    "explain",
    "load_hardware",
    "load_model",
    "operator_time",
    "plan",
    "strategies",
]
