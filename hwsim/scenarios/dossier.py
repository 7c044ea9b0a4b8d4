"""Everything a report says of one answer beside the answer: its operators, how it scales, what it depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwsim.analytic.estimate import TrainingEstimate
from hwsim.analytic.explain import operator_rows
from hwsim.analytic.setting import Setting
from hwsim.scenarios.answers import Outcome
from hwsim.scenarios.axes import side_by_side
from hwsim.scenarios.sweep import Swept, swept
from hwsim.search.plan import strategy_of
from hwsim.search.serving_plan import ServingPlan, explored

DEVICES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Of those asked for, along which strong and weak scaling are drawn."""
CONTEXTS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True)
class Dossier:
    """One answer with what explains it."""

    outcome: Outcome
    operators: tuple[Mapping[str, Any], ...] = ()
    """Kernels of one micro-batch (see `hwsim.analytic.explain`)."""
    strong: Swept | None = None
    """More and fewer devices at the same batch, the strategy kept."""
    weak: Swept | None = None
    """The same with a batch that grows with them."""
    context: Swept | None = None
    """Longer and shorter sequences at the same tokens per step."""
    points: tuple[Mapping[str, Any], ...] = ()
    """Of a deployment: every layout and batch that fits (see `hwsim.search.serving_plan.explored`)."""


def dossier(outcome: Outcome, profiles: str | Path | None = None) -> Dossier:
    """Work out what a report of one answer needs; one strategy that serves has no more than itself."""
    found, setting = outcome.estimate, outcome.setting
    if isinstance(outcome.plan, ServingPlan):
        return Dossier(outcome, points=tuple(explored(outcome.plan.request)))
    if not isinstance(found, TrainingEstimate) or not isinstance(setting, Setting):
        return Dossier(outcome)
    kept, question = outcome.kept_strategy(), outcome.question
    batch, length = found.strategy["global_batch"], found.strategy["seq_len"]
    counts = _whole(found.hardware["devices"], DEVICES)
    counts = [count for count in counts if count <= setting.hardware.cluster.most_devices]
    batches = [max(round(batch * count / found.hardware["devices"]), 1) for count in counts]
    lengths = [each for each in _whole(length, CONTEXTS) if batch * length % each == 0]

    def along(columns: Mapping[str, Sequence[Any]]) -> Swept:
        return swept(question, side_by_side(columns), kept, profiles)

    return Dossier(
        outcome=outcome,
        operators=tuple(operator_rows(setting, strategy_of(found))),
        strong=along({"gpus": counts, "job.global_batch": [batch] * len(counts)}),
        weak=along({"gpus": counts, "job.global_batch": batches}),
        context=along({"job.seq_len": lengths, "job.global_batch": [batch * length // each for each in lengths]}),
    )


def _whole(value: int, shares: Sequence[float]) -> list[int]:
    """Multiples of a number that are whole."""
    return [round(value * share) for share in shares if value * share == round(value * share) and value * share >= 1]
