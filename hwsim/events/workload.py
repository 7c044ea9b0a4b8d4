"""What a fleet is asked: when requests arrive, how long their prompts and answers are, what they share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsim.errors import UsageError
from hwsim.events.engine import at_least

Seed: TypeAlias = int | np.random.Generator
MOST_REQUESTS = 50_000_000
MOST_TOKENS = 10_000_000
"""Longest prompt and longest answer."""
MOST_PRIORITY = 1_000_000


@dataclass(frozen=True, eq=False)
class Workload:
    """Requests in the order they arrive, one entry each in every column."""

    arrival_s: NDArray[np.float64]
    """When a client sends each; not used in a closed loop. [s]"""
    input_tokens: NDArray[np.int64]
    """Of the prompt."""
    output_tokens: NDArray[np.int64]
    """To be made."""
    priority: NDArray[np.int64]
    """Lower is more urgent."""
    prefix: NDArray[np.int64]
    """Number of the text that the prompt starts with; -1: one of its own."""
    prefix_tokens: NDArray[np.int64]
    """Length of that text."""
    clients: int = 0
    """Closed loop: each of so many clients sends the next request when its last one ended; 0: open."""

    @property
    def size(self) -> int:
        """Number of requests."""
        return len(self.arrival_s)

    @cached_property
    def tokens(self) -> NDArray[np.int64]:
        """Prompt and answer."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True)
class Lengths:
    """A distribution of token counts."""

    mean: float
    kind: Literal["fixed", "uniform", "lognormal"] = "fixed"
    spread: float = 0.0
    """Uniform: half the range over the mean; log-normal: coefficient of variation."""

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Some lengths, 1 or more each. [tokens]"""
        at_least("mean length", self.mean, 1.0)
        at_least("spread of lengths", self.spread, 0.0)
        if self.kind == "fixed" or self.spread == 0:
            drawn: NDArray[Any] = np.full(count, self.mean)
        elif self.kind == "uniform":
            low, high = round(self.mean * (1 - self.spread)), round(self.mean * (1 + self.spread))
            drawn = rng.integers(max(low, 1), max(high, 1), size=count, endpoint=True)
        elif self.kind == "lognormal":
            variance = math.log1p(self.spread**2)
            drawn = rng.lognormal(math.log(self.mean) - 0.5 * variance, math.sqrt(variance), count)
        else:
            msg = f"lengths are fixed, uniform or lognormal, not {self.kind!r}"
            raise UsageError(msg)
        whole: NDArray[np.int64] = np.clip(np.rint(drawn), 1, MOST_TOKENS).astype(np.int64)
        return whole


def poisson(requests: int, rate_per_s: float, inputs: Lengths, outputs: Lengths, seed: Seed = 0) -> Workload:
    """Requests that arrive independently of each other at a mean rate."""
    return bursty(requests, rate_per_s, 1.0, inputs, outputs, seed)


def bursty(requests: int, rate_per_s: float, cv: float, inputs: Lengths, outputs: Lengths, seed: Seed = 0) -> Workload:
    """Requests with gamma-distributed gaps: coefficient of variation 1 is Poisson, more is bursty, 0 is regular."""
    _check_count(requests)
    at_least("rate [requests/s]", rate_per_s, 1e-12)
    at_least("coefficient of variation", cv, 0.0)
    rng = np.random.default_rng(seed)
    gaps_s = rng.gamma(cv**-2, cv**2 / rate_per_s, requests) if cv else np.full(requests, 1.0 / rate_per_s)
    return arrivals(np.cumsum(gaps_s), inputs.draw(requests, rng), outputs.draw(requests, rng))


def closed_loop(requests: int, clients: int, inputs: Lengths, outputs: Lengths, seed: Seed = 0) -> Workload:
    """Requests of clients that each wait for an answer before they send the next request."""
    _check_count(requests)
    at_least("clients", clients, 1)
    rng = np.random.default_rng(seed)
    drawn = inputs.draw(requests, rng), outputs.draw(requests, rng)
    return arrivals(np.zeros(requests), *drawn, clients=clients)


def arrivals(
    arrival_s: ArrayLike,
    input_tokens: ArrayLike,
    output_tokens: ArrayLike,
    *,
    priority: ArrayLike = 0,
    prefix: ArrayLike = -1,
    prefix_tokens: ArrayLike = 0,
    clients: int = 0,
) -> Workload:
    """Requests given one by one, in the order of their arrival. [s, tokens]"""
    times = np.ascontiguousarray(arrival_s, dtype=np.float64)
    if times.ndim != 1 or not np.all(np.isfinite(times) & (times >= 0)) or np.any(np.diff(times) < 0):
        msg = "arrival_s must be a column of finite times of at least 0 s, in order"
        raise UsageError(msg)
    _check_count(len(times))
    inputs = _whole("input_tokens", input_tokens, len(times), 1, MOST_TOKENS)
    return Workload(
        arrival_s=times,
        input_tokens=inputs,
        output_tokens=_whole("output_tokens", output_tokens, len(times), 1, MOST_TOKENS),
        priority=_whole("priority", priority, len(times), -MOST_PRIORITY, MOST_PRIORITY),
        prefix=_whole("prefix", prefix, len(times), -1, MOST_REQUESTS),
        prefix_tokens=np.minimum(_whole("prefix_tokens", prefix_tokens, len(times), 0, MOST_TOKENS), inputs),
        clients=clients,
    )


def _check_count(requests: int) -> None:
    if not 1 <= requests <= MOST_REQUESTS:
        msg = f"requests must be between 1 and {MOST_REQUESTS:,}, not {requests!r}"
        raise UsageError(msg)


def _whole(name: str, values: ArrayLike, size: int, low: int, high: int) -> NDArray[np.int64]:
    """A column of whole numbers within a range."""
    column = np.asarray(values)
    if column.ndim > 1 or (column.ndim == 1 and len(column) != size) or column.dtype.kind not in "iuf":
        msg = f"{name} must be a column of {size:,} numbers"
        raise UsageError(msg)
    if not np.all((column >= low) & (column <= high) & (column == np.floor(column))):
        msg = f"{name} must be whole numbers between {low:,} and {high:,}"
        raise UsageError(msg)
    return np.ascontiguousarray(np.broadcast_to(column, (size,)), dtype=np.int64)
