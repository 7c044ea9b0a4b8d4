"""Fits of fused experts, by device, kernel library and format, on a table of measured layers.

A library's curve stands for the kernel that most of its rows of a format ran; other kernels of which there are enough
rows get curves under their own names. The device's own curve of a format is that of the library with most rows: kernels
differ too much to be pooled. Rows faster than their weights come at the data-sheet bandwidth were read from a cache, as
no layer of a model is: they do not count. Where no row had experts elsewhere, all of their passes are assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hwsim.fitting.experts_rows import FORMATS, Rows, columns, experts_table
from hwsim.fitting.fitted import Column, Errors, Fit, errors, left_out
from hwsim.fitting.solver import Coefficient, at_bounds, solve
from hwsim.formulas.experts import ExpertsMachine
from hwsim.specs.hardware import Accelerator, ExpertsFit
from hwsim.specs.library import ACCELERATORS, find, load_hardware

TARGETS = {
    "a100": ("a100-sxm-80", ""), "h100": ("h100-sxm-80", "a100"), "b200": ("b200-sxm", "h100"),
    "b300": ("b300-sxm", "b200"), "gb200": ("gb200", "b200"), "l40s": ("l40s", ""), "b60": ("arc-b60", ""),
}  # fmt: skip
"""GPU of the table to accelerator, and the GPU whose curve would stand for it if it had no rows."""
FEWEST_ROWS, FEWEST_OTHERS = 40, 80
"""Rows from which on a library's kernel is fitted, and a kernel beside it."""
OTHERS = {"triton": "triton", "flashinfer_cutlass": "flashinfer", "flashinfer_trtllm": "flashinfer"}
"""Kernels fitted beside a framework's usual one, under the names that profiles have for them."""
MULTIPLIES = {"bf16": "bf16", "fp8": "fp8", "fp8_block": "fp8", "fp4": "fp4", "mxfp4_fp8": "fp8"}
"""Dtype of the multiplies, where it is not half precision."""
COEFFICIENTS = (
    Coefficient("efficiency", 0.5, 0.01, 1.0),
    Coefficient("pad_rows", 32, 0, 400, decimals=1),
    Coefficient("memory_efficiency", 0.7, 0.03, 1.0),
    Coefficient("latency", 20.0, 1.0, 300.0, "us", decimals=2),
    Coefficient("step", 0.5, 0.0, 20.0, "ns", decimals=2),
    Coefficient("memory_latency", 10.0, 0.0, 200.0, "us", decimals=2),
    Coefficient("passes", 1.5, 1.0, 30.0, decimals=2),
    Coefficient("remote_share", 0.3, 0.0, 1.0),
    Coefficient("token_passes", 1.0, 0.0, 50.0, decimals=2),
)
NAMES = np.array([one.name for one in COEFFICIENTS])
SCALE = {"us": 1e-6, "ns": 1e-9, "": 1.0}
SCALES = np.array([SCALE[one.unit] for one in COEFFICIENTS])


@dataclass(frozen=True)
class Sample:
    """What one curve is fitted on."""

    device: Accelerator
    kind: str
    rows: Rows
    weights: Column

    def machine(self, values: Column) -> ExpertsMachine:
        """The machine of some coefficients on this device's data sheet."""
        names = (f"{one.name}_s" if one.unit else one.name for one in COEFFICIENTS)
        peaks = self.device.peak
        return ExpertsMachine(
            peak_flops_per_s=getattr(peaks, MULTIPLIES.get(self.kind, "bf16")) or peaks.bf16 or peaks.fp16 or 1.0,
            bandwidth_bytes_per_s=self.device.memory.bandwidth,
            **dict(zip(names, values * SCALES, strict=True)),
        )

    def best(self, kept: npt.NDArray[np.bool_]) -> Column:
        """Coefficients from some of the rows."""
        rows = self.rows.take(kept)
        found = solve(lambda at: rows.predict(self.machine(at)), rows.measured_s, self.weights[kept], COEFFICIENTS)
        return np.where((NAMES == "remote_share") & ~rows.elsewhere.any(), 1.0, found)

    def errors(self, predicted: Column) -> Errors:
        """Errors of the rows that count."""
        counts = self.weights > 0
        return errors(predicted[counts], self.rows.measured_s[counts])


def fit_experts(folder: Path) -> list[Fit]:
    """Fit every device, library and format with enough rows in the table of a folder.

    Parameters
    ----------
    folder
        Holds ``kernels/moe.csv.gz``.

    Returns
    -------
    list of Fit
        Formats at ``kernels.experts.dtypes`` (of the library with most rows) and
        ``kernels.libraries.NAME.experts.dtypes`` (a framework's usual kernel, and others under their own names).
    """
    table = experts_table(folder)
    usual: dict[tuple[str, str], Fit] = {}
    found = []
    for gpu, (profile, relative) in TARGETS.items():
        own = table[table["gpu"] == gpu]
        if not len(own) or not find(ACCELERATORS, profile):
            continue
        for kind in dict.fromkeys(name for name, _ in FORMATS.values()):
            parts = libraries(own[own["format"] == kind])
            fits = [fit_curve(profile, name, kind, part) for name, part in parts.items()]
            if fits:
                usual[gpu, kind] = max(fits, key=lambda fit: fit.inside.rows)
                part = parts[usual[gpu, kind].path[2]]
                found += [of_device(usual[gpu, kind], part, usual.get((relative, kind))), *fits]
    return found


def libraries(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows by library: each framework's usual kernel, and other kernels under their own names.

    Examples
    --------
    >>> rows = [("vllm", "marlin")] * 90 + [("vllm", "triton")] * 85 + [("sglang", "triton")] * 3
    >>> parts = libraries(pd.DataFrame(rows, columns=["framework", "family"]))
    >>> {name: len(part) for name, part in parts.items()}
    {'vllm': 90, 'triton': 88}
    """
    usual = table.groupby("framework")["family"].agg(lambda names: names.value_counts().index[0])
    main = table["family"] == table["framework"].map(usual)
    small = table.groupby("framework")["family"].transform("size") < FEWEST_ROWS
    own = {str(name): part for name, part in table[main & ~small].groupby("framework") if len(part) >= FEWEST_ROWS}
    rest = table[~main | small]
    named = rest.groupby(rest["family"].map(OTHERS))
    return own | {str(name): part for name, part in named if len(part) >= FEWEST_OTHERS}


def fit_curve(profile: str, library: str, kind: str, table: pd.DataFrame) -> Fit:
    """One curve: its coefficients, and the errors in and out of sample."""
    sample = sample_of(profile, kind, table)
    values = sample.best(np.ones(len(sample.rows), dtype=bool))

    def leave(kept: npt.NDArray[np.bool_]) -> Any:
        machine = sample.machine(sample.best(kept))
        return lambda: sample.rows.predict(machine)

    return Fit(
        profile,
        ("kernels", "libraries", library, "experts", "dtypes", kind),
        {one.name: one.written(float(value)) for one, value in zip(COEFFICIENTS, values, strict=True)},
        f"{int(sample.weights.sum()):,} rows (aiconfigurator: {_named(table)})",
        sample.errors(sample.rows.predict(sample.machine(values))),
        sample.errors(left_out(sample.rows.shape, leave)),
        at_bound=at_bounds(COEFFICIENTS, values),
    )


def sample_of(profile: str, kind: str, table: pd.DataFrame) -> Sample:
    """What a curve of one format is fitted on: all rows of a table alike, but those that a cache served."""
    device, rows = load_hardware(profile).accelerator, columns(table)
    return Sample(device, kind, rows, np.asarray(rows.possible(device.memory.bandwidth), np.float64))


def of_device(fit: Fit, table: pd.DataFrame, relative: Fit | None) -> Fit:
    """A library's curve as the device's own, and its rows as the curve of a relative would have them."""
    own = replace(fit, path=("kernels", *fit.path[3:]))
    if relative is None:
        return own
    sample = sample_of(fit.profile, fit.path[-1], table)
    unseen = sample.errors(sample.rows.predict(sample.machine(_values(relative))))
    return replace(own, relative=relative.profile, unseen=unseen)


def _named(table: pd.DataFrame) -> str:
    """Software and kernels of some rows."""
    pairs = zip(table["framework"], table["family"], strict=True)
    return ", ".join(sorted({f"{framework} {family}" for framework, family in pairs}))


def _values(fit: Fit) -> Column:
    """The coefficients of a fit as numbers, in the units of `COEFFICIENTS`."""
    curve = ExpertsFit.model_validate(fit.values)
    return np.asarray([getattr(curve, one.name) for one in COEFFICIENTS] / SCALES, np.float64)
