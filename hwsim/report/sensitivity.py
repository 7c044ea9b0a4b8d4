"""What a little more or less of each thing does, for people: sentences, a table with tornado bars, a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.report.plan import labelled, python_call, simple_table
from hwsim.report.terminal import EMPTY, FULL, plain
from hwsim.search.cases import METRICS
from hwsim.search.sensitivity import NOTICED, plan_words
from hwsim.units import show

if TYPE_CHECKING:
    from hwsim.search.sensitivity import Effect, Sensitivity

HALF = 12
"""Cells of a tornado bar to either side of its middle."""
MOST_SENTENCES, MOST_BARS = 4, 12
SHORT = {
    "step_time_s": "time", "tokens_per_s": "tokens/s", "cost_usd_per_trillion_tokens": "cost",
    "energy_j_per_token": "energy", "ttft_s": "TTFT", "tpot_s": "TPOT", "output_tokens_per_s_per_device": "tokens/s",
    "cost_usd_per_million_output_tokens": "cost", "energy_j_per_output_token": "energy",
}  # fmt: skip
"""Heads of the columns of elasticities."""
NOTES = {"low": "less", "high": "more"}


def sensitivity_view(found: Sensitivity, call: Mapping[str, Any], metric: str) -> list[Any]:
    """The first sentence, the plan, the bars of every lever that matters, what does not, what does not fit."""
    sentences = found.sentences(metric)
    shown = [each for each in found.levers if _matters(each)]
    shown.sort(key=lambda each: -each.swing(metric))
    idle = [each.name for each in found.levers if not _matters(each)]
    change = f"{100 * found.change:.3g} %"
    word = METRICS[metric].word
    lines = {
        "Plan": f"{plan_words(found.case)}{'; planned anew at every end' if found.replan else ' (kept)'}",
        "Now": _base_line(found),
        **({"Also": "\n".join(sentences[1:MOST_SENTENCES])} if len(sentences) > 1 else {}),
    }
    below = {
        "No effect": ", ".join(idle) or "none of them is without",
        "Notes": "\n".join(_notes(found.levers)),
        **({} if found.replan else {"Fixed times": _fixed_line(found)}),
        "Python": python_call(call, "sensitivity"),
    }
    top = max((each.swing(metric) for each in shown), default=0.0)
    return [
        f"[bold]{plain(headline(found, metric))}[/bold]",
        labelled(lines),
        "",
        f"{EMPTY} {change} less, {FULL} {change} more of each; bars: {word}, the longest {100 * top:.3g} %; "
        "then elasticities (% per %)",
        *([simple_table([_row(each, metric, top) for each in shown])] if shown else []),
        labelled({label: text for label, text in below.items() if text}),
    ]


def headline(found: Sensitivity, metric: str) -> str:
    """The finding in one line."""
    whole = found.case.estimate()
    where = f"{whole.model['name']} on {whole.hardware['devices']:,} × {whole.hardware['accelerator']}"
    said = found.sentences(metric)
    return f"{where}: {said[0] if said else f'nothing gains any {METRICS[metric].word}'}"


def _matters(each: Effect) -> bool:
    """Whether a lever changes anything that is read off, or makes a machine too small."""
    return (each.kind != "job" and not (each.runs("low") and each.runs("high"))) or max(
        each.swing(name) for name in each.metrics
    ) > NOTICED


def _base_line(found: Sensitivity) -> str:
    """The metrics as they are."""
    parts = [
        f"{METRICS[name].word} {show(value, METRICS[name].unit)}{UNITS.get(name, '')}"
        for name, value in found.base.metrics.items()
        if value is not None
    ]
    return ", ".join(parts) + ("" if found.base.fits else f"; does not fit: {found.base.note}")


UNITS = {
    "tokens_per_s": " tokens/s", "cost_usd_per_trillion_tokens": " per trillion tokens",
    "energy_j_per_token": " per token", "output_tokens_per_s": " output tokens/s",
    "output_tokens_per_s_per_device": " output tokens/s", "energy_j_per_output_token": " per output token",
    "cost_usd_per_million_output_tokens": " per million output tokens",
}  # fmt: skip
"""What is said after a metric's value."""


def _row(each: Effect, metric: str, top: float) -> dict[str, str]:
    slopes = {SHORT[name]: values["elasticity"] for name, values in each.metrics.items() if name in SHORT}
    return {
        "lever": each.name,
        "now": _now(each),
        "less": _shift(each, metric, "low"),
        "more": _shift(each, metric, "high"),
        "": tornado(each, metric, top),
        **{word: "n/a" if slope is None else f"{slope:+.2f}" for word, slope in slopes.items()},
    }


def _now(each: Effect) -> str:
    """A lever's value."""
    return f"{each.value:,.4g}" if each.unit == "count" else show(each.value, each.unit)


def _shift(each: Effect, metric: str, end: str) -> str:
    """The change of a metric at an end."""
    share = each.shift(metric, end)
    if not each.runs(end):
        return "no fit" if share is not None or each.kind != "job" else "n/a"
    return "n/a" if share is None else f"{share:+.1%}"


def tornado(each: Effect, metric: str, top: float) -> str:
    """A bar to the left where the metric goes down, to the right where it goes up; the shorter of two lies on top."""
    cells = [" "] * HALF + ["│"] + [" "] * HALF
    ends = [("low", EMPTY), ("high", FULL)]
    for end, mark in sorted(ends, key=lambda pair: -abs(each.shift(metric, pair[0]) or 0.0)):
        share = each.shift(metric, end) if each.runs(end) else None
        length = round(HALF * abs(share or 0.0) / top) if top > 0 else 0
        for i in range(1, length + 1):
            cells[HALF + i if (share or 0.0) > 0 else HALF - i] = mark
    return "".join(cells)


def _notes(levers: Sequence[Effect]) -> list[str]:
    """Ends that do not run, and ends where another plan is better; nothing where no end runs."""
    if not all(each.base_fits for each in levers):
        return []
    return [f"{NOTES[end]} {each.name}: {note}" for each in levers for end, note in each.notes.items()]


def _fixed_line(found: Sensitivity) -> str:
    """What of the times no lever accounts for."""
    shares = [f"{1.0 - share:+.1%} of the {METRICS[name].word}" for name, share in found.covered.items()]
    return (
        f"{', '.join(shares)}: what the elasticities above leave of -1; time constants of the kernel curves, which no "
        "lever turns (below 0: faster devices also lose less clock in long multiplies)"
    )


def plot(found: Sensitivity, metric: str, path: Path) -> None:
    """Draw the tornado and save it."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from hwsim.report.style import COLOURS

    ranked = sorted(found.levers, key=lambda each: -each.swing(metric))
    shown = [each for each in ranked if each.swing(metric) > NOTICED][:MOST_BARS]
    figure, axes = plt.subplots(figsize=(9, 1.6 + 0.4 * max(len(shown), 1)), layout="constrained")
    colours = {"low": COLOURS[1], "high": COLOURS[0]}
    widest = max((100.0 * each.swing(metric) for each in shown), default=1.0)
    for place, each in enumerate(reversed(shown)):
        _bars(axes, each, metric, place, colours, widest)
    labels = [f"{each.name}\n{_now(each)}" for each in reversed(shown)]
    axes.set_yticks(range(len(shown)), labels, fontsize=8)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_xlim(-1.25 * widest, 1.25 * widest)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel(f"change of {METRICS[metric].word} [%]", fontsize=9)
    change = f"{100 * found.change:.3g} %"
    for end, colour in colours.items():
        axes.barh([0], [0], color=colour, label=f"{change} {NOTES[end]}")
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    figure.suptitle(headline(found, metric), fontsize=10, wrap=True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _bars(axes: Any, each: Effect, metric: str, place: int, colours: Mapping[str, str], widest: float) -> None:
    """Both ends of a lever, one below the other, with their values."""
    sides = {"low": (-1.0, 0.19), "high": (1.0, -0.19)}
    for end, (side, offset) in sides.items():
        share = 100.0 * (each.shift(metric, end) or 0.0)
        if not each.runs(end):
            text = "does not fit" if each.kind != "job" or each.shift(metric, end) is not None else ""
            axes.text(side * 0.03 * widest, place + offset, text, fontsize=7, va="center",
                      ha="left" if side > 0 else "right", color=colours[end])  # fmt: skip
            continue
        axes.barh(place + offset, share, color=colours[end], height=0.36)
        out = 1.0 if share > 0 else -1.0
        if abs(share) > 100 * NOTICED:
            axes.annotate(f"{share:+.1f}".replace("-", "−"), (share, place + offset), xytext=(3.0 * out, 0), fontsize=7,
                          textcoords="offset points", va="center", ha="left" if out > 0 else "right")  # fmt: skip
