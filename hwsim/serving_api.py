"""The facade's part that serves: estimates of static batches, simulations of traffic, plans for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from hwsim import arguments
from hwsim.analytic.inference import estimate, inference_frame
from hwsim.asking import OTHERS, HardwareLike, ModelLike, call_of
from hwsim.asking_inference import JOB, check_seed, promise_of, served_asked, serving_request
from hwsim.errors import InfeasibleError, UsageError
from hwsim.events.slo import Slo
from hwsim.events.workload import Lengths, Workload, arrivals, bursty, closed_loop
from hwsim.search.serving_plan import ServingPlan, plan_serving
from hwsim.search.serving_space import SIZES
from hwsim.search.simulation import Deployment, ServingSimulation, simulate_traffic
from hwsim.search.traffic import SPREAD
from hwsim.specs.library import DEFAULT_HARDWARE

ASKED = (*SIZES, *JOB, *OTHERS, "engine", "engine_overhead", "precision", "settings")


def estimate_inference(
    model: ModelLike, hardware: HardwareLike = DEFAULT_HARDWARE, gpus: int | None = None, **given: Any
) -> Any:
    """Estimate a static batch: all requests start together, on an engine that does nothing else.

    Parameters
    ----------
    model, hardware
        Preset, alias, file, dict or spec.
    gpus
        Devices; default: what the sizes multiply to.
    given
        `tp`, `pp`, `dp` (copies, or devices with requests of their own), `ep`, `etp`; `batch`, `input_len`,
        `output_len` [token], `weights` (bf16, fp8, int8, int4, fp4), `kv` (bf16, fp8, int8), `engine`,
        `engine_overhead` (False: the device alone), `prefix_hit`, `draft_tokens`, `acceptance`, `draft`, `skew`,
        `source_len`, `images`; `settings`, `profiles` as for `plan`. Numbers and names, or arrays of equal length.

    Returns
    -------
    InferenceEstimate or pandas.DataFrame
        A frame if any argument is an array.

    Raises
    ------
    UsageError, InputFileError
        For wrong arguments and files, and for strategies that are not legal.
    """
    arguments.named(given, ASKED)
    arrays = {name: value for name, value in given.items() if _is_array(name, value)}
    if _is_array("gpus", gpus):
        arrays["gpus"] = gpus
    if not arrays:
        return estimate(*served_asked(model, hardware, gpus, **given))
    lengths = {name: len(value) for name, value in arrays.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        msg = f"arrays differ in length, or are empty: {lengths}"
        raise UsageError(msg)
    rows = []
    for i in range(next(iter(lengths.values()))):
        row = {**given, "gpus": gpus} | {name: _item(value[i]) for name, value in arrays.items()}
        rows.append(estimate(*served_asked(model, hardware, row.pop("gpus"), **row)))
    return inference_frame(rows)


def simulate_serving(
    model: ModelLike,
    hardware: HardwareLike = DEFAULT_HARDWARE,
    gpus: int | None = None,
    *,
    qps: float | None = None,
    concurrency: int | None = None,
    trace: Any = None,
    requests: int = 1000,
    length_spread: float = SPREAD,
    arrival_cv: float = 1.0,
    ttft_ms: float | None = None,
    tpot_ms: float | None = None,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
    **given: Any,
) -> ServingSimulation:
    """Serve traffic on the discrete-event model: continuous batching, a paged KV cache, queues.

    Parameters
    ----------
    model, hardware, gpus
        As for `estimate_inference`.
    qps, concurrency, trace
        One of them: requests per second at random (gamma gaps; `arrival_cv` 1 is Poisson, more is bursty), clients that
        each wait for an answer before they ask again, or a frame or CSV file with the columns `arrival_s`,
        `input_tokens`, `output_tokens` (also `priority`).
    requests
        How many, where no trace is given.
    length_spread
        Lengths vary evenly by this share of `input_len` and `output_len` to either side; 0: all alike.
    ttft_ms, tpot_ms
        A promise: adds the goodput within it.
    seed
        Of arrivals, lengths, routing and failures: the same seed gives the same bits.
    given
        As for `estimate_inference`, and `routing` (least_outstanding, round_robin, kv_aware, power_of_two),
        `prefill_replicas` (the others decode), `most_replicas`, `target`, `cold_start_s` (autoscaling), `mtbf_s`,
        `mttr_s` (failures of a replica), `preemption` (recompute, swap).

    Raises
    ------
    UsageError, InputFileError
        For wrong arguments and files.
    InfeasibleError
        If the weights leave no room for a KV cache.
    """
    asked = call_of(simulate_serving, {**locals(), **given})
    names = [field.name for field in fields(Deployment)]
    arguments.named(given, (*ASKED, *names))
    deployed = Deployment(**{name: given.pop(name) for name in names if given.get(name) is not None})
    arguments.whole("requests", requests, arguments.MAX_BATCH)
    check_seed(seed)
    arguments.numbers("length_spread", length_spread, 0.0, 1.0)
    work, lengths = _workload(trace, qps, concurrency)
    served, s = served_asked(model, hardware, gpus, **{**given, **lengths})
    work = work or _drawn(qps, concurrency, requests, arrival_cv, length_spread, served.job, seed)
    found = simulate_traffic(served, s, deployed, work, _slo(ttft_ms, tpot_ms), seed, progress)
    return replace(found, asked=asked)


def _workload(trace: Any, qps: Any, concurrency: Any) -> tuple[Workload | None, dict[str, int]]:
    """The requests of a trace with their mean lengths; none where they are to be drawn."""
    if sum(value is not None for value in (trace, qps, concurrency)) != 1:
        msg = "give one of qps, concurrency and trace"
        raise UsageError(msg)
    arguments.positive("qps", qps)
    if concurrency is not None:
        arguments.whole("concurrency", concurrency, arguments.MAX_BATCH)
    if trace is None:
        return None, {}
    work = _traced(trace)
    means = {"input_len": work.input_tokens, "output_len": work.output_tokens}
    return work, {name: max(round(float(np.mean(column))), 1) for name, column in means.items()}


def _traced(trace: Any) -> Workload:
    """A trace from a file or a frame."""
    from hwsim.events.trace_file import read_trace

    if isinstance(trace, Workload):
        return trace
    if isinstance(trace, str | Path):
        return read_trace(trace)
    missing = [name for name in ("arrival_s", "input_tokens", "output_tokens") if name not in trace]
    if missing:
        msg = f"trace: lacks the column {missing[0]}"
        raise UsageError(msg)
    columns: dict[str, Any] = {name: np.asarray(trace[name]) for name in ("arrival_s", "input_tokens", "output_tokens")}
    extra: dict[str, Any] = {
        name: np.asarray(trace[name]) for name in ("priority", "prefix", "prefix_tokens") if name in trace
    }
    return arrivals(**columns, **extra)


def _drawn(
    qps: float | None, clients: int | None, requests: int, cv: float, spread: float, job: Any, seed: int
) -> Workload:
    """Requests drawn at random."""
    lengths = [Lengths(float(mean), "uniform", spread) for mean in (job.input_len, job.output_len)]
    if clients is not None:
        return closed_loop(requests, clients, lengths[0], lengths[1], seed)
    return bursty(requests, float(qps or 0.0), cv, lengths[0], lengths[1], seed)


def _slo(ttft_ms: float | None, tpot_ms: float | None) -> Slo | None:
    """A promise of latencies, if any is made."""
    promise = promise_of(ttft_ms, tpot_ms, 95)
    if not promise.given:
        return None
    bounds = {"ttft_s": promise.ttft_s, "tpot_s": promise.tpot_s}
    return Slo(**{name: value for name, value in bounds.items() if value is not None})


def plan_inference(
    model: ModelLike,
    hardware: HardwareLike = DEFAULT_HARDWARE,
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
) -> ServingPlan:
    """Search deployments of at most `gpus` devices: layouts and batches in closed form, the best under random arrivals.

    Parameters
    ----------
    model, hardware, gpus
        As for `plan`.
    qps
        Requests per second to serve: the smallest deployments that do are returned; none: the most that all devices do.
    ttft_ms, tpot_ms, percentile
        Latencies that so many percent of the requests must keep.
    objective
        `cost` (devices per token), `throughput` (the same), `latency` or `energy`.
    pin
        Fixed sizes such as ``"tp=8"`` or ``"ep=1,8"``.
    given
        Job fields of `estimate_inference` (`input_len`, `output_len`, `weights`, `kv`, `engine`, ...).

    Raises
    ------
    UsageError, InputFileError
        For wrong arguments and files.
    InfeasibleError
        If nothing fits or keeps the promise: what binds, and the nearest change that does.
    """
    asked: dict[str, Any] = {"qps": qps, "ttft_ms": ttft_ms, "tpot_ms": tpot_ms, "percentile": percentile}
    search: dict[str, Any] = {"objective": objective, "top": top, "pin": pin, "seed": seed}
    return plan_serving(serving_request(model, hardware, gpus, **asked, **search, **given))


def _is_array(name: str, value: Any) -> bool:
    listed = isinstance(value, list | tuple | np.ndarray) or hasattr(value, "to_numpy")
    return listed and name not in ("settings", "profiles") and (not isinstance(value, np.ndarray) or value.ndim > 0)


def _item(value: Any) -> Any:
    """An entry of an array as plain Python has it."""
    return value.item() if isinstance(value, np.generic) else value


__all__ = ["InfeasibleError", "estimate_inference", "plan_inference", "simulate_serving"]
