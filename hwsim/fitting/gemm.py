"""Fits of matrix-multiply curves, per device, kernel library and dtype, on a table of measured latencies.

A device's own curve stands for mixed use: its sources count equally, the libraries of a source count equally, and
shapes of training (`TRAINING_SIZE` rows and more) count `TRAINING_WEIGHT` times. Each library has its own curve beside
it. Rows of block-scaled fp8 are left out: what they measure is mostly the host (see the notes of the table).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hwsim.costs.compute import HALF, device
from hwsim.fitting.fitted import Column, Errors, Fit, errors, left_out
from hwsim.fitting.solver import Coefficient, at_bounds, solve
from hwsim.fitting.tables import positive, read_table, texts
from hwsim.formulas.gemm import GemmMachine, gemm_s
from hwsim.specs.hardware import Accelerator, GemmFit
from hwsim.specs.library import ACCELERATORS, find, load_hardware

TABLE, TRAINING = "kernels/gemm.csv.gz", "kernels/training_b200_a100pcie.csv.gz"
BOX = "SimuMax's box"
"""Source of multiplies that stand for a training library on a loaded machine, not for the device at its best."""
TEXTS, SIZES = ("gpu", "source", "framework", "dtype"), ("m", "n", "k", "latency_us")
LIBRARIES = {"sarathi/torch": "torch"}
"""Libraries of the table under their names in the profiles, where they differ."""
DTYPES = {
    "bfloat16": "bf16", "float16": "bf16", "bf16": "bf16", "fp16": "bf16", "fp8": "fp8", "nvfp4": "fp4", "fp4": "fp4",
}  # fmt: skip
INPUT_BYTES = {"bf16": 2.0, "fp8": 1.0, "fp4": 0.5}
TRAINING_SIZE, TRAINING_WEIGHT = 1024, 2.0
FEWEST_ROWS = 60
MICRO = 1e-6
SLOW_CALL = 6.0
"""Fastest call from which on a fixed time is expected. [us]"""

SHARED = (
    Coefficient("efficiency", 0.7, 0.02, 1.0),
    Coefficient("k_half", 120, 0, 1500, decimals=0),
    Coefficient("tile_loss", 0.3, 0.0, 3.0),
    Coefficient("wave_quantisation", 0.25, 0.0, 1.0, decimals=2),
    Coefficient("split_latency", 3.0, 0.0, 40.0, "us", decimals=2),
    Coefficient("throttle", 0.2, 0.0, 1.5, decimals=2),
    Coefficient("memory_efficiency", 0.85, 0.02, 1.0),
    Coefficient("memory_latency", 1.0, 0.0, 10.0, "us", decimals=2),
    Coefficient("cache_gain", 1.8, 1.0, 8.0, decimals=2),
    Coefficient("latency", 2.5, 0.1, 40.0, "us", decimals=2),
)
CAST = (
    Coefficient("cast_bytes", 4.0, 0.0, 30.0, decimals=2),
    Coefficient("cast_row", 0.5, 0.0, 20.0, "ns", decimals=2),
)
EXTRA = {
    "weight_cache_gain": Coefficient("weight_cache_gain", 2.0, 1.0, 8.0, decimals=2),
    "floor": Coefficient("floor", 20.0, 0.0, 100.0, "us", decimals=2),
}
NEUTRAL: dict[str, Any] = {
    "tile": 128, "weight_cache_gain": 1, "floor": "0 us", "cast_bytes": 0, "cast_row": "0 ns",
}  # fmt: skip
"""What a curve says where nothing was looked for."""
SCALE = {"us": 1e-6, "ns": 1e-9, "": 1.0}


@dataclass(frozen=True)
class Target:
    """A device to fit."""

    gpu: str
    """Its name in the table."""
    profile: str
    relative: str = ""
    """Profile whose curve would stand for it if it had no rows."""
    extra: tuple[str, ...] = ()
    """Coefficients that only this kind of device needs."""
    card: str = ""
    """Profile of the card that was measured, where another one holds the curve for its family."""
    note: str = ""
    """What a reader of the source should know."""
    distant: bool = False
    """The relative is of another family: nothing nearer was measured."""

    @property
    def sheet(self) -> str:
        """Profile whose data sheet the rows belong to."""
        return self.card or self.profile


TARGETS = (
    Target("a100", "a100-sxm-80", note="large shapes of aiconfigurator and vidur, weighted equally, differ by 10 %"),
    Target("h100", "h100-sxm-80", "a100-sxm-80"),
    Target("b200", "b200-sxm", "h100-sxm-80"),
    Target("b300", "b300-sxm", "b200-sxm"),
    Target("gb200", "gb200", "b200-sxm", note="large shapes of vllm ran throttled"),
    Target("l40s", "l40s", "h100-sxm-80", ("weight_cache_gain",), distant=True),
    Target("b60", "arc-b60", "l40s", ("weight_cache_gain", "floor"), distant=True),
    Target(
        "v100_pcie",
        "v100-sxm2-32",
        "a100-sxm-80",
        card="v100-pcie-32",
        distant=True,
        note="its latency holds the launch; odd m of 2 to 64 ran without matrix units and is missed by half",
    ),
)
"""Devices in an order that fits a relative first."""


@dataclass(frozen=True)
class Shapes:
    """Measured multiplies of one device in one dtype."""

    m: Column
    n: Column
    k: Column
    seconds: Column
    weight: Column
    input_bytes: float
    output_bytes: float = 2.0

    def take(self, kept: npt.NDArray[np.bool_]) -> Shapes:
        """The rows of a mask."""
        rows = (self.m[kept], self.n[kept], self.k[kept], self.seconds[kept], self.weight[kept])
        return Shapes(*rows, self.input_bytes, self.output_bytes)

    @property
    def keys(self) -> npt.NDArray[np.int64]:
        """A number for each shape."""
        return np.asarray(self.m * 2.0**34 + self.n * 2.0**17 + self.k, np.int64)

    def predict(self, machine: GemmMachine) -> Column:
        """Seconds of every row."""
        return np.asarray(gemm_s(self.m, self.n, self.k, machine, 1.0, self.input_bytes, self.output_bytes), np.float64)


def fit_gemms(folder: Path) -> list[Fit]:
    """Fit the curves of every measured device that has a profile on the table of a folder."""
    table = pd.concat([read_rows(folder / TABLE), training_rows(folder / TRAINING)], ignore_index=True)
    half: dict[str, dict[str, Any]] = {}
    fits: list[Fit] = []
    for target in TARGETS:
        rows = table[table["gpu"] == target.gpu]
        if len(rows) < FEWEST_ROWS or not find(ACCELERATORS, target.sheet):
            continue
        for fit in fit_target(target, rows):
            if fit.path == ("kernels", "gemm"):
                half[target.profile] = fit.values
                fit = replace(fit, relative=target.relative, distant=target.distant, unseen=_unseen(target, rows, half))  # noqa: PLW2901
            fits.append(fit)
    return fits


def read_rows(path: Path) -> pd.DataFrame:
    """Rows of the table in dtypes that have a curve; what is wrong with one of them is said by row and column.

    Raises
    ------
    InputFileError
        If the table is missing, lacks a column, or a size or latency is no positive number.
    """
    table = read_table(path, (*TEXTS, *SIZES))
    table = table.assign(dtype=table["dtype"].map(DTYPES))
    table = texts(table[table["dtype"].notna()], path, TEXTS)
    return positive(table.assign(library=table["framework"].replace(LIBRARIES)), path, SIZES)


def training_rows(path: Path) -> pd.DataFrame:
    """Multiplies as PyTorch runs them in training on the B200 box, all layouts: half of the time at its power limit."""
    table = read_table(path, ("hardware", "op", "m", "n", "k", "implied_time_us"))
    rows = table[(table["op"] == "matmul") & table["hardware"].astype(str).str.contains("B200")]
    rows = rows.rename(columns={"implied_time_us": "latency_us"})
    rows = rows.assign(gpu="b200", source=BOX, framework="torch", library="torch", dtype=HALF)
    return positive(rows[[*TEXTS, "library", *SIZES]], path, SIZES)


def fit_target(target: Target, rows: pd.DataFrame) -> Iterator[Fit]:
    """Fit one device: its own curve by dtype, then those of each library."""
    peak = load_hardware(target.sheet).accelerator.peak
    has = {HALF: peak.bf16 or peak.fp16, "fp8": peak.fp8, "fp4": peak.fp4}
    libraries = sorted(rows["library"].unique())
    places: dict[tuple[str, ...], pd.DataFrame] = {("kernels", "gemm"): rows[rows["source"] != BOX]}
    places |= {("kernels", "libraries", name, "gemm"): rows[rows["library"] == name] for name in libraries}
    for path, part in places.items():
        for dtype in INPUT_BYTES:
            chosen = part[part["dtype"] == dtype]
            if len(chosen) >= FEWEST_ROWS and has[dtype]:
                place = path if dtype == HALF else (*path, "dtypes", dtype)
                yield _fit(target, place, chosen, dtype)


def shapes_of(rows: pd.DataFrame, dtype: str) -> Shapes:
    """Rows as columns; among large shapes and among others, sources count equally, and so do the libraries of one."""
    large = (rows[["m", "n", "k"]] >= TRAINING_SIZE).all(axis=1).rename("large")
    class_rows = large.groupby(large).transform("size")
    libraries = rows.groupby(["source", large])["library"].transform("nunique")
    sources = rows.groupby(large)["source"].transform("nunique")
    each = rows.groupby(["source", "library", large])["m"].transform("size")
    weight = np.where(large, TRAINING_WEIGHT, 1.0) * class_rows / (sources * libraries * each)
    m, n, k, latency = (rows[name].to_numpy(np.float64) for name in SIZES)
    return Shapes(m, n, k, latency * MICRO, np.asarray(weight, np.float64), INPUT_BYTES[dtype])


def _fit(target: Target, path: tuple[str, ...], rows: pd.DataFrame, dtype: str) -> Fit:
    """Fit one curve on rows of the table."""
    shapes = shapes_of(rows, dtype)
    data = _words(rows, target.note if path == ("kernels", "gemm") else "")
    device = load_hardware(target.sheet).accelerator
    return fit_shapes(target.profile, path, data, (device, dtype), shapes, _coefficients(target, shapes, dtype))


def fit_shapes(
    profile: str,
    path: tuple[str, ...],
    data: str,
    bound: tuple[Accelerator, str],
    shapes: Shapes,
    coefficients: Sequence[Coefficient],
    neutral: Mapping[str, Any] = MappingProxyType({}),
) -> Fit:
    """Fit one curve of a device at a dtype on rows from wherever, on all and with each fifth of the shapes left out."""
    start = curve_values(coefficients, np.array([c.rounded(c.start) for c in coefficients]), neutral)
    machine = machine_of(*bound, start)

    def curve(values: Column) -> GemmMachine:
        named = zip(coefficients, values, strict=True)
        return machine._replace(**{c.name + ("_s" if c.unit else ""): float(v) * SCALE[c.unit] for c, v in named})

    def found(kept: npt.NDArray[np.bool_]) -> Column:
        part = shapes.take(kept)
        return solve(lambda values: part.predict(curve(values)), part.seconds, part.weight, coefficients)

    whole = found(np.ones(len(shapes.m), bool))
    unseen = left_out(shapes.keys, lambda kept: lambda: shapes.predict(curve(found(kept))))
    return Fit(
        profile=profile,
        path=path,
        data=data,
        values=curve_values(coefficients, whole, neutral),
        inside=errors(shapes.predict(curve(whole)), shapes.seconds),
        outside=errors(unseen, shapes.seconds),
        at_bound=at_bounds(coefficients, whole),
    )


def _coefficients(target: Target, shapes: Shapes, dtype: str) -> list[Coefficient]:
    """What to find for one curve; fixed times start where the fastest row is."""
    found = [*SHARED, *(EXTRA[name] for name in target.extra), *(CAST if dtype != HALF else ())]
    least = float(shapes.seconds.min()) / MICRO
    slow = "floor" if "floor" in target.extra else "latency"
    return [replace(c, start=min(0.9 * least, c.high)) if c.name == slow and least > SLOW_CALL else c for c in found]


def curve_values(
    coefficients: Sequence[Coefficient], values: Column, neutral: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Every field of a curve as the YAML writes it; what was not looked for is as `neutral` says, else `NEUTRAL`."""
    found = {c.name: c.written(value) for c, value in zip(coefficients, values.tolist(), strict=True)}
    return {name: found.get(name, neutral.get(name, NEUTRAL.get(name))) for name in GemmFit.model_fields}


def machine_of(accelerator: Accelerator, dtype: str, values: Mapping[str, Any]) -> GemmMachine:
    """A device with a curve that its YAML need not have."""
    peak = dtype if getattr(accelerator.peak, dtype) else "fp16"
    curve = GemmFit.model_validate(values)
    fields = {name: name.removesuffix("_s") for name in GemmMachine._fields}
    own = {name: float(getattr(curve, field)) for name, field in fields.items() if field in GemmFit.model_fields}
    return device(accelerator, peak).gemm._replace(**own)


def _unseen(target: Target, rows: pd.DataFrame, half: Mapping[str, dict[str, Any]]) -> Errors | None:
    """Errors of the relative's curve with this device's own data sheet, on rows that it never saw."""
    if target.relative not in half:
        return None
    shapes = shapes_of(rows[rows["dtype"] == HALF], HALF)
    return errors(
        shapes.predict(machine_of(load_hardware(target.sheet).accelerator, HALF, half[target.relative])), shapes.seconds
    )


def _words(rows: pd.DataFrame, note: str) -> str:
    """The rows in words."""
    parts = [f"{source}: {', '.join(sorted(part['library'].unique()))}" for source, part in rows.groupby("source")]
    return f"{len(rows):,} rows ({'; '.join([*parts, note] if note else parts)})"
