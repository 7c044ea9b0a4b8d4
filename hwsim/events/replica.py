"""One replica of a served model in time: its steps, one after the other.

Steps that change nothing but the length of the decodes are one stretch, timed by one closed form. It ends with the
first decode that is done, with the first block that is short, or at the first step boundary after an arrival that may
be admitted: work grows with arrivals, chunks and departures, never with tokens. A replica goes on from stretch to
stretch by itself, and through the event queue only where something else happens before a stretch ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any, Protocol

import simpy

from hwsim.events.fleet import Pool
from hwsim.events.ledger import COMPLETED, NUMBER, SHIFT, Ledger
from hwsim.events.scheduler import Scheduler
from hwsim.events.timeline import Meter, Point


class Owner(Protocol):
    """Who hears of what a replica does, at the time on the replica's clock."""

    def on_end(self, request: int, replica: Replica, now_s: float) -> None:
        """A request got its last token."""

    def on_prompt(self, request: int, replica: Replica, now_s: float) -> None:
        """A prompt is done on a replica that makes no more than the first token; its cache is held."""


class Replica(Scheduler):
    """A scheduler with a clock."""

    __slots__ = (
        "alarm", "arrives_s", "before", "end_s", "env", "epoch", "fed", "feed_keys", "feed_s", "meter", "number",
        "outstanding", "owner", "pace", "prefills_only", "start_s", "steps", "working",
    )  # fmt: skip

    def __init__(self, env: simpy.Environment, number: int, pool: Pool, ledger: Ledger, owner: Owner) -> None:
        super().__init__(pool.engine, ledger)
        self.env, self.number, self.pace, self.owner = env, number, pool.pace, owner
        self.prefills_only = pool.role == "prefill"
        """Whether requests are handed over with their first token."""
        self.outstanding = 0
        """Requests that were routed here and are not done."""
        self.epoch = 0
        """Failures so far."""
        self.meter = Meter()
        self.feed_s: Sequence[float] = (inf,)
        self.feed_keys: Sequence[int] = ()
        self.fed = 0
        self.arrives_s = inf
        """When the next of those comes. [s]"""
        self.start_s = self.end_s = 0.0
        """Of the step in progress; without one, the end of the last."""
        self.steps = 0
        """Tokens that every decode makes in it."""
        self.before = 0
        """Blocks in use when it began."""
        self.working = False
        """Whether a step is in progress."""
        self.alarm: Any = None

    def feed(self, ready_s: Sequence[float], keys: Sequence[int]) -> None:
        """Let the replica read its arrivals from columns, in order and ended by infinity, instead of being told. [s]"""
        self.feed_s, self.feed_keys, self.arrives_s = ready_s, keys, ready_s[0]
        self._set_alarm(ready_s[0])

    def submit(self, request: int, now_s: float) -> None:
        """Queue a request."""
        key = self.ledger.keys[request]
        first = not self.parked and (not self.waiting or key < self.waiting[0])
        self.enqueue(key)
        self._notice(first, now_s)

    def resume(self, request: int, tokens: int, now_s: float) -> None:
        """Queue a request whose cache of some tokens has come from elsewhere."""
        self.park(request, tokens, 0.0)
        self._notice(True, now_s)

    def sent(self, request: int, now_s: float) -> None:
        """The cache of a request that was handed over is elsewhere."""
        self.release(request)
        self._notice(bool(self.waiting), now_s)

    def room(self) -> float:
        """Share of the blocks that were free at the last step boundary and that no waiting prompt will take."""
        return (self.kv.available - self.promised / self.kv.size) / self.kv.total

    def _notice(self, may_run: bool, now_s: float) -> None:
        """Something came: wake up, or cut the stretch in progress at its next step boundary."""
        if not self.working:
            if self.alarm is None:
                self._set_alarm(now_s)
        elif may_run and self.steps > 1 and len(self.decodes) < self.engine.max_sequences:
            steps, seconds = self._run_until(now_s)
            if steps < self.steps:
                self.steps = steps
                self._set_alarm(self.start_s + seconds)

    def _run_until(self, now_s: float) -> tuple[int, float]:
        """Steps of the stretch in progress up to the first boundary from now on, and the time they take. [s]"""
        return self.pace.run(len(self.decodes), self.context, self.steps, max(now_s - self.start_s, 0.0))

    def _set_alarm(self, at_s: float) -> None:
        self.end_s = at_s
        self.alarm = self.env.timeout(max(at_s - self.env.now, 0.0))
        self.alarm.callbacks.append(self._wake)

    def _wake(self, event: Any) -> None:
        """Go from step to step until there is nothing to do, or something else happens before a step ends."""
        if event is not self.alarm:
            return
        if self.working:
            self._end_step()
        self.working = True
        peek = self.env.peek
        while self._begin_step():
            if self.end_s >= peek():
                self._set_alarm(self.end_s)
                return
            self._end_step()
        self.working, self.alarm = False, None
        if self.arrives_s < inf:
            self._set_alarm(self.arrives_s)

    def _begin_step(self) -> bool:
        """Fill the next step or stretch; false: there is nothing to do."""
        now_s = self.end_s
        if self.arrives_s <= now_s:
            self._take_in(now_s)
        self.fill(now_s)
        if self.chunks:
            seconds = self._chunk_step_s()
        elif self.decodes:
            seconds = self._stretch_s(now_s)
        else:
            return False
        kv = self.kv
        self.start_s, self.end_s, self.before = now_s, now_s + seconds, kv.total - kv.available
        return True

    def _take_in(self, now_s: float) -> None:
        """Queue what has come by now of the arrivals that the replica reads itself."""
        feed_s, fed = self.feed_s, self.fed
        while feed_s[fed] <= now_s:
            self.enqueue(self.feed_keys[fed])
            fed += 1
        self.outstanding += fed - self.fed
        self.fed, self.arrives_s = fed, feed_s[fed]

    def _chunk_step_s(self) -> float:
        """A step with prompt chunks, with or without decodes. [s]"""
        decodes = len(self.decodes) if self.together else 0
        self.steps, context = (1, self.context) if decodes else (0, 0.0)
        seconds = self.pace.step_s(decodes, context, self.chunks, self.tokens, self.past, len(self.ending))
        return seconds + self.extra_s

    def _stretch_s(self, now_s: float) -> float:
        """As many steps of the decodes as change nothing else. [s]"""
        most = 1 if self.brief or self.extra_s else self.most_steps()
        left_s = self.arrives_s - now_s if self._would_admit() else inf
        self.steps, seconds = self.pace.run(len(self.decodes), self.context, most, left_s)
        return seconds + self.extra_s

    def _would_admit(self) -> bool:
        """Whether an arrival may be admitted at once."""
        full = len(self.decodes) >= self.engine.max_sequences or self.parked
        return not full and (not self.waiting or self.ledger.ranked)

    def _end_step(self) -> None:
        """Book what the step in progress did."""
        now_s, steps, decodes, ending, kv = self.end_s, self.steps, len(self.decodes), self.ending, self.kv
        if steps:
            kv.grow(self.step, steps, decodes)
            self.step += steps
            self.steps = 0
        made, blocks, meter = steps * decodes + len(ending), kv.total - kv.available, self.meter
        meter.add(now_s - self.start_s, steps, decodes + self.chunks, made, self.before, blocks)
        if now_s >= meter.next_s:
            queue, chunks, tokens = len(self.waiting) + len(self.parked), self.chunks, self.tokens
            meter.keep(Point(self.start_s, now_s, steps, decodes, chunks, tokens, queue, blocks, made, meter.total))
        if steps and self.departures[0] >> SHIFT <= self.step:
            for request in self.take_done():
                self._end(request, now_s)
        for request, tokens in ending:
            self._end_prompt(request, tokens, now_s)

    def _end_prompt(self, request: int, tokens: int, now_s: float) -> None:
        """A prompt is in the cache and has yielded a token."""
        ledger = self.ledger
        made = tokens - ledger.inputs[request] + 1
        if made == 1:
            ledger.first_s[request] = now_s
        if made == ledger.outputs[request]:
            self.give_back(request, tokens)
            self._end(request, now_s)
        elif self.prefills_only:
            self.held[request] = tokens
            self.outstanding -= 1
            self.owner.on_prompt(request, self, now_s)
        else:
            self.join(request, tokens)

    def _end(self, request: int, now_s: float) -> None:
        ledger = self.ledger
        ledger.finish_s[request] = now_s
        ledger.replica[request] = self.number
        ledger.status[request] = COMPLETED
        self.outstanding -= 1
        self.owner.on_end(request, self, now_s)

    def fail(self, now_s: float) -> list[int]:
        """Lose the cache, the step in progress and all requests; these are returned, in the order of their keys.

        Tokens made in whole steps before have reached the clients.
        """
        if self.working and self.steps > 1:
            self.step += self._run_until(now_s)[0] - 1
        ledger = self.ledger
        cached = [(request, lead + self.step) for request, lead in self.decodes.items()]
        cached += [(request, tokens) for request, (tokens, _) in self.moved.items()]
        for request, tokens in cached:
            ledger.made[request] = tokens - ledger.inputs[request] + 1
        running = [request for request, _ in cached] + [request for request, _ in self.ending]
        running += [self.prompt.request] if self.prompt else []
        lost = sorted([*self.waiting, *(ledger.keys[request] for request in running)])
        self.meter.busy_s += now_s - self.start_s if self.working else 0.0
        self.reset()
        self.working, self.alarm, self.outstanding = False, None, 0
        self.epoch += 1
        return [key & NUMBER for key in lost]
