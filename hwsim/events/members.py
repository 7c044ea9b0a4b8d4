"""The replicas of a pool and their states, and who gets the next request."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from hwsim.events.fleet import Pool, Routing
from hwsim.events.replica import Replica

OFF, STARTING, ON, DRAINING, FAILED = range(5)


class Members:
    """The replicas of one pool and their states."""

    def __init__(self, pool: Pool, replicas: Sequence[Replica]) -> None:
        self.pool, self.replicas = pool, replicas
        self.state = [ON if place < pool.replicas else OFF for place in range(len(replicas))]
        self._on_s = [0.0] * len(replicas)
        self._changed_s = [0.0] * len(replicas)

    def change(self, place: int, state: int, now_s: float) -> None:
        """Put a replica into another state."""
        self._on_s[place] = self.on_until(place, now_s)
        self.state[place], self._changed_s[place] = state, now_s

    def on_until(self, place: int, now_s: float) -> float:
        """How long a replica was switched on, starting or broken so far. [s]"""
        since_s = 0.0 if self.state[place] == OFF else max(now_s - self._changed_s[place], 0.0)
        return self._on_s[place] + since_s

    def places(self, *states: int) -> list[int]:
        """Replicas in some states."""
        return [place for place, state in enumerate(self.state) if state in states]

    @property
    def outstanding(self) -> int:
        """Requests that were routed here and are not done."""
        return sum(replica.outstanding for replica in self.replicas)


class Router:
    """Chooses among the replicas of some pools; keeps what waits while there is none."""

    def __init__(self, members: Sequence[Members], routing: Routing, seed: str) -> None:
        self.members, self.routing = members, routing
        self.backlog: list[Any] = []
        """What could not be routed: all replicas are broken."""
        self._alike = len({group.pool.engine.kv_tokens for group in members}) <= 1
        self._random = Random(seed)
        self._turn = -1
        self._on: list[Replica] = []
        self.refresh()

    @property
    def kv_tokens(self) -> int:
        """Longest request that fits anywhere."""
        return max(group.pool.engine.kv_tokens for group in self.members)

    def refresh(self) -> None:
        """Look again who is on."""
        self._on = [group.replicas[place] for group in self.members for place in group.places(ON)]

    def choose(self, tokens: int) -> Replica | None:
        """The replica that gets a request of some tokens, the first of those that are as good; none: all are broken."""
        able = self._on if self._alike else [r for r in self._on if r.engine.kv_tokens >= tokens]
        if len(able) <= 1:
            return able[0] if able else None
        if self.routing == "round_robin":
            self._turn += 1
            return able[self._turn % len(able)]
        if self.routing == "kv_aware":
            return max(able, key=Replica.room)
        if self.routing == "power_of_two":
            able = self._random.sample(able, 2)
        return min(able, key=_outstanding)


def _outstanding(replica: Replica) -> int:
    return replica.outstanding
