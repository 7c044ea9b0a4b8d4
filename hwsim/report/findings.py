"""What the answers to a scenario file amount to, as sentences that a person would say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwsim.report.whatif import extremes, field_name, figure_text, main_figure, per, serves
from hwsim.report.writing import capital
from hwsim.scenarios.compare import SAME
from hwsim.scenarios.measures import MEASURES

if TYPE_CHECKING:
    from hwsim.scenarios.answers import Outcome
    from hwsim.scenarios.run import WhatIf
    from hwsim.scenarios.sweep import Swept


@dataclass(frozen=True)
class Words:
    """How a figure is spoken of."""

    best: tuple[str, str]
    """Of one scenario and of several, ..."""
    worst: tuple[str, str]
    more: str
    """... of a change upwards, ..."""
    less: str
    times: str
    """... and of one to a multiple."""


WORDS = {
    "cost": Words(
        ("is the cheapest to rent", "are the cheapest to rent"), ("is the dearest", "are the dearest"),
        "costs {} more to rent than", "costs {} less to rent than", "costs {} times as much to rent as",
    ),
    "days": Words(
        ("is the fastest", "are the fastest"), ("is the slowest", "are the slowest"),
        "takes {} longer than", "takes {} less time than", "takes {} times as long as",
    ),
    "tokens_per_s": Words(
        ("is the fastest", "are the fastest"), ("is the slowest", "are the slowest"),
        "is {} faster than", "is {} slower than", "is {} times as fast as",
    ),
    "owned_cost": Words(
        ("is the cheapest to own", "are the cheapest to own"), ("is the dearest", "are the dearest"),
        "costs {} more to own than", "costs {} less to own than", "costs {} times as much to own as",
    ),
    "devices": Words(
        ("needs the fewest devices", "need the fewest devices"), ("needs the most", "need the most"),
        "needs {} more devices than", "needs {} fewer devices than", "needs {} times the devices of",
    ),
    "energy": Words(
        ("uses the least energy", "use the least energy"), ("uses the most", "use the most"),
        "uses {} more energy than", "uses {} less energy than", "uses {} times the energy of",
    ),
    "carbon": Words(
        ("emits the least carbon", "emit the least carbon"), ("emits the most", "emit the most"),
        "emits {} more carbon than", "emits {} less carbon than", "emits {} times the carbon of",
    ),
    "memory": Words(
        ("needs the least memory", "need the least memory"), ("needs the most", "need the most"),
        "needs {} more memory a device than", "needs {} less memory a device than",
        "needs {} times the memory a device of",
    ),
    "tpot": Words(
        ("gives tokens fastest", "give tokens fastest"), ("is the slowest", "are the slowest"),
        "takes {} longer for a token than", "takes {} less time for a token than", "takes {} times as long a token as",
    ),
}  # fmt: skip
LINES = {
    False: ("days", "tokens_per_s", "cost", "owned_cost", "energy"),
    True: ("cost", "owned_cost", "devices", "energy"),
}
"""Figures that get a line each, the first that there is as the headline."""
FIGURES = {
    "days": "time",
    "cost": "rent",
    "owned_cost": "the cost of owned machines",
    "devices": "the number of devices",
}
"""Figures in a sentence, where it is not their title."""
HARDLY = 0.02
"""Difference that is not worth a line."""
TIMES = 2.0
"""Change that is said as a multiple."""


def called(outcome: Outcome) -> str:
    """A scenario in a sentence."""
    return spoken(outcome.name)


def spoken(name: str) -> str:
    """The name of a scenario in a sentence."""
    return "the base" if name == "base" else name


def answer_lines(result: WhatIf) -> tuple[str, ...]:
    """The finding, then what is worth a line each."""
    lines = _compared(result)
    lines += [f"{capital(called(each))} {_no_answer(each.why_not)}" for each in result.outcomes if each.why_not]
    if result.swept is not None and result.swept.any_fits:
        lines = [*lines[:1], *sweep_lines(result.swept, serves(result), f" {per(result)}"), *lines[1:]]
    broken = [verdict for verdict in result.verdicts if not verdict.holds]
    if broken:
        first = f"{broken[0].what} in {broken[0].scenario} ({broken[0].reached})"
        lines.append(f"Not as expected: {first}" + (f" and {len(broken) - 1} more" if len(broken) > 1 else ""))
    if not lines:
        figures = [f"{MEASURES[key].title} {MEASURES[key].shown(value)}" for key, value in result.base.measures.items()]
        lines = [capital(", ".join(figures[:3]))]
    return tuple(lines)


def _no_answer(why_not: str) -> str:
    """What binds, in short; the section on reasons has all of it."""
    short = why_not.partition("out of memory: ")[2].partition(" (")[0].partition(". ")[0]
    return f"does not fit: {short}" if short else f"has no answer: {why_not}"


def _compared(result: WhatIf) -> list[str]:
    """Who is best and who is worst, figure by figure."""
    said: list[str] = []
    same: list[str] = []
    for name in LINES[serves(result)]:
        known = [each for each in result.outcomes if each.fits and name in each.measures]
        if len(known) < 2 or (name == "tokens_per_s" and "days" in result.base.measures):
            continue
        ranked = sorted(known, key=lambda each: each.measures[name], reverse=MEASURES[name].rises)
        low, high = sorted(each.measures[name] for each in (ranked[0], ranked[-1]))
        if high - low <= HARDLY * high:
            same.append(FIGURES.get(name, MEASURES[name].title))
            continue
        said.append(_line(ranked, name, "" if said or name == "devices" else f" {per(result)}"))
    if same:
        said.append(capital(f"{_joined(same)} {'are' if len(same) > 1 else 'is'} about the same in all"))
    return said


def _line(ranked: list[Outcome], name: str, basis: str) -> str:
    """The best, the next (in the headline) and the worst."""
    first = [each for each in ranked if _alike(ranked[0], each, name)]
    last = [each for each in ranked if _alike(ranked[-1], each, name)]
    words = WORDS[name]
    best, worst = figure_text(ranked, first[0], name), figure_text(ranked, last[-1], name)
    if not basis:
        most = _most(words, len(last) > 1)
        return f"{capital(_all(first))} {words.best[len(first) > 1]} ({best}), {_all(last)} {most} ({worst})"
    line = f"{capital(_all(first))} {words.best[len(first) > 1]}, with {best}{basis}"
    between = [each for each in ranked if each not in first and each not in last]
    ahead = f", ahead of {called(between[0])} ({figure_text(ranked, between[0], name)})" if between else ""
    return f"{line}{ahead}; {_all(last)} {words.worst[len(last) > 1]} ({worst})"


def _most(words: Words, several: bool = False) -> str:
    """The other end, in few words: "uses the most" is "the most" beside "uses the least"."""
    return "the " + words.worst[several].rpartition("the ")[2]


def _alike(one: Outcome, other: Outcome, name: str) -> bool:
    return abs(one.measures[name] - other.measures[name]) <= SAME * abs(one.measures[name])


def _all(outcomes: list[Outcome]) -> str:
    """Names in a sentence."""
    return _joined([called(each) for each in outcomes])


def _joined(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def change_sentence(outcome: str, name: str, change: float, base: str) -> str:
    """How far a scenario is from the base in one figure."""
    words, ratio = WORDS[name], 1.0 + change
    if ratio >= TIMES:
        return capital(f"{outcome} {words.times.format(f'{ratio:.2g}' if ratio < 10 else f'{ratio:,.0f}')} {base}")
    return capital(f"{outcome} {(words.more if change > 0 else words.less).format(f'{abs(change):.0%}')} {base}")


def sweep_lines(swept: Swept, serving: bool, basis: str = "") -> list[str]:
    """How much each axis matters, and the best point; of a single axis, the best points of several figures."""
    name = main_figure(swept, serving)
    moving = [path for path, axis in swept.grid.axes.items() if len(axis) > 1]
    if not swept.grid.crossed:
        moving = moving[:1]  # all move together
    if len(moving) < 2:
        others = [each for each in LINES[serving] if each in swept.measures and each != name and _differs(swept, each)]
        others = [each for each in others if each != "tokens_per_s" or name != "days"]
        return [_ends_line(swept, each, moving, basis * (each == name)) for each in (name, *others)]
    effects = {path: _effect(swept, path, name) for path in moving}
    ordered = sorted(moving, key=lambda path: -abs(np.log(effects[path])) if effects[path] > 0 else 0.0)
    lines = [_effect_line(swept, path, name, effects[path], path == ordered[0]) for path in ordered]
    return [*lines, _ends_line(swept, name, moving, basis)]


def _differs(swept: Swept, name: str) -> bool:
    values = swept.measures[name][swept.fits]
    return bool(np.nanmax(values) - np.nanmin(values) > HARDLY * np.nanmax(values))


def _ends_line(swept: Swept, name: str, moving: list[str], basis: str) -> str:
    best, worst = extremes(swept, name)
    shown, column, words = MEASURES[name].shown, swept.measures[name], WORDS.get(name)
    ends = [", ".join(_point(swept, path, i, len(moving) == 1) for path in moving) for i in (best, worst)]
    said = words.best[0] if words else f"has the best {MEASURES[name].title}"
    last = _most(words) if words else "the worst"
    told = f"{capital(ends[0])} {said} ({shown(float(column[best]))}{basis})"
    return f"{told}, {ends[1]} {last} ({shown(float(column[worst]))})"


def _point(swept: Swept, path: str, i: int, alone: bool) -> str:
    """A value of an axis in a sentence."""
    point = swept.grid.axes[path][swept.grid.index[path][i]]
    if path == "gpus":
        return f"{point.shown} GPUs"
    return capital(point.shown) if alone and isinstance(point.value, str) else f"{field_name(path)} {point.shown}"


def _effect(swept: Swept, path: str, name: str) -> float:
    """New over old of a figure from one end of an axis to the other: the middle of what fits at each."""
    index, last = swept.grid.index[path], len(swept.grid.axes[path]) - 1
    ends = [swept.measures[name][swept.fits & (index == at)] for at in (0, last)]
    if not all(len(each) for each in ends):
        return 1.0
    return float(np.nanmedian(ends[1]) / np.nanmedian(ends[0]))


def _effect_line(swept: Swept, path: str, name: str, ratio: float, first: bool) -> str:
    axis, field = swept.grid.axes[path], capital(field_name(path))
    if abs(ratio - 1.0) < SAME or name not in WORDS:
        return (
            f"{field} hardly matters" if name in WORDS else f"{field} changes {MEASURES[name].title} {ratio:.2g} times"
        )
    found = change_sentence(axis[-1].shown, name, ratio - 1.0, axis[0].shown)
    return f"{field} matters {'most' if first else 'less'}: {found}"


__all__ = ["WORDS", "answer_lines", "called", "change_sentence", "spoken", "sweep_lines"]
