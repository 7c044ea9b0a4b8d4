"""What the last `hwsim fit` found on rows left out of it: kernels and collectives, by kind and device."""

from __future__ import annotations

import csv
from dataclasses import dataclass

import numpy as np

from hwsim.validation.facts import FOLDER

RECORD = "fits.csv"
"""Written by `hwsim fit --record`."""


@dataclass(frozen=True)
class KernelErrors:
    """One kind of kernel over all devices that were measured."""

    name: str
    devices: int
    rows: int
    median: float
    """Mean of the devices' median errors."""
    p90: float
    """Mean of the devices' 90th percentiles."""
    worst: float
    worst_device: str


def kernel_errors() -> list[KernelErrors]:
    """The record by kind; empty before the first fit."""
    path = FOLDER / RECORD
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = dict.fromkeys(row["kind"] for row in rows)
    return [_of_kind(kind, [row for row in rows if row["kind"] == kind]) for kind in kinds]


def _of_kind(kind: str, rows: list[dict[str, str]]) -> KernelErrors:
    medians = [float(row["outside_median"]) for row in rows]
    worst = int(np.argmax(medians))
    return KernelErrors(
        name=kind,
        devices=len({row["profile"] for row in rows}),
        rows=sum(int(row["rows"]) for row in rows),
        median=float(np.mean(medians)),
        p90=float(np.mean([float(row["outside_p90"]) for row in rows])),
        worst=medians[worst],
        worst_device=rows[worst]["profile"],
    )
