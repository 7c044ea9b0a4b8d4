"""Measured attention: kernel tables as columns, and the machine that predicts them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hwsim.fitting.fitted import Column
from hwsim.fitting.tables import not_negative, positive, read_table, texts
from hwsim.formulas.attention import AttentionMachine, attention_backward_s, attention_forward_s, windowed_keys
from hwsim.specs.hardware import Accelerator
from hwsim.specs.library import load_hardware

PREFILL, DECODE = "kernels/attention_prefill.csv.gz", "kernels/attention_decode.csv.gz"
TRAINING = "kernels/training_b200_a100pcie.csv.gz"
SIZES = ("batch", "heads", "kv_heads", "head_dim")
TRAINED = {"b200": "NVIDIA B200-SXM", "a100": "NVIDIA A100-PCIe-80GB"}
"""Devices of the table of training kernels; an A100 on PCIe has the peak of one on SXM."""
KV_BYTES = {"fp8": 1.0}


@dataclass(frozen=True)
class Rows:
    """Attention kernels in columns, as the formulas take them, and how long they ran."""

    batch: Column
    q_len: Column
    kv_len: Column
    heads: Column
    kv_heads: Column
    head_dim: Column
    causal: Column
    kv_bytes: Column
    measured_s: Column

    def __len__(self) -> int:
        return len(self.batch)

    def take(self, chosen: npt.NDArray[Any]) -> Rows:
        """Some of the rows."""
        return Rows(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def shapes(self) -> npt.NDArray[Any]:
        """One name per shape."""
        sizes = np.stack([getattr(self, field.name) for field in fields(self)[:6]], axis=1)
        return np.unique(sizes, axis=0, return_inverse=True)[1].ravel()

    def forward_s(self, machine: AttentionMachine) -> Column:
        """Predicted forward times. [s]"""
        shape = (self.batch, self.q_len, self.kv_len, self.heads, self.kv_heads, self.head_dim, self.causal)
        return np.asarray(attention_forward_s(*shape, machine, self.kv_bytes), np.float64)

    def backward_s(self, machine: AttentionMachine) -> Column:
        """Predicted backward times. [s]"""
        shape = (self.batch, self.q_len, self.kv_len, self.heads, self.kv_heads, self.head_dim, self.causal)
        return np.asarray(attention_backward_s(*shape, machine), np.float64)

    def possible(self, accelerator: Accelerator) -> npt.NDArray[np.bool_]:
        """Rows no faster than their bytes at the data-sheet bandwidth: others were read from a cache."""
        keys = 2.0 * self.kv_bytes * self.kv_len * self.kv_heads
        moved = self.batch * self.head_dim * (4.0 * self.q_len * self.heads + keys)
        return np.asarray(self.measured_s >= moved / accelerator.memory.bandwidth)


def inference_table(folder: Path) -> pd.DataFrame:
    """Prefill and decode kernels of serving libraries, `stage` saying which."""
    return pd.concat([_read(folder / PREFILL).assign(stage="prefill"), _read(folder / DECODE).assign(stage="decode")])


def _read(path: Path) -> pd.DataFrame:
    needed = ("gpu", "framework", "kernel", "past_kv", "window", "attn_dtype", "kv_dtype", "latency_us", *SIZES)
    table = texts(read_table(path, needed), path, ("framework", "kernel"))
    table = positive(table, path, (*SIZES, "latency_us"))
    table = table.assign(q_len=table.get("q_len", 1))
    return positive(not_negative(table, path, ("past_kv", "window")), path, ("q_len",))


def columns(table: pd.DataFrame) -> Rows:
    """Columns of a part of `inference_table`: a window that binds becomes the mean width of its band."""
    given = {name: table[name].to_numpy(np.float64) for name in (*SIZES, "q_len", "past_kv")}
    window = table["window"].to_numpy(np.float64)
    kv_len = given["past_kv"] + given["q_len"]
    inside = (window <= 0) | (window >= kv_len)
    band = np.asarray(windowed_keys(given["q_len"], kv_len, np.maximum(window, 1.0)), np.float64)
    return Rows(
        *(given["batch"], given["q_len"], np.where(inside, kv_len, band)),
        *(given["heads"], given["kv_heads"], given["head_dim"], inside * 1.0),
        kv_bytes=np.asarray(table["kv_dtype"].map(KV_BYTES).fillna(2.0), np.float64),
        measured_s=1e-6 * table["latency_us"].to_numpy(np.float64),
    )


def training_rows(folder: Path, gpu: str, op: str) -> Rows:
    """Causal kernels in training shapes (`sdp_fwd`, `sdp_bwd`); q and k may be wider than v: the mean counts."""
    path = folder / TRAINING
    sizes = ("seq_len", "heads", "kv_heads", "qk_head_dim", "v_head_dim")
    table = read_table(path, ("op", "hardware", "implied_time_us", *sizes))
    table = table[(table["op"] == op) & (table["hardware"] == TRAINED.get(gpu, ""))]
    table = positive(table, path, (*sizes, "implied_time_us"))
    value = {name: table[name].to_numpy(np.float64) for name in (*sizes, "implied_time_us")}
    one = np.ones(len(table))
    width = (value["qk_head_dim"] + value["v_head_dim"]) / 2.0
    return Rows(
        *(one, value["seq_len"], value["seq_len"], value["heads"], value["kv_heads"], width, one),
        kv_bytes=2.0 * one,
        measured_s=1e-6 * value["implied_time_us"],
    )


@cache
def accelerator(profile: str) -> Accelerator:
    """The device of a profile."""
    return load_hardware(profile).accelerator


def machine(device: Accelerator, dtype: str, coefficients: dict[str, float]) -> AttentionMachine:
    """A machine with the data sheet of a device."""
    half = device.peak.bf16 or device.peak.fp16
    return AttentionMachine(
        peak_flops_per_s=getattr(device.peak, dtype) or half or 1.0,
        bandwidth_bytes_per_s=device.memory.bandwidth,
        units=float(device.compute_units),
        cache_bytes=device.cache or 0.0,
        **coefficients,
    )
