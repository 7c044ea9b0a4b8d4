"""Published measurements as facts: a configuration, a figure, and where it was read."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hwsim.errors import InputFileError
from hwsim.specs.base import Fraction, Ratio, Spec, Text
from hwsim.specs.files import validate
from hwsim.specs.library import DATA
from hwsim.specs.reading import Document, parse_yaml, read_yaml
from hwsim.units import GB, GIB

FOLDER = DATA / "validation"
Metric = Literal[
    "step_time", "tokens_per_s_per_device", "model_tflops_per_device", "hardware_tflops_per_device",
    "allocated_memory", "activation_memory", "device_memory",
]  # fmt: skip
"""Step time and rates; bytes of tensors at an allocator's peak, of activations alone, or taken from the device."""
UNITS: Mapping[str, float] = {"s": 1.0, "1/s": 1.0, "TFLOP/s": 1.0, "GiB": GIB, "GB": GB}
"""Unit to what it is of the unit that predictions are compared in: s, 1/s, TFLOP/s, byte."""
MEMORY = ("allocated_memory", "activation_memory", "device_memory")


class Source(Spec):
    """Where a file of facts was read, and how it is scored."""

    title: Text
    """Authors, work, table."""
    url: Text
    licence: Text
    """Of the page or repository; the facts themselves are nobody's."""
    group: Text
    """Group of the scoreboard."""
    memory_group: Text = ""
    """Group of its memory figures, where it is another one."""
    kind: Literal["vendor", "ordinary"]
    """Tuned bests on quiet clusters, or ordinary runs."""
    engine: Text = ""
    """Software that ran it, where it serves."""
    settings: tuple[Text, ...] = ()
    """Overrides that all its runs need."""
    runs: dict[Text, tuple[Text, ...]] = Field(default_factory=dict)
    """Overrides of some of its runs, by "model device engine": what their launch commands and the version say."""
    spread: Ratio | None = None
    """Half the range of the lengths of requests under load over their mean; 0: all alike, clients march in step."""
    note: Text = ""
    """What a reader should know of all its rows."""


class Tolerance(Spec):
    """How far a group may be off."""

    mean: Fraction
    """Mean error."""
    why: Text = ""
    """Mechanism that is missing where the aim is missed."""


@dataclass(frozen=True)
class Fact:
    """One published figure."""

    id: str
    source: str
    """File name of its source."""
    group: str
    metric: str
    published: float
    """In SI units."""
    model: Any
    hardware: str
    devices: int
    given: Mapping[str, Any]
    """Strategy and job, as `estimate_training` takes them."""
    settings: tuple[str, ...]
    note: str


@cache
def sources() -> Mapping[str, Source]:
    """Every source by file name."""
    return dict(_entries("sources.yaml", Source))


@cache
def tolerances() -> Mapping[str, Tolerance]:
    """Every group's tolerance."""
    return dict(_entries("groups.yaml", Tolerance))


def _entries(file: str, spec: Any) -> Iterator[tuple[str, Any]]:
    document = read_yaml(FOLDER / file)
    for name, fields in document.data.items():
        yield name, validate(spec, Document(fields, f"{document.source}: {name}"))


@cache
def facts() -> tuple[Fact, ...]:
    """Every fact that ships with the package."""
    return tuple(fact for name, source in sources().items() for fact in read_facts(FOLDER / f"{name}.csv", source))


def read_facts(path: Path, source: Source) -> Iterator[Fact]:
    """Facts of one CSV file.

    Raises
    ------
    InputFileError
        For an unknown metric or unit, naming file and row.
    """
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield _fact(row, path, source)


COLUMNS = ("tp", "pp", "vpp", "cp", "ep", "etp", "zero", "shard", "micro_batch", "global_batch", "seq_len")
WORDS = ("framework", "precision", "attention", "recompute")


def _fact(row: Mapping[str, str], path: Path, source: Source) -> Fact:
    where = f"{path.name}: {row.get('id')}"
    metric, unit = row["metric"], row["unit"]
    if metric not in Metric.__args__ or unit not in UNITS:  # type: ignore[attr-defined]
        raise InputFileError([f"{where}: metric {metric} in {unit}: unknown"])
    given: dict[str, Any] = {name: int(row[name]) for name in COLUMNS if row.get(name)}
    given |= {name: row[name] for name in WORDS if row[name]}
    if row.get("sequence_parallel"):
        given["sequence_parallel"] = row["sequence_parallel"] == "true"
    shape = row["shape"]
    model: Any = {"name": row["model"], **parse_yaml(f"shape: {shape}", where).data["shape"]} if shape else row["model"]
    return Fact(
        id=row["id"],
        source=path.stem,
        group=(source.memory_group or source.group) if metric in MEMORY else source.group,
        metric=metric,
        published=float(row["value"]) * UNITS[unit],
        model=model,
        hardware=row["hardware"],
        devices=int(row["devices"]),
        given=given,
        settings=tuple(part.strip() for part in row["settings"].split(";") if part.strip()),
        note=row["note"],
    )
