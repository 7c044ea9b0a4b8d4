"""Fits of memory-bound kernels (norms, activations, rotary embedding, residual adds) on a table of measured latencies.

Bytes count every pass of PyTorch's eager kernels, as the frameworks' habits do (see `hwsim.formulas.stream`). Kernels
that a cache serves in part, because the one before left their input there, do not count: large tensors give the
bandwidth, small ones the latency. Embedding look-ups are left out: the table times them with the masking of a
vocabulary shard, a dozen passes over their output.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hwsim.fitting.fitted import Column, Fit, errors, left_out
from hwsim.fitting.solver import Coefficient, at_bounds, solve
from hwsim.fitting.tables import positive, read_table
from hwsim.formulas.stream import StreamMachine, stream_s
from hwsim.specs.library import ACCELERATORS, find, load_hardware

TABLE = "kernels/elementwise.csv.gz"
PROFILES = {"a100": "a100-sxm-80", "h100": "h100-sxm-80"}
"""GPU of the table to accelerator."""
SIZES = ("tp", "num_tokens", "hidden", "heads", "kv_heads", "ffn", "latency_us")
ELEMENT_BYTES = 2.0
FEWEST_ROWS = 20
SMALL, LARGE = 1 / 8, 4.0
"""Bytes moved, in caches, up to which a kernel counts for the latency and from which it counts for the bandwidth."""
COEFFICIENTS = (Coefficient("efficiency", 0.85, 0.05, 1.0), Coefficient("latency", 2.0, 0.1, 40.0, "us", decimals=2))


def fit_streams(folder: Path) -> list[Fit]:
    """Fit ``kernels.stream`` of every device in the table of a folder.

    Parameters
    ----------
    folder
        Holds ``kernels/elementwise.csv.gz``.
    """
    path = folder / TABLE
    table = positive(read_table(path, ("gpu", "op", *SIZES)), path, SIZES)
    table = table.assign(bytes=moved_bytes(table)).dropna(subset=["bytes"])
    parts = {gpu: table[table["gpu"] == gpu] for gpu in PROFILES}
    return [
        fit_device(PROFILES[gpu], part)
        for gpu, part in parts.items()
        if len(part) >= FEWEST_ROWS and find(ACCELERATORS, PROFILES[gpu])
    ]


def moved_bytes(table: pd.DataFrame) -> pd.Series:
    """Bytes read and written by PyTorch's eager kernels, by operation; missing for embeddings and unknown ones.

    Examples
    --------
    >>> row = {"op": "mlp_act", "tp": 2, "num_tokens": 10, "hidden": 64, "heads": 4, "kv_heads": 4, "ffn": 100}
    >>> moved_bytes(pd.DataFrame([row])).tolist()  # five arrays of 10 x 50, two bytes each
    [5000.0]
    """
    one = table["num_tokens"] * ELEMENT_BYTES
    rotated = (table["heads"] + table["kv_heads"]) * table["hidden"] / table["heads"] / table["tp"]
    passes = {
        "add": 3.0 * table["hidden"],
        "input_layernorm": 5.0 * table["hidden"],
        "post_attention_layernorm": 5.0 * table["hidden"],
        "attn_rope": 4.0 * rotated,
        "mlp_act": 5.0 * table["ffn"] / table["tp"],
    }
    width = pd.Series(np.nan, index=table.index)
    for name, value in passes.items():
        width = width.where(table["op"] != name, value)
    return one * width


def fit_device(profile: str, table: pd.DataFrame) -> Fit:
    """Efficiency and latency of one device; operations count alike."""
    device = load_hardware(profile).accelerator
    size, measured = table["bytes"].to_numpy(np.float64), 1e-6 * table["latency_us"].to_numpy(np.float64)
    cache = device.cache or 0.0
    alike = 1.0 / table.groupby("op")["bytes"].transform("size").to_numpy(np.float64)
    weights = alike * ((size <= SMALL * cache) | (size >= LARGE * cache))
    shapes = table.groupby(["op", "num_tokens", "hidden", "tp", "ffn", "kv_heads"]).ngroup().to_numpy()
    kernels = Kernels(size, measured, weights, shapes)
    return fit_kernels(profile, ("kernels", "stream"), "Vidur (PyTorch, fp16)", device.memory.bandwidth, kernels)


@dataclass(frozen=True)
class Kernels:
    """Memory-bound kernels: bytes moved, seconds, how much each counts, and a number for each shape."""

    size: Column
    seconds: Column
    weight: Column
    shapes: npt.NDArray[Any]


def fit_kernels(
    profile: str,
    path: tuple[str, ...],
    data: str,
    bandwidth_bytes_per_s: float,
    kernels: Kernels,
    coefficients: tuple[Coefficient, ...] = COEFFICIENTS,
) -> Fit:
    """Efficiency and latency of kernels from wherever, on all and with each fifth of the shapes left out."""

    def predict(at: Column, values: Column) -> Column:
        return np.asarray(stream_s(at, StreamMachine(bandwidth_bytes_per_s, values[0], 1e-6 * values[1])), np.float64)

    def best(kept: npt.NDArray[np.bool_]) -> Column:
        part = partial(predict, kernels.size[kept])
        return solve(part, kernels.seconds[kept], kernels.weight[kept], coefficients)

    found = best(np.ones(len(kernels.size), dtype=bool))
    left = left_out(kernels.shapes, lambda kept: partial(predict, kernels.size, best(kept)))
    values = {one.name: one.written(float(value)) for one, value in zip(coefficients, found, strict=True)}
    inside, outside = errors(predict(kernels.size, found), kernels.seconds), errors(left, kernels.seconds)
    return Fit(profile, path, values, data, inside, outside, at_bound=at_bounds(coefficients, found))
