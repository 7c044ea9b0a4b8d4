"""Quantities: text with a unit in, SI floats out, and back to text that a person reads.

Only this file knows what a GiB or a TFLOP/s is. Memory capacity is counted in GiB (2**30 bytes), links in decimal
GB/s, network cards in Gb/s (bits), compute in dense FLOP/s.
"""

from __future__ import annotations

import math
import re

from hwsim.errors import did_you_mean, shorten

KIB, MIB, GIB, TIB = 2.0**10, 2.0**20, 2.0**30, 2.0**40
MILLION, GB, TERA = 1e6, 1e9, 1e12
MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86400.0
YEAR_S = 365.25 * DAY_S
MONTH_S = YEAR_S / 12.0
HUGE = 1e7
"""Numbers beyond this many of the largest unit are shown with an exponent."""
JOULES_PER_KWH = 3.6e6

_DECIMAL = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}


def _scaled(*symbols: str, prefixes: dict[str, float] = _DECIMAL, factor: float = 1.0) -> dict[str, float]:
    return {prefix + symbol: scale * factor for symbol in symbols for prefix, scale in prefixes.items()}


_BYTES = _scaled("B") | _scaled("B", prefixes=_BINARY)
_TIME = {
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "ns": 1e-9,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "y": YEAR_S,
}

DIMENSIONS: dict[str, dict[str, float]] = {
    "bytes": _BYTES,
    "bytes_per_s": {f"{unit}/s": scale for unit, scale in _BYTES.items()}
    | _scaled("b/s", "bit/s", "bps", factor=0.125),
    "flops_per_s": _scaled("FLOP/s", "FLOPS", "FLOPs/s", "OP/s", "OPS"),
    "s": _TIME,
    "w": _scaled("W"),
    "j": _scaled("J") | {f"{p}Wh": s * 3600.0 for p, s in _DECIMAL.items()},
    "hz": _scaled("Hz"),
    "usd": {"USD": 1.0, "$": 1.0},
    "usd_per_s": {"USD/h": 1 / 3600.0, "$/h": 1 / 3600.0},
    "usd_per_j": {"USD/kWh": 1 / JOULES_PER_KWH, "USD/MWh": 1e-3 / JOULES_PER_KWH},
    "usd_per_w_s": {"USD/kW-month": 1e-3 / MONTH_S},
    "usd_per_byte_s": {"USD/GB-month": 1e-9 / MONTH_S, "USD/TB-month": 1e-12 / MONTH_S},
    "kg": {"g": 1e-3, "kg": 1.0, "t": 1e3, "gCO2e": 1e-3, "kgCO2e": 1.0, "tCO2e": 1e3},
    "kg_per_j": {"kgCO2e/kWh": 1 / JOULES_PER_KWH, "gCO2e/kWh": 1e-3 / JOULES_PER_KWH},
    "kg_per_byte": {"kgCO2e/GiB": 1 / GIB, "kgCO2e/GB": 1 / GB},
    "lifetime": {"y": YEAR_S, "d": DAY_S, "h": HOUR_S},
    "fraction": {"": 1.0, "%": 0.01},
    "ratio": {"": 1.0, "%": 0.01},
    "count": {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12},
}
"""Every dimension with its unit symbols and their size in SI."""

SI = {
    "bytes": "B", "bytes_per_s": "B/s", "flops_per_s": "FLOP/s", "s": "s", "w": "W", "j": "J", "hz": "Hz", "usd": "USD",
    "usd_per_s": "USD/s", "usd_per_j": "USD/J", "usd_per_w_s": "USD/(W s)", "usd_per_byte_s": "USD/(B s)", "kg": "kg",
    "kg_per_j": "kg/J", "kg_per_byte": "kg/B", "lifetime": "s", "fraction": "1", "count": "1",
}  # fmt: skip
"""What a float of each dimension is in."""

EXAMPLES = {
    "bytes": "80 GiB",
    "bytes_per_s": "3.35 TB/s",
    "flops_per_s": "989 TFLOP/s",
    "s": "5 us",
    "w": "700 W",
    "j": "1 kWh",
    "hz": "1.83 GHz",
    "usd": "30000 USD",
    "usd_per_s": "2.5 USD/h",
    "usd_per_j": "0.08 USD/kWh",
    "usd_per_w_s": "150 USD/kW-month",
    "usd_per_byte_s": "0.02 USD/GB-month",
    "kg": "150 kgCO2e",
    "kg_per_j": "0.37 kgCO2e/kWh",
    "kg_per_byte": "2.5 kgCO2e/GiB",
    "lifetime": "4 y",
    "fraction": "0.85",
    "ratio": "1.2",
    "count": "15T",
}
"""One well-formed quantity per dimension, shown in error messages."""

_QUANTITY = re.compile(r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([^\d\s][^\s]*)?\s*")


def parse(text: str, dimension: str) -> float:
    """Read a quantity such as ``80 GiB`` as a float in SI units of `dimension`.

    Parameters
    ----------
    text : str
        A number, white space if you like, and a unit symbol.
    dimension : str
        A key of `DIMENSIONS`.

    Raises
    ------
    ValueError
        If the text is no quantity, or its unit is missing or of another dimension.

    Examples
    --------
    >>> parse("400 Gb/s", "bytes_per_s") / 1e9
    50.0
    >>> parse("80 GiB", "bytes") == 80 * 2**30
    True
    """
    units = DIMENSIONS[dimension]
    match = _QUANTITY.fullmatch(text[:100])
    if match is None or len(text) > 100:
        msg = f"{shorten(text)} is not a quantity (example: {EXAMPLES[dimension]})"
        raise ValueError(msg)
    number, unit = match.group(1), match.group(2) or ""
    if unit not in units:
        if not unit:
            msg = f"{shorten(text)} needs a unit (example: {EXAMPLES[dimension]})"
        else:
            msg = (
                f"unit {shorten(unit)} does not fit here (example: {EXAMPLES[dimension]})"
                f"{did_you_mean(unit, [u for u in units if u])}"
            )
        raise ValueError(msg)
    return float(number.replace("_", "")) * units[unit]


def write(value: float, dimension: str) -> str:
    """An SI value as the text of fewest digits that `parse` reads back: to the bit, or to the last one where none does.

    Examples
    --------
    >>> write(3.35e12, "bytes_per_s"), write(25e9, "bytes_per_s"), write(1.5, "usd_per_s")
    ('3.35 TB/s', '25 GB/s', '5400 USD/h')
    >>> write(0.5, "fraction"), write(80 * GIB, "bytes")
    ('0.5', '80 GiB')
    """
    numbers = {unit: repr(value / scale).removesuffix(".0") for unit, scale in DIMENSIONS[dimension].items()}
    exact = [unit for unit, number in numbers.items() if parse(f"{number} {unit}", dimension) == value]

    def awkward(unit: str) -> tuple[bool, int, float]:
        number = abs(float(numbers[unit]))
        return bool(unit) and number < 1.0, len(numbers[unit].replace(".", "").lstrip("0")), number

    unit = min(exact or numbers, key=awkward)
    return f"{numbers[unit]} {unit}".rstrip()


def _trim(value: float, digits: int) -> str:
    """Show `value` with `digits` significant digits, no exponent, no trailing zeros added by rounding."""
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_SI = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def _si(symbol: str) -> tuple[tuple[float, str], ...]:
    return tuple((scale, f" {prefix}{symbol}") for scale, prefix in _SI)


_STEPS: dict[str, tuple[tuple[float, str], ...]] = {
    "bytes": ((TIB, " TiB"), (GIB, " GiB"), (MIB, " MiB"), (KIB, " KiB"), (1.0, " B")),
    "bytes_per_s": _si("B/s"),
    "flops_per_s": _si("FLOP/s"),
    "flops": _si("FLOP"),
    "w": _si("W"),
    "hz": _si("Hz"),
    "s": (
        (DAY_S, " days"),
        (HOUR_S, " h"),
        (MINUTE_S, " min"),
        (1.0, " s"),
        (1e-3, " ms"),
        (1e-6, " us"),
        (1e-9, " ns"),
    ),
    "days": ((1.0, " days"),),
    "count": ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"), (1.0, "")),
    "usd": ((1e9, "B USD"), (1e6, "M USD"), (1e3, "k USD"), (1.0, " USD")),
    "usd_per_s": ((1 / HOUR_S, " USD/h"),),
    "j": (
        (1e6 * JOULES_PER_KWH, " GWh"),
        (1e3 * JOULES_PER_KWH, " MWh"),
        (JOULES_PER_KWH, " kWh"),
        (1e3, " kJ"),
        (1.0, " J"),
    ),
    "usd_per_j": ((1 / JOULES_PER_KWH, " USD/kWh"),),
    "usd_per_w_s": ((1e-3 / MONTH_S, " USD/kW-month"),),
    "usd_per_byte_s": ((1e-9 / MONTH_S, " USD/GB-month"),),
    "kg": ((1e6, " kt"), (1e3, " t"), (1.0, " kg"), (1e-3, " g")),
    "kg_per_j": ((1 / JOULES_PER_KWH, " kgCO2e/kWh"),),
    "kg_per_byte": ((1 / GIB, " kgCO2e/GiB"),),
    "lifetime": ((YEAR_S, " years"), (DAY_S, " days"), (HOUR_S, " h")),
    "fraction": ((0.01, "%"),),
    "ratio": ((1.0, ""),),
}
"""Scales and symbols per dimension, largest first; a value takes the first scale it reaches."""


def scales(dimension: str) -> tuple[tuple[float, str], ...]:
    """The units a value of a dimension is shown in, largest first, each with its size in SI.

    Examples
    --------
    >>> scales("fraction")
    ((0.01, '%'),)
    """
    return _STEPS[dimension]


def show(value: float, dimension: str, digits: int = 3) -> str:
    """Write an SI value for a person: `digits` significant digits and the unit a reader expects.

    Examples
    --------
    >>> show(80 * 2**30, "bytes")
    '80 GiB'
    >>> show(3.35e12, "bytes_per_s"), show(989.4e12, "flops_per_s"), show(0.0123, "s")
    ('3.35 TB/s', '989 TFLOP/s', '12.3 ms')
    >>> show(15e12, "count"), show(float("nan"), "usd")
    ('15T', 'n/a')
    >>> show(24_700, "kg"), show(parse("57 gCO2e/kWh", "kg_per_j"), "kg_per_j")
    ('24.7 t', '0.057 kgCO2e/kWh')
    """
    if not math.isfinite(value):
        return "n/a"
    steps = _STEPS[dimension]
    rounds_up = 1 - 0.5 * 10.0**-digits
    scale, symbol = next((step for step in steps if abs(value) >= step[0] * rounds_up), steps[-1])
    number = value / scale
    text = f"{value:.{digits}g}" if abs(number) >= HUGE else f"{_trim(number, digits)}{symbol}"
    return text[:-1] if text in ("1 days", "1 years") else text
