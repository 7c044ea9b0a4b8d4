"""Scenario files read: every reference, field and unit checked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwsim.errors import InputFileError, UsageError, did_you_mean, printable, shorten
from hwsim.scenarios.answers import Asked, ask
from hwsim.scenarios.measures import bound, measure_named
from hwsim.scenarios.question import Question, checked_files, flattened, overlaps
from hwsim.scenarios.subject import scaled
from hwsim.specs.files import validate
from hwsim.specs.reading import Document, read_yaml
from hwsim.specs.scenario import MOST_SCENARIOS, Scenario, Sweep

DEEPEST = 16
"""Most scenarios that lie inside each other."""


@dataclass(frozen=True)
class Loaded:
    """A scenario file, and the questions it asks."""

    scenario: Scenario
    document: Document
    asked: tuple[Asked, ...]
    """The base first, then the scenarios in order; every one loaded and checked."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the base that were changed (``--set``), by path."""

    @property
    def sweep(self) -> Sweep:
        """The sweep of a file that has one.

        Raises
        ------
        UsageError
            If it has none.
        """
        if self.scenario.sweep is None:
            msg = f"{self.document.source}: sweep: there is none"
            raise UsageError(msg)
        return self.scenario.sweep

    @property
    def base(self) -> Question:
        """What the others are variations of."""
        return self.asked[0].question

    def question(self, name: str) -> Question:
        """The question of a scenario."""
        return next(each.question for each in self.asked if each.question.name == name)


def load_scenario(
    reference: str | Path | Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    profiles: str | Path | None = None,
) -> Loaded:
    """Read and check a scenario file, or a mapping of its fields.

    Parameters
    ----------
    reference
        Path, or the fields of a file.
    settings
        Fields of the base to change (``--set``), by path.
    profiles
        Folder of hardware profiles to look in first.

    Raises
    ------
    InputFileError
        Naming file, line, field and the nearest fix for whatever is wrong, before any work is done.
    """
    if isinstance(reference, Mapping):
        document = Document(dict(reference), "given fields", {(): "given fields"})
    else:
        document = read_yaml(Path(reference))
    scenario = validate(Scenario, document)
    folder = document.path.parent if document.path else None
    base = _base(document, scenario.baseline, folder, settings or {})
    questions = [base, *_variations(scenario, document, base, folder)]
    _check_expectations(scenario, document, [question.name for question in questions])
    asked = tuple(ask(scaled(question, profiles), profiles) for question in questions)
    return Loaded(scenario, document, asked, dict(settings or {}))


def _base(document: Document, name: str, folder: Path | None, settings: Mapping[str, Any]) -> Question:
    fields, places = flattened(document, ("base",))
    question = Question(checked_files(fields, places, folder), places, name, document.where(("base",)))
    if not settings:
        return question
    over = Document({"set": dict(settings)}, "--set", {("set", path): f"--set {path}" for path in settings})
    changed, marks = flattened(over, ("set",))
    return question.over(changed, marks, name, question.place)


def _variations(scenario: Scenario, document: Document, base: Question, folder: Path | None) -> list[Question]:
    """The base under each scenario's overrides, in order."""
    _check_names(scenario, document)
    known: dict[str, list[str]] = {}
    found: list[Question] = []
    for name in scenario.scenarios:
        fields: dict[str, Any] = {}
        places: dict[str, str] = {}
        for override in _expanded(scenario, document, name, (), known):
            own, marks = flattened(document, ("overrides", override))
            for path in own:
                _refuse_second(name, path, own, fields, places, document.where(("scenarios", name)))
            fields |= checked_files(own, marks, folder)
            places |= marks
        found.append(base.over(fields, places, name, document.where(("scenarios", name))))
    return found


def _check_names(scenario: Scenario, document: Document) -> None:
    for name in scenario.scenarios:
        if name in scenario.overrides or name == scenario.baseline:
            what = "the base's name" if name == scenario.baseline else "an override too"
            raise InputFileError([f"{document.where(('scenarios', name))}: scenarios: {shorten(name)} is {what}"])
    for override in scenario.overrides:
        flattened(document, ("overrides", override))


def _expanded(
    scenario: Scenario, document: Document, name: str, above: tuple[str, ...], known: dict[str, list[str]]
) -> list[str]:
    """The overrides that a scenario lays over the base, those of scenarios inside it in their place; `known` are
    those of the scenarios worked out before.
    """
    if name in known:
        return known[name]
    place = f"{document.where(('scenarios', name))}: scenarios"
    if name in above:
        route = " -> ".join((*above, name))
        raise InputFileError([f"{place}: goes round in a circle: {printable(route)}"])
    if len(above) >= DEEPEST:
        raise InputFileError([f"{place}: more than {DEEPEST} scenarios inside each other"])
    result: list[str] = []
    for part in scenario.scenarios[name]:
        if part in scenario.overrides:
            result.append(part)
        elif part in scenario.scenarios:
            result += _expanded(scenario, document, part, (*above, name), known)
        else:
            names = [*scenario.overrides, *scenario.scenarios]
            hint = did_you_mean(part, names) or f" (known: {', '.join(names) or 'none'})"
            raise InputFileError([f"{place}: {shorten(name)}: no override {shorten(part)}{hint}"])
        if len(result) > MOST_SCENARIOS:
            raise InputFileError([f"{place}: {shorten(name)}: more than {MOST_SCENARIOS} overrides"])
    known[name] = result
    return result


def _refuse_second(
    name: str, path: str, own: Mapping[str, Any], fields: Mapping[str, Any], places: Mapping[str, str], place: str
) -> None:
    """Two overrides of one field in one scenario: their order must not matter."""
    inside = (known for known in fields if overlaps(known, path))
    other = next(inside, None)
    if other is not None and own[path] is not None:
        first = places[other]
        raise InputFileError([f"{place}: {name}: {path} is overridden twice (also {other} at {first})"])


def _check_expectations(scenario: Scenario, document: Document, names: Sequence[str]) -> None:
    problems = []
    for i, each in enumerate(scenario.expect):
        place = document.where(("expect", i))
        unknown = [name for name in each.scenarios if name not in names]
        if unknown:
            problems.append(f"{place}: expect: no scenario {shorten(unknown[0])}{did_you_mean(unknown[0], names)}")
        if each.what == "fits":
            continue
        try:
            measure = measure_named(each.what)
            for limit in (each.at_least, each.at_most):
                if limit is not None:
                    bound(measure, limit)
        except UsageError as error:
            problems.append(f"{place}: expect: {error}")
    if problems:
        raise InputFileError(problems)
