"""What a measured profile holds beside its curves: what the machine is, and values that fits will replace."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from hwsim.errors import UsageError, shorten
from hwsim.specs.hardware import Accelerator
from hwsim.specs.library import load_hardware
from hwsim.units import GB, GIB, MIB, TERA, show

KNOWN = {
    "H100 80GB": "h100-sxm-80", "H100 PCIe": "h100-pcie-80", "H100 NVL": "h100-nvl-94", "H200": "h200-sxm-141",
    "B200": "b200-sxm", "A100-SXM4-80": "a100-sxm-80", "A100-SXM4-40": "a100-sxm-40", "A100 80GB PCIe": "a100-pcie-80",
    "A100-PCIE-40": "a100-pcie-40", "L40S": "l40s", "L4": "l4", "A10G": "a10g", "A10": "a10", "T4": "t4",
    "RTX 4090": "rtx4090", "RTX 3090": "rtx3090", "RTX 5090": "rtx5090",
}  # fmt: skip
"""Part of a GPU's name to the profile whose data sheet it has."""
CORE_W, IDLE_CORE_W, GPU_W, IDLE_GPU_W = 6.0, 2.0, 400.0, 60.0
"""Power assumed where nothing says it."""
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}"
ASSUMED_RATE = 10 * GB
"""Between devices of which there is only one here. [byte/s]"""


@dataclass(frozen=True)
class Facts:
    """What was read and measured beside the kernels."""

    name: str
    device: str
    dtype: str
    title: str
    units: int
    threads: int
    processes: int
    """That may talk on this machine."""
    peak_flops_per_s: float
    memory_bytes_per_s: float
    capacity_bytes: float
    cache_bytes: float
    launch_s: float
    overhead_s: float
    busy: float
    torch: str
    date: str

    @property
    def how(self) -> str:
        """How kernels were measured, in words."""
        threads = f", {self.threads} threads" if self.device == "cpu" else ""
        return f"inside small training steps, PyTorch {self.torch}{threads}"

    @property
    def talk(self) -> str:
        """How collectives were measured, in words."""
        backend = "gloo, processes that share the cores of one machine" if self.device == "cpu" else "NCCL"
        return f"torch.distributed, {backend}, PyTorch {self.torch}"


def check_name(name: str | None) -> None:
    """Refuse what cannot be the id of a profile.

    Raises
    ------
    UsageError
        If a profile may not be called that.
    """
    if name is not None and not re.fullmatch(NAME_PATTERN, name):
        msg = f"name {shorten(name)}: letters, digits and . _ + - only, from a letter or digit on, at most 80"
        raise UsageError(msg)


def accelerator_fields(facts: Facts) -> dict[str, Any]:
    """The accelerator, with curves that say nothing yet."""
    sheet = _known(facts)
    peaks = {facts.dtype: _rate(facts.peak_flops_per_s, TERA, "TFLOP/s")}
    rate, power = _rate(facts.memory_bytes_per_s, GB, "GB/s"), _power(facts)
    source = f"measured by hwsim calibrate with PyTorch {facts.torch}"
    if sheet:
        peaks = {name: _rate(value, TERA, "TFLOP/s") for name, value in sheet.peak.model_dump().items() if value}
        rate = _rate(sheet.memory.bandwidth, GB, "GB/s")
        power = {"tdp": f"{sheet.power.tdp:g} W", "idle": f"{sheet.power.idle:g} W"}
        source = f"data sheet of {sheet.name}"
    given = {"kind": "datasheet" if sheet else "measured", "date": facts.date}
    fields: dict[str, Any] = {
        "name": facts.name,
        "title": facts.title,
        "family": sheet.family if sheet else facts.device,
        "usual_framework": "pytorch",
        "peak": peaks,
        "memory": {"capacity": f"{facts.capacity_bytes / GIB:.2f} GiB", "bandwidth": rate},
        "compute_units": facts.units,
        "cache": f"{facts.cache_bytes / MIB:.2f} MiB",
        "power": power,
        "kernels": {
            "status": "measured",
            "gemm": {"efficiency": 0.8, "k_half": 16, "memory_efficiency": 0.8, "latency": "10 us"},
            "attention": {"forward_efficiency": 0.5, "backward_efficiency": 0.4, "softmax_width": 40,
                          "overhead_keys": 50, "memory_efficiency": 0.8, "latency": "10 us"},
            "stream": {"efficiency": 0.8, "latency": "5 us"},
            "launch": show(facts.launch_s, "s"),
            "graph_launch": show(facts.launch_s, "s"),
        },
        "confidence": "mixed",
        "notes": _notes(facts),
        "sources": {
            "default": {"kind": "measured", "text": f"read from the machine by PyTorch {facts.torch}",
                        "date": facts.date},
            "peak": {**given, "text": f"{source}: the fastest multiply of any shape" if not sheet else source},
            "memory.bandwidth": {**given, "text": f"{source}: large copies and adds" if not sheet else source},
            "power": {**given, "text": source} if sheet else {**given, "kind": "assumed", "text": "a usual value"},
            "kernels": {"kind": "measured", "text": f"launch: a hundred kernels of one number, PyTorch {facts.torch}",
                        "date": facts.date},
        },
    }  # fmt: skip
    return fields


def _notes(facts: Facts) -> str:
    if facts.device != "cpu":
        return "Measured by hwsim calibrate: kernels inside training steps, without the host."
    return (
        f"Measured by hwsim calibrate. A device is one process with {facts.threads} threads; processes on one machine "
        f"share its cores and memory. Every kernel carries {show(facts.overhead_s, 's')} of Python and autograd."
    )


def cluster_fields(facts: Facts, rate_bytes_per_s: float) -> dict[str, Any]:
    """The machine as a cluster, with protocols that say nothing yet."""
    kinds = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv")
    measured = rate_bytes_per_s > 0.0
    rate = _rate(rate_bytes_per_s or ASSUMED_RATE, GB, "GB/s")
    protocols = [{"latency": "20 us", "hop_latency": "5 us", "efficiency": 0.8}]
    return {
        "name": facts.name,
        "title": facts.title,
        "accelerator": facts.name,
        "node": {"devices": facts.processes, "nics": 1, "nic_bandwidth": rate},
        "tiers": [
            {
                "name": "processes",
                "kind": "switch",
                "size": facts.processes,
                "bandwidth": rate,
                "sharing": 0.0,
                "latency": "0 us",
                "status": "measured" if measured else "datasheet",
                "collectives": dict.fromkeys(kinds, protocols),
                "source": {"kind": "measured" if measured else "assumed",
                           "text": facts.talk if measured else "only one device: nothing measured",
                           "date": facts.date},
            }
        ],
        "confidence": "mixed",
        "notes": "Processes on one machine; there is no network in it.",
        "sources": {"default": {"kind": "measured", "text": facts.talk, "date": facts.date}},
    }  # fmt: skip


def _known(facts: Facts) -> Accelerator | None:
    """The profile of a GPU that has one."""
    if facts.device == "cpu":
        return None
    name = next((name for part, name in KNOWN.items() if part in facts.title), None)
    return load_hardware(name).accelerator if name else None


def _power(facts: Facts) -> dict[str, str]:
    cores = facts.units if facts.device == "cpu" else 0
    most, least = (CORE_W * cores, IDLE_CORE_W * cores) if cores else (GPU_W, IDLE_GPU_W)
    return {"tdp": f"{most:g} W", "idle": f"{least:g} W"}


def _rate(value: float, scale: float, unit: str) -> str:
    return f"{value / scale:.4g} {unit}"
