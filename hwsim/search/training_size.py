"""Devices for a training job: counts of whole nodes planned one by one until the targets are met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil

import numpy as np

from hwsim.analytic.counted import step_flops
from hwsim.costs.money import cost_usd
from hwsim.errors import UsageError
from hwsim.search.counting import Trials, seek_largest, seek_smallest
from hwsim.search.plan import MOST_DEVICES, Request, best_on, nearest_fix, why_none
from hwsim.search.sizing import Machine, best_of
from hwsim.search.targets import Option, Targets, Verdict
from hwsim.specs.strategy import strategies
from hwsim.units import show

TRIALS, MORE_TRIALS = 14, 6
"""Plans made for an answer, and more of them for what it would be without headroom, and for a fix."""
FIRST_NODES = 8
"""Where the search for the largest count begins."""
CAUSAL = 0.5
"""Least share of the counted FLOPs that is done: papers count attention over the full square, kernels skip half."""
Progress = Callable[[str], object]


class Sizer:
    """Plans one kind of hardware by numbers of nodes, each once."""

    def __init__(self, request: Request, most_devices: int, progress: Progress | None = None) -> None:
        self.request, self.progress = request, progress
        self.node = request.hardware.cluster.node.devices
        self.most = int(min(most_devices, request.hardware.cluster.most_devices)) // self.node
        self.options: dict[int, Option] = {}
        if self.most < 1:
            msg = f"max_gpus {most_devices}: a node of {request.hardware.name} has {self.node} devices"
            raise UsageError(msg)

    def option(self, nodes: int) -> Option:
        """The best plan on so many nodes."""
        if nodes not in self.options:
            self.options[nodes] = self._planned(nodes)
        return self.options[nodes]

    def _planned(self, nodes: int) -> Option:
        devices, hardware = nodes * self.node, self.request.hardware
        if self.progress is not None:
            self.progress(f"{devices:,} x {hardware.accelerator.name}")
        asked = self.request.on(devices)
        best, found = best_on(asked)
        named = (hardware.name, hardware.accelerator.title or hardware.accelerator.name, devices, nodes)
        if best is None:
            return Option(*named, 0.0, None, None, None, why_none(asked, found))
        rent = None if best.cost_usd is None else best.cost_usd / best.step_time_s
        return Option(*named, best.tokens_per_s, best.energy_j / best.step_time_s, rent, best)

    def least_devices(self, tokens_per_s: float) -> float:
        """Devices that would make so many tokens at 100 % MFU. [-]"""
        setting = self.request.setting
        length = self.request.job.seq_len
        one = strategies(devices=1, global_batch=1, seq_len=length)
        flops = float(np.max(step_flops(setting, one))) / length
        return float(np.max(setting.device.utilization(flops * tokens_per_s, 1.0, 1.0)))

    def seek(self, targets: Targets, headroom: float, trials: int) -> None:
        """Plan counts until the best one for the targets is among them."""

        def reach(nodes: int) -> float:
            return reached(Verdict(self.option(nodes), targets, headroom))

        seen = {nodes: reach(nodes) for nodes in self.options}
        tried = Trials(reach, self.most, len(seen) + trials, seen, round=max(trials // 3, 1))
        if targets.needed is None:
            seek_largest(tried, FIRST_NODES)
            return
        ideal = self.least_devices(targets.needed) / (1.0 - headroom) / self.node
        seek_smallest(tried, max(1, ceil(CAUSAL * ideal)), ideal)


def reached(verdict: Verdict) -> float:
    """How far an option goes towards its rate, or towards all of its limits where no rate is asked; 0: nothing fits."""
    targets = verdict.targets
    if verdict.option.plan is None:
        return 0.0
    if targets.needed is not None:
        return verdict.rate / targets.needed
    limits = ((targets.budget_usd, verdict.cost_usd), (targets.power_w, verdict.option.power_w))
    return min(most / value for most, value in limits if most is not None and value)


def size_training(
    request: Request, targets: Targets, headroom: float, most_devices: int, progress: Progress | None = None
) -> Machine:
    """Find how many nodes of one kind of hardware the targets need.

    Parameters
    ----------
    request
        What is planned; its number of devices is a start only.
    targets
        At least a rate, a budget or a power cap.
    headroom
        Share of time lost. [-]
    most_devices
        Devices that may be used.
    progress
        Called with what is planned next.

    Raises
    ------
    UsageError
        If a budget is given and nobody knows the rent.
    """
    sizer = Sizer(request, most_devices, progress)
    device = request.hardware.accelerator
    if targets.budget_usd is not None and not (device.price.rent or device.price.committed):
        msg = f"budget_usd: the rent of {device.name} is unknown (--set accelerator.price.rent='2 USD/h')"
        raise UsageError(msg)
    sizer.seek(targets, headroom, TRIALS)
    verdicts = [Verdict(option, targets, headroom) for option in sizer.options.values()]
    binds = ""
    if best_of(verdicts) is None:
        binds = _binds(sizer, targets, headroom)
    elif headroom > 0.0:
        sizer.seek(targets, 0.0, MORE_TRIALS)
    least = None if targets.needed is None else float(ceil(sizer.least_devices(targets.needed)))
    options = tuple(sizer.options[nodes] for nodes in sorted(sizer.options))
    return Machine(request.hardware.name, device.title or device.name, options, least, binds)


def _binds(sizer: Sizer, targets: Targets, headroom: float) -> str:
    """What keeps the targets from being met, by how much, and the nearest fix."""
    where = f"{sizer.request.model.name} on {sizer.request.hardware.name}"
    verdicts = [Verdict(sizer.option(nodes), targets, headroom) for nodes in sorted(sizer.options)]
    if not verdicts:
        verdicts = [Verdict(sizer.option(sizer.most), targets, headroom)]
    planned = [verdict for verdict in verdicts if verdict.option.plan is not None]
    if not planned:
        asked = sizer.request.on(verdicts[-1].option.devices)
        fix = nearest_fix(asked, best_on(asked)[1]).replace("--gpus", "--max-gpus")
        return f"{verdicts[-1].option.why} {fix}".strip()
    fast = [verdict for verdict in planned if "rate" not in verdict.faults]
    if not fast:
        return f"{where}: {_too_slow(sizer, max(planned, key=lambda one: one.rate), targets, headroom)}"
    nearest = min(fast, key=lambda one: max(times for times, _ in one.faults.values()))
    made = nearest.option
    fixes = {"budget": f"--budget-usd {_up(nearest.cost_usd)}", "power": f"--power-cap '{_watts(made.power_w)}'"}
    fix = " and ".join(fixes[name] for name in nearest.faults)
    said = f"{where}: the nearest that {'is fast enough' if targets.needed else 'fits'}, {made.devices:,} devices, "
    said += f"misses the {' and the '.join({'budget': 'budget', 'power': 'power cap'}[n] for n in nearest.faults)}"
    ideal = f"; at 100 % MFU it would be {show(floor, 'usd')}" if (floor := _floor_usd(sizer, targets)) else ""
    return f"{said}: {nearest.why}{ideal}. Nearest fix: {fix}{_later(sizer, targets, headroom)}."


def _floor_usd(sizer: Sizer, targets: Targets) -> float | None:
    """Rent for the tokens at the peak rate of the devices; none where no budget is given. [USD]"""
    if targets.budget_usd is None or targets.tokens is None:
        return None
    return float(cost_usd(sizer.request.hardware.accelerator, sizer.least_devices(targets.tokens), 1.0))


def _too_slow(sizer: Sizer, fastest: Verdict, targets: Targets, headroom: float) -> str:
    """That no number of devices is fast enough, and the nearest number or deadline that is."""
    needed = targets.needed or 0.0
    lost = f" with {headroom:.0%} headroom" if headroom else ""
    most = sizer.most * sizer.node
    rate = f"{show(needed, 'count')} tokens/s"
    asked = f"{show(targets.days, 'days')} ({rate})" if targets.days else rate
    said = f"the target of {asked} is missed{lost}: the fastest of up to "
    said += f"{most:,} devices, {fastest.option.devices:,}, reaches {fastest.why}"
    fixes = []
    larger = Sizer(sizer.request, MOST_DEVICES, sizer.progress)
    nodes = ceil(fastest.option.nodes / reached(fastest))
    for count in (nodes, round(1.2 * nodes)):
        if sizer.most < count <= larger.most and Verdict(larger.option(count), targets, headroom).rate >= needed:
            fixes.append(f"--max-gpus {count * sizer.node}")
            break
    later = f"--target-days {_up(fastest.days)}" if targets.days else f"--target-tokens-per-s {fastest.rate:.4g}"
    return f"{said}. Nearest fix: {' or '.join([*fixes, later])}."


def _later(sizer: Sizer, targets: Targets, headroom: float) -> str:
    """The fastest within the limits, where a deadline is given up."""
    if targets.needed is None:
        return ""
    free = replace(targets, days=None, tokens_per_s=None)
    sizer.seek(free, headroom, 2 * MORE_TRIALS)
    best = best_of([Verdict(option, free, headroom) for option in sizer.options.values()])
    if best is None:
        return " (a later target would not do)"
    if targets.days is None:
        return f", or --target-tokens-per-s {best.rate:.4g} ({best.option.devices:,} devices)"
    return f", or --target-days {_up(best.days)} ({best.option.devices:,} devices)"


def _up(value: float | None) -> str:
    """A number rounded up to three digits, as a flag takes it."""
    if not value:
        return "0"
    digit = 10.0 ** (np.floor(np.log10(value)) - 2.0)
    return str(np.format_float_positional(float(f"{np.ceil(value / digit - 1e-9) * digit:.3g}"), trim="-"))


def _watts(power_w: float | None) -> str:
    """A power rounded up, as a flag takes it."""
    return f"{_up((power_w or 0.0) / 1000.0)} kW"
