"""Measured experts: the kernel table as columns, with what the benchmark sent where."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hwsim.fitting.fitted import Column
from hwsim.fitting.tables import positive, read_table, texts
from hwsim.formulas.experts import ExpertsMachine, Routing, busiest_experts, busiest_rows, experts_s

TABLE = "kernels/moe.csv.gz"
TEXTS = ("gpu", "framework", "version", "kernel", "dtype", "distribution")
SIZES = ("num_tokens", "hidden", "inter", "topk", "num_experts", "moe_tp", "moe_ep", "latency_us")
FORMATS = {
    "bfloat16": ("bf16", 2.0), "fp8": ("fp8", 1.0), "fp8_block": ("fp8_block", 1.0), "nvfp4": ("fp4", 0.5625),
    "int4_wo": ("int4", 0.516), "w4a16_mxfp4": ("mxfp4", 0.53125), "w4a8_mxfp4_mxfp8": ("mxfp4_fp8", 0.53125),
}  # fmt: skip
"""Format, and bytes of a weight with its scales, by dtype of the table."""
SKEWS = {"balanced": -1.0, "power_law_1.01": 1.01, "power_law_1.2": 1.2}
FAMILIES = ("flashinfer_trtllm", "flashinfer_cutlass", "marlin", "triton", "cutlass", "xpu")
"""Kernels, by what their names in the table hold; the first that fits."""
PLAIN = {"vllm_fused_moe": "triton", "moe_torch_flow_nongated": "cutlass"}
"""Kernels whose names in the table do not say what they are."""
UNFILTERED = (("sglang", "0.5.10"),)
"""Software whose benchmark multiplied the rows of experts elsewhere too: all choices of every token that came."""


@dataclass(frozen=True)
class Rows:
    """Expert layers in columns, as the formula takes them, and how long they ran."""

    tokens: Column
    rows: Column
    active: Column
    elsewhere: Column
    hidden: Column
    ffn: Column
    gated: Column
    weight_bytes: Column
    shape: npt.NDArray[Any]
    """A number for each shape."""
    measured_s: Column

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: npt.NDArray[Any]) -> Rows:
        """Some of the rows."""
        return Rows(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def predict(self, machine: ExpertsMachine) -> Column:
        """Predicted times. [s]"""
        routed = Routing(self.rows, self.active, self.elsewhere)
        sizes = (self.tokens, routed, self.hidden, self.ffn, self.gated, self.weight_bytes)
        return np.asarray(experts_s(*sizes, machine), np.float64)

    def possible(self, bandwidth_bytes_per_s: float) -> npt.NDArray[np.bool_]:
        """Rows no faster than their weights at the data-sheet bandwidth: others were read from a cache."""
        weights = self.active * self.hidden * self.ffn * (2.0 + self.gated) * self.weight_bytes
        return np.asarray(self.measured_s >= weights / bandwidth_bytes_per_s)


def experts_table(folder: Path) -> pd.DataFrame:
    """The table, with the format and the kernel family of every row; rows of unknown ones left out."""
    path = folder / TABLE
    table = texts(read_table(path, (*TEXTS, *SIZES)), path, TEXTS)
    known = table["dtype"].isin(FORMATS) & table["distribution"].isin(SKEWS)
    table = positive(table[known], path, SIZES)
    return table.assign(format=[FORMATS[name][0] for name in table["dtype"]], family=table["kernel"].map(family))


def family(kernel: str) -> str:
    """What kind of kernel one is, by its name in the table.

    Examples
    --------
    >>> family("vllm_fp8moe_flashinfer_trtllm_trtllmfp8expertsmodular"), family("moe_torch_flow")
    ('flashinfer_trtllm', 'torch_flow')
    """
    return PLAIN.get(kernel) or next((name for name in FAMILIES if name in kernel), "torch_flow")


def columns(table: pd.DataFrame) -> Rows:
    """Columns of a part of `experts_table`."""
    value = {name: table[name].to_numpy(np.float64) for name in SIZES}
    tokens, topk = value["num_tokens"], value["topk"]
    held = value["num_experts"] / value["moe_ep"]
    skew = np.array([SKEWS[name] for name in table["distribution"]])
    among = (tokens, topk, held, value["num_experts"], skew)
    rows, active = (np.asarray(each(*among), np.float64) for each in (busiest_rows, busiest_experts))
    came = _touched(*among, rows)
    pairs = list(zip(table["framework"], table["version"], strict=True))
    unfiltered = np.array([pair in UNFILTERED for pair in pairs], bool) & (value["moe_ep"] > 1)
    return Rows(
        tokens=np.where(unfiltered, came, tokens),
        rows=np.where(unfiltered, np.maximum(came * topk, rows), rows),
        active=active,
        elsewhere=np.where(unfiltered, 0.0, np.maximum(tokens * topk - rows, 0.0)),
        hidden=value["hidden"],
        ffn=value["inter"] / value["moe_tp"],
        gated=np.array([0.0 if "nongated" in name else 1.0 for name in table["kernel"]]),
        weight_bytes=np.array([FORMATS[name][1] for name in table["dtype"]]),
        shape=table.groupby(list(SIZES[:-1])).ngroup().to_numpy(),
        measured_s=1e-6 * value["latency_us"],
    )


def _touched(tokens: Column, topk: Column, held: Column, experts: Column, skew: Column, rows: Column) -> Column:
    """Tokens with any expert on the busiest device: of balanced ones, those whose stride meets it."""
    chance = np.minimum(rows / (tokens * topk), 1.0)
    scattered = 1.0 - np.power(1.0 - chance, topk)
    dealt = np.minimum(np.ceil(held) / np.ceil(experts / topk), 1.0)
    return np.asarray(np.maximum(tokens * np.where(skew < 0.0, dealt, scattered), 1.0), np.float64)
