"""A question answered: planned or estimated, billed, measured; or why nothing fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwsim import arguments
from hwsim.analytic.estimate import TrainingEstimate, estimates
from hwsim.analytic.inference import InferenceEstimate, estimate
from hwsim.analytic.serving import Served
from hwsim.analytic.setting import Setting
from hwsim.analytic.training import evaluate
from hwsim.asking import asked, books, training_request
from hwsim.asking_inference import served_asked, serving_request
from hwsim.costs.bill import Bill, bill
from hwsim.defaults import DEFAULT_DEVICES, MOST_SERVING
from hwsim.errors import InfeasibleError, UsageError
from hwsim.formulas.ranges import Range, scaled
from hwsim.scenarios.measures import measured
from hwsim.scenarios.question import AIMS, Question, counted, located
from hwsim.search.bills import training_bill
from hwsim.search.plan import Plan, Request, plan_training
from hwsim.search.serving_plan import ServingPlan, ServingRequest, plan_serving
from hwsim.specs.economy import Grid, Prices
from hwsim.specs.library import DEFAULT_HARDWARE
from hwsim.specs.model import Model
from hwsim.specs.strategy import Strategies
from hwsim.units import DAY_S, MILLION, TERA

KEPT = (
    "tp", "pp", "vpp", "cp", "ep", "etp", "zero", "micro_batch", "recompute", "sequence_parallel", "schedule", "order",
)  # fmt: skip
"""What a strategy takes along to another question; the rest follows from the devices and the batch."""
KEPT_SERVED = ("tp", "pp", "dp", "ep", "etp")
Estimate = TrainingEstimate | InferenceEstimate


@dataclass(frozen=True)
class Asked:
    """A question loaded and checked: what is still to do is the work."""

    question: Question
    request: Request | ServingRequest | None
    """A search ..."""
    single: tuple[Setting, Strategies] | tuple[Served, Strategies] | None
    """... or one strategy."""
    grid: Grid
    prices: Prices

    @property
    def one(self) -> tuple[Setting, Strategies] | tuple[Served, Strategies]:
        """The one strategy of a question that names it.

        Raises
        ------
        UsageError
            If it names none.
        """
        if self.single is None:
            msg = f"{self.question.name}: names no strategy"
            raise UsageError(msg)
        return self.single

    @property
    def setting(self) -> Setting | Served:
        """The model on the machine, whatever the strategy."""
        if self.request is None:
            return self.one[0]
        return self.request.setting if isinstance(self.request, Request) else self.request.served


@dataclass(frozen=True)
class Outcome:
    """What became of a question."""

    question: Question
    estimate: Estimate | None
    """The best plan, or the one strategy; None where nothing fits."""
    plan: Plan | ServingPlan | None
    """The search behind it."""
    setting: Setting | Served | None
    bill: Bill | None
    """For the token budget (else a trillion tokens), or for a million output tokens."""
    why_not: str
    """What binds where nothing fits."""
    measures: Mapping[str, float]
    """Figures by name (see `hwsim.scenarios.measures`)."""

    @property
    def name(self) -> str:
        """Of the scenario."""
        return self.question.name

    @property
    def fits(self) -> bool:
        """Whether there is an answer, and it fits into memory."""
        return self.estimate is not None and bool(self.estimate.fits)

    def kept_strategy(self) -> dict[str, Any]:
        """The strategy as fields that another question can be asked with."""
        if self.estimate is None:
            return {}
        names = KEPT_SERVED if self.question.serves else KEPT
        strategy = {name: self.estimate.strategy[name] for name in names if name in self.estimate.strategy}
        return {f"strategy.{name}": value for name, value in strategy.items()}

    def to_dict(self) -> dict[str, Any]:
        """As `hwsim whatif --json` has it."""
        return {
            "name": self.name,
            "fits": self.fits,
            "infeasible": self.why_not or None,
            "question": self.question.plain(),
            "measures": dict(self.measures),
            "estimate": None if self.estimate is None else self.estimate.to_dict(),
            "bill": None if self.bill is None else self.bill.to_dict(),
        }


def ask(question: Question, profiles: str | Path | None = None) -> Asked:
    """Load and check everything that a question names, and do no work yet.

    Raises
    ------
    InputFileError, UsageError
        For what is wrong, with the file and line it was written on.
    """
    return located(question, lambda: _ask(question, profiles))


def _ask(question: Question, profiles: str | Path | None) -> Asked:
    _check_task(question)
    prices, grid = books_of(question, profiles)
    given = {**subject_of(question, profiles), **question.group("job")}
    count = counted(question)
    strategy = question.group("strategy")
    _refuse_idle(question, bool(strategy))
    if question.serves:
        traffic = question.top(*AIMS["infer"])
        search = {**question.top("objective"), "pin": _pins(question)}
        if strategy and not traffic:
            return Asked(question, None, served_asked(gpus=count.get("gpus"), **given, **strategy), grid, prices)
        devices = count.get("gpus", MOST_SERVING if traffic.get("qps") else DEFAULT_DEVICES)
        search["pin"] = [*search["pin"], *(f"{name}={value}" for name, value in strategy.items())]
        return Asked(question, serving_request(gpus=devices, **given, **traffic, **search), None, grid, prices)
    devices = count.get("gpus", DEFAULT_DEVICES)
    if strategy:
        setting, s = asked(gpus=devices, **given, **strategy)
        if s.shape:
            msg = "strategy: takes one value a field; a sweep takes several"
            raise UsageError(msg)
        token_budget(question, setting.model)
        return Asked(question, None, (setting, s), grid, prices)
    aims = {**question.top("target_days", "objective"), **{n: count[n] for n in AIMS["train"] if n in count}}
    request = training_request(gpus=devices, **given, **aims, pin=_pins(question))
    return Asked(question, request, None, grid, prices)


def _refuse_idle(question: Question, explicit: bool) -> None:
    """Refuse fields that would change nothing."""
    for path, idle, why in (
        ("target_days", explicit, "is for a search, and a strategy is given"),
        ("target_tokens_per_s", explicit, "is for a search, and a strategy is given"),
        ("job.batch", question.serves and (not explicit or bool(question.top("qps", "ttft_ms", "tpot_ms"))),
         "is chosen by the search; name a strategy for a batch of your own"),
    ):  # fmt: skip
        if idle and question.fields.get(path) is not None:
            msg = f"{path}: {why}"
            raise UsageError(msg)


def subject_of(question: Question, profiles: str | Path | None) -> dict[str, Any]:
    """Model and machine with what is laid over them, as arguments of the facade."""
    model, hardware = question.chosen("model"), question.chosen("hardware", DEFAULT_HARDWARE)
    return {"model": model, "hardware": hardware, "settings": question.settings(), "profiles": profiles}


def books_of(question: Question, profiles: str | Path | None) -> tuple[Prices, Grid]:
    """The price book it goes by, and where its electricity comes from."""
    return books(question.chosen("prices"), question.chosen("grid"), profiles)


def _check_task(question: Question) -> None:
    """Refuse what another task's questions have."""
    if question.fields.get("model") is None:
        msg = "model: missing (which model is it about?)"
        raise UsageError(msg)
    arguments.choice("task", question.task, arguments.TASKS)
    strange = AIMS["train"] if question.serves else AIMS["infer"]
    for name in strange:
        if name in question.fields:
            msg = f"{name}: is not for task {question.task}"
            raise UsageError(msg)
    if question.group("strategy") and question.group("pin"):
        msg = "pin: a strategy is given already; pins narrow a search"
        raise UsageError(msg)


def _pins(question: Question) -> list[str]:
    """The fixed choices of a search."""
    pins = question.group("pin").items()
    return [f"{name}={','.join(map(_word, v)) if isinstance(v, list) else _word(v)}" for name, v in pins]


def _word(value: Any) -> str:
    """A value as a pin has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def answer(asked: Asked) -> Outcome:
    """Do the work; where nothing fits that is the answer."""
    try:
        found, plan, setting = _worked(asked)
    except InfeasibleError as error:
        return nothing(asked.question, str(error))
    return completed(asked, found, plan, setting)


def completed(asked: Asked, found: Estimate, plan: Plan | ServingPlan | None, setting: Setting | Served) -> Outcome:
    """An answer that was found, billed and measured."""
    values = found.to_dict()
    spent = _bill(asked, found, setting)
    run = {
        "cost_usd": _expected(spent.rent_usd["on_demand"]),
        "owned_cost_usd": _expected(spent.owned_usd),
        "energy_j": float(spent.facility_energy_j.expected),
        "carbon_kg": float(spent.total_carbon_kg.expected),
        "power_w": float(spent.energy_j.expected / spent.seconds.expected),
    }
    tokens = _budget(asked)
    days = {} if asked.question.serves or tokens is None else {"days": tokens / found.tokens_per_s / DAY_S}
    measures = measured({**values, **days, "run": run, "promised": _promised(asked, values)})
    return Outcome(asked.question, found, plan, setting, spent, "", measures)


def nothing(question: Question, why_not: str) -> Outcome:
    """The answer to a question that has none, and why."""
    return Outcome(question, None, None, None, None, why_not, {})


def _worked(asked: Asked) -> tuple[Estimate, Plan | ServingPlan | None, Setting | Served]:
    if isinstance(asked.request, Request):
        plan = plan_training(asked.request)
        return plan.best, plan, plan.setting
    if isinstance(asked.request, ServingRequest):
        deployed = plan_serving(asked.request)
        return deployed.best, deployed, asked.request.served
    setting, s = asked.one
    if isinstance(setting, Setting):
        return estimates(evaluate(setting, s))[0], None, setting
    return estimate(setting, s), None, setting


def _budget(asked: Asked) -> float | None:
    """Tokens that are trained on, where somebody says."""
    if isinstance(asked.request, Request):
        return asked.request.tokens
    if asked.question.serves:
        return None
    return token_budget(asked.question, asked.one[0].model)


def token_budget(question: Question, model: Model) -> float | None:
    """The tokens that a question names, or those that a scaling law finds best."""
    return arguments.token_budget(counted(question).get("tokens"), model)


def _promised(asked: Asked, values: Mapping[str, Any]) -> dict[str, Any]:
    """Latencies under the planned traffic at the percentile of the promise."""
    made = values.get("deployment")
    if not made or made.get("ttft_s") is None or not isinstance(asked.request, ServingRequest):
        return {}
    at = f"p{asked.request.promise.percentile}"
    return {name: made[name].get(at) for name in ("ttft_s", "tpot_s")}


def _bill(asked: Asked, found: Estimate, setting: Setting | Served) -> Bill:
    """What the token budget (or a trillion tokens), or a million output tokens, cost."""
    hardware = setting.hardware
    if isinstance(found, TrainingEstimate):
        return training_bill(hardware, found, _budget(asked) or TERA, asked.prices, asked.grid)
    made = found.to_dict().get("deployment") or {}
    rate = made.get("output_tokens_per_s", found.output_tokens_per_s)
    power = made.get("power_w", found.average_power_w_per_device * found.hardware["devices"])
    seconds = Range(*(MILLION / rate,) * 3)
    return bill(hardware, found.hardware["devices"], seconds, scaled(seconds, power), asked.prices, asked.grid)


def _expected(value: Range | None) -> float | None:
    return None if value is None else float(value.expected)
