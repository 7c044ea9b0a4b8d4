"""Real parallel training steps held against what hwsim lists for them: every collective, its calls and its bytes.

Processes on this machine train a small Transformer under each kind of parallelism (gloo on CPUs, NCCL on GPUs). What
they really send is counted where PyTorch issues it; the losses show that the parallel run computes what one process
does.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hwsim.analytic.collectives_of_step import StepCollective, collectives_of_step
from hwsim.analytic.setting import Setting
from hwsim.analytic.training import evaluate
from hwsim.asking import asked
from hwsim.errors import UsageError
from hwsim.formulas.collectives import wire_bytes
from hwsim.live.parallel.cases import NORMS, Case, cases
from hwsim.live.processes import run_ranks
from hwsim.specs.strategy import Strategies

WORKER = "hwsim.live.parallel.worker:work"
TIMEOUT_S = 240.0
HARDWARE = "dgx-h100"
"""Whose network carries the bytes does not change how many there are."""
SETTINGS = ("framework.early_stop=true",)
"""torch.utils.checkpoint ends its second forward pass when it has what the backward pass needs."""
GATHERS_TWICE = "framework.keeps_ends=false"
"""FSDP told to give up what lies outside the layers, too, between the passes."""
LOSS_TOLERANCE, HALF_TOLERANCE = 1e-5, 2e-2
NAMES = {"data": "dp", "shard": "dp", "send": "pp", "forward": "pp", "backward": "pp", "replica": "dp replica",
         "expert data": "expert dp", "expert shard": "expert dp"}  # fmt: skip
"""Groups as rows name them."""
UNCOUNTED = {
    "partial": "gradients that sequence parallelism leaves in parts, summed once a step: listed, in no estimate",
    "ep counts": "how many rows go where, before they go: not listed",
}
"""Groups whose talk estimates leave out, and why."""
ROUTED = "hwsim deals rows out evenly; here the router sent them"
REPORTED = (ROUTED, *UNCOUNTED.values(), NORMS)
"""Notes of what is a matter of convention: told, not judged."""
Key = tuple[int, str, str]
"""Stage, group, kind."""


class Count(NamedTuple):
    """What one process did of one kind of collective in a step."""

    calls: float = 0.0
    payload: float = 0.0
    """[byte]"""
    away: float = 0.0
    """What an all-to-all sent to others. [byte]"""


@dataclass(frozen=True)
class Row:
    """One quantity, predicted and measured."""

    id: str
    """The run."""
    group: str
    """The kind of parallelism."""
    metric: str
    predicted: float
    measured: float
    unit: str
    note: str = ""
    tolerance: float = 0.0
    """Difference that counts as none, over what was measured."""

    @property
    def error(self) -> float:
        """Predicted over measured, less one; infinite where nothing was measured."""
        if self.predicted == self.measured:
            return 0.0
        return self.predicted / self.measured - 1.0 if self.measured else float("inf")

    @property
    def equal(self) -> bool:
        """Whether both are the same."""
        return abs(self.error) <= self.tolerance


def compare_parallel(
    device: str = "cpu", short: bool = False, heard: Callable[[Any], None] = lambda message: None
) -> list[Row]:
    """Run training steps in 2 and in 4 processes and set what they send against what hwsim predicts.

    Parameters
    ----------
    device
        "cpu", or "cuda" with a GPU for each process.
    short
        A few runs of 2 processes alone.
    heard
        Is called with the name of each run as it starts.

    Raises
    ------
    UsageError
        Without PyTorch.
    WorkerError
        If a process fails, is killed or takes too long; none is left behind.
    """
    if find_spec("torch") is None:
        msg = "comparing with PyTorch needs it: pip install 'hwsim[torch]'"
        raise UsageError(msg)
    chosen = cases(short)
    rows: list[Row] = []
    for ranks in sorted({case.ranks for case in chosen}):
        rows += run_cases([case for case in chosen if case.ranks == ranks], ranks, device, heard)
    return rows


def run_cases(some: Sequence[Case], ranks: int, device: str, heard: Callable[[Any], None]) -> list[Row]:
    """Run cases of one number of processes one after the other, in the same processes."""
    with tempfile.TemporaryDirectory() as folder:
        orders = [case.order() for case in some]
        arguments = {"device": device, "store": str(Path(folder) / "store"), "cases": orders}
        by_rank = run_ranks(WORKER, ranks, arguments, TIMEOUT_S, heard)
    return [row for n, case in enumerate(some) for row in case_rows(case, [found[n] for found in by_rank])]


def case_rows(case: Case, found: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows of one run: `found` is what each process reports."""
    setting, s = question(case)
    listed = {stage: sent_as(case, collectives_of_step(setting, s, stage)) for stage in range(case.columns["pp"])}
    measured = counted(found)
    predicted = {(stage, named(work.axis), work.kind): work for stage, works in listed.items() for work in works}
    rows = [loss_row(case, found)]
    for key in sorted({*predicted, *measured}):
        rows += key_rows(case, key, predicted.get(key), measured.get(key, Count()))
    return [*rows, *traffic_rows(case, traffic(setting, s), measured)]


def question(case: Case) -> tuple[Setting, Strategies]:
    """The same run as hwsim is asked about it."""
    precision = "bf16" if case.half else "fp32"
    settings = (*SETTINGS, *(() if case.keeps_root else (GATHERS_TWICE,)), *case.settings)
    return asked(
        dict(case.model), HARDWARE, case.ranks,
        framework=case.framework, settings=settings, precision=precision, **case.columns,
    )  # fmt: skip


def named(axis: str) -> str:
    """A group as rows name it."""
    return NAMES.get(axis, axis)


def sent_as(case: Case, works: Sequence[StepCollective]) -> list[StepCollective]:
    """What is listed, as this run carries it out.

    Round a ring, a gather or scatter is a send to each other member; DTensor sums every norm's gradient in a call of
    its own among the other sums.
    """
    if case.way == "dtensor":
        apart = [work for work in works if work.axis == "partial"]
        return [with_norms(work, apart, case) for work in works if work not in apart]
    if not case.rings:
        return list(works)
    rings = [work for work in works if work.axis == "cp"]
    calls = sum(work.calls * (work.devices - 1) for work in rings)
    sends = StepCollective("cp", "send_recv", calls, sum(work.sent_bytes for work in rings), case.columns["cp"])
    return [*(work for work in works if work.axis != "cp"), sends]


def with_norms(work: StepCollective, partial: Sequence[StepCollective], case: Case) -> StepCollective:
    """An all-reduce over tp and, with it, those of the norms: two in a layer, one after the last."""
    if work.kind != "all_reduce" or work.axis != "tp":
        return work
    more = sum(other.total_bytes for other in partial)
    return replace(work, calls=work.calls + 2 * case.model["layers"] + 1, total_bytes=work.total_bytes + more)


def counted(found: Sequence[Mapping[str, Any]]) -> dict[Key, Count]:
    """What a process did, the mean over those of a stage."""
    sums: dict[Key, Count] = defaultdict(Count)
    for process in found:
        others = sum(process["stage"] == other["stage"] for other in found)
        for label, counts in process["counts"].items():
            group, kind = label.split("/")
            key = process["stage"], named(group), kind
            sums[key] = Count(*(total + count / others for total, count in zip(sums[key], counts, strict=True)))
    return dict(sums)


def key_rows(case: Case, key: Key, work: StepCollective | None, measured: Count) -> list[Row]:
    """Calls and payload of one kind of collective over one group."""
    stage, group, kind = key
    at = f"stage {stage} " if case.columns["pp"] > 1 else ""
    name, note = f"{at}{group} {kind}", UNCOUNTED.get(group, case.note)
    calls, payload, sent = (work.calls, work.total_bytes, work.sent_bytes) if work else (0.0, 0.0, 0.0)
    rows = [
        Row(case.id, case.group, f"{name} calls", calls, measured.calls, "1/step", note),
        Row(case.id, case.group, f"{name} payload", payload, measured.payload, "B/step", note),
    ]
    if group == "ep":
        rows.append(Row(case.id, case.group, f"{name} to others", sent, measured.away, "B/step", ROUTED))
    return rows


def loss_row(case: Case, found: Sequence[Mapping[str, Any]]) -> Row:
    """Loss after some steps: that of one process beside the mean over those that have one."""
    losses = [process["losses"][-1] for process in found if process["losses"]]
    whole = next(process["whole"][-1] for process in found if process["whole"])
    mean, tolerance = float(np.mean(losses)), HALF_TOLERANCE if case.half else LOSS_TOLERANCE
    return Row(
        case.id,
        case.group,
        "loss of the last step",
        whole,
        mean,
        "nat",
        "one process",
        tolerance,
    )


def traffic(setting: Setting, s: Strategies) -> dict[str, float]:
    """What an estimate says a device of the busiest stage sends, by axis. [byte]"""
    return {axis: float(np.max(value)) for axis, value in evaluate(setting, s).traffic_bytes.items()}


def traffic_rows(case: Case, predicted: Mapping[str, float], measured: Mapping[Key, Count]) -> list[Row]:
    """Bytes sent per device and step by axis, as nccl-tests count them from the payload that was counted."""
    c = case.columns
    sizes = {"tp": c["tp"], "cp": c["cp"], "ep": c["ep"], "pp": c["pp"], "tied": 2, "dp": c["shard"]}
    sizes |= {"dp replica": c["dp"] * c["cp"] // c["shard"], "expert dp": c["tp"] * c["cp"] * c["dp"] // c["ep"]}
    sent: dict[tuple[str, int], float] = defaultdict(float)
    for (stage, group, kind), count in measured.items():
        if group in sizes:
            axis = "dp" if group in ("tied", "dp replica", "expert dp") else group
            sent[axis, stage] += float(wire_bytes(kind, count.payload, sizes[group]))
    rows = []
    for axis, value in predicted.items():
        most = max((total for (other, _), total in sent.items() if other == axis), default=0.0)
        if value or most:
            rows.append(Row(case.id, case.group, f"{axis} sent", value, most, "B/step", case.note))
    return rows
