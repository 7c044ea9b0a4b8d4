"""The serving half of the scoreboard: published latencies, rates, memory and power of inference against predictions."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.analytic.inference import InferenceEstimate
from hwsim.analytic.pace import Pace
from hwsim.asking_inference import served_asked
from hwsim.errors import InputFileError
from hwsim.search.traffic import SPREAD, Measured, measured, static
from hwsim.specs.files import validate
from hwsim.specs.reading import Document, read_yaml
from hwsim.units import GB, GIB
from hwsim.validation.facts import FOLDER, Fact, Source, tolerances
from hwsim.validation.published import Group, Row, Scoreboard, seconds_ratio

SERVING = FOLDER / "inference"
UNITS: Mapping[str, float] = {"s": 1.0, "1/s": 1.0, "GB": GB, "GiB": GIB, "J": 1.0, "W": 1.0, "count": 1.0}
ASKED = ("load", "clients", "requests", "tier", "input_len", "output_len")
"""What a run asks of a deployment."""
SIZES = ("tp", "pp", "ep", "dp", "input_len", "output_len")
KINDS: Mapping[str, str] = {
    "ttft": "TTFT", "tpot": "TPOT or E2E", "e2e": "TPOT or E2E", "output_tokens_per_s": "TPOT or E2E",
    "total_tokens_per_s": "TPOT or E2E", "prefill_tokens_per_s": "TTFT", "device_memory": "memory",
    "weights_bytes": "memory", "kv_blocks": "memory", "max_concurrency": "memory",
    "energy_per_output_token": "power", "average_power": "power",
}  # fmt: skip
"""Metric to the table it is scored in."""
BLOCK_TOKENS = 16
"""Of vLLM's cache."""
STATIC, LOADED = "Serving, static batches", "Serving, under load"
STANDS_FOR = {"sglang-jax": "jetstream", "vllm-tpu": "jetstream", "exllama": "mlc"}
"""Software without a preset of its own, and the one like it."""
OLD = (
    ("transformers", "2024-06", "transformers-4.40"),
    ("tensorrt-llm", r"v0\.[5-9]", "tensorrt-llm-static"),
    ("tensorrt-llm", "Triton|NIM 1", "tensorrt-llm-triton"),
    ("vllm", "2023", "vllm-2023"),
    ("vllm", r"^v?0\.[3-7]|2024", "vllm-v0"),
    ("vllm", r"^v?0\.(1[4-9]|[2-9]\d)|^2025-1|^nightly", "vllm-async"),
)
"""Engine, what its old versions are called, and the preset that stands for them."""


@cache
def serving_sources() -> Mapping[str, Source]:
    """Every source of serving figures by file name."""
    document = read_yaml(SERVING / "sources.yaml")
    return {
        name: validate(Source, Document({"group": STATIC, **fields}, f"{document.source}: {name}"))
        for name, fields in document.data.items()
    }


@cache
def serving_facts() -> tuple[Fact, ...]:
    """Every serving figure that ships with the package."""
    return tuple(fact for name in serving_sources() for fact in _read(SERVING / f"{name}.csv"))


def _read(path: Path) -> Iterator[Fact]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield _fact(row, path)


def _fact(row: Mapping[str, str], path: Path) -> Fact:
    metric, unit, source = row["metric"], row["unit"], serving_sources()[path.stem]
    if metric not in KINDS or unit not in UNITS:
        raise InputFileError([f"{path.name}: {row.get('id')}: metric {metric} in {unit}: unknown"])
    given: dict[str, Any] = {name: round(float(row[name])) for name in SIZES if row.get(name)}
    given |= {"weights": row["weights"], "kv": row["kv"], "engine": preset(row["engine"], row["version"])}
    given |= {"load": row["load"], "clients": row["batch"], "requests": row["requests"], "tier": row["tier"]}
    return Fact(
        id=row["id"],
        source=path.stem,
        group=_table(metric, row["load"]),
        metric=metric,
        published=float(row["value"]) * UNITS[unit],
        model=row["model"],
        hardware=row["hardware"],
        devices=int(row["devices"]),
        given=given,
        settings=(*source.settings, *source.runs.get(f"{row['model']} {row['hardware']} {row['engine']}", ())),
        note=row["note"],
    )


def _table(metric: str, load: str) -> str:
    """The table that a figure is scored in."""
    kind = KINDS[metric]
    if kind in ("memory", "power"):
        return f"Serving {kind}"
    if load == "static":
        return f"{STATIC}: {kind}"
    return f"{LOADED}: {'throughput' if '_per_s' in metric else metric.upper()}"


def preset(engine: str, version: str) -> str:
    """The engine preset that stands for a version."""
    for name, pattern, old in OLD:
        if engine == name and re.search(pattern, version):
            return old
    return STANDS_FOR.get(engine, engine)


def serving_board(chosen: Sequence[Fact], begin: Callable[[str], None] | None = None) -> Scoreboard:
    """Predict serving facts and score their tables."""
    rows = predict_all(chosen, begin)
    names = dict.fromkeys(row.fact.group for row in rows)
    groups = [score_serving(name, [row for row in rows if row.fact.group == name]) for name in sorted(names)]
    return Scoreboard(tuple(rows), tuple(groups))


def predict_all(chosen: Iterable[Fact], begin: Callable[[str], None] | None = None) -> list[Row]:
    """Predictions for serving facts; figures of one configuration share a run."""
    known: dict[str, Measured] = {}
    paces: dict[str, Pace] = {}
    rows: list[Row] = []
    for fact in chosen:
        if begin and (not rows or rows[-1].fact.source != fact.source):
            begin(fact.source)
        key = repr((fact.source, fact.model, fact.hardware, fact.devices, sorted(fact.given.items(), key=str)))
        if key not in known:
            known[key] = _run(fact, paces)
        rows.append(Row(fact, value_of(known[key], fact), True))
    return rows


def _run(fact: Fact, paces: dict[str, Pace]) -> Measured:
    """A static batch in closed form, or a benchmark's load on the event model; one deployment has one pace."""
    given = dict(fact.given)
    deployed = {name: value for name, value in given.items() if name not in ASKED}
    load, clients, requests = given.pop("load"), float(given.pop("clients") or 0), given.pop("requests")
    given.pop("tier")
    if given.get("ep", 1) == 1:
        given.pop("ep", None)
    batch = max(round(clients), 1) if load == "static" else 1
    served, s = served_asked(fact.model, fact.hardware, fact.devices, batch=batch, settings=fact.settings, **given)
    name = repr((fact.model, fact.hardware, fact.devices, fact.settings, deployed))
    pace = paces.setdefault(name, Pace(served, s)).asked(served)
    if load == "static":
        return static(pace)
    spread = serving_sources()[fact.source].spread
    count = round(float(requests)) if requests else None
    return measured(pace, load, clients, count, SPREAD if spread is None else spread)


def value_of(run: Measured, fact: Fact) -> float:
    """A figure of a run in the convention of the metric."""
    estimate: InferenceEstimate = run.estimate
    given, metric = fact.given, fact.metric
    if metric in ("ttft", "tpot", "e2e"):
        return float(getattr(run, f"{metric}_s"))
    rate: float = run.output_tokens_per_s
    if metric == "output_tokens_per_s":
        return rate
    if metric == "total_tokens_per_s":
        return float(rate * (given["input_len"] + given["output_len"]) / given["output_len"])
    if metric == "prefill_tokens_per_s":
        return float(estimate.prefill_tokens_per_s)
    return float(
        {
            "device_memory": estimate.memory_allocated_bytes,
            "weights_bytes": estimate.memory_bytes["weights"],
            "energy_per_output_token": estimate.device_power_w * fact.devices / run.output_tokens_per_s,
            "average_power": estimate.device_power_w * fact.devices,
            "max_concurrency": estimate.cache_tokens / given["input_len"],
            "kv_blocks": estimate.cache_tokens / BLOCK_TOKENS,
        }[metric]
    )


SCORED = ("rows", "groups", "mean", "median", "bias")


def scores_file(groups: Iterable[Group]) -> str:
    """The serving groups as the CSV that reports read (`data/validation/serving_scores.csv`)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("group", *SCORED))
    for group in groups:
        if group.name.startswith("Serving"):
            figures = (f"{value:.3f}" for value in (group.mean, group.median, group.bias))
            writer.writerow((group.name, group.rows, group.sources, *figures))
    return text.getvalue()


def score_serving(name: str, rows: Sequence[Row]) -> Group:
    """Score one table: the median error of every source, model and device, then the mean of those."""
    ratios = np.array([seconds_ratio(row) for row in rows])
    errors, origin = np.abs(ratios - 1.0), [(row.fact.source, row.fact.model, row.fact.hardware) for row in rows]
    places = [np.array([at for at, key in enumerate(origin) if key == wanted]) for wanted in dict.fromkeys(origin)]
    limit = tolerances().get(name)
    return Group(
        name=name,
        rows=len(rows),
        sources=len(places),
        mean=float(np.mean([np.median(errors[place]) for place in places])),
        left_out=None,
        median=float(np.median(errors)),
        worst=float(errors.max()),
        bias=float(np.mean([np.median(ratios[place]) - 1.0 for place in places])),
        coverage=float(np.mean(errors <= 0.25)),
        tolerance=limit.mean if limit else float("inf"),
        why=limit.why if limit else "",
    )
