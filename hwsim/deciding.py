"""The facade's part that decides: what is worth changing, and how many devices a target needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwsim import arguments
from hwsim.asking import OTHERS, HardwareLike, ModelLike, asked, call_of, training_request
from hwsim.asking_targets import check_targets, watts
from hwsim.defaults import DEFAULT_DEVICES
from hwsim.errors import InfeasibleError, UsageError, shorten
from hwsim.search.cases import SERVING, TRAINING, ServingCase, TrainingCase
from hwsim.search.plan import Request, best_on, nearest_fix, strategy_of, why_none
from hwsim.search.sensitivity import BY_OBJECTIVE, Replan, Sensitivity
from hwsim.search.sensitivity import sensitivity as turn_levers
from hwsim.search.sizing import Machine, Sizing, compared
from hwsim.search.targets import Targets
from hwsim.search.training_size import size_training
from hwsim.specs.library import DEFAULT_HARDWARE
from hwsim.specs.strategy import COLUMN_NAMES

MOST_NEEDED, MOST_FASTEST, MOST_SERVING = 65_536, 16_384, 1024
"""Most devices where nobody says: for a rate, for the fastest within limits (as jobs of 2024 were), to serve."""
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
    arguments.choice("task", task, arguments.TASKS)
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
        case, again, usual = _training(model, hardware, gpus, objective, pin, asked_for)
    return turn_levers(case, float(change), metric or usual, again if replan else None, progress)


def _training(
    model: ModelLike, hardware: HardwareLike, gpus: int | None, objective: str | None, pin: Any, given: dict[str, Any]
) -> tuple[TrainingCase, Replan, str]:
    """The plan or the strategy of a training job, how to plan anew, and the metric that its objective means."""
    _refuse_others(given, (*COLUMN_NAMES, *arguments.JOB, *OTHERS, "settings"), "train")
    goal, gpus = objective or "throughput", DEFAULT_DEVICES if gpus is None else gpus
    explicit = [name for name in COLUMNS if given.get(name) is not None]
    job = {name: value for name, value in given.items() if name not in COLUMNS}
    if explicit:
        _refuse_pins(pin, explicit[0])
        setting, s = asked(model, hardware, gpus, **given)
        if s.shape:
            msg = "sensitivity takes one strategy, not arrays"
            raise UsageError(msg)
        request = training_request(model, hardware, gpus, objective=goal, **job)
        case = TrainingCase(setting, s, arguments.longest_sequence(setting.model))
    else:
        request = training_request(model, hardware, gpus, objective=goal, pin=pin, **job)
        case = planned(request, fix=True)
    return case, lambda machine: planned(replace(request, hardware=machine)), BY_OBJECTIVE["training"][goal]


def planned(request: Request, *, fix: bool = False) -> TrainingCase:
    """The best plan on the devices of a request; `fix`: look for the nearest change that fits where none does.

    Raises
    ------
    InfeasibleError
        If none fits.
    """
    best, found = best_on(request)
    if best is None:
        raise InfeasibleError(f"{why_none(request, found)} {nearest_fix(request, found) if fix else ''}".strip())
    return TrainingCase(request.setting, strategy_of(best), arguments.longest_sequence(request.model))


def _serving(
    model: ModelLike, hardware: HardwareLike, gpus: int | None, objective: str, pin: Any, given: dict[str, Any]
) -> tuple[ServingCase, Replan, str]:
    """The same of a deployment."""
    from hwsim.asking_inference import JOB, PROMISES, served_asked, serving_request
    from hwsim.search.serving_plan import plan_serving, whole_deployment
    from hwsim.search.serving_space import SIZES

    names = (*SIZES, *JOB, *OTHERS, "engine", "engine_overhead", "precision", "settings")
    _refuse_others(given, (*names, *PROMISES), "infer")
    explicit = [name for name in (*SIZES, "batch") if given.get(name) is not None]
    promised = {name: given.pop(name) for name in PROMISES if given.get(name) is not None}
    job = {name: value for name, value in given.items() if name not in (*explicit, *PROMISES)}
    if explicit:
        _refuse_pins(pin, explicit[0])
        served, s = served_asked(model, hardware, gpus, **given)
        case, count = ServingCase(served, s, arguments.longest_sequence(served.model)), served.devices
    else:
        count = DEFAULT_DEVICES if gpus is None else gpus
    request = serving_request(model, hardware, count, objective=objective, top=1, pin=pin, **promised, **job)
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


def size(
    model: ModelLike,
    hardware: HardwareLike | Sequence[HardwareLike] = DEFAULT_HARDWARE,
    *,
    task: str = "train",
    tokens: float | str | None = None,
    target_days: float | None = None,
    budget_usd: float | None = None,
    target_tokens_per_s: float | None = None,
    qps: float | None = None,
    ttft_ms: float | None = None,
    tpot_ms: float | None = None,
    percentile: int | None = None,
    power_cap: float | str | None = None,
    headroom: float = 0.1,
    max_gpus: int | None = None,
    progress: Callable[[str], object] | None = None,
    **given: Any,
) -> Sizing:
    """Find how many devices a target needs: whole nodes of the hardware that meets it at least cost.

    Parameters
    ----------
    model, hardware
        As for `plan`; a list of hardware is compared.
    task
        `train`, `finetune`, or `infer` (the smallest deployment of `plan_inference`).
    tokens, target_days, budget_usd
        A token budget with a deadline [day] (fewest devices), with a budget of rent [USD] (fastest that keeps it), or
        with both (fewest devices for the deadline, within the budget).
    target_tokens_per_s
        Slowest mean throughput that will do (of output, for task infer) [1/s].
    qps, ttft_ms, tpot_ms, percentile
        Traffic to serve, and the latencies that so many percent (95) of the requests must keep.
    power_cap
        Most mean power of the nodes, cooling not counted: `"2 MW"` or watts.
    headroom
        Share of time that is lost to failures, restarts and stragglers: it makes no tokens, but is paid for.
    max_gpus
        Most devices; default: 65,536; 16,384 where the fastest is asked for; 1,024 to serve.
    progress
        Called with what is planned next.
    given
        Fields of the job, `pin`, `settings`, `profiles`, as for `plan`.

    Returns
    -------
    Sizing
        `.answer`, `.without`, `.runner_up`, `.considered`, `.to_dict()`, `.to_frame()`.

    Raises
    ------
    UsageError, InputFileError
        For wrong arguments and files, and targets that are missing or contradict each other.
    InfeasibleError
        If no number of devices meets the targets: what binds, by how much, and the nearest fix.
    """
    call = call_of(size, {**locals(), **given})
    arguments.choice("task", task, arguments.TASKS)
    if arguments.numbers("headroom", headroom, 0.0, 0.9).ndim:
        msg = "headroom: must be one number"
        raise UsageError(msg)
    if max_gpus is not None:
        arguments.whole("max_gpus", max_gpus, arguments.MAX_DEVICES)
    for name in ("dp", *COLUMNS):
        if given.get(name) is not None:
            msg = f"{name}: the strategy is searched for; fix it with pin=['{name}={shorten(given[name])[1:-1]}']"
            raise UsageError(msg)
    targets = Targets(
        tokens=arguments.token_budget(tokens, model),
        days=target_days,
        budget_usd=budget_usd,
        tokens_per_s=target_tokens_per_s,
        qps=qps,
        power_w=watts("power_cap", power_cap),
    )
    promised = {"ttft_ms": ttft_ms, "tpot_ms": tpot_ms, "percentile": percentile}
    check_targets(task, targets, promised)
    machines = _machines(hardware)
    if task == "infer":
        most = max_gpus or MOST_SERVING
        sized = _sized_serving(model, machines, targets, promised, headroom, most, given, progress)
        return replace(sized, asked=call)
    _refuse_others(given, (*arguments.JOB, *OTHERS, "settings", "pin"), "train")
    most = max_gpus or (MOST_FASTEST if targets.needed is None else MOST_NEEDED)
    found = []
    for machine in machines:
        request = training_request(model, machine, 1, **given)
        found.append(size_training(request, targets, headroom, most, progress))
    return replace(compared(_once(found), targets, headroom), asked=call)


def _machines(hardware: Any) -> list[Any]:
    """One kind of hardware, or several."""
    items = list(hardware) if isinstance(hardware, list | tuple) else [hardware]
    if not items:
        msg = "hardware: none given"
        raise UsageError(msg)
    return items


def _once(machines: list[Machine]) -> list[Machine]:
    """Machines of different names."""
    names = [machine.name for machine in machines]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        msg = f"hardware: {twice[0]} is given twice"
        raise UsageError(msg)
    return machines


def _sized_serving(
    model: ModelLike, machines: list[Any], targets: Targets, promised: dict[str, Any], headroom: float, most: int,
    given: dict[str, Any], progress: Callable[[str], object] | None,
) -> Sizing:  # fmt: skip
    """The same for a deployment that serves."""
    from hwsim.asking_inference import JOB, serving_request
    from hwsim.search.serving_size import size_serving

    _refuse_others(given, (*JOB, *OTHERS, "engine", "engine_overhead", "precision", "settings", "pin", "seed"), "infer")
    promise = {name: value for name, value in promised.items() if value is not None}
    found = []
    for machine in machines:
        request = serving_request(model, machine, most, qps=targets.qps, **promise, **given)
        output = float(request.served.job.output_len)
        qps = targets.qps or (targets.tokens_per_s or 0.0) / output
        bounds = request.promise
        targets = replace(
            targets, qps=qps, request_tokens=output, ttft_s=bounds.ttft_s, tpot_s=bounds.tpot_s,
            percentile=bounds.percentile if bounds.given else None,
        )  # fmt: skip
        found.append(size_serving(replace(request, qps=qps), targets, headroom, progress))
    return compared(_once(found), targets, headroom)


__all__ = ["sensitivity", "size"]
