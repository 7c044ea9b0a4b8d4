"""The facade's part that decides: what is worth changing, and how many devices a target needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwsim import arguments
from hwsim.asking import OTHERS, HardwareLike, ModelLike, asked, make_request
from hwsim.errors import InfeasibleError, UsageError
from hwsim.search.cases import SERVING, TRAINING, ServingCase, TrainingCase
from hwsim.search.plan import Request, best_on, strategy_of, why_none
from hwsim.search.sensitivity import BY_OBJECTIVE, Replan, Sensitivity
from hwsim.search.sensitivity import sensitivity as turn_levers
from hwsim.specs.strategy import COLUMN_NAMES

DEFAULT_HARDWARE = "h100-sxm-80"
TASKS = ("train", "finetune", "infer")
COLUMNS = tuple(name for name in COLUMN_NAMES if name not in ("devices", "global_batch", "seq_len"))
"""Arguments that say a training strategy outright."""


def sensitivity(
    model: ModelLike,
    hardware: HardwareLike = DEFAULT_HARDWARE,
    gpus: int | None = None,
    *,
    task: str = "train",
    replan: bool = False,
    change: float = 0.1,
    metric: str | None = None,
    objective: str | None = None,
    pin: str | Sequence[str] = (),
    settings: str | Sequence[str] = (),
    profiles: str | Path | None = None,
    progress: Callable[[str], object] | None = None,
    **given: Any,
) -> Sensitivity:
    """Find what a little more or less of everything does to time, throughput, cost and energy.

    Parameters
    ----------
    model, hardware, gpus, settings, profiles
        As for `plan` (8 devices where nobody says).
    task
        `train`, `finetune` or `infer`.
    replan
        Search again on every changed machine, so that more memory, say, may buy a better plan; a minute or so.
    change
        Share by which each thing is turned down and up.
    metric
        Sorts the levers: a name of the JSON's `base`; default: what the objective means.
    objective, pin
        Of the search for the plan, as for `plan` and `plan_inference`.
    progress
        Called with the name of each lever as its turn comes.
    given
        A strategy, as for `estimate_training` and `estimate_inference` (`tp`, `pp`, ..., `batch`); none: the best plan.
        And the fields of the job that those take.

    Returns
    -------
    Sensitivity
        `.levers`, `.sentences()`, `.to_frame()`, `.to_dict()`.

    Raises
    ------
    UsageError, InputFileError
        For wrong arguments and files.
    InfeasibleError
        If no plan fits.
    """
    arguments.choice("task", task, TASKS)
    if arguments.numbers("change", change, 1e-4, 0.9).ndim:
        msg = "change: must be one number"
        raise UsageError(msg)
    asked_for = {"settings": settings, "profiles": profiles, **given}
    named = TRAINING if task != "infer" else SERVING
    if metric is not None:
        arguments.choice("metric", metric, named)
    case: TrainingCase | ServingCase
    if task == "infer":
        case, again, usual = _serving(model, hardware, gpus, objective or "cost", pin, asked_for)
    else:
        case, again, usual = _training(model, hardware, 8 if gpus is None else gpus, objective, pin, asked_for)
    return turn_levers(case, float(change), metric or usual, again if replan else None, progress)


def _training(
    model: ModelLike, hardware: HardwareLike, gpus: int, objective: str | None, pin: Any, given: dict[str, Any]
) -> tuple[TrainingCase, Replan, str]:
    """The plan or the strategy of a training job, how to plan anew, and the metric that its objective means."""
    _refuse_others(given, (*COLUMN_NAMES, *arguments.JOB, *OTHERS, "settings"), "train")
    goal = objective or "throughput"
    explicit = [name for name in COLUMNS if given.get(name) is not None]
    job = {name: value for name, value in given.items() if name not in COLUMNS}
    if explicit:
        _refuse_pins(pin, explicit[0])
        setting, s = asked(model, hardware, gpus, **given)
        if s.shape:
            msg = "sensitivity takes one strategy, not arrays"
            raise UsageError(msg)
        request = make_request(model, hardware, gpus, objective=goal, **job)
        case = TrainingCase(setting, s, arguments.longest_sequence(setting.model))
    else:
        request = make_request(model, hardware, gpus, objective=goal, pin=pin, **job)
        case = planned(request)
    return case, lambda machine: planned(replace(request, hardware=machine)), BY_OBJECTIVE["training"][goal]


def planned(request: Request) -> TrainingCase:
    """The best plan on the devices of a request.

    Raises
    ------
    InfeasibleError
        If none fits.
    """
    best, found = best_on(request)
    if best is None:
        raise InfeasibleError(why_none(request, found))
    return TrainingCase(request.setting, strategy_of(best), arguments.longest_sequence(request.model))


def _serving(
    model: ModelLike, hardware: HardwareLike, gpus: int | None, objective: str, pin: Any, given: dict[str, Any]
) -> tuple[ServingCase, Replan, str]:
    """The same of a deployment."""
    from hwsim.asking_inference import JOB, PROMISES, make_serving_request, served_asked
    from hwsim.search.serving_plan import plan_serving, whole_deployment
    from hwsim.search.serving_space import SIZES

    names = (*SIZES, *JOB, *OTHERS, "engine", "engine_overhead", "precision", "settings")
    _refuse_others(given, (*names, *PROMISES), "infer")
    explicit = [name for name in (*SIZES, "batch") if given.get(name) is not None]
    promised = {name: given.pop(name, None) for name in PROMISES}
    job = {name: value for name, value in given.items() if name not in explicit}
    if explicit:
        _refuse_pins(pin, explicit[0])
        served, s = served_asked(model, hardware, gpus, **given)
        case, count = ServingCase(served, s, arguments.longest_sequence(served.model)), served.devices
    else:
        count = 8 if gpus is None else gpus
    request = make_serving_request(
        model, hardware, count, promised["qps"],
        (promised["ttft_ms"], promised["tpot_ms"], promised["percentile"] or 95),
        objective=objective, top=1, pin=pin, **job,
    )  # fmt: skip
    longest = arguments.longest_sequence(request.served.model)

    def plan(machine: Any) -> ServingCase:
        wanted = replace(request, served=replace(request.served, hardware=machine))
        return ServingCase(*whole_deployment(wanted.served, plan_serving(wanted).best), longest)

    found = case if explicit else plan(request.served.hardware)
    return found, plan, BY_OBJECTIVE["inference"][objective]


def _refuse_pins(pin: Any, explicit: str) -> None:
    if arguments.texts("pin", pin):
        msg = f"pin narrows the search for a plan; {explicit} gives the strategy outright: use one of them"
        raise UsageError(msg)


def _refuse_others(given: Mapping[str, Any], known: Sequence[str], task: str) -> None:
    """Refuse arguments that are for another task, or for none."""
    from hwsim.asking_inference import JOB, PROMISES
    from hwsim.search.serving_space import SIZES

    elsewhere = {"train": (*SIZES, *JOB, *PROMISES, "engine"), "infer": (*COLUMN_NAMES, *arguments.JOB, "framework")}
    for name, value in given.items():
        if name in elsewhere[task] and name not in known and value is not None:
            msg = f"{name}: is for {'training' if task == 'infer' else 'task infer'}"
            raise UsageError(msg)
    arguments.named(given, known)


__all__ = ["sensitivity"]
