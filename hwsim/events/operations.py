"""What happens to replicas while they serve: they are switched on and off with the load, they fail and return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from random import Random
from typing import Any, Protocol

import simpy

from hwsim.events.fleet import Autoscale, Failures
from hwsim.events.members import DRAINING, FAILED, OFF, ON, STARTING, Members
from hwsim.events.replica import Replica


class Dispatcher(Protocol):
    """Who routes requests."""

    def restart(self, request: int, now_s: float) -> None:
        """A request lost its replica."""

    def members_changed(self, now_s: float) -> None:
        """Replicas came or went."""

    def backlog_of(self, members: Members) -> int:
        """Requests that wait for a replica of a pool to return."""


class Operations:
    """Scales and breaks the replicas of some pools."""

    def __init__(
        self, env: simpy.Environment, members: Sequence[Members], failures: Failures | None, seed: int, to: Dispatcher
    ) -> None:
        self.env, self.members, self.failures, self.dispatcher = env, members, failures, to
        self._random = Random(f"failures {seed}")
        self._places = {
            replica.number: (group, place) for group in members for place, replica in enumerate(group.replicas)
        }
        self._quiet = [0] * len(members)
        """Looks in a row at which a pool had too many replicas."""

    def start(self) -> None:
        """Begin to look, and to break things."""
        for pool, group in enumerate(self.members):
            if group.pool.autoscale:
                self._after(group.pool.autoscale.interval_s, self._look, pool, group.pool.autoscale)
            if self.failures:
                for place in range(len(group.replicas)):
                    self._after(self._random.expovariate(1.0 / self.failures.mtbf_s), self._fail, group, place)

    def _after(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        event = self.env.timeout(seconds)
        event.callbacks.append(lambda _: action(*arguments))

    def _look(self, pool: int, scale: Autoscale) -> None:
        """Compare what is there with what is wanted."""
        group, now_s = self.members[pool], self.env.now
        load = group.outstanding + self.dispatcher.backlog_of(group)
        wanted = min(max(ceil(load / scale.target), scale.least), scale.most)
        surplus = len(group.places(ON, STARTING)) - wanted
        self._quiet[pool] = self._quiet[pool] + 1 if surplus > 0 else 0
        if surplus < 0:
            self._switch_on(group, -surplus, scale.cold_start_s)
        elif self._quiet[pool] >= scale.patience:
            on = sorted(group.places(ON), key=lambda place: (group.replicas[place].outstanding, -place))
            for place in on[: min(surplus, len(on) - scale.least)]:
                group.change(place, DRAINING, now_s)
                self.settle(group.replicas[place], now_s)
            self._quiet[pool] = 0
        self.dispatcher.members_changed(now_s)
        self._after(scale.interval_s, self._look, pool, scale)

    def _switch_on(self, group: Members, count: int, cold_start_s: float) -> None:
        """Those that are draining stay; the rest start."""
        for place in group.places(DRAINING)[:count]:
            group.change(place, ON, self.env.now)
            count -= 1
        for place in group.places(OFF)[:count]:
            group.change(place, STARTING, self.env.now)
            self._after(cold_start_s, self._started, group, place)

    def _started(self, group: Members, place: int) -> None:
        if group.state[place] == STARTING:
            group.change(place, ON, self.env.now)
            self.dispatcher.members_changed(self.env.now)

    def settle(self, replica: Replica, now_s: float) -> None:
        """Switch a replica off if it was draining and is empty now."""
        group, place = self._places[replica.number]
        if group.state[place] == DRAINING and not replica.outstanding and not replica.held:
            group.change(place, OFF, now_s)

    def _fail(self, group: Members, place: int) -> None:
        """A replica breaks, unless it is off: what it had starts again elsewhere."""
        if self.failures is None:
            return
        if group.state[place] not in {ON, DRAINING}:
            self._after(self._random.expovariate(1.0 / self.failures.mtbf_s), self._fail, group, place)
            return
        back = ON if group.state[place] == ON else OFF
        group.change(place, FAILED, self.env.now)
        self.dispatcher.members_changed(self.env.now)
        for request in group.replicas[place].fail(self.env.now):
            self.dispatcher.restart(request, self.env.now)
        repair_s = self._random.expovariate(1.0 / self.failures.mttr_s) if self.failures.mttr_s else 0.0
        self._after(repair_s, self._return, group, place, back)

    def _return(self, group: Members, place: int, state: int) -> None:
        if self.failures is None:
            return
        group.change(place, state, self.env.now)
        self.dispatcher.members_changed(self.env.now)
        self._after(self._random.expovariate(1.0 / self.failures.mtbf_s), self._fail, group, place)
