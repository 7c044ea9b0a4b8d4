"""The bill of a training run: an estimate's step, as often as a token budget asks, at a book's prices."""

from __future__ import annotations

from hwsim.analytic.estimate import TrainingEstimate
from hwsim.costs.bill import Bill, bill
from hwsim.formulas.ranges import Range, scaled, times
from hwsim.specs.economy import Grid, Prices
from hwsim.specs.hardware import Hardware

POWER_SPREAD = Range(0.92, 1.0, 1.08)
"""Metered power of nodes over the prediction: mean error of the scoreboard's rows, rounded up."""


def training_bill(
    hardware: Hardware, estimate: TrainingEstimate, tokens: float, prices: Prices, grid: Grid, checkpoints: bool = True
) -> Bill:
    """What training on so many tokens costs: the range of its time is that of the step.

    Parameters
    ----------
    hardware, estimate
        The machine, and one step of the run on it.
    tokens
        Budget.
    prices, grid
        The price book, and the place.
    checkpoints
        Whether checkpoints of the model are kept meanwhile.
    """
    steps = tokens / (estimate.strategy["global_batch"] * estimate.strategy["seq_len"])
    step = Range(estimate.step_time_low_s, estimate.step_time_s, estimate.step_time_high_s)
    watts = estimate.energy_j / estimate.step_time_s
    return bill(
        hardware=hardware,
        devices=estimate.hardware["devices"],
        seconds=scaled(step, steps),
        energy_j=times(scaled(step, steps * watts), POWER_SPREAD),
        prices=prices,
        grid=grid,
        parameters=estimate.model["parameters"] if checkpoints else None,
    )
