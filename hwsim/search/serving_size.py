"""Devices for serving: the planner's smallest deployments, rounded up to whole nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil, isfinite

from hwsim.analytic.inference import InferenceEstimate
from hwsim.costs.energy import idle_power_w
from hwsim.costs.money import rent_usd_per_s
from hwsim.errors import InfeasibleError
from hwsim.ops.count import parameters
from hwsim.search.serving_plan import ServingRequest, plan_serving
from hwsim.search.sizing import Machine, best_of
from hwsim.search.targets import Option, Targets, Verdict

FORWARD = 2.0
"""FLOPs per parameter and token: a multiply and an add."""


def size_serving(
    request: ServingRequest,
    targets: Targets,
    headroom: float,
    progress: Callable[[str], object] | None = None,
) -> Machine:
    """Find how many nodes of one kind of hardware serve some traffic within a promise.

    Parameters
    ----------
    request
        What is planned; its devices are the most that may be used.
    targets
        The traffic as `qps`, and what bounds the deployment beside the promise.
    headroom
        Share of time lost: that much more traffic is planned for. [-]
    progress
        Called with what is planned next.
    """
    served = request.served
    name = served.hardware.accelerator.name
    if progress is not None:
        progress(name)
    options, binds = _deployments(request, headroom)
    if not binds and best_of([Verdict(option, targets, headroom) for option in options]) is None:
        nearest = min(options, key=lambda option: option.power_w or 0.0)
        binds = (
            f"{served.model.name} on {served.hardware.name}: the thriftiest deployment that keeps the promise, "
            f"{nearest.devices:,} devices, misses the power cap: {Verdict(nearest, targets, headroom).why}. "
            f"Nearest fix: --power-cap '{ceil(nearest.power_w or 0.0)} W'."
        )
    if headroom > 0.0 and not binds:
        options += _deployments(request, 0.0)[0]
    return Machine(served.hardware.name, served.hardware.accelerator.title or name, _distinct(options),
                   _least(request), binds)  # fmt: skip


def _deployments(request: ServingRequest, headroom: float) -> tuple[tuple[Option, ...], str]:
    """What the planner finds for the traffic and as much more as is lost, or why it finds nothing."""
    loaded = replace(request, qps=(request.qps or 0.0) / (1.0 - headroom))
    try:
        plans = plan_serving(loaded).plans
    except InfeasibleError as error:
        return (), str(error).replace("--gpus", "--max-gpus")
    return tuple(_option(request, plan) for plan in plans), ""


def _option(request: ServingRequest, plan: InferenceEstimate) -> Option:
    """A deployment on whole nodes: devices that are left over idle. Its rate is what it can do within the promise."""
    hardware, made = request.served.hardware, plan.deployment
    nodes = ceil(made["devices"] / hardware.cluster.node.devices)
    devices = nodes * hardware.cluster.node.devices
    spare = devices - made["devices"]
    rent = rent_usd_per_s(hardware.accelerator) * devices
    return Option(
        hardware=hardware.name,
        title=hardware.accelerator.title or hardware.accelerator.name,
        devices=devices,
        nodes=nodes,
        tokens_per_s=made["qps_capacity"] * request.served.job.output_len,
        power_w=made["power_w"] + spare * idle_power_w(hardware),
        rent_usd_per_s=rent if isfinite(rent) else None,
        plan=plan,
    )


def _distinct(options: tuple[Option, ...]) -> tuple[Option, ...]:
    """The best deployment of every number of devices and rate."""
    best: dict[tuple[int, float], Option] = {}
    for option in options:
        best.setdefault((option.devices, option.tokens_per_s), option)
    return tuple(best[key] for key in sorted(best))


def _least(request: ServingRequest) -> float:
    """Devices that would serve the traffic at their peak rate: two FLOPs per active parameter and token. [-]"""
    served = request.served
    job = served.job
    tokens = (request.qps or 0.0) * (served.prompt_len * (1.0 - job.prefix_hit) + job.output_len)
    flops = FORWARD * parameters(served.model).active * tokens
    return float(ceil(float(served.device.limits_s(flops, 0.0)[0])))
