"""Joules: idle power all the time, load power while the device works, and the rest of the node."""

from __future__ import annotations

from hwsim.formulas.types import Numeric
from hwsim.specs.hardware import Hardware

BUSY_SHARE = 0.9
"""Power above idle of a compute-bound kernel, as a share of TDP less idle (H100 nodes under training: .85 to .95)."""
WAITING_SHARE = 0.35
"""The same while a device only communicates or waits for its neighbours (clocks stay up)."""


def host_power_w(hardware: Hardware) -> float:
    """Power of fans, CPUs, NICs and switches per device: the rated node power less its devices, at 60 % load. [W]"""
    node, device = hardware.cluster.node, hardware.accelerator.power
    if node.max_power is None:
        return 0.15 * device.tdp
    return max(0.0, node.max_power / node.devices - device.tdp) * 0.6


def energy_j(hardware: Hardware, devices: Numeric, seconds: Numeric, busy_s: Numeric) -> Numeric:
    """Energy at the wall of the nodes for `seconds` of which the device computes `busy_s`; cooling not counted. [J]"""
    power = hardware.accelerator.power
    above_idle = power.tdp - power.idle
    per_device = seconds * (power.idle + host_power_w(hardware))
    per_device = per_device + above_idle * (busy_s * BUSY_SHARE + (seconds - busy_s) * WAITING_SHARE)
    return devices * per_device
