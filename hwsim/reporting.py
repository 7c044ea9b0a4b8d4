"""The facade's part that reports: any answer as one self-contained page, or as Markdown, with its figures apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwsim import arguments
from hwsim.analytic.estimate import TrainingEstimate
from hwsim.analytic.inference import InferenceEstimate
from hwsim.analytic.serving import Served
from hwsim.analytic.setting import Setting
from hwsim.asking import books
from hwsim.costs.bill import Bill, bill
from hwsim.errors import InfeasibleError, UsageError
from hwsim.formulas.ranges import certain, scaled
from hwsim.report.assets import report_text, write_assets
from hwsim.report.assets import write_report as write_document
from hwsim.report.document import Document
from hwsim.scenario_api import SHIPPED, settings_of
from hwsim.scenarios.answers import KEPT, KEPT_SERVED, Outcome, answer, ask, completed
from hwsim.scenarios.dossier import dossier
from hwsim.scenarios.question import AIMS, COMMON, Question, options
from hwsim.scenarios.run import WhatIf
from hwsim.search.bills import POWER_SPREAD, training_bill
from hwsim.search.cases import ServingCase, TrainingCase
from hwsim.search.plan import Plan, strategy_of
from hwsim.search.sensitivity import BY_OBJECTIVE, Sensitivity, sensitivity
from hwsim.search.serving_plan import ServingPlan, whole_deployment
from hwsim.search.serving_space import Layout, one
from hwsim.search.simulation import ServingSimulation
from hwsim.search.sizing import Sizing
from hwsim.specs.strategy import Strategies
from hwsim.units import MILLION, TERA

CHANGE = 0.1
"""How far a report's levers are turned."""
PAGE = 96
"""Characters across a page."""
Found = Plan | ServingPlan | TrainingEstimate | InferenceEstimate


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
    InfeasibleError
        If the subject is the answer that nothing fits.
    """
    document = document_of(subject, command=command, profiles=profiles)
    write_document(document, path)
    if assets is not None:
        write_assets(document, assets)
    return document


def document_of(subject: Any, *, command: str = "", profiles: str | Path | None = None) -> Document:
    """What a report says, before it is HTML or Markdown."""
    if isinstance(subject, WhatIf):
        return _compared(subject, command, profiles)
    if isinstance(subject, Outcome):
        return _detailed(subject, command, profiles, _asked_of(subject))
    if isinstance(subject, Sizing):
        return _sized(subject, command, profiles)
    if isinstance(subject, ServingSimulation):
        from hwsim.report.documents.simulation import simulation_document

        python = _python("simulate_serving", subject.asked, profiles)
        return simulation_document(subject, _bill_of_run(subject, profiles), command, python)
    msg = f"no report is made of a {type(subject).__name__}"
    if isinstance(subject, Plan | ServingPlan | TrainingEstimate | InferenceEstimate):
        msg += ": ask it as hwsim.whatif({'title': ..., 'base': {'model': ..., ...}}), and report that"
    raise UsageError(msg)


def _compared(result: WhatIf, command: str, profiles: str | Path | None) -> Document:
    """Scenarios beside each other; one alone with everything behind it."""
    loaded = result.loaded
    source: Any = loaded.document.data
    if loaded.document.path is not None:
        path = Path(loaded.document.source)
        ships = any(path.resolve().parent == folder.resolve() for folder in SHIPPED)
        source = path.stem if ships else str(path)
    asked: dict[str, Any] = {"scenario": source}
    asked |= {"settings": dict(loaded.settings)} if loaded.settings else {}
    if len(result.outcomes) == 1 and result.swept is None:
        return _detailed(result.base, command, profiles, asked)
    from hwsim.report.documents.comparison import whatif_document

    return whatif_document(result, command, _python("whatif", asked, profiles))


def _asked_of(outcome: Outcome) -> dict[str, Any]:
    """A question alone, as `hwsim.whatif` takes it."""
    return {"scenario": {"title": "One question", "base": outcome.question.plain()}}


def _detailed(outcome: Outcome, command: str, profiles: str | Path | None, asked: Mapping[str, Any]) -> Document:
    """One answer with everything behind it."""
    if outcome.estimate is None:
        raise InfeasibleError(outcome.why_not)
    from hwsim.report.documents.serving import serving_document
    from hwsim.report.documents.training import training_document

    document = training_document if isinstance(outcome.estimate, TrainingEstimate) else serving_document
    return document(dossier(outcome, profiles), _levers(outcome), command, _python("whatif", asked, profiles))


def _sized(found: Sizing, command: str, profiles: str | Path | None) -> Document:
    """A size, with the plan of the answer and everything behind that."""
    from hwsim.report.documents.sizing import sizing_document

    outcome = _answered(found, profiles)
    python = _python("size", found.asked, profiles)
    return sizing_document(found, dossier(outcome, profiles), _levers(outcome), command, python)


def _answered(found: Sizing, profiles: str | Path | None) -> Outcome:
    """The plan of a size as the answer to a question; its bill has the time that is lost in it."""
    plan, call = found.answer.option.plan, dict(found.asked)
    if plan is None or not call:
        msg = "no report is made of a size that hwsim.size did not find"
        raise UsageError(msg)
    machines = call.get("hardware")
    if isinstance(machines, list | tuple):
        call["hardware"] = machines[found.machines.index(found.machine)]
    call = {name: value for name, value in call.items() if name not in ("target_days", "target_tokens_per_s", "pin")}
    trains = isinstance(plan, TrainingEstimate)
    fields = fields_of({**call, "gpus": plan.hardware["devices"]}, plan if trains else None)
    fields |= {"tokens": found.targets.tokens} if found.targets.tokens is not None else {}
    fields |= {} if trains else {"qps": found.targets.qps}
    outcome = outcome_of(plan, fields, profiles)
    if isinstance(plan, TrainingEstimate) and isinstance(outcome.setting, Setting) and outcome.bill is not None:
        tokens = (found.targets.tokens or TERA) / (1.0 - found.headroom)
        paid = training_bill(outcome.setting.hardware, plan, tokens, *books(None, None, profiles))
        return replace(outcome, bill=paid)
    return outcome


def fields_of(given: Mapping[str, Any], found: Found | None = None) -> dict[str, Any]:
    """The fields of a question that arguments of the facade stand for; with the strategy of an estimate that was found.

    Parameters
    ----------
    given
        Arguments as `hwsim.plan`, `hwsim.plan_inference` and the estimates take them; those that say how to search and
        not what is asked are left out.
    found
        An estimate whose strategy the question names.
    """
    fields: dict[str, Any] = {}
    top = {*COMMON, *AIMS["train"], *AIMS["infer"]}
    job, strategy = (options(root) or [] for root in ("job", "strategy"))
    for name, value in given.items():
        if name == "settings":
            fields |= settings_of(arguments.texts(name, value))
        elif name == "pin":
            pins = (text.partition("=") for text in arguments.texts(name, value))
            fields |= {f"pin.{size.strip()}": values.strip() for size, _, values in pins}
        elif name in top:
            fields[name] = value
        elif name in job:
            fields[f"job.{name}"] = value
        elif name in strategy:
            fields[f"strategy.{name}"] = value
    if isinstance(found, TrainingEstimate):
        made = found.strategy
        fields = {f"strategy.{name}": made[name] for name in KEPT if name in made} | fields
        fields |= {f"job.{name}": made[name] for name in ("global_batch", "seq_len")}
    elif isinstance(found, InferenceEstimate):
        fields |= {f"strategy.{name}": found.strategy[name] for name in KEPT_SERVED}
    return fields


def outcome_of(found: Found, fields: Mapping[str, Any], profiles: str | Path | None = None) -> Outcome:
    """A plan or an estimate that was found as the answer to a question, given as the fields of one (see `hwsim new
    scenario`, and `fields_of`).
    """
    asked = ask(Question(dict(fields)), arguments.folder("profiles", profiles))
    if isinstance(found, Plan):
        return completed(asked, found.best, found, found.setting)
    if isinstance(found, ServingPlan):
        return completed(asked, found.best, found, found.request.served)
    return completed(asked, found, None, asked.setting)


def answer_of(fields: Mapping[str, Any], profiles: str | Path | None = None) -> Outcome:
    """The answer to a question, given as the fields of one.

    Raises
    ------
    InfeasibleError
        If nothing fits.
    """
    outcome = answer(ask(Question(dict(fields)), arguments.folder("profiles", profiles)))
    if outcome.estimate is None:
        raise InfeasibleError(outcome.why_not)
    return outcome


def _levers(outcome: Outcome) -> Sensitivity | None:
    """What the answer depends on, its strategy kept."""
    found, setting = outcome.estimate, outcome.setting
    if found is None or setting is None:
        return None
    kind = "training" if isinstance(found, TrainingEstimate) else "inference"
    goal = outcome.question.fields.get("objective", "throughput" if kind == "training" else "cost")
    metric = "tokens_per_s" if kind == "training" else BY_OBJECTIVE[kind].get(goal, "output_tokens_per_s_per_device")
    longest = arguments.longest_sequence(setting.model)
    case: TrainingCase | ServingCase
    if isinstance(found, TrainingEstimate) and isinstance(setting, Setting):
        case = TrainingCase(setting, strategy_of(found), longest)
    elif isinstance(found, InferenceEstimate) and isinstance(setting, Served):
        case = ServingCase(*_deployed(found, setting), longest)
    else:
        return None
    return sensitivity(case, CHANGE, metric)


def _deployed(found: InferenceEstimate, served: Served) -> tuple[Served, Strategies]:
    """The deployment of an estimate as one static batch: its setting and its strategy."""
    if "deployment" in found.to_dict():
        return whole_deployment(served, found)
    return served, one(Layout(**{name: found.strategy[name] for name in KEPT_SERVED}))


def _bill_of_run(found: ServingSimulation, profiles: str | Path | None) -> Bill | None:
    """What a million output tokens cost at the rate of a run, time in which nothing came counted in."""
    v, served = found.values, found.served
    joules, on_s = v["energy_j_per_output_token"], sum(v["on_s"])
    if not joules or not on_s:
        return None
    tokens = v["energy_j"] / joules
    seconds = certain(MILLION * on_s / v["replicas"] / tokens)
    energy = scaled(POWER_SPREAD, MILLION * joules)
    prices, grid = books(None, None, profiles)
    return bill(served.hardware, served.devices, seconds, energy, prices, grid)


def _python(function: str, asked: Mapping[str, Any], profiles: str | Path | None) -> str:
    """The program that writes the same report; nothing where an argument cannot be written down."""
    given = {**asked, **({"profiles": str(profiles)} if profiles is not None else {})}
    if not all(map(_is_plain, given.values())) or not given:
        return ""
    texts = [f"    {name}={_written(value, 5 + len(name))},\n" for name, value in given.items()]
    return f'import hwsim\n\nfound = hwsim.{function}(\n{"".join(texts)})\nhwsim.write_report(found, "report.html")'


def _written(value: Any, indent: int) -> str:
    """A value as Python reads it, on lines that a page has room for."""
    from pprint import pformat

    text = pformat(_plain(value), width=PAGE - indent, sort_dicts=False)
    return text.replace("\n", "\n" + " " * indent)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _is_plain(value: Any) -> bool:
    """Whether a value is written as Python reads it."""
    if isinstance(value, Mapping):
        return type(value) is dict and all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool | Path)


__all__ = ["answer_of", "document_of", "fields_of", "outcome_of", "report", "report_text"]
