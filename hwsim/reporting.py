"""The facade's part that reports: any answer as one self-contained page, or as Markdown, with its figures apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim import arguments
from hwsim.analytic.estimate import TrainingEstimate
from hwsim.analytic.setting import Setting
from hwsim.errors import InfeasibleError, UsageError
from hwsim.report.assets import report_text, write_assets
from hwsim.report.assets import write_report as write_document
from hwsim.report.document import Document
from hwsim.scenarios.answers import Outcome, ask, completed
from hwsim.scenarios.dossier import dossier
from hwsim.scenarios.question import Question
from hwsim.scenarios.run import WhatIf
from hwsim.search.plan import Plan, strategy_of
from hwsim.search.serving_plan import ServingPlan

if TYPE_CHECKING:
    from hwsim.search.sensitivity import Sensitivity

METRIC, CHANGE = "tokens_per_s", 0.1
"""What a report's levers are judged by, and how far they are turned."""


def report(
    subject: Any,
    path: str | Path,
    *,
    command: str = "",
    assets: str | Path | None = None,
    profiles: str | Path | None = None,
) -> Document:
    """Write what was found as one self-contained page (.html) or as Markdown (.md).

    Parameters
    ----------
    subject
        What `hwsim.whatif`, `hwsim.size` or `hwsim.simulate_serving` returned, or an `Outcome` of a scenario.
    path
        File to write; its suffix says the format. An interrupted run leaves an older file in place.
    command
        The command that reproduces it, printed in the report.
    assets
        Folder for every figure as PNG, SVG and CSV.
    profiles
        Folder of hardware profiles to look in first, as it was given to what found the subject.

    Raises
    ------
    UsageError
        For another suffix, a path that cannot be written, or a subject that no report is made of.
    """
    document = document_of(subject, command=command, profiles=profiles)
    write_document(document, path)
    if assets is not None:
        write_assets(document, assets)
    return document


def document_of(subject: Any, *, command: str = "", profiles: str | Path | None = None) -> Document:
    """What a report says, before it is HTML or Markdown."""
    if isinstance(subject, WhatIf):
        if len(subject.outcomes) == 1 and subject.swept is None:
            return _detailed(subject.base, command, profiles)
        from hwsim.report.documents.comparison import whatif_document

        return whatif_document(subject, command, f"hwsim.whatif({subject.loaded.document.source!r})")
    if isinstance(subject, Outcome):
        return _detailed(subject, command, profiles)
    msg = f"no report is made of a {type(subject).__name__}"
    raise UsageError(msg)


def outcome_of(plan: Plan | ServingPlan, fields: Mapping[str, Any], profiles: str | Path | None = None) -> Outcome:
    """A plan that was found as the answer to a question, given as the fields of one (see `hwsim new scenario`)."""
    asked = ask(Question(dict(fields)), arguments.folder("profiles", profiles))
    setting = plan.setting if isinstance(plan, Plan) else plan.request.served
    return completed(asked, plan.best, plan, setting)


def _detailed(outcome: Outcome, command: str, profiles: str | Path | None) -> Document:
    """One answer with everything behind it."""
    from hwsim.report.documents.training import training_document

    if outcome.estimate is None:
        raise InfeasibleError(outcome.why_not)
    python = f"hwsim.whatif({{'title': '...', 'base': {outcome.question.plain()!r}}})"
    if isinstance(outcome.estimate, TrainingEstimate):
        return training_document(dossier(outcome, profiles), _levers(outcome), command, python)
    msg = "no report of a served model yet"
    raise UsageError(msg)


def _levers(outcome: Outcome) -> Sensitivity | None:
    """What the answer depends on, its strategy kept."""
    from hwsim.search.cases import TrainingCase
    from hwsim.search.sensitivity import sensitivity

    if not isinstance(outcome.estimate, TrainingEstimate) or not isinstance(outcome.setting, Setting):
        return None
    longest = arguments.longest_sequence(outcome.setting.model)
    case = TrainingCase(outcome.setting, strategy_of(outcome.estimate), longest)
    return sensitivity(case, CHANGE, METRIC, None, None)


__all__ = ["document_of", "outcome_of", "report", "report_text"]
