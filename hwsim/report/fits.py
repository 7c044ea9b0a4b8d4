"""Fits as rows and as tables."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence

from hwsim.fitting.fitted import Errors, Fit, fit_rows
from hwsim.report.plan import simple_table

MOST = 1000.0
"""Errors beyond this many times the measurement are shown with an exponent."""
RECORD = ("kind", "profile", "place", "rows", "outside_median", "outside_p90")
"""Columns of the record that the scoreboard reads."""
KINDS = {
    "gemm": "GEMM", "stream": "memory-bound kernels", "experts": "Experts", "latent": "latent attention",
}  # fmt: skip
"""Kernels as the record names them, where it does not by their field."""


def record(fits: Sequence[Fit]) -> str:
    """The errors on rows left out as CSV: kernels by library, collectives by size, devices left out of their family."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(RECORD)
    for kind, fit, found in _records(fits):
        if math.isfinite(found.median):
            errors = (found.rows, f"{found.median:.4f}", f"{found.p90:.4f}")
            writer.writerow((kind, fit.profile, ".".join(fit.path), *errors))
    return text.getvalue()


def _records(fits: Sequence[Fit]) -> Iterator[tuple[str, Fit, Errors]]:
    for fit in fits:
        what, dtype = _what(fit.path)
        apart = "libraries" in fit.path or fit.path[0] == "tiers"
        of_library = ", by library" if "libraries" in fit.path else ""
        if fit.parts and apart:
            for part, found in fit.parts.items():
                yield f"{what} {part}{dtype}", fit, found
        elif what == "Experts":  # the device's own curve is one of the libraries'
            yield from [(f"{what}{dtype}", fit, fit.outside)] if apart else []
        elif not fit.parts and what != "attention":
            yield f"{what}{dtype}{of_library}", fit, fit.outside
        if fit.unseen:
            whose = "of a family nobody measured" if fit.distant else "left out of its family"
            yield f"{what}{dtype}, device {whose}", fit, fit.unseen


def _what(path: Sequence[str]) -> tuple[str, str]:
    """The kernel and, for a multiply, its format."""
    if path[0] == "tiers":
        return "collectives" + (" of serving engines" if "libraries" in path else ""), ""
    kind = next(name for name in ("gemm", "attention", "experts", "latent", "stream") if name in path)
    narrow = path[path.index("dtypes") + 1] if "dtypes" in path else "bf16"
    return KINDS.get(kind, kind), f" {narrow}" * (kind != "stream")


def fits_view(fits: Sequence[Fit]) -> list[object]:
    """The fits as a table, and below it the devices as their relatives' curves would have them."""
    if not fits:
        return ["Nothing to fit: no table holds rows of a device that has a profile."]
    view: list[object] = [simple_table([_line(fit) for fit in fits])]
    unseen = [_unseen_line(fit, fit.unseen) for fit in fits if fit.unseen]
    if unseen:
        view += ["Devices left out: the relative's curve with the device's own data sheet", simple_table(unseen)]
    bound = [_bound_line(fit) for fit in fits if fit.at_bound]
    if bound:
        view += ["Ended at a bound of the range: the rows ask for more, or say nothing of it", simple_table(bound)]
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


def _bound_line(fit: Fit) -> dict[str, str]:
    place = fit.path if fit.path[0] == "kernels" else (*fit.path, *fit.values)
    return {"profile": fit.profile, "place": ".".join(place), "coefficients": ", ".join(fit.at_bound)}


def _cells(found: Errors) -> dict[str, str]:
    return {
        "median": _percent(found.median),
        "p90": _percent(found.p90),
        "bias": _percent(found.bias, "+"),
    }


def _percent(share: float, sign: str = "") -> str:
    if not math.isfinite(share):
        return "n/a"
    return f"{share:{sign}z.1%}" if abs(share) < MOST else f"{100.0 * share:{sign}.1e}%"


__all__ = ["RECORD", "fit_rows", "fits_view", "record"]
