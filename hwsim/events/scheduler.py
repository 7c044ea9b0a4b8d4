"""Which requests a step serves: the queue, the running batch and the KV cache of one replica.

A step serves the running decodes first (a token each), then the prompt in progress, then waiting requests, most urgent
and then first come, as long as token budget, batch and blocks allow: the scheduler of vLLM and its like. A prompt gets
the blocks of all its tokens when it is admitted. When decodes need more blocks than there are, the least urgent, most
recently admitted request makes room; nobody is admitted in that step.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import NamedTuple

from hwsim.events.blocks import Blocks
from hwsim.events.engine import Engine
from hwsim.events.ledger import NUMBER, SHIFT, Ledger


class Prompt(NamedTuple):
    """A prompt in progress."""

    request: int
    done: int
    """Tokens in the cache."""
    target: int
    """Tokens to get there: the prompt, and what was made before the cache was lost."""
    fresh: int
    """Blocks of its prefix that it is the first to fill."""


class Scheduler:
    """The state of one replica between steps, apart from time. Requests are numbers into the ledger."""

    __slots__ = (
        "brief", "budget", "caches", "chunks", "decodes", "departures", "ending", "engine", "extra_s", "held", "kv",
        "leads", "ledger", "moved", "now_s", "pairs", "parked", "promised", "prompt", "reserve", "shared", "step",
        "together", "tokens", "waiting",
    )  # fmt: skip

    def __init__(self, engine: Engine, ledger: Ledger) -> None:
        self.engine, self.ledger = engine, ledger
        self.reserve = int(engine.watermark * engine.kv_blocks)
        self.caches = bool(ledger.prefix) or engine.prefix_hit_share > 0
        self.together = engine.together
        self.now_s = 0.0
        self.reset()

    def reset(self) -> None:
        """Nothing queued, running or cached."""
        self.kv = Blocks(self.engine.kv_blocks, self.engine.block_tokens)
        self.waiting: list[int] = []
        """Heap of keys."""
        self.parked: list[int] = []
        """Heap of keys of requests whose cache is elsewhere and comes back when there is room."""
        self.moved: dict[int, tuple[int, float]] = {}
        """Tokens in the cache of each of those, and the time it takes to bring them back. [s]"""
        self.decodes: dict[int, int] = {}
        """Tokens in the cache, less the step number, of each running decode, in order of admission."""
        self.leads = 0
        """Sum of those."""
        self.departures: list[int] = []
        """Heap of the step after which a decode is done, with its number."""
        self.prompt: Prompt | None = None
        """The one prompt that is cut."""
        self.held: dict[int, int] = {}
        """Tokens in the cache of requests that were handed over, until their cache has been sent."""
        self.shared: dict[int, int] = {}
        """Blocks that a request shares with others."""
        self.step = 0
        """Steps of the decodes so far."""
        self.promised = 0
        """Prompt tokens of waiting requests."""
        self.clear()

    def clear(self) -> None:
        """An empty step."""
        self.ending: list[tuple[int, int]] = []
        """Requests whose prompt ends in this step, and their tokens in the cache then."""
        self.chunks = self.tokens = 0
        self.pairs = 0.0
        """Earlier tokens that the chunks attend to, times tokens."""
        self.extra_s = 0.0
        """Moving caches to the host and back. [s]"""
        self.brief = False
        """Whether the step after it may admit a request that this one could not."""

    @property
    def context(self) -> float:
        """Mean tokens in the caches of the decodes, of which there are some, in the next step."""
        return self.leads / len(self.decodes) + self.step + 1

    @property
    def past(self) -> float:
        """Mean tokens before the chunks, such that pairs of query and key are right for equal chunks."""
        return self.pairs / self.tokens - 0.5 * self.tokens / self.chunks

    def enqueue(self, key: int) -> None:
        """A request waits."""
        heappush(self.waiting, key)
        self.promised += self.ledger.inputs[key & NUMBER]

    def park(self, request: int, tokens: int, seconds: float) -> None:
        """A request whose cache of some tokens is elsewhere, `seconds` away, waits for room."""
        self.moved[request] = tokens, seconds
        heappush(self.parked, self.ledger.keys[request])

    def fill(self, now_s: float) -> None:
        """Choose what the step that starts now serves: decodes and chunks side by side, unless the engine cannot."""
        if self.chunks or self.brief or self.extra_s:
            self.clear()
        self.now_s = now_s
        if not self.together:
            self._fill_apart()
            return
        kv = self.kv
        slot = self.step % kv.size
        closed = kv.crossing[slot] > kv.available and self._make_room(slot)
        if self.parked and not closed:
            self._bring_back()
        if self.prompt is None and not self.waiting:
            return
        self.budget = self.engine.token_budget - len(self.decodes)
        if self.prompt is not None:
            self._cut(*self.prompt)
        if self.waiting and not closed and not self.parked:
            self._admit(kv.crossing[slot])

    def _fill_apart(self) -> None:
        """Prompts if any can be served, else decodes."""
        kv = self.kv
        slot = self.step % kv.size
        self.budget = self.engine.token_budget
        if self.prompt is not None:
            self._cut(*self.prompt)
        if self.waiting and not self.parked:
            self._admit(0)
        if self.chunks:
            return
        short = kv.crossing[slot] > kv.available
        closed = short and self._make_room(slot)
        if self.parked and not closed:
            self._bring_back()
            self.brief = True
        if short and not self.decodes:
            self._admit(0)

    def _admit(self, pending: int) -> None:
        """Admit waiting requests while there is room beside the `pending` blocks that decodes need in this step."""
        waiting, ledger, kv = self.waiting, self.ledger, self.kv
        seats = self.engine.max_sequences - len(self.decodes) - self.chunks
        while waiting and seats > 0 and self.budget > 0:
            request = waiting[0] & NUMBER
            target = ledger.inputs[request]
            if ledger.made:
                target += ledger.made.get(request, 0)
            share, hit, skip = self._cached(request, target) if self.caches else (0, 0, 0)
            if self.chunks and target - skip > self.budget and not self.engine.chunked:
                return
            blocks = -(-target // kv.size) - hit
            spare = kv.available - pending
            if hit and ledger.prefix[request] in kv.unused:
                spare -= hit
            if blocks > (spare - self.reserve if self.decodes or self.chunks else spare):
                return
            heappop(waiting)
            self.promised -= ledger.inputs[request]
            if ledger.admitted_s[request] != ledger.admitted_s[request]:
                ledger.admitted_s[request] = self.now_s
            if share:
                kv.pin(ledger.prefix[request], share, blocks + pending)
                self.shared[request] = share
            kv.take(blocks)
            self._cut(request, skip, target, share - hit)
            seats -= 1

    def _cached(self, request: int, target: int) -> tuple[int, int, int]:
        """Blocks that a request shares, those of them in the cache, and tokens that need no work: not the last one."""
        size, share, hit = self.kv.size, 0, 0
        if self.ledger.prefix and self.ledger.prefix[request] >= 0:
            share = self.ledger.prefix_tokens[request] // size
            hit = min(share, self.kv.cached(self.ledger.prefix[request]))
        anyway = int(self.engine.prefix_hit_share * self.ledger.inputs[request]) // size
        return share, hit, size * min(max(hit, anyway), (target - 1) // size)

    def _cut(self, request: int, done: int, target: int, fresh: int) -> None:
        """Serve as much of a prompt as the budget allows."""
        count = target - done
        if count > self.budget and self.engine.chunked:
            count = self.budget
            self.prompt = Prompt(request, done + count, target, fresh)
        else:
            self.ending.append((request, target))
            self.prompt = None
        self.chunks += 1
        self.tokens += count
        self.pairs += count * (done + 0.5 * count)
        self.budget -= count

    def _make_room(self, slot: int) -> bool:
        """Preempt until the decodes have their blocks; false: none is left."""
        kv = self.kv
        self.brief = True
        while kv.crossing[slot] > kv.available:
            self._preempt(self._least_urgent())
        return bool(self.decodes)

    def _least_urgent(self) -> int:
        """The running request that makes room first: among those alike, the one admitted last."""
        running = [*self.decodes] if self.ledger.ranked or self.prompt is None else []
        if self.prompt is not None:
            running.append(self.prompt.request)
        keys = self.ledger.keys
        return max(reversed(running), key=lambda request: keys[request] >> SHIFT) if self.ledger.ranked else running[-1]

    def _preempt(self, request: int) -> None:
        """Take a running request out of the batch."""
        self.ledger.preemptions[request] += 1
        if request not in self.decodes:
            self._drop_prompt()
            return
        self.departures.remove(self._departure(request, self.decodes[request]))
        heapify(self.departures)
        tokens = self._leave(request)
        seconds = self.engine.swap_s_per_token * tokens
        if self.engine.preemption == "swap":
            self.extra_s += seconds
            self.park(request, tokens, seconds)
        else:
            self.ledger.made[request] = tokens - self.ledger.inputs[request] + 1
            self.enqueue(self.ledger.keys[request])

    def _drop_prompt(self) -> None:
        """A prompt in progress starts again later; what it should have filled of its prefix is not cached."""
        if self.prompt is None:
            return
        request, done, target, fresh = self.prompt
        if fresh and done < self.shared[request] * self.kv.size:
            self.kv.cut(self.ledger.prefix[request], fresh)
        self.prompt = None
        self.give_back(request, target)
        self.enqueue(self.ledger.keys[request])

    def _bring_back(self) -> None:
        """Bring back caches that are elsewhere while there is room."""
        kv = self.kv
        slot = self.step % kv.size
        seats = self.engine.max_sequences - (self.prompt is not None)
        while self.parked and len(self.decodes) < seats:
            request = self.parked[0] & NUMBER
            tokens, seconds = self.moved[request]
            blocks = -(-tokens // kv.size)
            spare = kv.available - kv.crossing[slot]
            if self.decodes or self.prompt is not None:
                spare -= self.reserve
            if blocks + (tokens % kv.size == 0) > spare:
                return
            heappop(self.parked)
            del self.moved[request]
            kv.take(blocks)
            self.extra_s += seconds
            self.join(request, tokens)

    def join(self, request: int, tokens: int) -> None:
        """A request with some tokens in the cache decodes from now on."""
        lead = tokens - self.step
        self.decodes[request] = lead
        self.leads += lead
        self.kv.crossing[-lead % self.kv.size] += 1
        heappush(self.departures, self._departure(request, lead))

    def _departure(self, request: int, lead: int) -> int:
        """The step after which a decode is done, with its number."""
        last = self.ledger.inputs[request] + self.ledger.outputs[request] - 1 - lead
        return (last << SHIFT) + request

    def _leave(self, request: int) -> int:
        """A decode leaves the batch: the tokens in its cache, which is free again."""
        lead = self.decodes.pop(request)
        self.leads -= lead
        self.kv.crossing[-lead % self.kv.size] -= 1
        self.give_back(request, lead + self.step)
        return lead + self.step

    def give_back(self, request: int, tokens: int) -> None:
        """The blocks of a request are free again, but for those it shares."""
        blocks = -(-tokens // self.kv.size)
        if self.shared and request in self.shared:
            blocks -= self.shared.pop(request)
            self.kv.unpin(self.ledger.prefix[request])
        self.kv.available += blocks

    def most_steps(self) -> int:
        """Steps until a decode is done or blocks are short."""
        return self.kv.most_steps(self.step, (self.departures[0] >> SHIFT) - self.step, len(self.decodes))

    def take_done(self) -> list[int]:
        """Decodes that are done leave the batch."""
        departures, done = self.departures, []
        while departures and departures[0] >> SHIFT <= self.step:
            request = heappop(departures) & NUMBER
            self._leave(request)
            done.append(request)
        return done

    def release(self, request: int) -> None:
        """The cache of a request that was handed over has been sent."""
        self.give_back(request, self.held.pop(request))
