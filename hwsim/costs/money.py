"""Dollars: devices rented by the second."""

from __future__ import annotations

from hwsim.formulas.types import Numeric
from hwsim.specs.hardware import Accelerator


def rent_usd_per_s(accelerator: Accelerator) -> float:
    """On-demand rent of one device; NaN where no price is known. [USD/s]"""
    price = accelerator.price
    rent = price.committed if price.rent is None else price.rent
    return float("nan") if rent is None else rent


def cost_usd(accelerator: Accelerator, devices: Numeric, seconds: Numeric) -> Numeric:
    """Rent of `devices` for `seconds`. [USD]"""
    return devices * seconds * rent_usd_per_s(accelerator)
