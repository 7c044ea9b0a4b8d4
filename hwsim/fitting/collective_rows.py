"""Measured collectives as rows of one table, and as cells to fit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hwsim.fitting.fitted import Column
from hwsim.fitting.tables import not_negative, positive, read_table
from hwsim.formulas.collectives import RING_PHASES, wire_bytes
from hwsim.units import GIB, MIB

MAIN, VTRAIN, CONSTANTS = (
    "collectives.csv.gz",
    "collectives_a100_v100_allreduce.csv.gz",
    "catalogue/comm_constants.csv",
)
SAME = {"alltoall": "all_to_all", "sendrecv": "send_recv"}
LIBRARIES = {
    "nccl-tests": "nccl",
    "oneccl": "nccl",
    "vllm_custom": "vllm",
    "sglang_custom": "sglang",
    "trtllm_custom": "trtllm",
    "nccl(torch.distributed)": "torch.distributed",
}
COLUMNS = ["gpu", "library", "version", "collective", "num_gpus", "gpus_per_node", "bytes", "latency_us"]
CONSTANT_COLUMNS = ("category", "key", "system", "op", "n_devices", "message_bytes", "value", "low", "notes")
MEASURED = ("alpha_measured", "busbw_measured")
SYSTEMS = {
    "A100 SXM NVLink3": "a100",
    "H100 SXM NVLink4": "h100",
    "H200 SXM NVLink4": "h200",
    "8xH200 NVLink4": "h200",
    "8xH200": "h200",
    "B200 SXM NVLink5": "b200",
    "8xB200 NVLink5 (p6-b200)": "b200",
    "B300 SXM NVLink5": "b300",
    "GB200 tray NVLink5": "gb200",
    "GB200 NVL72": "gb200",
    "GB300 tray NVLink5": "gb300",
    "L40S PCIe4": "l40s",
    "RTX PRO 6000 PCIe5": "rtxpro6000",
    "NVIDIA A100 NVLink node": "a100",
    "NVIDIA V100 NVLink node": "v100",
}
"""Machines of the catalogue and of vTrain's table, by their names in the main table."""
SENDS = {"a100_dgx": "a100", "h100_dgx": "h100"}
"""Machines of vidur whose sends were timed without the host, which makes them rows of NCCL."""
UNSTATED = 8 * GIB
"""Size taken for a published peak bandwidth without one. [byte]"""


@dataclass(frozen=True)
class Cells:
    """Measured collectives: bytes, members, members per node, seconds, and how much each counts."""

    size: Column
    devices: Column
    per_node: Column
    seconds: Column
    weight: Column

    def __len__(self) -> int:
        return len(self.size)

    def take(self, kept: npt.NDArray[np.bool_]) -> Cells:
        """The cells of a mask."""
        return Cells(self.size[kept], self.devices[kept], self.per_node[kept], self.seconds[kept], self.weight[kept])

    @property
    def shapes(self) -> npt.NDArray[np.int64]:
        """A number for each pair of size and members."""
        pairs = np.stack((self.size, self.devices), axis=1)
        return np.asarray(np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1), np.int64)


def read_rows(folder: Path) -> pd.DataFrame:
    """All measured collectives of a folder, in one table (see `COLUMNS`); bytes in the nccl-tests sense. [byte, us]"""
    main = positive(read_table(folder / MAIN, COLUMNS), folder / MAIN, ("num_gpus", "latency_us"))
    main = not_negative(main, folder / MAIN, ("bytes",))
    main["collective"] = main["collective"].replace(SAME)
    main["library"] = main["library"].replace(LIBRARIES)
    gathered = (main["gpu"] == "b60") & (main["collective"] == "all_gather")
    main.loc[gathered, "bytes"] *= main.loc[gathered, "num_gpus"]  # oneCCL counts what one rank gives
    sweep = ("num_gpus", "bytes", "measured_value")
    vtrain = positive(read_table(folder / VTRAIN, ("hardware", *sweep)), folder / VTRAIN, sweep)
    constants = read_table(folder / CONSTANTS, CONSTANT_COLUMNS)
    measured = constants["category"].isin(MEASURED) & constants["system"].isin(SYSTEMS) & constants["op"].notna()
    constants = positive(constants[measured], folder / CONSTANTS, ("n_devices", "value"))
    sends = main[main["gpu"].isin(SENDS) & (main["collective"] == "send_recv")]
    main = pd.concat([main, sends.assign(gpu=sends["gpu"].map(SENDS), library="nccl")])
    parts = [table[COLUMNS] for table in (main[main["bytes"] > 0], _vtrain(vtrain), _constants(constants))]
    rows = pd.concat(parts, ignore_index=True)
    rows["latency_us"] = rows["latency_us"].astype(float)
    rows["gpus_per_node"] = rows["gpus_per_node"].fillna(rows["num_gpus"])
    return rows


def _vtrain(table: pd.DataFrame) -> pd.DataFrame:
    """Every twelfth row of vTrain's dense all-reduce sweep, by machine."""
    given = table.assign(
        gpu=table["hardware"].map(SYSTEMS), library="nccl", version="", collective="all_reduce",
        gpus_per_node=table["num_gpus"], latency_us=table["measured_value"],
    )  # fmt: skip
    return given.sort_values(["gpu", "num_gpus", "bytes"]).iloc[::12]


def _constants(table: pd.DataFrame) -> pd.DataFrame:
    """Latencies and bus bandwidths of the catalogue as rows."""
    table = table.assign(message_bytes=pd.to_numeric(table["message_bytes"], errors="coerce").fillna(UNSTATED))
    rows = [row for entry in table.to_dict("records") for row in _constant(dict(entry))]
    return pd.DataFrame(rows, columns=COLUMNS)


def _constant(entry: dict[Any, Any]) -> list[tuple[Any, ...]]:
    """The rows of one published constant: a bandwidth stands at its own size, and at those that its notes name."""
    gpu, words = SYSTEMS.get(entry["system"]), str(entry["op"]).split()
    collective = SAME.get(words[0], words[0])
    if gpu is None or gpu == "b60" or collective not in RING_PHASES:
        return []
    n = int(entry["n_devices"])
    key = (gpu, "nccl", "", collective, n, n)
    if entry["category"] == "alpha_measured":
        return [(*key, 1024, entry["value"])]
    if entry["category"] != "busbw_measured" or (n == 8 and words == ["all_reduce", "Ring"]):  # the switch turned off
        return []
    points = {entry["message_bytes"]: entry["value"]}
    if entry["key"] == "busbw_512MiB":
        named = re.findall(r"(\d+) MiB ([\d.]+)", str(entry["notes"]))
        points |= {16 * MIB: entry["low"]} | {int(mib) * MIB: float(rate) for mib, rate in named}
    return [(*key, at, float(wire_bytes(collective, at, n)) / rate / 1e3) for at, rate in points.items()]


def cells(rows: pd.DataFrame, weight: float = 1.0) -> Cells:
    """Reduce rows of one kind to one cell per size, members and members per node: the median of the logarithms.

    Where a version was measured more than once, its slower half is left out: engines were timed inside a CUDA graph
    and without one.
    """
    place = ["bytes", "num_gpus", "gpus_per_node"]
    usual = rows.groupby(["version", *place])["latency_us"].transform("median")
    fast = rows[(rows["latency_us"] <= usual) | (rows["library"] == "nccl")]
    table = fast.assign(log_s=np.log(fast["latency_us"] * 1e-6)).groupby(place)["log_s"].median().reset_index()
    size, devices, per_node = (table[name].to_numpy(np.float64) for name in place)
    return Cells(size, devices, per_node, np.exp(table["log_s"].to_numpy(np.float64)), np.full(len(table), weight))


def joined(parts: list[Cells]) -> Cells:
    """Cells of several machines, one after the other."""
    names = Cells.__dataclass_fields__
    return Cells(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
