"""Fits of fused attention, by device, kernel library and dtype, on tables of measured kernels.

Prefill and decode of a library are fitted together and count alike. Five traits of the kernels (tile heights, how many
heads a decode packs) are tried in turn; ten coefficients are fitted for each. The backward efficiency comes from
training kernels or published rates, for the forward coefficients stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hwsim.fitting.attention_rows import Rows, accelerator, columns, inference_table, machine, training_rows
from hwsim.fitting.fitted import Column, Fit, errors, left_out, parts_of
from hwsim.fitting.solver import Coefficient, at_bounds, solve
from hwsim.formulas.attention import AttentionMachine
from hwsim.specs.hardware import Accelerator
from hwsim.specs.library import ACCELERATORS, find
from hwsim.units import TERA

PROFILES = {
    "a100": "a100-sxm-80", "h100": "h100-sxm-80", "b200": "b200-sxm", "gb200": "gb200", "b300": "b300-sxm",
    "l40s": "l40s", "b60": "arc-b60",
}  # fmt: skip
"""GPU of the tables to accelerator."""
PLACE = ("kernels", "attention")
DTYPES = {"bf16": "bfloat16", "fp8": "fp8"}
MAIN_SHARE, FEW = 0.2, 25
"""Share of a framework's rows from which a kernel is one of its own; rows of a stage below which nothing is fitted."""

COEFFICIENTS = (
    Coefficient("latency", 10.0, 1.0, 100.0, "us", decimals=2),
    Coefficient("split_latency", 2.0, 0.0, 60.0, "us", decimals=2),
    Coefficient("prefill_latency", 2.0, 0.0, 60.0, "us", decimals=2),
    Coefficient("forward_efficiency", 0.8, 0.02, 1.0),
    Coefficient("softmax_width", 80, 0, 400, decimals=0),
    Coefficient("overhead_keys", 300, 0, 5000, decimals=0),
    Coefficient("tail", 0.5, 0.0, 3.0, decimals=2),
    Coefficient("memory_efficiency", 0.9, 0.05, 1.0),
    Coefficient("prefill_passes", 2.5, 1.0, 30.0, decimals=2),
    Coefficient("decode_overhead_keys", 600, 0, 9000, decimals=0),
)
SCALE = np.array([1e-6 if one.unit else 1.0 for one in COEFFICIENTS])
TRAITS = {"query_rows": (16.0, 64.0, 128.0), "decode_rows": (16.0, 64.0, 128.0)}
USUAL_TRAITS = {"query_rows": 64.0, "decode_rows": 64.0, "lone_rows": 64.0, "packed_heads": 4096.0}
PACKING = ((None, 4096.0), (16.0, 32.0))
"""Rows of a lone head (none: as a packed block has) and most heads packed: all of them, or as XQA does."""


@dataclass(frozen=True)
class Published:
    """A rate that somebody published: causal, head_dim 128, the same number of query and key heads."""

    profile: str
    library: str
    seq_len: float
    batch: float
    heads: float
    forward: float
    backward: float
    """[TFLOP/s]"""


PAPERS = {
    "fa1": "rates of first-generation fused attention (Triton, FlashAttention 1), derived from llm-foundry's runs at "
    "8k to 65k tokens; on A100 as in figures 5 and 6 of the FlashAttention-2 paper",
    "fa2": "rates of the FlashAttention-3 paper, recalled",
    "fa3": "rates of the FlashAttention-3 paper, recalled",
}
PUBLISHED = (  # FlashAttention-3 paper, figures 5 and 6 (16k tokens, 16 heads), recalled within 5 %; fa1: see PAPERS
    Published("a100-sxm-80", "fa1", 2048, 8, 16, 92, 88),
    Published("a100-sxm-80", "fa1", 8192, 2, 16, 100, 97),
    Published("a100-sxm-80", "fa1", 32768, 1, 16, 102, 101),
    Published("h100-sxm-80", "fa1", 2048, 8, 16, 215, 175),
    Published("h100-sxm-80", "fa1", 8192, 2, 16, 240, 197),
    Published("h100-sxm-80", "fa1", 32768, 1, 16, 252, 207),
    Published("h100-sxm-80", "fa2", 2048, 8, 16, 320, 250),
    Published("h100-sxm-80", "fa2", 4096, 4, 16, 350, 280),
    Published("h100-sxm-80", "fa2", 8192, 2, 16, 368, 300),
    Published("h100-sxm-80", "fa2", 16384, 1, 16, 378, 310),
    Published("h100-sxm-80", "fa3", 2048, 8, 16, 480, 390),
    Published("h100-sxm-80", "fa3", 4096, 4, 16, 560, 470),
    Published("h100-sxm-80", "fa3", 8192, 2, 16, 610, 525),
    Published("h100-sxm-80", "fa3", 16384, 1, 16, 640, 560),
)
BACKWARD_SHARE = 0.7
"""Backward over forward efficiency where no backward was measured."""


@dataclass(frozen=True)
class Sample:
    """What one curve is fitted on."""

    device: Accelerator
    dtype: str
    rows: Rows

    @property
    def weights(self) -> Column:
        """Prefill and decode count alike; rows faster than memory do not count."""
        many = self.rows.q_len > 1
        share = np.where(many, 0.5 / max(many.sum(), 1), 0.5 / max((~many).sum(), 1))
        return np.asarray(share * self.rows.possible(self.device), np.float64)

    def predict(self, traits: Mapping[str, float], values: Column) -> Column:
        """Times with these coefficients. [s]"""
        return self.rows.forward_s(self.machine(traits, values))

    def machine(self, traits: Mapping[str, float], values: Column) -> AttentionMachine:
        """The machine of these coefficients; its backward efficiency is set later."""
        return machine(self.device, self.dtype, {**traits, **bound_names(values), "backward_efficiency": 0.5})

    def best(self, traits: Mapping[str, float]) -> Column:
        """Coefficients for these traits."""
        return solve(partial(self.predict, traits), self.rows.measured_s, self.weights, COEFFICIENTS)

    def miss(self, traits: Mapping[str, float], values: Column) -> float:
        """Mean error, large ones cut at one half, of all rows that count."""
        error = np.abs(np.log(self.predict(traits, values) / self.rows.measured_s))
        return float(np.average(np.minimum(error, 0.5), weights=self.weights))

    def take(self, chosen: npt.NDArray[Any]) -> Sample:
        """Some of the rows."""
        return Sample(self.device, self.dtype, self.rows.take(chosen))


def fit_attention(folder: Path) -> list[Fit]:
    """Fit every device, library and dtype with enough rows in the tables of a folder.

    Parameters
    ----------
    folder
        Holds ``kernels/`` with the tables of prefill, decode and training kernels.

    Returns
    -------
    list of Fit
        Curves at ``kernels.attention`` (all libraries of the device pooled), ``kernels.libraries.NAME.attention`` (a
        framework's own kernels, and kernels under their own name) and their ``dtypes.fp8``.
    """
    table = inference_table(folder)
    found = []
    for gpu, profile in PROFILES.items():
        own = table[table["gpu"] == gpu]
        if len(own) and find(ACCELERATORS, profile):
            forward, measured = (training_rows(folder, gpu, op) for op in ("sdp_fwd", "sdp_bwd"))
            backward = measured if len(measured) else _rates(profile, "fa3")[1]
            found += list(fit_device(profile, own, backward))
            if len(forward):
                found.append(fit_training(profile, "torch", (forward, measured), "training kernels of SimuMax's box"))
    published = sorted({(rate.profile, rate.library) for rate in PUBLISHED if find(ACCELERATORS, rate.profile)})
    return found + [fit_training(*pair, _rates(*pair), PAPERS[pair[1]]) for pair in published]


def fit_device(profile: str, table: pd.DataFrame, backward: Rows) -> Iterator[Fit]:
    """All curves of one device."""
    device = accelerator(profile)
    for library, part in libraries(table).items():
        place = ("kernels", "libraries", library, "attention") if library else PLACE
        enough = {dtype: rows for dtype in DTYPES if len(rows := of_dtype(part, dtype))}
        if list(enough) == ["fp8"]:  # no curve of fp8 alone: it stands for a library that has no half-precision rows
            alone = not (part["kv_dtype"] == DTYPES["bf16"]).any()
            enough = {"bf16": enough["fp8"]} if alone else {}
        for dtype, chosen in enough.items():
            named = f"aiconfigurator ({' and '.join(sorted(set(chosen['kernel'])))}, {dtype})"
            yield fit_curve(profile, _at(place, dtype), Sample(device, dtype, columns(chosen)), backward, named)


def _at(place: tuple[str, ...], dtype: str) -> tuple[str, ...]:
    return place if dtype == "bf16" else (*place, "dtypes", dtype)


def libraries(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows by library: "" for all frameworks' own kernels, then each framework, then the other kernels by name."""
    size = table.groupby(["stage", "framework"])["kernel"].transform("size")
    share = table.groupby(["stage", "framework", "kernel"])["batch"].transform("size") / size
    own = table[share >= MAIN_SHARE]
    parts = {"": own, **{str(name): part for name, part in own.groupby("framework")}}
    mixed = {name for name, part in parts.items() if name and part.groupby("stage")["kernel"].nunique().max() > 1}
    rest = table[(share < MAIN_SHARE) | table["framework"].isin(mixed)]
    named = {str(name): part for name, part in rest.groupby("kernel") if name not in parts}
    return parts | named


def of_dtype(table: pd.DataFrame, dtype: str) -> pd.DataFrame:
    """Prefill by the dtype of its multiplies (of its cache where none was so), decode by that of its cache.

    Empty if either has too few rows.
    """
    prefill, decode = table[table["stage"] == "prefill"], table[table["stage"] == "decode"]
    cached = prefill[prefill["kv_dtype"] == DTYPES[dtype]]
    exact = cached[cached["attn_dtype"] == DTYPES[dtype]]
    prefill = exact if len(exact) >= FEW else cached
    decode = decode[decode["kv_dtype"] == DTYPES[dtype]]
    return pd.concat([prefill, decode]) if min(len(prefill), len(decode)) >= FEW else table[:0]


def fit_curve(
    profile: str,
    place: tuple[str, ...],
    sample: Sample,
    backward: Rows,
    data: str,
    traits_tried: Sequence[Mapping[str, float]] | None = None,
) -> Fit:
    """One curve: the best traits, their coefficients, and the errors in and out of sample."""
    tried = [(traits, sample.best(traits)) for traits in traits_tried or _traits()]
    traits, values = min(tried, key=lambda pair: sample.miss(*pair))

    def fit(kept: npt.NDArray[np.bool_]) -> Any:
        return partial(sample.predict, traits, sample.take(kept).best(traits))

    measured = sample.rows.measured_s
    left = left_out(sample.rows.shapes(), fit)
    whole = written(traits, values, _backward(sample.machine(traits, values), backward))
    inside, outside = errors(sample.predict(traits, values), measured), errors(left, measured)
    many = sample.rows.q_len > 1
    parts = parts_of(left, measured, {"prefill": many, "decode": ~many})
    bounds = at_bounds(COEFFICIENTS, values)
    return Fit(profile, place, whole, data, inside, outside, parts=parts, at_bound=bounds)


def _traits() -> list[dict[str, float]]:
    found = []
    for (query, decode), (lone, packed) in product(product(*TRAITS.values()), PACKING):
        found.append({"query_rows": query, "decode_rows": decode, "lone_rows": lone or decode, "packed_heads": packed})
    return found


def _backward(bound: AttentionMachine, measured: Rows) -> float:
    """Efficiency at which the backward kernels are met in the median, a usual one where there are none."""
    if not len(measured):
        return round(BACKWARD_SHARE * float(bound.forward_efficiency), 3)
    fast = measured.backward_s(bound._replace(backward_efficiency=1.0))
    return round(float(np.clip(np.median(fast / measured.measured_s), 0.02, 1.0)), 3)


def bound_names(values: Column) -> dict[str, float]:
    """Fitted values under the names of a machine, in SI units."""
    return {
        f"{one.name}_s" if one.unit else one.name: float(value)
        for one, value in zip(COEFFICIENTS, values * SCALE, strict=True)
    }


def written(traits: Mapping[str, float], values: Column, backward: float) -> dict[str, Any]:
    """Coefficients as a profile has them."""
    fitted = {one.name: one.written(float(value)) for one, value in zip(COEFFICIENTS, values, strict=True)}
    whole = {name: int(value) for name, value in traits.items()}
    order = [name.removesuffix("_s") for name in AttentionMachine._fields]
    found = {**fitted, **whole, "backward_efficiency": backward}
    return {name: found[name] for name in order if name in found}


def _rates(profile: str, library: str) -> tuple[Rows, Rows]:
    """Published rates as forward and backward rows."""
    rates = [rate for rate in PUBLISHED if (rate.profile, rate.library) == (profile, library)]
    batch, length, heads = np.array([(rate.batch, rate.seq_len, rate.heads) for rate in rates]).reshape(-1, 3).T
    one, flops = np.ones(len(rates)), 2.0 * batch * length * length * heads * 128.0
    shape = (batch, length, length, heads, heads, 128.0 * one, one, 2.0 * one)
    forward, backward = (TERA * np.array([getattr(rate, way) for rate in rates]) for way in ("forward", "backward"))
    return Rows(*shape, flops / forward), Rows(*shape, 2.5 * flops / backward)


def fit_training(profile: str, library: str, rows: tuple[Rows, Rows], text: str) -> Fit:
    """A curve of a training library from forward and backward rows: efficiency and overhead of a usual kernel."""
    forward, backward = rows
    sample = Sample(accelerator(profile), "bf16", forward)
    usual = np.array([1.0 if one.name == "prefill_passes" else one.start for one in COEFFICIENTS])
    free = [index for index, one in enumerate(COEFFICIENTS) if one.name in ("forward_efficiency", "overhead_keys")]

    def laid(values: Column) -> Column:
        whole = usual.copy()
        whole[free] = values
        return whole

    def predict(values: Column) -> Column:
        return sample.predict(USUAL_TRAITS, laid(values))

    sought = [COEFFICIENTS[index] for index in free]
    best = solve(predict, forward.measured_s, np.ones(len(forward)), sought)
    found = laid(best)
    bound = sample.machine(USUAL_TRAITS, found)
    bound = bound._replace(backward_efficiency=_backward(bound, backward))
    both = np.concatenate([forward.measured_s, backward.measured_s])
    near = errors(np.concatenate([forward.forward_s(bound), backward.backward_s(bound)]), both)
    values = written(USUAL_TRAITS, found, float(bound.backward_efficiency))
    place, bounds = ("kernels", "libraries", library, "attention"), at_bounds(sought, best)
    return Fit(profile, place, values, text, near, near, at_bound=bounds)
