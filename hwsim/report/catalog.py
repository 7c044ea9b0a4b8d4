"""Lists and sheets of models and hardware."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, get_args

from pydantic import BaseModel

from hwsim.errors import InputFileError
from hwsim.formulas.ranges import Range
from hwsim.ops.count import parameters
from hwsim.report.plan import ranged, simple_table
from hwsim.report.terminal import folded, plain
from hwsim.specs.base import Quantity
from hwsim.specs.economy import Between, Grid, Prices
from hwsim.specs.hardware import Accelerator, Cluster
from hwsim.specs.library import (
    ACCELERATORS,
    CLUSTERS,
    GRIDS,
    MODELS,
    PRICES,
    find,
    load_grid,
    load_hardware,
    load_model,
    load_prices,
    names,
)
from hwsim.specs.tiers import source_of
from hwsim.units import show

Columns = Mapping[str, str]
LONG, PATH = 32, 66
"""Values longer than the first are printed below the sheet, fields longer than the second over several lines."""
VENDORS = ("NVIDIA", "AMD", "Google", "Intel", "AWS")
"""Makers that lead the list of accelerators; the others follow by name."""
MODEL_COLUMNS = {
    "name": "", "parameters": "count", "layers": "", "hidden": "", "heads": "", "kv_heads": "", "ffn": "", "vocab": "",
    "max_positions": "",
}  # fmt: skip
HARDWARE_COLUMNS = {
    "name": "", "memory_bytes": "bytes", "bandwidth_bytes_per_s": "bytes_per_s", "half_peak_flops_per_s": "flops_per_s",
    "tdp_w": "w", "rent_usd_per_s": "usd_per_s", "cluster": "", "kernels": "", "network": "", "year": "",
}  # fmt: skip
ECONOMY_COLUMNS = {
    GRIDS: {"name": "", "title": "", "carbon_kg_per_j": "kg_per_j", "electricity_usd_per_j": "usd_per_j", "pue": "",
            "year": ""},
    PRICES: {"name": "", "title": "", "date": "", "markets": ""},
}  # fmt: skip
HEADERS = {
    "memory_bytes": "memory", "bandwidth_bytes_per_s": "bandwidth", "half_peak_flops_per_s": "bf16/fp16",
    "tdp_w": "TDP", "rent_usd_per_s": "rent", "max_positions": "context",
    "carbon_kg_per_j": "carbon", "electricity_usd_per_j": "electricity",
}  # fmt: skip


def model_rows() -> list[dict[str, Any]]:
    """Every model preset with its shape."""
    return [model_values(name) for name in names(MODELS)]


def model_values(reference: str) -> dict[str, Any]:
    """A model's shape and parameter counts, as `hwsim models show --json` prints them."""
    model = load_model(reference)
    counts = parameters(model)
    head = {
        "schema_version": 1,
        "name": model.name,
        "title": model.title,
        "parameters": counts.total,
        "active_parameters": counts.active,
        "non_embedding_parameters": counts.non_embedding,
        "matmul_parameters": counts.matmul,
        "layer_parameters": counts.layer,
    }
    return head | {name: value for name, value in model.model_dump().items() if name not in head}


def hardware_rows(profiles: str | None) -> list[dict[str, Any]]:
    """Every accelerator with its main figures, by maker and year; one that does not load says so and hides no other."""
    rows: list[dict[str, Any]] = []
    for name in names(ACCELERATORS, profiles):
        try:
            machine = load_hardware(name, profiles)
        except InputFileError as error:
            broken = {"name": name, "title": "", "vendor": "", "problem": error.problems[0]}
            rows.append(dict.fromkeys(HARDWARE_COLUMNS) | broken)
            continue
        device, cluster = machine.accelerator, machine.cluster
        rows.append(
            {
                "name": name,
                "title": device.title,
                "vendor": device.vendor,
                "memory_bytes": device.memory.capacity,
                "bandwidth_bytes_per_s": device.memory.bandwidth,
                "half_peak_flops_per_s": device.peak.bf16 or device.peak.fp16,
                "tdp_w": device.power.tdp,
                "rent_usd_per_s": device.price.rent,
                "cluster": cluster.name,
                "kernels": device.kernels.status,
                "network": cluster.tiers[0].status,
                "year": device.year,
                "problem": None,
            }
        )
    return sorted(rows, key=_shelf)


def _shelf(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Where an accelerator stands in the list: broken last, else by maker, year and name."""
    vendor = row["vendor"]
    return bool(row["problem"]), _rank(vendor), vendor, row["year"] or 0, row["name"]


def _rank(vendor: str | None) -> int:
    return VENDORS.index(vendor) if vendor in VENDORS else len(VENDORS)


def hardware_values(reference: str, profiles: str | None) -> tuple[list[str], list[dict[str, Any]]]:
    """Every value of an accelerator and its cluster (or a cluster and its accelerator), with unit and source."""
    machine = load_hardware(reference, profiles)
    rows = [*spec_rows("accelerator", machine.accelerator), *spec_rows("cluster", machine.cluster)]
    pairs = ((ACCELERATORS, machine.accelerator.name), (CLUSTERS, machine.cluster.name))
    files = [str(path) for kind, name in pairs if (path := find(kind, name, profiles))]
    return files, rows


def economy_rows(kind: str, profiles: str | None) -> list[dict[str, Any]]:
    """Every grid, or price book, with its main figures; one that does not load says so and hides no other."""
    rows: list[dict[str, Any]] = []
    for name in names(kind, profiles):
        try:
            spec = load_grid(name, profiles) if kind == GRIDS else load_prices(name, profiles)
        except InputFileError as error:
            rows.append({"name": name, "problem": error.problems[0]})
            continue
        row: dict[str, Any] = {"name": name, "title": spec.title}
        if isinstance(spec, Grid):
            row |= {"carbon_kg_per_j": spec.carbon.expected, "electricity_usd_per_j": spec.electricity.expected}
            row |= {"pue": spec.pue.expected, "year": spec.year}
        else:
            row |= {"date": spec.date, "markets": len(spec.markets)}
        rows.append(row | {"problem": None})
    return rows


def economy_values(kind: str, reference: str, profiles: str | None) -> tuple[list[str], list[dict[str, Any]]]:
    """Every value of a grid or a price book, with unit and source."""
    spec = load_grid(reference, profiles) if kind == GRIDS else load_prices(reference, profiles)
    file = find(kind, spec.name, profiles)
    return [str(file)] if file else [], spec_rows(kind.removesuffix("s"), spec)


def spec_rows(root: str, spec: Accelerator | Cluster | Grid | Prices) -> list[dict[str, Any]]:
    """One row per value of a spec: path, value in SI, unit, text for a person, and where it was read.

    What a relative's curves were fitted to is no source of a device that inherits them: its word on `kernels` is.
    """
    rows = []
    sources = dict(spec.sources)
    if isinstance(spec, Accelerator) and spec.kernels.status != "measured":
        sources = {path: source for path, source in sources.items() if not path.startswith("kernels.")}
    if isinstance(spec, Cluster):
        sources |= {f"tiers.{tier.name}.collectives": tier.source for tier in spec.tiers}
        inherited = [tier for tier in spec.tiers if tier.status != "measured"]
        sources |= {f"tiers.{tier.name}.libraries": tier.source for tier in inherited}
    if isinstance(spec, Prices):
        sources |= {f"markets.{name}": market.source for name, market in spec.markets.items()}
    for path, value, dimension in _leaves(spec, ()):
        if path[0] == "sources" or value in (None, "", ()) or path[-2:-1] == ("source",):
            continue
        source = source_of(sources, path)
        shown = _shown(value, dimension) if dimension else _text(value)
        field = ".".join((root, *path))
        rows.append(
            {
                "field": field,
                "value": value,
                "unit": dimension,
                "shown": shown,
                "kind": source.kind,
                "source": source.text,
            }
        )
    return rows


def _shown(value: float | dict[str, float], dimension: str) -> str:
    """A quantity, or a range of it."""
    return ranged(Range(**value), dimension) if isinstance(value, dict) else show(value, dimension)


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, str]]:
    """Walk a spec down to its plain values, with the dimension of each quantity."""
    if isinstance(value, Between):
        yield path, value.range._asdict(), value.quantity().dimension
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            inner = getattr(value, name)
            quantity = next(
                (m for m in (*field.metadata, *_metadata(field.annotation)) if isinstance(m, Quantity)), None
            )
            if quantity is not None and isinstance(inner, float):
                yield (*path, name), inner, quantity.dimension
            else:
                yield from _leaves(inner, (*path, name))
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, (*path, str(name)))
    elif isinstance(value, tuple):
        for i, inner in enumerate(value):
            label = getattr(inner, "name", None) or f"{i}-{getattr(inner, 'algorithm', '')}".rstrip("-")
            yield from _leaves(inner, (*path, label))
    else:
        yield path, value, ""


def _metadata(annotation: Any) -> Iterator[Any]:
    yield from getattr(annotation, "__metadata__", ())
    for inner in get_args(annotation):
        if not isinstance(inner, Quantity):
            yield from _metadata(inner)


def table(rows: Sequence[Mapping[str, Any]], columns: Columns) -> list[Any]:
    """Rows as a table for a person (quantities with their unit, missing values as n/a), below it what is broken."""
    from rich.text import Text

    whole = [row for row in rows if not row.get("problem")]
    broken = [Text(f"{row['name']} broken: {row['problem']}") for row in rows if row.get("problem")]
    if not whole:
        return ["nothing found", *broken]
    headers = {name: HEADERS.get(name, name.replace("_", " ")) for name in columns}
    shown = simple_table([{headers[name]: _cell(row.get(name), columns[name]) for name in columns} for row in whole])
    for line, (row, after) in zip(shown.rows, pairwise(whole), strict=False):
        line.end_section = _rank(row.get("vendor")) != _rank(after.get("vendor"))
    return [shown, *broken]


def sheet(values: Mapping[str, Any]) -> Any:
    """One thing's fields and values, in two columns."""
    hidden = ("schema_version", "name", "title")
    return fields_table(
        [(name.replace("_", " "), _text(value), "") for name, value in values.items() if name not in hidden]
    )


def sourced_sheet(files: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Every value with a number that points to its source below."""
    numbers: dict[tuple[str, str], int] = {}
    for row in rows:
        numbers.setdefault((row["kind"], row["source"]), len(numbers) + 1)
    lines = [
        (row["field"], row["shown"], f"{row['kind']} [{numbers[row['kind'], row['source']]}]")
        for row in rows
        if len(row["shown"]) <= LONG
    ]
    remarks = [f"{row['field']}: {row['shown']}" for row in rows if len(row["shown"]) > LONG]
    notes = [f"[{number}] {kind}: {text}" for (kind, text), number in numbers.items()]
    return [
        *map(plain, files),
        "",
        fields_table(lines),
        "",
        *map(plain, remarks),
        "\n[bold]Sources[/bold]",
        *map(plain, notes),
    ]


def fields_table(rows: Sequence[tuple[str, ...]]) -> Any:
    """Rows of text, all to the left; a column is one tall cell, as a table of a thousand cells takes a second."""
    from rich.table import Table

    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    cells = [_levelled(folded(row[0], PATH), *map(plain, row[1:])) for row in rows]
    grid.add_row(*("\n".join(column) for column in zip(*cells, strict=True)))
    return grid


def _levelled(*cells: str) -> list[str]:
    """Cells with as many lines as the tallest of them."""
    lines = max(cell.count("\n") for cell in cells)
    return [cell + "\n" * (lines - cell.count("\n")) for cell in cells]


def _cell(value: Any, dimension: str) -> str:
    if value is None:
        return "n/a"
    return show(float(value), dimension) if dimension else str(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if value > 99_999 else str(value)
    return "none" if value is None else str(value)
