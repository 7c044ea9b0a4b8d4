"""Fits of multi-head latent attention (MLA), by device, kernel library and dtype of the cache, on a table of kernels.

Prefill runs as plain attention with keys of 192 and values of 128; decode in the absorbed form: the queries of all
heads over one latent of 576 per token, of which the values are 512, read once for both. The formula is that of any
attention, with the mean width and the bytes of the cache per element of it. Frameworks that were measured kernel by
kernel show the host where kernels are short: floors are fitted along with their curves, and kept out of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hwsim.fitting.attention import BACKWARD_SHARE, COEFFICIENTS
from hwsim.fitting.attention_rows import KV_BYTES, Rows, accelerator, machine
from hwsim.fitting.fitted import Column, Errors, Fit, errors, left_out, parts_of
from hwsim.fitting.solver import Coefficient, at_bounds, solve
from hwsim.fitting.tables import not_negative, positive, read_table, texts
from hwsim.formulas.attention import SPLIT_KEYS, AttentionMachine
from hwsim.specs.hardware import Accelerator
from hwsim.specs.library import ACCELERATORS, find
from hwsim.units import MILLION

TABLE = "kernels/mla.csv.gz"
TEXTS, SIZES = ("gpu", "phase", "framework", "kernel", "kv_dtype"), ("heads", "batch", "q_len", "latency_us")
PROFILES = {
    "a100": "a100-sxm-80", "h100": "h100-sxm-80", "b200": "b200-sxm", "gb200": "gb200", "b300": "b300-sxm",
    "l40s": "l40s",
}  # fmt: skip
"""GPU of the table to accelerator."""
DTYPES = {"bfloat16": "bf16", "fp8": "fp8"}
KEY, VALUE = 576.0, 512.0
"""Width of a latent with its rotary part, as keys; of the part that are values."""
PREFILL_WIDTH = (192.0 + 128.0) / 2.0
"""Mean width of keys and values when latents are expanded."""
FEW = 25
SLOW_CALL = 60.0
"""Fastest decode from which on the host is looked for. [us]"""
TRAITS: tuple[dict[str, float], ...] = tuple(
    {"query_rows": query, "decode_rows": rows, "lone_rows": rows, "packed_heads": 4096.0, "split_keys": split}
    for query in (16.0, 128.0) for rows in (16.0, 64.0, 128.0) for split in (SPLIT_KEYS, MILLION)
)  # fmt: skip
CURVE = (
    *COEFFICIENTS,
    Coefficient("decode_passes", 2.0, 1.0, 60.0, decimals=2),
    Coefficient("decode_rate", 1.0, 0.05, 10.0, decimals=2),
)
QUICK = {"latency": 15.0, "split_latency": 8.0, "prefill_latency": 8.0}
"""Longest fixed times of a kernel where the host hides them. [us]"""
HOST = (
    Coefficient("decode_host", 200.0, 10.0, 600.0, "us", decimals=2),
    Coefficient("prefill_host", 100.0, 10.0, 600.0, "us", decimals=2),
)
"""Floors of calls, where the host shows."""
SCALE = np.array([1e-6 if one.unit else 1.0 for one in CURVE])


@dataclass(frozen=True)
class Sample:
    """What one curve is fitted on."""

    device: Accelerator
    dtype: str
    rows: Rows

    @property
    def coefficients(self) -> tuple[Coefficient, ...]:
        """What is sought: with floors where no decode is quick."""
        if self.rows.measured_s[self.rows.q_len <= 1].min() < 1e-6 * SLOW_CALL:
            return CURVE
        return (*(replace(one, high=QUICK.get(one.name, one.high)) for one in CURVE), *HOST)

    @property
    def weights(self) -> Column:
        """Prefill and decode count alike; rows faster than memory do not count."""
        many = self.rows.q_len > 1
        share = np.where(many, 0.5 / max(many.sum(), 1), 0.5 / max((~many).sum(), 1))
        return np.asarray(share * self.rows.possible(self.device), np.float64)

    def machine(self, traits: Mapping[str, float], values: Column) -> AttentionMachine:
        """The machine of these coefficients."""
        names = (f"{one.name}_s" if one.unit else one.name for one in CURVE)
        fitted = dict(zip(names, (values[: len(CURVE)] * SCALE).tolist(), strict=True))
        return machine(self.device, self.dtype, {**traits, **fitted, "backward_efficiency": 0.5})

    def predict(self, traits: Mapping[str, float], values: Column) -> Column:
        """Times as the benchmark saw them, host and all. [s]"""
        seconds = self.rows.forward_s(self.machine(traits, values))
        floors = 1e-6 * values[len(CURVE) :]
        return np.maximum(seconds, np.where(self.rows.q_len > 1, floors[1], floors[0])) if len(floors) else seconds

    def best(self, traits: Mapping[str, float]) -> Column:
        """Coefficients for these traits."""
        return solve(partial(self.predict, traits), self.rows.measured_s, self.weights, self.coefficients)

    def miss(self, traits: Mapping[str, float], values: Column) -> float:
        """Mean error, large ones cut at one half, of all rows that count."""
        error = np.abs(np.log(self.predict(traits, values) / self.rows.measured_s))
        return float(np.average(np.minimum(error, 0.5), weights=self.weights))

    def without(self, out: npt.NDArray[np.bool_], traits: Mapping[str, float]) -> Column:
        """Predictions of all rows from a fit on some of them."""
        return self.predict(traits, Sample(self.device, self.dtype, self.rows.take(out)).best(traits))


def fit_latent(folder: Path) -> list[Fit]:
    """Fit every device, library and dtype with enough rows in the table of a folder.

    Parameters
    ----------
    folder
        Holds ``kernels/mla.csv.gz``.

    Returns
    -------
    list of Fit
        Curves at ``kernels.latent`` (of the library that is met best) and ``kernels.libraries.NAME.latent``, and their
        ``dtypes.fp8``.
    """
    table = latent_table(folder)
    found: list[Fit] = []
    for gpu, profile in PROFILES.items():
        own = table[table["gpu"] == gpu]
        if not len(own) or not find(ACCELERATORS, profile):
            continue
        libraries = {str(name): list(_curves(profile, str(name), part)) for name, part in own.groupby("framework")}
        whole = {name: fits for name, fits in libraries.items() if fits}
        if whole:
            best = min(whole.values(), key=lambda fits: (-len(fits), fits[0].outside.median))
            found += [replace(fit, path=("kernels", *fit.path[3:])) for fit in best]
            found += [fit for fits in whole.values() for fit in fits]
    return found


def latent_table(folder: Path) -> pd.DataFrame:
    """The table, rows of unknown dtypes left out."""
    path = folder / TABLE
    table = texts(read_table(path, (*TEXTS, *SIZES, "past_kv")), path, TEXTS)
    table = table[table["kv_dtype"].isin(DTYPES) & table["phase"].isin(("prefill", "decode"))]
    return not_negative(positive(table, path, SIZES), path, ("past_kv",))


def columns(table: pd.DataFrame) -> Rows:
    """Columns of a part of `latent_table`.

    Examples
    --------
    A decode of 16 heads: as attention of width 544 that takes 576 bytes a token from an fp8 cache, not 2 * 544.

    >>> sizes = {"heads": 16, "batch": 2, "q_len": 1, "past_kv": 99, "latency_us": 9}
    >>> rows = columns(pd.DataFrame([{"phase": "decode", "kv_dtype": "fp8", **sizes}]))
    >>> float(rows.kv_heads[0]), float(rows.head_dim[0]), round(float(2 * rows.head_dim[0] * rows.kv_bytes[0]))
    (1.0, 544.0, 576)
    """
    given = {name: table[name].to_numpy(np.float64) for name in (*SIZES, "past_kv")}
    decode = (table["phase"] == "decode").to_numpy()
    width = np.where(decode, (KEY + VALUE) / 2.0, PREFILL_WIDTH)
    cached = np.array([KV_BYTES.get(name, 2.0) for name in table["kv_dtype"]])
    return Rows(
        *(given["batch"], given["q_len"], given["past_kv"] + given["q_len"], given["heads"]),
        *(np.where(decode, 1.0, given["heads"]), width, np.ones(len(table))),
        kv_bytes=np.where(decode, cached * KEY / (KEY + VALUE), 2.0),
        measured_s=1e-6 * given["latency_us"],
    )


def _curves(profile: str, library: str, table: pd.DataFrame) -> Iterator[Fit]:
    """Curves of one library by dtype; none of fp8 alone."""
    for name, dtype in DTYPES.items():
        part = table[table["kv_dtype"] == name]
        if part["phase"].value_counts().reindex(("prefill", "decode"), fill_value=0).min() < FEW:
            return
        place = ("kernels", "libraries", library, "latent", *(("dtypes", dtype) if dtype != "bf16" else ()))
        named = f"{len(part):,} rows (aiconfigurator: {library} {' and '.join(sorted(set(part['kernel'])))}, {dtype})"
        yield fit_curve(profile, place, Sample(accelerator(profile), dtype, columns(part)), named)


def fit_curve(profile: str, place: tuple[str, ...], sample: Sample, data: str) -> Fit:
    """One curve: the best traits, their coefficients, and the errors in and out of sample."""
    tried = [(traits, sample.best(traits)) for traits in TRAITS]
    traits, values = min(tried, key=lambda pair: sample.miss(*pair))

    def fit(kept: npt.NDArray[np.bool_]) -> Any:
        return partial(sample.without, kept, traits)

    measured, many = sample.rows.measured_s, sample.rows.q_len > 1
    left = left_out(sample.rows.shapes(), fit)
    parts: dict[str, Errors] = parts_of(left, measured, {"prefill": many, "decode": ~many})
    inside, outside = errors(sample.predict(traits, values), measured), errors(left, measured)
    bounds = at_bounds(sample.coefficients, values)
    return Fit(profile, place, written(traits, values), data, inside, outside, parts=parts, at_bound=bounds)


def written(traits: Mapping[str, float], values: Column) -> dict[str, Any]:
    """Coefficients as a profile has them: the host's are left out."""
    fitted = {one.name: one.written(float(value)) for one, value in zip(CURVE, values, strict=False)}
    backward = round(BACKWARD_SHARE * float(fitted["forward_efficiency"]), 3)
    found = {**fitted, **{name: int(value) for name, value in traits.items()}, "backward_efficiency": backward}
    order = [name.removesuffix("_s") for name in AttentionMachine._fields]
    return {name: found[name] for name in order if name in found}
