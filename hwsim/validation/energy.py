"""The energy part of the scoreboard: metered power and energy against predictions, and conventions reproduced."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.analytic.inference import InferenceEstimate, estimate
from hwsim.analytic.training import TrainingColumns, evaluate
from hwsim.asking import asked
from hwsim.asking_inference import served_asked
from hwsim.costs.compute import device, half_dtype
from hwsim.costs.energy import Activity, device_power_w, full_power_w, idle_power_w, wall_power_w
from hwsim.errors import InputFileError
from hwsim.specs.files import validate
from hwsim.specs.hardware import Hardware
from hwsim.specs.library import load_hardware, split_settings
from hwsim.specs.reading import Document, parse_yaml, read_yaml
from hwsim.units import HOUR_S, JOULES_PER_KWH
from hwsim.validation.facts import FOLDER, Fact, Source
from hwsim.validation.published import Row, Scoreboard, score

ENERGY = FOLDER / "energy"
UNITS: Mapping[str, float] = {"W": 1.0, "MWh": 1e3 * JOULES_PER_KWH, "t": 1e3}
"""Unit to W, J and kg."""
METRICS = {
    "device_power": "W", "node_power": "W", "wall_power": "W", "device_energy": "MWh", "node_energy": "MWh",
    "facility_energy": "MWh", "energy": "MWh", "carbon": "t",
}  # fmt: skip
"""Metric to its unit: of one device, one node, all nodes; with cooling (facility); by hours and watts."""
WORKING_SHARE, STREAMING_SHARE = 0.85, 0.05
"""Of a step in kernels that multiply and that stream, where only the FLOP rate is known: as in training runs here."""


@cache
def energy_sources() -> Mapping[str, Source]:
    """Every source of figures on power and energy by file name."""
    document = read_yaml(ENERGY / "sources.yaml")
    return {
        name: validate(Source, Document(fields, f"{document.source}: {name}")) for name, fields in document.data.items()
    }


@cache
def energy_facts() -> tuple[Fact, ...]:
    """Every figure on power, energy and carbon that ships with the package."""
    return tuple(fact for name, source in energy_sources().items() for fact in _read(ENERGY / f"{name}.csv", source))


def _read(path: Path, source: Source) -> Iterator[Fact]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield _fact(row, path, source)


def _fact(row: Mapping[str, str], path: Path, source: Source) -> Fact:
    where = f"{path.name}: {row.get('id')}"
    metric, unit = row["metric"], row["unit"]
    if METRICS.get(metric) != unit:
        raise InputFileError([f"{where}: metric {metric} in {unit}: unknown"])
    run = parse_yaml(f"run: {row['run']}", where).data["run"]
    asked_for = run.get("train") or run.get("serve") or {}
    return Fact(
        id=row["id"],
        source=path.stem,
        group=source.group,
        metric=metric,
        published=float(row["value"]) * UNITS[unit],
        model=asked_for.get("model", ""),
        hardware=row["hardware"],
        devices=int(row["devices"]),
        given=run,
        settings=tuple(part.strip() for part in row["settings"].split(";") if part.strip()),
        note=row["note"],
    )


def energy_board(chosen: Iterable[Fact]) -> Scoreboard:
    """Predict figures on power, energy and carbon, and score their groups."""
    known: dict[str, tuple[float, float, float]] = {}
    rows = []
    for fact in chosen:
        rows.append(Row(fact, _value(fact, known), True))
    names = dict.fromkeys(row.fact.group for row in rows)
    groups = (score(name, [row for row in rows if row.fact.group == name]) for name in names)
    return Scoreboard(tuple(rows), tuple(groups))


def _value(fact: Fact, known: dict[str, tuple[float, float, float]]) -> float:
    """The prediction for a figure, in W, J or kg."""
    run = fact.given
    if fact.metric in ("energy", "carbon"):
        return _by_hours(run)
    key = repr((fact.hardware, fact.devices, fact.settings, {**run, "hours": None}))
    if key not in known:
        known[key] = _power(fact)
    device_w, wall_w, tokens_per_s = known[key]
    per_node = fact.metric == "node_power"
    if fact.metric.endswith("_power"):
        node = load_hardware(fact.hardware).cluster.node.devices if per_node else fact.devices
        return device_w if fact.metric == "device_power" else wall_w * node
    seconds = run["hours"] * HOUR_S if "hours" in run else fact.devices * run["tokens"] / tokens_per_s
    return float((device_w if fact.metric == "device_energy" else wall_w) * seconds * run.get("pue", 1.0))


def _by_hours(run: Mapping[str, Any]) -> float:
    """The convention of model cards: hours times watts, cooling and the grid's carbon. [J or kg]"""
    joules = run["hours"] * HOUR_S * run["watts"] * run.get("pue", 1.0)
    return float(joules / JOULES_PER_KWH * run["carbon"] if "carbon" in run else joules)


def _power(fact: Fact) -> tuple[float, float, float]:
    """Power of a device and of it with its share of the node, and tokens per second of all where it trains."""
    run = fact.given
    if "train" in run:
        setting, s = asked(hardware=fact.hardware, gpus=fact.devices, settings=fact.settings, **run["train"])
        columns: TrainingColumns = evaluate(setting, s)
        device_w = float(np.max(columns.device_power_w))
        return device_w, float(wall_power_w(setting.hardware, device_w)), float(np.max(columns.tokens_per_s))
    if "serve" in run:
        served, one = served_asked(hardware=fact.hardware, gpus=fact.devices, settings=fact.settings, **run["serve"])
        found: InferenceEstimate = estimate(served, one)
        return found.device_power_w, found.average_power_w_per_device, found.output_tokens_per_s
    machine = load_hardware(fact.hardware, settings=split_settings(fact.settings))
    device_w = _drawn_w(machine, run)
    return device_w, float(wall_power_w(machine, device_w)), 0.0


def _drawn_w(machine: Hardware, run: Mapping[str, Any]) -> float:
    """Power of a device that is idle (0: powered, 1: with a model), burnt in, or multiplies at a share of its peak."""
    power = machine.accelerator.power
    if "idle" in run:
        return float(idle_power_w(machine) if run["idle"] else power.idle)
    if "burn" in run:
        return float(full_power_w(power))
    half = device(machine.accelerator, half_dtype(machine.accelerator))
    compute_s = half.multiplying_s(run["activity"] * half.gemm.peak_flops_per_s)
    return float(device_power_w(machine, Activity(1.0, WORKING_SHARE, compute_s, 0.0, STREAMING_SHARE)))
