"""A scenario file answered: every question worked out, held against the base and against what is expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.errors import InfeasibleError, InputFileError
from hwsim.scenarios.answers import Asked, Outcome, answer, ask, nothing
from hwsim.scenarios.compare import Change, changes
from hwsim.scenarios.loading import Loaded
from hwsim.scenarios.measures import bound, measure_named
from hwsim.scenarios.sweep import Swept, run_sweep

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
Progress = Callable[[str], object]


@dataclass(frozen=True)
class Verdict:
    """An expectation, and whether it holds in one scenario."""

    scenario: str
    what: str
    """As a sentence."""
    holds: bool
    reached: str
    """The figure it was held against."""
    place: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"scenario": self.scenario, "expected": self.what, "holds": self.holds, "reached": self.reached}


@dataclass(frozen=True)
class WhatIf:
    """The answers to a scenario file."""

    loaded: Loaded
    outcomes: tuple[Outcome, ...]
    """The base first."""
    changes: Mapping[str, tuple[Change, ...]]
    """Scenario to what moved against the base, with the reason."""
    verdicts: tuple[Verdict, ...]
    swept: Swept | None

    @property
    def holds(self) -> bool:
        """Whether everything expected does."""
        return all(verdict.holds for verdict in self.verdicts)

    @property
    def base(self) -> Outcome:
        """What the others are held against."""
        return self.outcomes[0]

    def change(self, outcome: Outcome, name: str) -> Change | None:
        """How a figure of a scenario moved; None for the base, and where either has none."""
        return next((each for each in self.changes.get(outcome.name, ()) if each.measure.name == name), None)

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `hwsim whatif --json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "whatif",
            "title": self.loaded.scenario.title,
            "outcomes": [outcome.to_dict() for outcome in self.outcomes],
            "changes": {name: [each.to_dict() for each in found] for name, found in self.changes.items()},
            "expectations": [verdict.to_dict() for verdict in self.verdicts],
            "holds": self.holds,
            "sweep": None if self.swept is None else self.swept.to_dict(),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row per scenario: its figures."""
        keys = {name: measure_named(name).key for outcome in self.outcomes for name in outcome.measures}
        return [
            {"scenario": each.name, "fits": each.fits, **{keys[name]: value for name, value in each.measures.items()}}
            for each in self.outcomes
        ]

    def to_frame(self) -> pd.DataFrame:
        """The figures of every scenario as a table; of the points, where there is a sweep (`swept.to_frame()`)."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def __repr__(self) -> str:
        points = f", {self.swept.grid.points:,} points" if self.swept else ""
        return f"<WhatIf {self.loaded.scenario.title!r}: {len(self.outcomes)} scenarios{points}, holds: {self.holds}>"


def run(loaded: Loaded, profiles: str | Path | None = None, begin: Progress | None = None) -> WhatIf:
    """Answer every question of a scenario file; `begin` is called with the name of each as it begins.

    Raises
    ------
    InputFileError
        If a question turns out to be wrong.
    InfeasibleError
        If nothing of it fits.
    """
    outcomes: list[Outcome] = []
    for asked in loaded.asked:
        if begin:
            begin(asked.question.name)
        keeps = outcomes and not loaded.scenario.replan
        outcomes.append(_kept(asked, outcomes[0], profiles) if keeps else answer(asked))
    if begin and loaded.scenario.sweep:
        begin("the sweep")
    swept = run_sweep(loaded, outcomes[0], profiles) if loaded.scenario.sweep else None
    if not any(outcome.fits for outcome in outcomes) and not (swept and swept.any_fits):
        raise InfeasibleError(outcomes[0].why_not or "no scenario fits into memory")
    return WhatIf(
        loaded=loaded,
        outcomes=tuple(outcomes),
        changes={outcome.name: changes(outcomes[0], outcome) for outcome in outcomes[1:]},
        verdicts=tuple(_verdicts(loaded, outcomes)),
        swept=swept,
    )


def _kept(asked: Asked, base: Outcome, profiles: str | Path | None) -> Outcome:
    """The question's answer with the strategy found for the base, unless it names its own."""
    question = asked.question
    if question.group("strategy") or base.estimate is None:
        return answer(asked)
    open_fields = {path: value for path, value in question.fields.items() if not path.startswith("pin.")}
    kept = replace(question, fields={**open_fields, **base.kept_strategy()})
    try:
        return answer(ask(kept, profiles))
    except InputFileError as error:
        return nothing(question, f"the base's strategy does not work here: {error}")


def _verdicts(loaded: Loaded, outcomes: list[Outcome]) -> list[Verdict]:
    """What is expected, scenario by scenario."""
    found: list[Verdict] = []
    for i, each in enumerate(loaded.scenario.expect):
        place = loaded.document.where(("expect", i))
        for outcome in outcomes:
            if each.scenarios and outcome.name not in each.scenarios:
                continue
            if each.what == "fits":
                reached = "fits" if outcome.fits else outcome.why_not or "does not fit"
                found.append(Verdict(outcome.name, "must fit", outcome.fits, reached, place))
                continue
            measure = measure_named(each.what)
            value = outcome.measures.get(measure.name)
            for limit, word, sign in ((each.at_least, "at least", 1.0), (each.at_most, "at most", -1.0)):
                if limit is None:
                    continue
                edge = bound(measure, limit)
                holds = value is not None and sign * value >= sign * edge
                said = f"{measure.title} {word} {measure.shown(edge)}"
                found.append(Verdict(outcome.name, said, holds, measure.shown(value), place))
    return found
