"""What serves: pools of replicas, how requests are routed to them, what scales them and what breaks them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import UsageError
from hwsim.events.engine import Engine, at_least
from hwsim.events.pace import Pace

Routing: TypeAlias = Literal["round_robin", "least_outstanding", "kv_aware", "power_of_two"]
Role: TypeAlias = Literal["both", "prefill", "decode"]
MOST_REPLICAS = 10_000


@dataclass(frozen=True)
class Autoscale:
    """Keeps the requests per replica of a pool near a target."""

    least: int
    """Replicas."""
    most: int
    """Replicas."""
    target: float
    """Outstanding requests per replica."""
    interval_s: float = 10.0
    """Between two looks. [s]"""
    cold_start_s: float = 60.0
    """From the decision to the first request: machine, weights, graphs. [s]"""
    patience: int = 3
    """Looks in a row with too many replicas before some are switched off; they finish what they have."""

    def __post_init__(self) -> None:
        at_least("least replicas", self.least, 1)
        at_least("most replicas", self.most, self.least)
        at_least("target outstanding requests", self.target, 1e-9)
        at_least("interval_s", self.interval_s, 1e-9)
        at_least("cold_start_s", self.cold_start_s, 0.0)
        at_least("patience", self.patience, 1)


@dataclass(frozen=True)
class Pool:
    """Replicas that are alike."""

    pace: Pace
    engine: Engine
    replicas: int = 1
    """At the start."""
    role: Role = "both"
    """Prefill and decode pools split requests: the cache of a prompt is sent from one to the other."""
    autoscale: Autoscale | None = None

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            msg = f"role must be one of {', '.join(get_args(Role))}, not {self.role!r}"
            raise UsageError(msg)
        if not 1 <= self.most <= MOST_REPLICAS:
            msg = f"replicas must be between 1 and {MOST_REPLICAS:,}, not {self.most!r}"
            raise UsageError(msg)
        if self.autoscale and not self.autoscale.least <= self.replicas <= self.autoscale.most:
            msg = (
                f"replicas {self.replicas} must lie within the {self.autoscale.least} to {self.autoscale.most} to scale"
            )
            raise UsageError(msg)

    @property
    def most(self) -> int:
        """Most replicas that may be on."""
        return self.autoscale.most if self.autoscale else self.replicas


@dataclass(frozen=True)
class Link:
    """One link that all caches sent from prefill to decode share."""

    token_s: float
    """The cache of one token on an otherwise idle link. [s]"""
    latency_s: float = 0.0
    """Of each transfer, beside others'. [s]"""
    sharing: Literal["fifo", "fair"] = "fifo"
    """Transfers wait for each other, or share the link in equal parts."""

    def __post_init__(self) -> None:
        at_least("token_s", self.token_s, 0.0)
        at_least("latency_s", self.latency_s, 0.0)
        if self.sharing not in {"fifo", "fair"}:
            msg = f"sharing must be fifo or fair, not {self.sharing!r}"
            raise UsageError(msg)


@dataclass(frozen=True)
class Failures:
    """Replicas fail at random; their requests start again elsewhere, but for the tokens made."""

    mtbf_s: float
    """Mean time of a replica to its next failure, exponential. [s]"""
    mttr_s: float
    """Mean time to its return, exponential. [s]"""
    most_restarts: int = 100
    """Failures that a request survives; then it is rejected."""

    def __post_init__(self) -> None:
        at_least("mtbf_s", self.mtbf_s, 1e-9)
        at_least("mttr_s", self.mttr_s, 0.0)
        at_least("most_restarts", self.most_restarts, 0)


@dataclass(frozen=True)
class Fleet:
    """All that serves one stream of requests."""

    pools: tuple[Pool, ...]
    routing: Routing = "least_outstanding"
    link: Link | None = None
    """Between prefill and decode pools; none: sending a cache takes no time."""
    failures: Failures | None = None
    request_s: float = 0.0
    """From the client to the queue and back with the first token. [s]"""
    prompt_token_s: float = 0.0
    """The same per prompt token. [s]"""

    def __post_init__(self) -> None:
        roles = {pool.role for pool in self.pools}
        if roles not in ({"both"}, {"prefill", "decode"}):
            msg = "a fleet has pools that do both, or pools for prefill and pools for decode"
            raise UsageError(msg)
        if self.routing not in get_args(Routing):
            msg = f"routing must be one of {', '.join(get_args(Routing))}, not {self.routing!r}"
            raise UsageError(msg)
        at_least("request_s", self.request_s, 0.0)
        at_least("prompt_token_s", self.prompt_token_s, 0.0)

    def client_s(self, input_tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """From the client to the queue and back. [s]"""
        return np.asarray(self.prompt_token_s * input_tokens + self.request_s, dtype=np.float64)

    @classmethod
    def single(cls, pace: Pace, engine: Engine) -> Fleet:
        """One replica."""
        return cls((Pool(pace, engine),))

    @property
    def splits(self) -> bool:
        """Whether prompts and answers are made in different pools."""
        return self.pools[0].role != "both"
