"""What a size is asked for: targets that are no numbers, are missing or contradict each other are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwsim import arguments
from hwsim.errors import UsageError
from hwsim.search.targets import Targets
from hwsim.units import parse


def watts(name: str, value: float | str | None) -> float | None:
    """A power: a number of watts, or text with a unit. [W]"""
    if isinstance(value, str):
        try:
            value = parse(value, "w")
        except ValueError as error:
            msg = f"{name}: {error}"
            raise UsageError(msg) from None
    arguments.positive(name, value)
    return None if value is None else float(value)


def check_targets(task: str, targets: Targets, promised: Mapping[str, Any]) -> None:
    """Refuse targets that are no numbers, are missing, contradict each other, or belong to another task."""
    asked_for = targets.to_dict()
    for name, value in asked_for.items():
        arguments.positive(name, value)
    arguments.target_tokens_per_s(targets.tokens, targets.days, targets.tokens_per_s)
    strange = ["tokens", "target_days", "budget_usd"] if task == "infer" else ["qps", *promised]
    for name in strange:
        if {**asked_for, **promised}.get(name) is not None:
            msg = f"{name}: is for {'training' if task == 'infer' else 'task infer'}"
            raise UsageError(msg)
    if task == "infer":
        if (targets.qps is None) == (targets.tokens_per_s is None):
            msg = "size for task infer needs one of qps and target_tokens_per_s: how much traffic is there?"
            raise UsageError(msg)
        return
    if targets.budget_usd is not None and targets.tokens is None:
        msg = "budget_usd needs tokens (a budget for which tokens?)"
        raise UsageError(msg)
    if targets.needed is None and targets.budget_usd is None and targets.power_w is None:
        msg = (
            "needs a target: tokens with target_days or budget_usd, target_tokens_per_s, power_cap, or qps (task infer)"
        )
        raise UsageError(msg)
