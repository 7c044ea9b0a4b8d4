"""What is asked of a served model: the setting and the strategy that loose arguments stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from hwsim import arguments
from hwsim.analytic.serving import Served
from hwsim.asking import OTHERS, HardwareLike, ModelLike, Settings, loaded, overrides
from hwsim.costs.compute import device, half_dtype
from hwsim.errors import UsageError, shorten
from hwsim.search.serving_plan import OBJECTIVES, ServingRequest
from hwsim.search.serving_space import SIZES, illegal
from hwsim.search.space import divisors
from hwsim.search.traffic import Promise
from hwsim.specs.engine import CacheName, InferenceJob, WeightName
from hwsim.specs.hardware import Hardware
from hwsim.specs.library import load_engine, load_model
from hwsim.specs.model import Model
from hwsim.specs.strategy import Strategies, strategies

CHOICES = {"weights": get_args(WeightName), "kv": get_args(CacheName)}
WHOLE = {"batch": arguments.MAX_BATCH, "input_len": arguments.MAX_SEQ_LEN, "output_len": arguments.MAX_SEQ_LEN,
         "source_len": arguments.MAX_SEQ_LEN, "adapters": 10**5, "rank": 10**5}  # fmt: skip
PARTS = ("images", "source_len")
"""Job fields about parts that not every model has."""
REAL = {"images": (0.0, 1e4), "prefix_hit": (0.0, 1.0), "skew": (0.0, 4.0), "acceptance": (0.0, 0.999)}
JOB = (*CHOICES, *WHOLE, *REAL, "draft_tokens", "draft")
"""Fields of the job that flags, keyword arguments and ``--set job.NAME=VALUE`` give."""
PROMISES = ("qps", "ttft_ms", "tpot_ms", "percentile")
"""Traffic, and what is promised of it."""
MILLI = 1e-3
PRECISIONS = {"fp16": "bf16", "fp32": "bf16", "tf32": "bf16"}


def make_served(
    model: ModelLike,
    hardware: HardwareLike,
    gpus: int,
    *,
    settings: Settings = (),
    profiles: str | Path | None = None,
    engine: str | None = None,
    engine_overhead: bool = True,
    precision: str | None = None,
    **job: Any,
) -> Served:
    """Load and check everything but the strategy, filling in a good engineer's defaults."""
    arguments.whole("gpus", gpus, arguments.MAX_DEVICES)
    over = overrides(settings)
    arguments.named(job, (*JOB, "engine"))
    fixed = arguments.settings_of(over.get("job"), JOB, _job_fields)
    given = _job_fields(job)
    arguments.given_once(given, fixed)
    spec, machine = loaded(model, hardware, gpus, over, profiles)
    name = machine.accelerator.usual_engine if engine is None else arguments.text("engine", engine)
    habits = load_engine(name, over.get("engine"))
    if not engine_overhead:
        quiet = dict.fromkeys(("step_host", "sequence_host", "request_host", "prompt_host", "kernel_gap"), 0.0)
        habits = habits.model_copy(
            update={**quiet, "graph_batch": arguments.MAX_SEQ_LEN, "graph_prompt": arguments.MAX_SEQ_LEN}
        )
    usual = {} if precision is None else {"weights": _weights_of(precision)}
    asked = InferenceJob(engine=habits, **{**usual, **given, **fixed})
    _check(spec, machine, asked)
    return Served(spec, machine, asked, gpus)


def _weights_of(precision: str) -> str:
    """The weight format that a precision means."""
    word = arguments.choice("precision", precision, (*CHOICES["weights"], *PRECISIONS))
    return PRECISIONS.get(word, word)


def _job_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The job fields that were given, checked."""
    job = {name: given[name] for name in JOB if given.get(name) is not None}
    for name, value in job.items():
        if name in CHOICES:
            arguments.choice(name, "bf16" if value == "fp16" else value, CHOICES[name])
            job[name] = "bf16" if value == "fp16" else value
        elif name in REAL:
            if arguments.numbers(name, value, *REAL[name]).ndim:
                msg = f"{name}: must be one number, not {shorten(value)}"
                raise UsageError(msg)
        elif name == "draft":
            load_model(arguments.text(name, value))
        elif name == "draft_tokens":
            if value != 0:
                arguments.whole(name, value, 64)
        else:
            arguments.whole(name, value, WHOLE[name])
    return job


def _check(model: Model, machine: Hardware, job: InferenceJob) -> None:
    """Refuse what the model or the device cannot do."""
    arguments.check_parts(model, {name: getattr(job, name) for name in PARTS if name in job.model_fields_set})
    longest = arguments.longest_sequence(model)
    if job.input_len + job.output_len > longest:
        tokens = f"input {job.input_len:,} + output {job.output_len:,}"
        msg = f"{tokens}: {model.name} has learned positions for {longest:,.0f}"
        raise UsageError(msg)
    if model.head == "none":
        msg = f"{model.name} has no head: it makes no tokens"
        raise UsageError(msg)
    if job.draft is not None and not job.draft_tokens:
        msg = "draft: needs draft_tokens (how many tokens it guesses ahead)"
        raise UsageError(msg)
    device(machine.accelerator, half_dtype(machine.accelerator))


def served_asked(model: ModelLike, hardware: HardwareLike, gpus: int | None, **given: Any) -> tuple[Served, Strategies]:
    """The setting and the strategy asked for, a legal one, with defaults where nothing was said."""
    sizes = {name: given.pop(name) for name in SIZES if given.get(name) is not None}
    for name, value in sizes.items():
        arguments.whole(name, value, arguments.MAX_DEVICES)
    count = _devices(gpus, sizes)
    served = make_served(model, hardware, count, **given)
    return served, strategy(served, sizes)


def _devices(gpus: int | None, sizes: Mapping[str, int]) -> int:
    """The devices asked for; what the sizes multiply to where nobody says."""
    if gpus is not None:
        arguments.whole("gpus", gpus, arguments.MAX_DEVICES)
        return gpus
    product = sizes.get("tp", 1) * sizes.get("pp", 1) * sizes.get("dp", 1)
    return max(product, sizes.get("ep", 1))


def strategy(served: Served, sizes: Mapping[str, int]) -> Strategies:
    """One legal strategy: what is left open is tensor parallelism within a node, then copies.

    Raises
    ------
    UsageError
        Naming the rule that is broken, with the numbers.
    """
    devices, pp = served.devices, sizes.get("pp", 1)
    left = max(devices // (pp * sizes.get("dp", 1)), 1)
    tp = sizes.get("tp") or _usual_tp(served, left)
    dp = sizes.get("dp") or max(devices // (tp * pp), 1)
    ep = sizes.get("ep", 1)
    etp = sizes.get("etp") or max(tp // ep, 1)
    if tp * pp * dp != devices:
        msg = f"tp x pp x dp = {tp} x {pp} x {dp} = {tp * pp * dp}, but there are {devices} devices"
        raise UsageError(msg)
    wrong = illegal(served.model, {"tp": tp, "pp": pp, "dp": dp, "ep": ep, "etp": etp})
    if wrong:
        raise UsageError("; ".join(wrong))
    return strategies(
        devices=devices, global_batch=1, seq_len=1, tp=tp, pp=pp, dp=dp, ep=ep, etp=etp, zero=0, sequence_parallel=False
    )


def _usual_tp(served: Served, left: int) -> int:
    """The most tensor-parallel peers in a node that divide the model and the devices."""
    node = served.hardware.cluster.tiers[0].size or served.hardware.cluster.node.devices
    fitting = [n for n in divisors(left) if n <= node and not illegal(served.model, {"tp": n})]
    return max(fitting, default=1)


def serving_request(
    model: ModelLike,
    hardware: HardwareLike,
    gpus: int = 8,
    *,
    qps: float | None = None,
    ttft_ms: float | None = None,
    tpot_ms: float | None = None,
    percentile: int = 95,
    objective: str = "cost",
    top: int = 10,
    pin: str | Sequence[str] = (),
    seed: int = 0,
    **given: Any,
) -> ServingRequest:
    """What is asked of the planner; the arguments are those of `hwsim.plan_inference`."""
    arguments.named(given, (*JOB, *OTHERS, "engine", "engine_overhead", "precision", "settings"))
    arguments.choice("objective", objective, OBJECTIVES)
    arguments.whole("top", top, 1000)
    arguments.positive("qps", qps)
    promise = promise_of(ttft_ms, tpot_ms, percentile)
    check_seed(seed)
    served = make_served(model, hardware, gpus, **given)
    pins = _pins(arguments.texts("pin", pin))
    return ServingRequest(served, promise, qps, objective, top, pins, seed)


def check_seed(seed: Any) -> None:
    """Refuse what no generator takes."""
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        msg = f"seed: must be a whole number from 0, not {shorten(seed)}"
        raise UsageError(msg)


def promise_of(ttft_ms: float | None, tpot_ms: float | None, percentile: int) -> Promise:
    """A promise of latencies, checked."""
    arguments.positive("ttft_ms", ttft_ms)
    arguments.positive("tpot_ms", tpot_ms)
    arguments.whole("percentile", percentile, 99)
    ttft_s, tpot_s = (None if value is None else value * MILLI for value in (ttft_ms, tpot_ms))
    return Promise(ttft_s, tpot_s, percentile)


def _pins(given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Sizes that are fixed."""
    pins: dict[str, tuple[int, ...]] = {}
    for item in given:
        name, _, values = item.partition("=")
        arguments.choice("pin", name.strip(), SIZES)
        found = [value.strip() for value in values.split(",")]
        if not all(value.isdecimal() and value.isascii() and 0 < len(value) < 8 for value in found):
            msg = f"pin {item!r}: must be whole numbers, such as tp=4 or ep=1,8"
            raise UsageError(msg)
        pins[name.strip()] = tuple(int(value) for value in found)
    return pins
