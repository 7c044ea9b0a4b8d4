"""Arguments of the API: what is not what it should be is refused with one clear message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from math import gcd
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import numpy.typing as npt

from hwsim.analytic.training import illegal
from hwsim.errors import InputFileError, UsageError, did_you_mean, shorten
from hwsim.formulas.pipeline import INTERLEAVED
from hwsim.formulas.training import optimal_tokens
from hwsim.formulas.types import Numeric
from hwsim.ops.axes.tensor import divided_widths
from hwsim.ops.count import parameters
from hwsim.search.space import divisors
from hwsim.specs.hardware import Cluster
from hwsim.specs.job import (
    MODULES,
    AttentionName,
    MethodName,
    ModuleName,
    OffloadName,
    OptimizerName,
    PrecisionName,
    StackName,
)
from hwsim.specs.library import load_model
from hwsim.specs.model import Model
from hwsim.specs.reading import Document
from hwsim.specs.strategy import CODES, COLUMN_NAMES, RECOMPUTES, Strategies, strategies
from hwsim.units import DAY_S

MAX_DEVICES = MAX_BATCH = 10**7
MAX_SEQ_LEN = 10**8
TASKS = ("train", "finetune", "infer")
OPTIMAL = "optimal"
"""Token budget by a scaling law."""
LARGEST = 2.0**60
"""Largest size of a kernel or a message."""
CHOICES = {"precision": get_args(PrecisionName), "attention": get_args(AttentionName),
           "optimizer": get_args(OptimizerName), "method": get_args(MethodName)}  # fmt: skip
WHOLE = {"rank": 10**5, "source_len": MAX_SEQ_LEN, "seq_len": MAX_SEQ_LEN, "global_batch": MAX_BATCH}
"""Job fields that are whole numbers from 1, and the largest."""
REAL = {"images": (0.0, 1e4), "imbalance": (1.0, 1e3), "capacity": (0.0, 1e3)}
"""Job fields that are numbers within a range."""
LISTS = {"frozen": get_args(StackName), "offload": get_args(OffloadName)}
"""Job fields that list some of these names."""
JOB_ALONE = (*CHOICES, "graphs", "rank", "source_len", *REAL, *LISTS)
"""Job fields that are no strategy columns."""
JOB = (*JOB_ALONE, "seq_len", "global_batch")
"""Job fields that flags, keyword arguments and ``--set job.NAME=VALUE`` give."""


def named(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse keyword arguments that nobody knows."""
    options = list(known)
    for name in given:
        if name not in options:
            msg = f"unknown argument {shorten(name)}{did_you_mean(str(name), options)}"
            raise UsageError(msg)


def text(name: str, value: Any) -> str:
    """One text."""
    if not isinstance(value, str):
        msg = f"{name}: must be text, not {shorten(value)}"
        raise UsageError(msg)
    return value


def texts(name: str, value: Any) -> list[str]:
    """One text, or several."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        msg = f"{name}: must be a text or a list of texts, not {shorten(value)}"
        raise UsageError(msg)
    return [text(name, item) for item in items]


def listed(name: str, value: Any) -> list[str]:
    """Texts, as a list or between commas."""
    return [item.strip() for item in value.split(",")] if isinstance(value, str) else texts(name, list(value))


def folder(name: str, value: Any) -> str | Path | None:
    """A path, or none."""
    return value if value is None or isinstance(value, Path) else text(name, value)


def choice(name: str, value: Any, options: Iterable[str]) -> str:
    """One of the names on offer."""
    word, known = text(name, value), list(options)
    if word not in known:
        msg = f"{name}: {shorten(word)} is none of {', '.join(known)}{did_you_mean(word, known)}"
        raise UsageError(msg)
    return word


def whole(name: str, value: Any, high: int) -> None:
    """A whole number from 1."""
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or not 1 <= value <= high:
        msg = f"{name}: must be a whole number from 1 to {high:,}, not {shorten(value)}"
        raise UsageError(msg)


def positive(name: str, value: Any) -> None:
    """A positive number, or none."""
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value < 1e30):
        msg = f"{name}: must be a positive number, not {shorten(value)}"
        raise UsageError(msg)


def token_budget(tokens: Any, model: Any) -> float | None:
    """Tokens to train on: as many as given, or as a scaling law finds best for the model."""
    if not (isinstance(tokens, str) and tokens == OPTIMAL):
        positive("tokens", tokens)
        return None if tokens is None else float(tokens)
    return float(optimal_tokens(parameters(load_model(model)).active))


def target_tokens_per_s(tokens: Any, days: Any, tokens_per_s: Any) -> float | None:
    """The throughput that a deadline or a target asks for. [token/s]"""
    for name, value in (("tokens", tokens), ("target_days", days), ("target_tokens_per_s", tokens_per_s)):
        positive(name, value)
    if days is None:
        return None if tokens_per_s is None else float(tokens_per_s)
    if tokens is None or tokens_per_s is not None:
        msg = "target_days needs tokens (a deadline for which budget?) and excludes target_tokens_per_s"
        raise UsageError(msg)
    return float(tokens / (days * DAY_S))


def numbers(name: str, value: Any, low: float = 1.0, high: float = LARGEST) -> npt.NDArray[np.float64]:
    """A number or an array of them within a range."""
    items = _array(name, value)
    if items.dtype.kind not in "biuf" or not np.all((items >= low) & (items <= high)):
        msg = f"{name}: must be numbers from {low:g} to {high:,.8g}, not {shorten(value)}"
        raise UsageError(msg)
    return items.astype(np.float64)


def whole_numbers(name: str, value: Any, low: float = 1.0, high: float = LARGEST) -> npt.NDArray[np.float64]:
    """A whole number or an array of them within a range."""
    sizes = numbers(name, value, low, high)
    if np.any(sizes % 1) or _array(name, value).dtype.kind == "b":
        msg = f"{name}: must be whole numbers, not {shorten(value)}"
        raise UsageError(msg)
    return sizes


def group_sizes(name: str, value: Any) -> npt.NDArray[np.float64]:
    """Whole numbers of devices."""
    return whole_numbers(name, value, high=MAX_DEVICES)


def same_length(columns: Mapping[str, npt.NDArray[Any]]) -> None:
    """Refuse arrays that do not broadcast."""
    try:
        np.broadcast_shapes(*(column.shape for column in columns.values()))
    except ValueError:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in columns.items() if column.ndim)
        msg = f"arrays differ in length: {lengths}"
        raise UsageError(msg) from None


def _array(name: str, value: Any) -> npt.NDArray[Any]:
    """A value as a number or a list, of the plainest type it has; lists that are no columns are refused."""
    try:
        items = np.asarray(value)
        items = np.asarray(items.tolist()) if items.dtype.kind == "O" else items
    except (ValueError, TypeError, OverflowError):
        items = np.zeros((1, 1))
    if items.ndim > 1 or not items.size:
        msg = f"{name}: must be a number or a flat list that is not empty, not {shorten(value)}"
        raise UsageError(msg)
    return items


def column(name: str, value: Any) -> npt.NDArray[Any]:
    """A strategy column: numbers, or names where the column has names."""
    items = _array(name, value)
    if items.dtype.kind not in ("biufU" if name in CODES else "biuf"):
        msg = f"{name}: must be {'names' if name in CODES else 'whole numbers'}, not {shorten(value)}"
        raise UsageError(msg)
    return items


def take_modules(given: MutableMapping[str, Any]) -> tuple[ModuleName, ...]:
    """The modules that ``recompute`` lists (a list, or text with commas), if it does; it then means selective."""
    value = given.get("recompute")
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not items or not all(isinstance(item, str) for item in items):
        return ()
    names = [item.strip() for item in items]
    if set(names) <= set(RECOMPUTES) and (len(names) == 1 or not isinstance(value, str)):
        return ()
    alone = [name for name in names if name in RECOMPUTES]
    if alone:
        msg = f"recompute: {shorten(value)}: {alone[0]} stands alone, a list names modules only ({', '.join(MODULES)})"
        raise UsageError(msg)
    for name in names:
        if name not in MODULES:
            known = [*RECOMPUTES, *MODULES]
            msg = f"recompute: {shorten(name)} is none of {', '.join(known)}{did_you_mean(name, known)}"
            raise UsageError(msg)
    given["recompute"] = "selective"
    return cast("tuple[ModuleName, ...]", tuple(dict.fromkeys(names)))


def strategy_columns(given: Mapping[Any, Any]) -> dict[str, npt.NDArray[Any]]:
    """Readable columns."""
    columns = {str(name): value for name, value in given.items() if value is not None}
    named(columns, COLUMN_NAMES)
    return {name: column(name, value) for name, value in columns.items()}


def strategy_table(given: Any) -> Strategies:
    """A frame, a mapping of columns or Strategies as a one-dimensional table."""
    s = given if isinstance(given, Strategies) else _read_table(given)
    if not s.shape:
        s = Strategies(**{name: np.atleast_1d(getattr(s, name)) for name in COLUMN_NAMES})
    return s.take(slice(None))


def _read_table(given: Any) -> Strategies:
    if not isinstance(given, Mapping) and not hasattr(given, "columns"):
        msg = f"strategies must be a frame or a mapping of columns, not {shorten(given)}"
        raise UsageError(msg)
    renamed = {"gpus": "devices", "chips": "devices"}
    pairs = [(renamed.get(str(name), str(name)), given[name]) for name in given]
    columns = strategy_columns(dict(pairs))
    missing = [name for name in ("devices", "global_batch", "seq_len") if name not in columns]
    if missing:
        msg = f"the table of strategies lacks {', '.join(missing)}"
        raise UsageError(msg)
    if len({name for name, _ in pairs}) < len(pairs):
        msg = "the table of strategies has a column twice (gpus and chips are other names of devices)"
        raise UsageError(msg)
    return strategies(**columns)


def job_fields(given: MutableMapping[str, Any]) -> dict[str, Any]:
    """The job fields that were given, checked; the others are left in `given`."""
    job = {name: value for name in JOB if (value := given.pop(name, None)) is not None}
    for name, value in job.items():
        if name in CHOICES:
            choice(name, value, CHOICES[name])
        elif name == "graphs" and not isinstance(value, bool | np.bool_):
            msg = f"graphs: must be true or false, not {shorten(value)}"
            raise UsageError(msg)
        elif name in REAL:
            if numbers(name, value, *REAL[name]).ndim:
                msg = f"{name}: must be one number, not {shorten(value)}"
                raise UsageError(msg)
        elif name in LISTS:
            job[name] = tuple(choice(name, item, LISTS[name]) for item in listed(name, value))
        elif name != "graphs":
            whole(name, value, WHOLE[name])
    return job


def job_settings(document: Document | None) -> dict[str, Any]:
    """The job fields of ``--set job.NAME=VALUE``; they are refused as those of a file are."""
    return settings_of(document, JOB, job_fields)


def settings_of(
    document: Document | None, names: Sequence[str], checked: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """The same for a job with other fields: their names, and what checks them."""
    given = dict(document.data) if document else {}
    strange = [name for name in given if name not in names]
    unknown = [f"--set job.{name[:60]}: unknown field{did_you_mean(name, names)}" for name in strange]
    if unknown:
        raise InputFileError(unknown)
    try:
        return checked(given)
    except UsageError as error:
        raise InputFileError([f"--set job.{error}"]) from None


def given_once(given: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    """Refuse a job field that is both an argument and a setting."""
    if given.keys() & fixed.keys():
        msg = f"{', '.join(given.keys() & fixed.keys())}: given twice, as an argument and by --set job"
        raise UsageError(msg)


def enough_devices(name: str, count: int, cluster: Cluster) -> None:
    """Refuse more devices than the outermost tier connects."""
    if count > cluster.most_devices:
        msg = f"{name}: cluster {cluster.name} connects {cluster.most_devices:,.0f} devices, not {count:,}"
        raise UsageError(msg)


def longest_sequence(model: Model) -> float:
    """Tokens of a learned position table that was given; other models have no limit. [-]"""
    limited = model.positions == "learned" and "max_positions" in model.model_fields_set
    return float(model.max_positions) if limited else np.inf


def check_sequence(model: Model, seq_len: int) -> None:
    """Refuse a sequence beyond a learned position table."""
    if seq_len > longest_sequence(model):
        msg = BROKEN[TOO_LONG].format(seq_len=seq_len, **model.model_dump())
        raise UsageError(msg)


def check_parts(model: Model, given: Mapping[str, Any]) -> None:
    """Refuse job fields about parts that the model does not have."""
    parts = {"source_len": (model.encoder, "encoder"), "images": (model.vision, "vision tower"),
             "imbalance": (model.experts, "experts"), "capacity": (model.experts, "experts")}  # fmt: skip
    for name, (part, words) in parts.items():
        if name in given and not part:
            msg = f"{name}: {model.name} has no {words}"
            raise UsageError(msg)
    if "rank" in given and given.get("method", "full") == "full":
        msg = "rank: needs adapters (method lora or qlora)"
        raise UsageError(msg)
    for stack in given.get("frozen", ()):
        if stack != "decoder" and not getattr(model, stack):
            msg = f"frozen: {model.name} has no {stack}"
            raise UsageError(msg)


TOO_LONG, NOT_INTERLEAVED = "sequence beyond the learned positions", "interleaved without vpp"
BROKEN = {
    TOO_LONG: "seq_len {seq_len}: {name} has learned positions for 1 to {max_positions:,} tokens",
    NOT_INTERLEAVED: "the interleaved schedule needs vpp > 1 (--vpp)",
    "tp x pp x cp x dp is not the number of devices": "tp x pp x cp x dp = {tp} x {pp} x {cp} x {dp} = {ranks}, "
    "but there are {devices} devices",
    "global batch does not split into dp x micro-batch": "global batch {global_batch} must be a multiple of "
    "dp x micro-batch = {dp} x {micro_batch} = {unit}",
    "shard group does not divide dp x cp": "shard {shard} must divide dp x cp = {data}",
    "tp does not divide heads and ffn": "tp {tp} must divide {heads} heads and ffn {ffn} ({tps})",
    "tp does not fit the kv heads": "tp {tp} must divide {kv_heads} kv heads, or be a multiple of them",
    "tp does not divide the sequence (sequence parallelism)": "sequence {seq_len} must be a multiple of cp x tp = "
    "{slices} for sequence parallelism",
    "cp does not divide the sequence into 2 cp chunks": "sequence {seq_len} must be a multiple of 2 x cp = {halves}",
    "fewer layers than pipeline chunks": "pp x vpp = {pp} x {vpp} = {chunks} chunks for {layers} layers",
    "ep needs a mixture-of-experts model": "ep {ep} x etp {etp}: {name} has no experts (--ep)",
    "ep does not divide the experts": "ep {ep} must divide {experts} experts",
    "etp does not divide the expert's ffn": "etp {etp} must divide the expert's ffn {expert_ffn}",
    "ep x etp does not divide tp x cp x dp": "ep x etp = {ep} x {etp} must divide tp x cp x dp = {stage}",
    "experts with tp need sequence parallelism": "experts with tp {tp} need sequence parallelism",
    "vpp needs pp > 1": "vpp {vpp} needs pp > 1",
    "vpp > 1 is the interleaved schedule": "vpp {vpp} is the interleaved schedule, not {schedule}",
    "dualpipe needs an even pp and 2 pp micro-batches": "dualpipe needs an even pp (it is {pp}) and at least 2 x pp "
    "micro-batches (there are {micro_batches:g})",
}
"""Rule to its message with numbers."""


def broken_rules(model: Model, s: Strategies) -> dict[str, Numeric]:
    """Every reason against a strategy, as masks: those of the axes, and what no engineer means."""
    return illegal(model, s) | {
        TOO_LONG: s.seq_len > longest_sequence(model),
        NOT_INTERLEAVED: (s.schedule == INTERLEAVED) & (s.pp > 1) & (s.vpp == 1),
    }


def refuse_illegal(model: Model, s: Strategies) -> None:
    """UsageError naming every rule that the first illegal row breaks, with the numbers."""
    masks = {reason: np.broadcast_to(mask, s.shape).reshape(-1) for reason, mask in broken_rules(model, s).items()}
    rows = np.flatnonzero(np.any(np.stack(list(masks.values())), axis=0))
    if not len(rows):
        return
    first = int(rows[0])
    row: dict[str, Any] = s.row(first)
    tp, pp, cp, dp = (row[axis] for axis in ("tp", "pp", "cp", "dp"))
    values = model.model_dump() | row | {
        "ranks": tp * pp * cp * dp, "unit": dp * row["micro_batch"], "data": dp * cp, "stage": tp * cp * dp,
        "slices": cp * tp, "halves": 2 * cp, "chunks": pp * row["vpp"],
        "micro_batches": row["global_batch"] / dp / row["micro_batch"],
        "tps": ", ".join(str(size) for size in divisors(gcd(*divided_widths(model)))),
    }  # fmt: skip
    said = "; ".join(BROKEN.get(reason, reason).format(**values) for reason, mask in masks.items() if mask[first])
    msg = f"strategy {first}: {said}" if s.shape else said
    raise UsageError(msg)
