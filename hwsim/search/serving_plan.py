"""Deployments that serve a model: every layout and batch in closed form, the best held against real queues."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.analytic.estimate import SCHEMA_VERSION
from hwsim.analytic.inference import InferenceEstimate, estimate, inference_frame
from hwsim.analytic.serving import Served
from hwsim.analytic.steady import Steady, steady
from hwsim.costs.money import rent_usd_per_s
from hwsim.errors import InfeasibleError
from hwsim.search.pareto import pareto_front
from hwsim.search.serving_space import SIZES, Layout, batches, columns, layouts, one
from hwsim.search.traffic import Held, Promise, most_traffic
from hwsim.specs.strategy import Strategies
from hwsim.units import HOUR_S, MILLION, show

if TYPE_CHECKING:
    import pandas as pd

OUT_OF_MEMORY, SLOW_FIRST, SLOW_NEXT = "out of memory", "misses the TTFT", "misses the TPOT"
REFINED = 6
"""Deployments held against the event model."""
MOST_NAMED = 100_000
"""Most devices that a fix proposes."""
OBJECTIVES = ("cost", "throughput", "latency", "energy")


@dataclass(frozen=True)
class ServingRequest:
    """What is asked of the planner, on one kind of hardware."""

    served: Served
    """Its devices are the most that may be used."""
    promise: Promise
    qps: float | None
    """Requests per second to serve; none: as many as the devices can."""
    objective: str
    top: int
    pins: Mapping[str, tuple[int, ...]]
    seed: int = 0


@dataclass(frozen=True)
class ServingPlan:
    """What a search found."""

    request: ServingRequest
    candidates: int
    feasible: int
    elapsed_s: float
    rejected: dict[str, int]
    plans: tuple[InferenceEstimate, ...]
    pareto: tuple[dict[str, Any], ...]
    """Tokens per second of a device against those of a user, of layout and batch: not dominated."""

    @property
    def best(self) -> InferenceEstimate:
        """The first plan."""
        return self.plans[0]

    def to_dict(self) -> dict[str, Any]:
        """The JSON that `hwsim plan --task infer --json` prints."""
        promise = self.request.promise
        return {
            "schema_version": SCHEMA_VERSION,
            "task": "infer",
            "objective": self.request.objective,
            "qps": self.request.qps,
            "ttft_s": promise.ttft_s,
            "tpot_s": promise.tpot_s,
            "percentile": promise.percentile,
            "candidates": self.candidates,
            "feasible": self.feasible,
            "elapsed_s": self.elapsed_s,
            "rejected": self.rejected,
            "plans": [plan.to_dict() for plan in self.plans],
            "pareto": list(self.pareto),
        }

    def to_frame(self) -> pd.DataFrame:
        """The plans as a table, one row each."""
        return inference_frame(self.plans)

    def __repr__(self) -> str:
        return f"<ServingPlan: {self.feasible:,} of {self.candidates:,} candidates fit; best {self.best!r}>"


def plan_serving(request: ServingRequest) -> ServingPlan:
    """Search every layout and batch; the best ones are simulated under random arrivals until their promise breaks.

    Raises
    ------
    InfeasibleError
        If none fits, or none keeps the promise: what binds, by how much, and the nearest change that fits.
    """
    started = time.perf_counter()
    served = request.served
    found = list(layouts(served.model, served.devices, served.network.links[0].domain, request.pins))
    if not found:
        msg = f"{served.model.name} on {served.devices} x {served.hardware.accelerator.name}: no legal layout"
        raise InfeasibleError(msg)
    grid = batches(served.job.engine.max_sequences)
    seen = steady(served, columns(found), grid)
    rejected, alive = _sift(request, seen)
    if not np.any(alive):
        raise InfeasibleError(_why(request, found, seen))
    ranked = _ranked(request, found, seen, alive)
    carried = _carried(request, ranked)
    plans = _plans(request, carried)
    if not plans:
        raise InfeasibleError(_missed(request, carried))
    return ServingPlan(
        request=request,
        candidates=int(alive.size),
        feasible=int(np.count_nonzero(alive)),
        elapsed_s=time.perf_counter() - started,
        rejected=rejected,
        plans=tuple(plans[: request.top]),
        pareto=tuple(_front(request, found, seen)),
    )


def _sift(request: ServingRequest, seen: Steady) -> tuple[dict[str, int], np.ndarray[Any, np.dtype[np.bool_]]]:
    """What is left after memory and the promise, and how many fell to each."""
    shape = np.broadcast_shapes(np.shape(seen.tpot_s), np.shape(seen.fits))
    rejected: dict[str, int] = {}
    alive = np.ones(shape, dtype=bool)
    masks = {OUT_OF_MEMORY: seen.fits}
    if request.promise.ttft_s is not None:
        masks[SLOW_FIRST] = seen.ttft_s <= request.promise.ttft_s
    if request.promise.tpot_s is not None:
        masks[SLOW_NEXT] = seen.tpot_s <= request.promise.tpot_s
    for reason, kept in masks.items():
        left = alive & kept
        fallen = int(np.count_nonzero(alive) - np.count_nonzero(left))
        rejected |= {reason: fallen} if fallen else {}
        alive = left
    return dict(sorted(rejected.items(), key=lambda item: -item[1])), alive


@dataclass(frozen=True)
class Choice:
    """A layout at the batch that suits it best."""

    layout: Layout
    batch: int
    rate: float
    """Requests per second of a replica, in closed form."""
    score: float


def _ranked(request: ServingRequest, found: Sequence[Layout], seen: Steady, alive: Any) -> list[Choice]:
    """Every layout that is left, at its best batch, best first."""
    rate = np.where(alive, np.broadcast_to(seen.rate, alive.shape), 0.0)
    choices = []
    for row, layout in enumerate(found):
        if not np.any(alive[row]):
            continue
        if request.objective == "latency":
            best = int(np.argmin(np.where(alive[row], seen.tpot_s[row], np.inf)))
            score = float(seen.tpot_s[row][best])
        else:
            best = int(np.argmax(rate[row]))
            each = float(rate[row, best])
            needed = ceil(request.qps / each) if request.qps and each > 0 else 0
            if not request.qps and layout.devices > request.served.devices:
                continue
            score = layout.devices * needed if request.qps else -each / layout.devices
        choices.append(Choice(layout, int(np.ravel(seen.batch)[best]), float(rate[row, best]), score))
    return sorted(choices, key=lambda choice: (choice.score, choice.layout.devices))


def _replicas(request: ServingRequest, layout: Layout, rate: float) -> int:
    """Replicas that a deployment has: as the traffic needs, or as the devices allow; 0: more than there are."""
    most = request.served.devices // layout.devices
    if request.qps is None:
        return most
    needed = ceil(request.qps / rate) if rate > 0 else most + 1
    return needed if needed <= most else 0


@dataclass(frozen=True)
class Carried:
    """A choice with the traffic that a replica of it carries within the promise."""

    choice: Choice
    served: Served
    traffic: Held | None
    """What the event model says; None where no traffic and no promise is given."""
    rate: float
    """Requests per second of a replica."""


def _carried(request: ServingRequest, ranked: Sequence[Choice]) -> list[Carried]:
    """The best choices, held against the event model where traffic or a promise is given."""
    timed = request.qps is not None or request.promise.given
    enough = [choice for choice in ranked if _replicas(request, choice.layout, choice.rate)]
    found = []
    for choice in (enough or ranked[:1])[: REFINED if timed else max(REFINED, request.top)]:
        served = _served(request, choice)
        traffic = None
        if timed:
            traffic = most_traffic(served, one(choice.layout), request.promise, choice.rate, request.seed)
        found.append(Carried(choice, served, traffic, choice.rate if traffic is None else traffic.qps))
    return found


def _plans(request: ServingRequest, carried: Sequence[Carried]) -> list[InferenceEstimate]:
    """Those that the devices suffice for, as full estimates, best first."""
    plans = []
    for each in carried:
        count = _replicas(request, each.choice.layout, each.rate)
        if each.rate > 0 and count:
            plans.append(_plan(request, each.choice, each.served, each.traffic, count, each.rate))
    return sorted(plans, key=lambda plan: _score(request, plan))


def _served(request: ServingRequest, choice: Choice) -> Served:
    """The setting of one replica at its batch."""
    job = request.served.job.model_copy(update={"batch": choice.batch})
    return replace(request.served, job=job, devices=choice.layout.devices)


def _plan(
    request: ServingRequest, choice: Choice, served: Served, traffic: Held | None, count: int, rate: float
) -> InferenceEstimate:
    """One deployment: the estimate of its replica at its batch, its size, what it serves and costs."""
    values = estimate(served, one(choice.layout)).to_dict()
    devices = count * choice.layout.devices
    output = float(served.job.output_len)
    load = request.qps if request.qps is not None else rate * count
    dollars = rent_usd_per_s(served.hardware.accelerator) * devices
    values["hardware"] = {**values["hardware"], "devices": devices}
    values["deployment"] = {
        "replicas": count,
        "devices": devices,
        "devices_per_replica": choice.layout.devices,
        "qps": load,
        "qps_capacity": rate * count,
        "utilisation": load / (rate * count),
        "output_tokens_per_s": load * output,
        "output_tokens_per_s_per_device": load * output / devices,
        "ttft_s": None if traffic is None else traffic.ttft_s,
        "tpot_s": None if traffic is None else traffic.tpot_s,
        "rent_usd_per_hour": dollars * HOUR_S if np.isfinite(dollars) else None,
        "cost_usd_per_million_output_tokens": dollars / (load * output) * MILLION if np.isfinite(dollars) else None,
        "power_w": devices * values["average_power_w_per_device"],
    }
    return InferenceEstimate(values)


def whole_deployment(served: Served, plan: InferenceEstimate) -> tuple[Served, Strategies]:
    """A plan with all its replicas as one static batch: its setting and its strategy."""
    made, sizes = plan.deployment, plan.strategy
    layout = Layout(**{name: sizes[name] for name in SIZES})
    count = made["replicas"]
    job = served.job.model_copy(update={"batch": count * sizes["batch"]})
    wide = replace(layout, dp=layout.dp * count)
    return replace(served, job=job, devices=made["devices"]), one(wide)


def _score(request: ServingRequest, plan: InferenceEstimate) -> tuple[float, ...]:
    """What is minimised."""
    made = plan.deployment
    if request.objective == "latency":
        return (plan.tpot_s, made["devices"])
    if request.objective == "energy":
        return (made["power_w"] / made["output_tokens_per_s"], made["devices"])
    return (made["devices"] / made["output_tokens_per_s"], made["devices"], plan.tpot_s)


def explored(request: ServingRequest) -> list[dict[str, Any]]:
    """Every layout and batch that fits, as `ServingPlan.pareto` has the best; whether each is one of these (`best`),
    and whether it keeps the promise where nothing waits in a queue (`keeps`).
    """
    served = request.served
    found = list(layouts(served.model, served.devices, served.network.links[0].domain, request.pins))
    if not found:
        return []
    seen = steady(served, columns(found), batches(served.job.engine.max_sequences))
    _, alive = _sift(request, seen)
    points, front = _points(request, found, seen, slice(None)), set(_best_of(request, seen))
    keeps = alive[np.broadcast_to(seen.fits, alive.shape)].tolist()
    return [{**point, "best": i in front, "keeps": keeps[i]} for i, point in enumerate(points)]


def _front(request: ServingRequest, found: Sequence[Layout], seen: Steady) -> list[dict[str, Any]]:
    """Layouts and batches that no other beats in both tokens per second of a device and of a user."""
    front = _points(request, found, seen, _best_of(request, seen))
    return sorted(front, key=lambda point: -point["output_tokens_per_s_per_user"])


def _speeds(request: ServingRequest, seen: Steady) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Tokens per second of a user and of a device, of what fits."""
    shape = np.broadcast_shapes(np.shape(seen.tpot_s), np.shape(seen.fits))
    fits = np.broadcast_to(seen.fits, shape)
    output = float(request.served.job.output_len)
    user = np.broadcast_to(1.0 / seen.tpot_s, shape)[fits]
    device = np.broadcast_to(seen.rate * output / seen.devices, shape)[fits]
    return np.stack([user, device], axis=1)


def _best_of(request: ServingRequest, seen: Steady) -> list[int]:
    """Places of the points that no other beats."""
    return [int(i) for i in pareto_front(-_speeds(request, seen))]


def _points(
    request: ServingRequest, found: Sequence[Layout], seen: Steady, chosen: list[int] | slice
) -> list[dict[str, Any]]:
    """Those chosen of what fits, layout by layout and batch by batch."""
    shape = np.broadcast_shapes(np.shape(seen.tpot_s), np.shape(seen.fits))
    rows, batch = (places[chosen].tolist() for places in np.nonzero(np.broadcast_to(seen.fits, shape)))
    return [
        {
            "output_tokens_per_s_per_user": user,
            "output_tokens_per_s_per_device": device,
            "batch": int(np.ravel(seen.batch)[column]),
            **{name: int(value) for name, value in vars(found[row]).items()},
        }
        for (user, device), row, column in zip(_speeds(request, seen)[chosen].tolist(), rows, batch, strict=True)
    ]


def _why(request: ServingRequest, found: Sequence[Layout], seen: Steady) -> str:
    """Name what binds and the nearest change."""
    served, promise = request.served, request.promise
    where = f"{served.model.name} on {served.devices} x {served.hardware.accelerator.name}"
    shape = np.broadcast_shapes(np.shape(seen.tpot_s), np.shape(seen.fits))
    fits = np.broadcast_to(seen.fits, shape)
    if not np.any(fits):
        return (
            f"{where}: out of memory: weights and the KV cache of one request fit on no layout of these devices. "
            f"Nearest fix: more devices (--gpus {2 * served.devices}), or narrower weights (--weights int4)."
        )
    first = float(np.min(np.broadcast_to(seen.ttft_s, shape)[fits]))
    each = float(np.min(np.broadcast_to(seen.tpot_s, shape)[fits]))
    said = [f"{where}: the promise is missed even by an idle replica: it reaches"]
    parts = [f"TTFT {show(first, 's')}" + (f" of {show(promise.ttft_s, 's')}" if promise.ttft_s else "")]
    parts += [f"TPOT {show(each, 's')}" + (f" of {show(promise.tpot_s, 's')}" if promise.tpot_s else "")]
    return f"{said[0]} {', '.join(parts)}. Nearest fix: more devices per replica, narrower weights, or a later promise."


def _missed(request: ServingRequest, carried: Sequence[Carried]) -> str:
    """Traffic that the devices cannot carry, and how many could."""
    served, qps, at = request.served, request.qps or 0.0, f"p{request.promise.percentile}"
    where = f"{served.model.name} on {served.devices} x {served.hardware.accelerator.name}"
    said = f"{where}: no deployment of these devices serves {qps:g} requests/s within the promise"
    needed = [ceil(qps / each.rate) * each.choice.layout.devices for each in carried if each.rate > 0]
    if needed and qps and min(needed) <= min(MOST_NAMED, served.hardware.cluster.most_devices):
        return f"{said}. Nearest fix: {min(needed):,} devices (--gpus {min(needed)})."
    return (
        f"{said}: under any load worth the name some of them make the {at} late, though an idle replica keeps it. "
        "Nearest fix: a later promise (--ttft-ms, --tpot-ms), or narrower weights."
    )
