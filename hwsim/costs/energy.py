"""Watts and joules: what a device draws idle, awake and at work, and the rest of its node."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hwsim.formulas.power import loaded_w
from hwsim.formulas.types import Numeric
from hwsim.specs.hardware import Hardware, Power

AWAKE_SHARE = 0.18
"""Power above idle while work is queued, whatever it does, as a share of what lies between idle and the limit."""
MEMORY_J_PER_BYTE = 120e-12
"""To move a byte between device memory and the units: this and the share above fitted on device power of ML.ENERGY v3
and Splitwise (62 runs on H100, B200 and A100: 9.8 %; 10.3 % with each model and device left out of the fit)."""
LINK_J_PER_BYTE = 32e-12
"""To send a byte to another device: 4 pJ a bit (LLMServingSim)."""
HOST_SHARE = 0.125
"""What the rest of a node draws more per watt that its devices draw above idle: supplies, fans, processors. MLPerf wall
power has 0.2 between H200 nodes capped at 350 and 500 W, and 0.1 between idle and fully loaded B200 nodes."""
HOST_IDLE_RATED, HOST_IDLE_TDP = 0.33, 0.27
"""The rest of an idle node where its idle power is unknown: share of its rated power less its devices', else of theirs
(DGX A100, MI300X and B200 nodes: .29 to .34 and .19 to .35)."""


class Activity(NamedTuple):
    """What one device does in a while."""

    seconds: Numeric
    """The while. [s]"""
    working_s: Numeric
    """Of it in kernels that its matrix units bound, wholly or in part. [s]"""
    compute_s: Numeric
    """What its operations would take at the rate that the largest multiplies reach. [s]"""
    memory_s: Numeric
    """What its bytes would take at the bandwidth of its memory. [s]"""
    streaming_s: Numeric = 0.0
    """In kernels that do nothing but move bytes at that bandwidth, apart from the others. [s]"""
    sent_bytes: Numeric = 0.0
    """To other devices. [byte]"""


def device_power_w(hardware: Hardware, done: Activity) -> Numeric:
    """Mean power of one device: never more than its limit in any of its phases. [W]

    Kernels that multiply draw by their operations and bytes, kernels that stream by the bandwidth, and the rest of the
    time (waiting for others, for the host) the device is awake.
    """
    power, full_w = hardware.accelerator.power, full_power_w(hardware.accelerator.power)
    compute_w = (power.tdp if power.unlimited is None else power.unlimited) - power.idle
    memory_w = MEMORY_J_PER_BYTE * hardware.accelerator.memory.bandwidth

    def phase_j(seconds: Numeric, compute_s: Numeric, memory_s: Numeric) -> Numeric:
        active_j = compute_w * compute_s + memory_w * memory_s
        return loaded_w(power.idle, full_w, AWAKE_SHARE, active_j, seconds) * seconds

    waiting_s = done.seconds - done.working_s - done.streaming_s
    joules = phase_j(done.working_s, done.compute_s, done.memory_s)
    joules = joules + phase_j(done.streaming_s, 0.0, done.streaming_s) + phase_j(waiting_s, 0.0, 0.0)
    return (joules + LINK_J_PER_BYTE * done.sent_bytes) / done.seconds


def full_power_w(power: Power) -> Numeric:
    """The most that a device draws: its limit, or less where even endless multiplies do not reach it. [W]"""
    return power.tdp if power.unlimited is None else np.minimum(power.tdp, power.unlimited)


def idle_power_w(hardware: Hardware) -> Numeric:
    """Power of a device that waits with a model in memory: half awake. [W]"""
    power = hardware.accelerator.power
    return power.idle + 0.5 * AWAKE_SHARE * (full_power_w(power) - power.idle)


def wall_power_w(hardware: Hardware, device_w: Numeric) -> Numeric:
    """Power at the wall of one device that draws so much and its share of the node. [W]"""
    return device_w + host_idle_w(hardware) + HOST_SHARE * (device_w - hardware.accelerator.power.idle)


def host_idle_w(hardware: Hardware) -> Numeric:
    """A device's share of fans, processors, NICs, switches and losses of an idle node. [W]"""
    node, power = hardware.cluster.node, hardware.accelerator.power
    if node.idle_power is not None:
        return np.maximum(node.idle_power / node.devices - power.idle, 0.0)
    if node.max_power is not None:
        return np.maximum(node.max_power / node.devices - power.tdp, 0.0) * HOST_IDLE_RATED
    return full_power_w(power) * HOST_IDLE_TDP


def rated_power_w(hardware: Hardware) -> Numeric:
    """Power that one device and its share of the node are connected for. [W]"""
    node, power = hardware.cluster.node, hardware.accelerator.power
    if node.max_power is not None:
        return node.max_power / node.devices
    return wall_power_w(hardware, power.tdp)


def energy_j(hardware: Hardware, devices: Numeric, done: Activity) -> Numeric:
    """Energy of the nodes at the wall while every device does this; cooling not counted. [J]"""
    return devices * done.seconds * wall_power_w(hardware, device_power_w(hardware, done))
