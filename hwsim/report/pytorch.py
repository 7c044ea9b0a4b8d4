"""hwsim against PyTorch for people: a table per group, and what both sides agreed to count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hwsim.report.plan import simple_table

if TYPE_CHECKING:
    from hwsim.live.rows import Comparison, Row

COLLECTIVES = "collectives"
STATE = ("weights, ", "gradients, ", " state, ")
"""Metrics that are told in one line where all of them are equal."""


def view(found: Comparison, every_row: bool) -> list[Any]:
    """Groups with their rows, then the conventions."""
    tables: list[Any] = []
    for group in found.groups:
        rows = [row for row in found.rows if row.group == group.name]
        verdict = "" if group.holds else ", [bold]OUT OF TOLERANCE[/bold]"
        tables += [
            f"[bold]{group.name}[/bold]: {group.equal} of {group.rows} numbers equal{verdict}",
            simple_table(
                summed(rows) if group.name.startswith(COLLECTIVES) and not every_row else lines(rows, every_row)
            ),
        ]
    version = found.rows[0].source.removesuffix(" fake tensors").rsplit(" ", 1)[0]
    return [
        f"hwsim against {version}: what it predicts and what PyTorch does, nothing fitted",
        *tables,
        "[bold]Conventions[/bold]",
        *(f"{number}. {text}" for number, text in enumerate(found.conventions, 1)),
    ]


def lines(rows: Sequence[Row], every_row: bool) -> list[dict[str, str]]:
    """A group's rows, the states of a case that are all equal in one line."""
    result = []
    for case in dict.fromkeys(case_of(row) for row in rows):
        own = [row for row in rows if case_of(row) == case]
        state = [row for row in own if any(part in row.metric for part in STATE)]
        joined = bool(state) and not every_row and all(row.error == 0.0 for row in state)
        shown = [row for row in own if not (joined and row in state)]
        result += [line(case, row) for row in shown]
        if joined:
            text = f"{sum(row.predicted for row in state):,.0f} B"
            name = f"weights, gradients, state ({len(state)} rows)"
            result.append(_cells(case, name, text, text, "0", "equal"))
    return result


def summed(rows: Sequence[Row]) -> list[dict[str, str]]:
    """The runs of a group in a line each: calls and bytes of their collectives, equal or told."""
    result = []
    for case in dict.fromkeys(case_of(row) for row in rows):
        own = [row for row in rows if case_of(row) == case]
        judged = [row for row in own if row.tolerance is not None]
        sent = sum(row.measured for row in own if row.metric.endswith("payload"))
        off = [row for row in judged if not row.holds]
        told = len(own) - len(judged)
        result.append(
            {
                "run": case,
                "numbers": str(len(judged)),
                "payload": f"{sent:,.0f} B a step",
                "verdict": ", ".join(f"{row.metric} OFF {row.error:+.2%}" for row in off) or "equal",
                "by convention": f"{told} told apart" if told else "",
            }
        )
    return result


def case_of(row: Row) -> str:
    """The case that a row belongs to."""
    return row.id.split("/")[0]


def line(case: str, row: Row) -> dict[str, str]:
    """One row of a table."""
    if row.tolerance is None:
        verdict = "reported"
    elif row.error == 0.0:
        verdict = "equal"
    else:
        verdict = f"within {100 * row.tolerance:g}%" if row.holds and row.tolerance else "OFF"
    error = "0" if row.error == 0.0 else f"{row.error:+.4%}" if abs(row.error) < 0.1 else f"{row.error:+.0%}"
    return _cells(case, row.metric, number(row.predicted, row.unit), number(row.measured, row.unit), error, verdict)


def _cells(case: str, metric: str, predicted: str, measured: str, error: str, verdict: str) -> dict[str, str]:
    return {
        "case": case,
        "metric": metric,
        "predicted": predicted,
        "measured": measured,
        "error": error,
        "verdict": verdict,
    }


def number(value: float, unit: str) -> str:
    """All digits of a count, four of a time."""
    return f"{value:.4g} s" if unit == "s" else f"{value:,.0f} {unit}".strip()
