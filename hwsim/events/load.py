"""Steady rates, and whether a fleet keeps up with what arrives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from hwsim.events.timeline import Record

Column = NDArray[np.float64]
LEAST_GROWTH = 0.02
"""Share of the arrivals by which the requests in a fleet must grow in number to be called growing."""
MOST_SPEED_UP = 1.1
"""A fleet that makes more tokens than this as requests pile up is filling up, not overloaded."""
LEAST_REQUESTS = 16
"""Fewer say nothing about overload."""


@dataclass(frozen=True)
class Overload:
    """Requests come faster than the fleet serves them: their latencies grow as long as it lasts."""

    offered_per_s: float
    """Requests that arrived in the second half of the arrivals. [1/s]"""
    served_per_s: float
    """Requests that were done in that time. [1/s]"""
    outstanding: int
    """Requests that were not done at the last arrival."""

    def __str__(self) -> str:
        return (
            f"overload: {self.offered_per_s:.4g} requests/s arrive, {self.served_per_s:.4g} requests/s are served; "
            f"{self.outstanding:,} are not done at the last arrival, and latencies grow for as long as it goes on"
        )


def tokens_per_s(replicas: Sequence[Record], edges_s: Column) -> Column:
    """Tokens made between times. [tokens/s]"""
    made = sum((record.tokens_by(edges_s) for record in replicas), np.zeros(len(edges_s)))
    return np.asarray(np.diff(made) / np.diff(edges_s), dtype=np.float64)


def overload(sent_s: Column, admitted_s: Column, finish_s: Column, replicas: Sequence[Record]) -> Overload | None:
    """Compare what came with what left over the second half of the arrivals; infinity is never.

    A number of requests in balance goes up and down like a random walk; one that grows without bound does so by a share
    of the arrivals. It is those that wait, or those in the batches while these get no faster.
    """
    count = len(sent_s)
    if count < LEAST_REQUESTS:
        return None
    edges_s = sent_s[[int(share * (count - 1)) for share in (0.25, 0.5, 0.75, 1.0)]]
    if not np.all(np.diff(edges_s) > 0):
        return None
    came, admitted, left = (
        np.searchsorted(np.sort(column), edges_s, side="right") for column in (sent_s, admitted_s, finish_s)
    )
    early, _, late = tokens_per_s(replicas, edges_s).tolist()
    if not _grows(came - admitted, count) and not (_grows(came - left, count) and late <= MOST_SPEED_UP * early):
        return None
    seconds = float(edges_s[3] - edges_s[1])
    return Overload(int(came[3] - came[1]) / seconds, int(left[3] - left[1]) / seconds, int(came[3] - left[3]))


def _grows(requests: NDArray[np.int64], count: int) -> bool:
    """Whether a number of requests, after each quarter of `count` arrivals, grows."""
    _, second, third, last = requests.tolist()
    return bool(third > second and last - second > max(LEAST_GROWTH * 0.5 * count, 2.0 * sqrt(count)))
