"""Joules: idle power all the time, load power while the device works, and the rest of the node."""

from __future__ import annotations

import numpy as np

from hwsim.formulas.types import Numeric
from hwsim.specs.hardware import Hardware

BUSY_SHARE = 0.9
"""Power above idle of a compute-bound kernel, as a share of TDP less idle (H100 nodes under training: .85 to .95)."""
WAITING_SHARE = 0.35
"""The same while a device only communicates or waits for its neighbours (clocks stay up)."""


def host_power_w(hardware: Hardware) -> Numeric:
    """Power of fans, CPUs, NICs and switches per device: the rated node power less its devices, at 60 % load. [W]"""
    node, device = hardware.cluster.node, hardware.accelerator.power
    if node.max_power is None:
        return 0.15 * device.tdp
    return np.maximum(node.max_power / node.devices - device.tdp, 0.0) * 0.6


def rated_power_w(hardware: Hardware) -> float:
    """Power that one device and its share of the node are connected for. [W]"""
    node, device = hardware.cluster.node, hardware.accelerator.power
    return device.tdp + host_power_w(hardware) if node.max_power is None else node.max_power / node.devices


def energy_j(hardware: Hardware, devices: Numeric, seconds: Numeric, busy_s: Numeric) -> Numeric:
    """Energy at the wall of the nodes for `seconds` of which the device computes `busy_s`; cooling not counted. [J]"""
    power = hardware.accelerator.power
    above_idle = power.tdp - power.idle
    per_device = seconds * (power.idle + host_power_w(hardware))
    per_device = per_device + above_idle * (busy_s * BUSY_SHARE + (seconds - busy_s) * WAITING_SHARE)
    return devices * per_device


COMPUTE_SHARE, MEMORY_SHARE, AWAKE_SHARE = 0.75, 0.8, 0.22
"""Power above idle while the matrix units run at their peak, while the memory does, and while any work is queued, as
shares of TDP less idle; together never more than all of it. The last two fitted on ML.ENERGY v3 and Splitwise (33
runs on H100, B200 and A100); the first leaves compute-bound prefill near the limit."""


def serving_energy_j(
    hardware: Hardware, devices: Numeric, seconds: Numeric, compute_s: Numeric, memory_s: Numeric
) -> Numeric:
    """Energy of the nodes for `seconds` in which a device does work of `compute_s` at its peak and `memory_s`. [J]"""
    power = hardware.accelerator.power
    share = AWAKE_SHARE + (COMPUTE_SHARE * compute_s + MEMORY_SHARE * memory_s) / np.maximum(seconds, 1e-12)
    above = (power.tdp - power.idle) * np.minimum(share, 1.0)
    return devices * seconds * (power.idle + above + host_power_w(hardware))


def idle_power_w(hardware: Hardware) -> Numeric:
    """Power of a device that waits with a model in memory, and its share of the node. [W]"""
    power = hardware.accelerator.power
    return power.idle + AWAKE_SHARE * 0.5 * (power.tdp - power.idle) + host_power_w(hardware)
