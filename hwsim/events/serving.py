"""Runs a fleet under a workload: `simulate`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from math import inf
from typing import NamedTuple

import numpy as np
import simpy

from hwsim.events.engine import at_least
from hwsim.events.fleet import Fleet, Link
from hwsim.events.ledger import REJECTED, Ledger
from hwsim.events.link import Transfers
from hwsim.events.members import Members, Router
from hwsim.events.operations import Operations
from hwsim.events.replica import Replica
from hwsim.events.results import Result, collect
from hwsim.events.slo import Slo, Watch
from hwsim.events.workload import Workload

EVERY = 1024
"""Requests between two reports of progress."""
Progress = Callable[[int, int], object]
"""Hears how many requests have ended, and of how many."""


def simulate(
    fleet: Fleet,
    workload: Workload,
    seed: int = 0,
    *,
    until_s: float = inf,
    stop: Slo | None = None,
    progress: Progress | None = None,
) -> Result:
    """Serve a workload on a fleet; the same seed gives the same bits.

    Parameters
    ----------
    fleet, workload
        What serves, and what is asked of it.
    seed
        Of routing and failures (a workload has its own).
    until_s
        When to stop if requests are left. [s]
    stop
        Stop as soon as these bounds can no longer be met.
    progress
        Called every 1,024 ended requests. A KeyboardInterrupt, raised here or anywhere, ends the run: what has finished
        by then is kept, and the result says that it was interrupted.
    """
    at_least("until_s", 0.0 if until_s == inf else until_s, 0.0)
    run = _Run(fleet, workload, seed)
    run.watch = Watch(stop, workload.size, run.ledger) if stop else None
    run.progress = progress
    try:
        run.go(until_s)
    except KeyboardInterrupt:
        run.stopped = "interrupted"
    return collect(fleet, workload, run)


class _Parcel(NamedTuple):
    """A cache on its way from prefill to decode."""

    request: int
    tokens: int
    source: Replica
    epoch: int
    """Of the source, when it was sent: after a failure there is nothing left to send."""


class _Run:
    """A fleet at work: sends requests to replicas, and hears from them."""

    def __init__(self, fleet: Fleet, workload: Workload, seed: int) -> None:
        self.fleet, self.workload = fleet, workload
        self.env = simpy.Environment()
        self.env.timeout(inf)  # without anything ahead, every look at the next event would raise and catch an error
        self.over = self.env.event()
        self.stopped = ""
        """Why the run ended before its last request did."""
        self.watch: Watch | None = None
        self.progress: Progress | None = None
        self.ledger = Ledger(workload)
        self.members = self._members()
        front = [group for group in self.members if group.pool.role != "decode"]
        back = [group for group in self.members if group.pool.role == "decode"]
        self.front = Router(front, fleet.routing, f"front {seed}")
        self.back = Router(back, fleet.routing, f"back {seed}")
        self.transfers = Transfers(self.env, fleet.link or Link(0.0))
        self.operations = Operations(self.env, self.members, fleet.failures, seed, self)
        self.fixed = not fleet.failures and not any(pool.autoscale for pool in fleet.pools)
        """Whether all replicas are on all the time."""
        self.delays_s: list[float] = []
        """From the client to the queue; empty: no time. [s]"""
        self.numbers: list[int] = []
        """Requests that fit, in the order in which they reach the queue or are sent by clients."""
        self.ready_s: list[float] = []
        """When they reach the queue, ended by infinity. [s]"""
        self.sent, self.left = 0, 0
        self.now_s = 0.0
        """When the last request ended, or the run was stopped. [s]"""

    def _members(self) -> list[Members]:
        numbers = count()
        return [
            Members(pool, [Replica(self.env, next(numbers), pool, self.ledger, self) for _ in range(pool.most)])
            for pool in self.fleet.pools
        ]

    def go(self, until_s: float) -> None:
        """Run until every request has ended, or until some time."""
        self._prepare()
        self.operations.start()
        if until_s < inf:
            self._at(until_s, partial(self._stop, "time limit"))
        if self.left:
            self.env.run(until=self.over)

    def _prepare(self) -> None:
        """Refuse what can never fit, and let the first requests come."""
        work, fleet = self.workload, self.fleet
        fits = work.tokens <= min(router.kv_tokens for router in (self.front, self.back) if router.members)
        for request in np.flatnonzero(~fits).tolist():
            self.ledger.status[request] = REJECTED
        numbers = np.flatnonzero(fits)
        self.left = len(numbers)
        delays_s = fleet.client_s(work.input_tokens)
        if work.clients:
            self.numbers = numbers.tolist()
            self.delays_s = delays_s.tolist() if np.any(delays_s) else []
            for _ in range(min(work.clients, self.left)):
                self._send_next(0.0)
            return
        ready_s = (work.arrival_s + delays_s)[numbers]
        order = np.argsort(ready_s, kind="stable")
        self.numbers, self.ready_s = numbers[order].tolist(), [*ready_s[order].tolist(), inf]
        replicas = [replica for group in self.members for replica in group.replicas]
        if len(replicas) == 1 and self.fixed:
            replicas[0].feed(self.ready_s, [self.ledger.keys[number] for number in self.numbers])
        else:
            self._at(self.ready_s[0], self._arrive)

    def _at(self, at_s: float, action: Callable[[float], None]) -> None:
        """Do something at some time."""
        if at_s < inf:
            event = self.env.timeout(max(at_s - self.env.now, 0.0))
            event.callbacks.append(lambda _: action(at_s))

    def _stop(self, reason: str, now_s: float) -> None:
        """End the run, unless it is over."""
        if not self.over.triggered:
            self.stopped, self.now_s = reason, now_s
            self.over.succeed()

    def _arrive(self, now_s: float) -> None:
        """Requests of an open workload reach the fleet, up to the next time that something else happens."""
        ready_s, peek = self.ready_s, self.env.peek
        while True:
            while ready_s[self.sent] <= now_s:
                self.dispatch(self.numbers[self.sent], now_s)
                self.sent += 1
            now_s = ready_s[self.sent]
            if now_s >= peek():
                self._at(now_s, self._arrive)
                return

    def _send_next(self, now_s: float) -> None:
        """A client of a closed loop sends the next request."""
        if self.sent == len(self.numbers):
            return
        request = self.numbers[self.sent]
        self.sent += 1
        self.ledger.arrival_s[request] = now_s
        if self.delays_s:
            self._at(now_s + self.delays_s[request], partial(self.dispatch, request))
        else:
            self.dispatch(request, now_s)

    def dispatch(self, request: int, now_s: float) -> None:
        """Route a request to a replica; if all are broken it waits."""
        replica = self.front.choose(self._tokens(request))
        if replica is None:
            self.front.backlog.append(request)
            return
        replica.outstanding += 1
        replica.submit(request, now_s)

    def _tokens(self, request: int) -> int:
        return self.ledger.inputs[request] + self.ledger.outputs[request]

    def on_end(self, request: int, replica: Replica, now_s: float) -> None:
        """A request got its last token."""
        if self.watch and self.watch.is_missed(request):
            self._stop("bounds missed", now_s)
        if not self.fixed:
            self.operations.settle(replica, now_s)
        self._count_end(now_s)

    def _count_end(self, now_s: float) -> None:
        self.left -= 1
        self.now_s = now_s
        if self.workload.clients:
            self._send_next(now_s)
        if self.left % EVERY == 0:
            if self.progress:
                self.progress(self.workload.size - self.left, self.workload.size)
            if self.left == 0:
                self._stop("", now_s)

    def on_prompt(self, request: int, replica: Replica, now_s: float) -> None:
        """A prefill replica hands a request over."""
        self._send_cache(_Parcel(request, replica.held[request], replica, replica.epoch), now_s)

    def _send_cache(self, parcel: _Parcel, now_s: float) -> None:
        """Send a cache to a decode replica; if all are broken it waits."""
        target = self.back.choose(self._tokens(parcel.request))
        if target is None:
            self.back.backlog.append(parcel)
            return
        target.outstanding += 1
        self.transfers.send(parcel.tokens, now_s, partial(self._receive, parcel, target, target.epoch))

    def _receive(self, parcel: _Parcel, target: Replica, epoch: int, now_s: float) -> None:
        """A cache has arrived, if neither end broke meanwhile."""
        request, tokens, source, _ = parcel
        sent = source.epoch == parcel.epoch
        if sent:
            source.sent(request, now_s)
            self.operations.settle(source, now_s)
        if sent and target.epoch == epoch:
            target.resume(request, tokens, now_s)
            return
        if target.epoch == epoch:
            target.outstanding -= 1
        self.ledger.made[request] = tokens - self.ledger.inputs[request] + 1
        self.restart(request, now_s)

    def restart(self, request: int, now_s: float) -> None:
        """A request lost its replica: another one computes its cache again."""
        restarts = self.ledger.restarts[request] = self.ledger.restarts.get(request, 0) + 1
        if self.fleet.failures and restarts > self.fleet.failures.most_restarts:
            self.ledger.status[request] = REJECTED
            self._count_end(now_s)
        else:
            self.dispatch(request, now_s)

    def members_changed(self, now_s: float) -> None:
        """Replicas came or went: what waited for one is routed again."""
        for router, send in ((self.front, self.dispatch), (self.back, self._send_cache)):
            router.refresh()
            waiting, router.backlog = router.backlog, []
            for item in waiting:
                send(item, now_s)

    def backlog_of(self, members: Members) -> int:
        """Requests that wait for a replica of a pool to return."""
        return len((self.back if members.pool.role == "decode" else self.front).backlog)
