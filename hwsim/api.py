"""The facade: load, plan, estimate, evaluate. The command line and scripts both come through here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from hwsim import arguments, kernel_arguments
from hwsim.analytic.estimate import TrainingEstimate, estimates, frame
from hwsim.analytic.setting import Setting
from hwsim.analytic.training import evaluate as evaluate_columns
from hwsim.asking import OTHERS, HardwareLike, ModelLike, asked, books, make_setting, training_request
from hwsim.costs.compute import Device, device
from hwsim.costs.network import network
from hwsim.errors import InfeasibleError, UsageError
from hwsim.formulas.attention import windowed_keys
from hwsim.ops.count import Parameters, parameters
from hwsim.ops.work import Attention, Gemm, Stream, Work
from hwsim.search.plan import Plan, plan_training
from hwsim.specs.economy import Grid, Prices
from hwsim.specs.hardware import Accelerator, CollectiveName, DtypeName, Hardware, LibraryName
from hwsim.specs.library import DEFAULT_HARDWARE, Reference, load_hardware, load_model
from hwsim.specs.model import Model
from hwsim.specs.strategy import COLUMN_NAMES, Strategies, as_written, strategies

if TYPE_CHECKING:
    import pandas as pd

    from hwsim.search.serving_plan import ServingPlan


CHUNK_ROWS = 1 << 18
"""Rows of a table evaluated at a time."""


def plan(
    model: ModelLike,
    hardware: HardwareLike = DEFAULT_HARDWARE,
    gpus: int = 8,
    *,
    task: str = "train",
    objective: str = "throughput",
    top: int = 10,
    pin: str | Sequence[str] = (),
    tokens: float | str | None = None,
    target_days: float | None = None,
    target_tokens_per_s: float | None = None,
    settings: str | Sequence[str] = (),
    profiles: str | Path | None = None,
    prices: Reference | Prices | None = None,
    grid: Reference | Grid | None = None,
    **job: Any,
) -> Plan | ServingPlan:
    """Search every legal strategy and return the best ones.

    Parameters
    ----------
    model, hardware
        Preset, alias, file, dict or spec.
    gpus
        Devices of the job.
    task
        `train` or `finetune` (the same search; say what is trained with `method`), or `infer`: see `plan_inference`.
    objective
        `throughput`, `latency`, `cost` or `energy`.
    top
        Plans to return, at most one per combination of tp, pp, cp and dp.
    pin
        Fixed columns such as ``"tp=8"`` or ``"recompute=full"``.
    tokens, target_days, target_tokens_per_s
        Token budget (or ``"optimal"``: 20 per active parameter, Hoffmann et al. 2022), deadline [day] and slowest
        throughput that will do [1/s]; a deadline needs a budget. With a target, plans may leave devices idle.
    settings
        Overrides such as ``"accelerator.memory.bandwidth=4 TB/s"``.
    profiles
        Folder of hardware profiles to look in first.
    prices, grid
        Price book and place of the bill (`plan.bill`): presets, files, dicts or specs; none: `market-2026-11`, `usa`.
    job
        `global_batch`, `seq_len`, `precision`, `optimizer`, `attention`, `graphs`, `framework`, `method` (full, lora,
        qlora), `rank`, `frozen` (stacks), `source_len`, `images`, `imbalance`, `capacity`.

    Raises
    ------
    UsageError, InputFileError
        For wrong arguments and files.
    InfeasibleError
        If nothing fits: what binds, by how much, and the nearest change that fits.
    """
    aims: dict[str, Any] = {"tokens": tokens, "target_days": target_days, "target_tokens_per_s": target_tokens_per_s}
    if arguments.choice("task", task, arguments.TASKS) == "infer":
        aims |= {"prices": prices, "grid": grid}
        for name, value in aims.items():
            if value is not None:
                msg = f"{name}: is for training; task infer takes qps, ttft_ms, tpot_ms"
                raise UsageError(msg)
        return _plan_inference(model, hardware, gpus, objective, top, pin, settings, profiles, job)
    book, place = books(prices, grid, profiles)
    search: dict[str, Any] = {"objective": objective, "top": top, "pin": pin}
    wanted = training_request(model, hardware, gpus, settings=settings, profiles=profiles, **search, **aims, **job)
    return replace(plan_training(wanted), prices=book, grid=place)


def _plan_inference(
    model: ModelLike,
    hardware: HardwareLike,
    gpus: int,
    objective: str,
    top: int,
    pin: Any,
    settings: Any,
    profiles: Any,
    job: dict[str, Any],
) -> ServingPlan:
    """Hand a plan for inference over to those who serve."""
    from hwsim.serving_api import plan_inference

    asked = {"objective": objective, "top": top, "pin": pin, "settings": settings, "profiles": profiles}
    return plan_inference(model, hardware, gpus, **asked, **job)


def estimate_training(
    model: ModelLike,
    hardware: HardwareLike = DEFAULT_HARDWARE,
    gpus: int = 8,
    *,
    settings: str | Sequence[str] = (),
    profiles: str | Path | None = None,
    **given: Any,
) -> Any:
    """Estimate one explicit strategy, or a table of them.

    Parameters
    ----------
    model, hardware, gpus, settings, profiles
        As for `plan`.
    given
        Strategy columns (`tp`, `pp`, `vpp`, `cp`, `ep`, `etp`, `zero`, `shard`, `micro_batch`, `recompute`,
        `sequence_parallel`, `schedule`, `order`, and `global_batch`, `seq_len`), numbers or arrays of equal length
        (`recompute` also takes a list of modules to run again: core_attn, attn, layernorm, mlp_act, mlp, ...), and
        job fields, those of `plan`.

    Returns
    -------
    TrainingEstimate or pandas.DataFrame
        A frame if any strategy argument is an array.

    Raises
    ------
    UsageError, InputFileError
        For wrong arguments and files, and for strategies that are not legal.
    """
    setting, s = asked(model, hardware, gpus, settings=settings, profiles=profiles, **given)
    if s.shape:
        return frame(estimates(evaluate_columns(setting, s.take(slice(None)))))
    return estimates(evaluate_columns(setting, s))[0]


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
        The strategy columns (names, not codes), `legal`, `fits`, `step_time_s`, `tokens_per_s`, `mfu`, `hfu`,
        `memory_allocated_bytes`, `memory_reserved_bytes`, the parts `time_s.*`, `memory_bytes.*`, `traffic_bytes.*`,
        `energy_j`, `cost_usd`.
    """
    import pandas as pd

    arguments.named(job, (*arguments.JOB_ALONE, *OTHERS, "settings"))
    columns = arguments.strategy_table(strategies_table)
    counts = np.unique(columns.devices)
    if len(counts) > 1:
        index = [np.flatnonzero(columns.devices == count) for count in counts]
        frames = [evaluate(model, hardware, columns.take(rows), **job).set_index(rows) for rows in index]
        return pd.concat(frames).sort_index()
    setting = make_setting(model, hardware, int(counts[0]), **job)
    pieces = [
        _evaluated(setting, columns.take(slice(i, i + CHUNK_ROWS))) for i in range(0, columns.shape[0], CHUNK_ROWS)
    ]
    table = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    return pd.DataFrame(table | {name: as_written(name, table[name]) for name in COLUMN_NAMES})


def _evaluated(setting: Setting, s: Strategies) -> dict[str, npt.NDArray[Any]]:
    result = evaluate_columns(setting, s)
    broken = np.zeros(s.shape, dtype=bool)
    for mask in arguments.broken_rules(setting.model, s).values():
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
    model: ModelLike, hardware: HardwareLike = DEFAULT_HARDWARE, gpus: int = 8, **given: Any
) -> list[dict[str, Any]]:
    """List the operators behind an estimate, one micro-batch on one device (see hwsim.analytic.explain)."""
    from hwsim.analytic.explain import operator_rows

    setting, s = asked(model, hardware, gpus, **given)
    if s.shape:
        msg = "explain takes one strategy, not arrays"
        raise UsageError(msg)
    return operator_rows(setting, s)


def count_parameters(model: ModelLike) -> Parameters:
    """Parameter counts of a model: total, active, non_embedding, matmul, layer."""
    return parameters(load_model(model))


def operator_time(
    hardware: HardwareLike,
    operator: str,
    *,
    dtype: str = "bf16",
    library: str | None = None,
    kv_dtype: str | None = None,
    **shape: Any,
) -> Any:
    """Seconds the models use for one kernel on one device, for scalars or arrays.

    Parameters
    ----------
    hardware
        As for `plan`.
    operator
        `gemm` (`m`, `n`, `k`, `batch`), `attention` (`batch`, `q_len`, `kv_len`, `heads`, `kv_heads`, `head_dim`,
        `causal`, `backward`, `window`) or `stream` (`bytes`).
    dtype
        Compute dtype.
    kv_dtype
        Dtype of the KV cache that attention reads; default: `dtype`.
    library
        Kernel library that was measured apart on this device (`vllm`, `sglang`, `trtllm`, ...: `hwsim hardware show`
        lists them); `default`: the curves that fit training frameworks and mixed use best.

    Examples
    --------
    >>> 0.5e-3 < operator_time("a100-sxm-80", "gemm", m=4096, n=4096, k=4096) < 0.7e-3
    True
    """
    arguments.choice("operator", operator, kernel_arguments.SIZES)
    sizes = kernel_arguments.sizes(operator, shape)
    element = _element(arguments.text("dtype", dtype))
    output = max(element, 2.0)
    if kv_dtype is not None:
        arguments.choice("kv_dtype", kv_dtype, get_args(DtypeName))
    work: Work
    if operator == "gemm":
        work = Gemm(**sizes, input_bytes=element, output_bytes=output)
    elif operator == "attention":
        work = Attention(**_banded(sizes), element_bytes=output, kv_bytes=_element(kv_dtype or dtype))
    else:
        work = Stream(sizes["bytes"])
    accelerator = load_hardware(hardware).accelerator
    libraries = () if library is None else kernel_arguments.library(library, accelerator, operator)
    bound = _attention_device if operator == "attention" else device
    return _plain(bound(accelerator, dtype, libraries, cache=kv_dtype).seconds(work))


def _attention_device(accelerator: Accelerator, dtype: str, libraries: tuple[str, ...], cache: str | None) -> Device:
    """The device at a dtype; one that multiplies in half precision only may still be measured over a narrow cache."""
    if getattr(accelerator.peak, dtype, None) or dtype not in accelerator.kernels.attention.dtypes:
        return device(accelerator, dtype, libraries, cache=cache)
    cast = device(accelerator, "bf16", libraries, cache=dtype)
    return replace(cast, attention=cast.cached or cast.attention)


def _element(dtype: str) -> float:
    """Bytes of one number."""
    return {"fp32": 4.0, "tf32": 4.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5}.get(dtype, 2.0)


def _banded(sizes: dict[str, Any]) -> dict[str, Any]:
    """Sizes of an attention kernel with the sliding window taken into the keys."""
    window, keys, causal = sizes.pop("window"), sizes["kv_len"], sizes["causal"]
    band = np.where(causal > 0, windowed_keys(sizes["q_len"], keys, window), np.minimum(keys, window))
    inside = window >= keys
    return sizes | {"kv_len": np.where(inside, keys, band), "causal": np.where(inside, causal, 0.0)}


def collective_time(
    hardware: HardwareLike, collective: str, *, bytes: Any, devices: Any, library: str | None = None
) -> Any:
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
    library
        `nccl` as training uses it (the default), `vllm`, `sglang` or `trtllm` (their own all-reduces, inside a CUDA
        graph), or `torch.distributed` (called eagerly). A cluster on which one was not measured gives NCCL's time.
    """
    arguments.choice("collective", collective, get_args(CollectiveName))
    called = _collective_library(library)
    members = arguments.group_sizes("devices", devices)
    size = arguments.numbers("bytes", bytes, low=0.0)
    arguments.same_length({"devices": members, "bytes": size})
    members, size = np.broadcast_arrays(members, size)
    cluster = load_hardware(hardware).cluster
    seconds = np.zeros(members.shape)
    for count in np.unique(members):
        arguments.enough_devices("devices", int(count), cluster)
        lines = network(cluster, int(count))
        one = lines.seconds(collective, size, lines.group(members, 1.0), called)  # type: ignore[arg-type]
        seconds = np.where(members == count, one, seconds)
    return _plain(seconds)


def _collective_library(name: str | None) -> LibraryName | None:
    """The library of a collective under its name in the profiles; none for NCCL."""
    known: dict[str, LibraryName | None] = {"nccl": None, "nccl-tests": None, "oneccl": None}
    for library in get_args(LibraryName):
        known |= {library: library, f"{library}_custom": library}
    known["nccl(torch.distributed)"] = known.pop("torch.distributed_custom")
    arguments.choice("library", name or "nccl", tuple(known))
    return known[name or "nccl"]


def _plain(value: Any) -> Any:
    array = np.asarray(value)
    return float(array) if array.ndim == 0 else array


__all__ = [
    "Hardware", "InfeasibleError", "Model", "Plan", "Strategies", "TrainingEstimate", "collective_time",
    "count_parameters", "estimate_training", "evaluate", "explain", "load_hardware", "load_model", "operator_time",
    "plan", "strategies",
]  # fmt: skip
