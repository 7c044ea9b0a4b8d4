"""Transfers over one shared link, first come first served or in equal parts."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import simpy

from hwsim.events.fleet import Link


class Transfers:
    """Transfers in progress; each is done after its share of the link and the latency."""

    def __init__(self, env: simpy.Environment, link: Link) -> None:
        self.env, self.link = env, link
        self._free_s = 0.0
        """When a first-come link is free again."""
        self._work: list[tuple[float, int, Callable[[float], None]]] = []
        """Heap of what every transfer of a fair link needs until it is done, by the clock of one share."""
        self._share_s = self._seen_s = 0.0
        """Time that each transfer has had the link to itself, so to speak, and when that was worked out."""
        self._count = 0
        self._alarm: Any = None

    def send(self, tokens: int, now_s: float, done: Callable[[float], None]) -> None:
        """Send the cache of some tokens; `done` is called with the time of its arrival."""
        alone_s = tokens * self.link.token_s
        if self.link.sharing == "fifo":
            self._free_s = max(self._free_s, now_s) + alone_s
            self._call(self._free_s + self.link.latency_s, done)
            return
        self._catch_up(now_s)
        self._count += 1
        heappush(self._work, (self._share_s + alone_s, self._count, done))
        self._set_alarm()

    def _call(self, at_s: float, done: Callable[[float], None]) -> None:
        event = self.env.timeout(max(at_s - self.env.now, 0.0))
        event.callbacks.append(lambda _: done(at_s))

    def _catch_up(self, now_s: float) -> None:
        if self._work:
            self._share_s += (now_s - self._seen_s) / len(self._work)
        self._seen_s = now_s

    def _set_alarm(self) -> None:
        """Wake up when the transfer that needs least is done."""
        if self._work:
            ends_s = self._seen_s + max(self._work[0][0] - self._share_s, 0.0) * len(self._work)
            self._alarm = self.env.timeout(max(ends_s - self.env.now, 0.0), ends_s)
            self._alarm.callbacks.append(self._wake)

    def _wake(self, event: Any) -> None:
        if event is not self._alarm:
            return
        self._catch_up(event.value)
        needs_s, _, done = heappop(self._work)
        self._share_s = needs_s
        self._call(event.value + self.link.latency_s, done)
        self._set_alarm()
