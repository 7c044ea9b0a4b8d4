"""Seconds of what goes to the host's memory and back, and of updating weights there."""

from __future__ import annotations

import numpy as np

from hwsim.formulas.training import host_update_s
from hwsim.formulas.types import Numeric
from hwsim.specs.hardware import Hardware


def transfer_s(hardware: Hardware, moved_bytes: Numeric) -> Numeric:
    """Time of one device's link to its host, one way; 0 where nobody knows its rate. [s]"""
    rate = hardware.accelerator.host_bandwidth
    return 0.0 * moved_bytes if rate is None else moved_bytes / rate


def node_update_s(hardware: Hardware, parameters: Numeric, devices: Numeric) -> Numeric:
    """Time of a node's processors to update the `parameters` of each of its devices. [s]"""
    return host_update_s(parameters * np.minimum(hardware.cluster.node.devices, devices))
