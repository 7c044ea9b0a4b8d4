"""Fits as rows and as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hwsim.fitting.fitted import Errors, Fit
from hwsim.report.plan import simple_table


def fit_rows(fits: Sequence[Fit]) -> list[dict[str, Any]]:
    """Every fit with its errors and values, as `hwsim fit --format json` gives them."""
    return [
        {
            "profile": fit.profile,
            "place": ".".join(fit.path),
            "data": fit.data,
            "rows": fit.inside.rows,
            **_errors("inside", fit.inside),
            **_errors("outside", fit.outside),
            **({"relative": fit.relative, **_errors("unseen", fit.unseen)} if fit.unseen else {}),
            "values": fit.values,
        }
        for fit in fits
    ]


def _errors(name: str, found: Errors) -> dict[str, float]:
    return {f"{name}_median": found.median, f"{name}_p90": found.p90, f"{name}_bias": found.bias}


def fits_view(fits: Sequence[Fit]) -> list[object]:
    """The fits as a table, and below it the devices as their relatives' curves would have them."""
    if not fits:
        return ["Nothing to fit: no table holds rows of a device that has a profile."]
    view: list[object] = [simple_table([_line(fit) for fit in fits])]
    unseen = [_unseen_line(fit, fit.unseen) for fit in fits if fit.unseen]
    if unseen:
        view += ["Devices left out: the relative's curve with the device's own data sheet", simple_table(unseen)]
    return view


def _line(fit: Fit) -> dict[str, str]:
    return {
        "profile": fit.profile,
        "place": ".".join(fit.path),
        "rows": f"{fit.inside.rows:,}",
        **_cells(fit.inside),
        "left out": _percent(fit.outside.median),
        "left-out p90": _percent(fit.outside.p90),
    }


def _unseen_line(fit: Fit, unseen: Errors) -> dict[str, str]:
    return {"profile": fit.profile, "relative": fit.relative, "rows": f"{unseen.rows:,}", **_cells(unseen)}


def _cells(found: Errors) -> dict[str, str]:
    return {
        "median": _percent(found.median),
        "p90": _percent(found.p90),
        "bias": _percent(found.bias, "+"),
    }


def _percent(share: float, sign: str = "") -> str:
    return f"{share:{sign}.1%}" if math.isfinite(share) else "n/a"
