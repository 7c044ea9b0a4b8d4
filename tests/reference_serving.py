"""A plain scheduler of one replica, token by token, without closed forms: what the event model must equal."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from hwsim.events.engine import Engine
from hwsim.events.pace import Pace
from hwsim.events.workload import Workload


@dataclass
class Request:
    """One request."""

    number: int
    arrival_s: float
    prompt: int
    output: int
    priority: int
    prefix: int
    prefix_blocks: int
    cached: int = 0
    """Tokens in the cache."""
    made: int = 0
    shares: int = 0
    """Blocks of its prefix that it uses, not counted as its own."""
    target: int = 0
    fresh: int = 0
    admitted_s: float = math.nan
    first_s: float = math.nan
    finish_s: float = math.nan
    preemptions: int = 0

    @property
    def order(self) -> tuple[int, int]:
        return self.priority, self.number


@dataclass
class Prefix:
    """Blocks that requests share."""

    blocks: int
    users: int
    last_use: int


@dataclass
class Reference:
    """The scheduler."""

    pace: Pace
    engine: Engine
    now_s: float = 0.0
    waiting: list[Request] = field(default_factory=list)
    swapped: list[Request] = field(default_factory=list)
    decodes: list[Request] = field(default_factory=list)
    prompts: list[Request] = field(default_factory=list)
    prefixes: dict[int, Prefix] = field(default_factory=dict)
    uses: int = 0
    swap_s: float = 0.0

    def blocks(self, tokens: int) -> int:
        return math.ceil(tokens / self.engine.block_tokens)

    def available(self) -> int:
        """Blocks that are free or hold a prefix that nobody uses."""
        own = sum(self.blocks(r.cached) - r.shares for r in self.decodes)
        own += sum(self.blocks(r.target) - r.shares for r in self.prompts)
        used = sum(p.blocks for p in self.prefixes.values() if p.users)
        return self.engine.kv_blocks - own - used

    def evict(self) -> None:
        """Make sure that blocks in use and cached prefixes fit."""
        while unused := [name for name, p in self.prefixes.items() if not p.users]:
            if self.available() >= sum(self.prefixes[name].blocks for name in unused):
                return
            del self.prefixes[min(unused, key=lambda name: self.prefixes[name].last_use)]

    def leave_prefix(self, r: Request) -> None:
        if r.shares:
            prefix = self.prefixes[r.prefix]
            prefix.users -= 1
            self.uses += 1
            prefix.last_use = self.uses
            if prefix.blocks == 0 and not prefix.users:
                del self.prefixes[r.prefix]
            r.shares = 0

    def crossing(self) -> int:
        return sum(r.cached % self.engine.block_tokens == 0 for r in self.decodes)

    def preempt(self) -> None:
        running = self.decodes + self.prompts
        worst = max(r.priority for r in running)
        victim = [r for r in running if r.priority == worst][-1]
        victim.preemptions += 1
        if victim in self.prompts:
            self.prompts.remove(victim)
            if victim.fresh and victim.cached < victim.shares * self.engine.block_tokens:
                self.prefixes[victim.prefix].blocks -= victim.fresh
            self.leave_prefix(victim)
            self.waiting.append(victim)
            return
        self.decodes.remove(victim)
        self.leave_prefix(victim)
        if self.engine.preemption == "swap":
            self.swap_s += self.engine.swap_s_per_token * victim.cached
            self.swapped.append(victim)
        else:
            self.waiting.append(victim)

    def make_room(self) -> bool:
        """Preempt until decodes have their blocks; whether anyone had to go and others stay."""
        short = False
        while self.crossing() > self.available():
            self.preempt()
            short = True
        return short and bool(self.decodes)

    def bring_back(self) -> None:
        self.swapped.sort(key=lambda r: r.order)
        while self.swapped and len(self.decodes) + len(self.prompts) < self.engine.max_sequences:
            r = self.swapped[0]
            keep = int(self.engine.watermark * self.engine.kv_blocks) if self.decodes or self.prompts else 0
            need = self.blocks(r.cached) + (r.cached % self.engine.block_tokens == 0)
            if need > self.available() - self.crossing() - keep:
                return
            self.swapped.pop(0)
            self.decodes.append(r)
            self.evict()
            self.swap_s += self.engine.swap_s_per_token * r.cached

    def admit(self, budget: int, pending: int, chunks: list[tuple[Request, int]]) -> None:
        size = self.engine.block_tokens
        self.waiting.sort(key=lambda r: r.order)
        while self.waiting and budget > 0 and len(self.decodes) + len(self.prompts) < self.engine.max_sequences:
            r = self.waiting[0]
            r.target = r.prompt + r.made
            prefix = self.prefixes.get(r.prefix) if r.prefix >= 0 and r.prefix_blocks else None
            hit = min(r.prefix_blocks, prefix.blocks) if prefix else 0
            anyway = int(self.engine.prefix_hit_share * r.prompt) // size
            skip = min(max(hit, anyway), (r.target - 1) // size) * size
            if not self.engine.chunked and chunks and r.target - skip > budget:
                return
            spare = self.available() - pending
            if prefix and not prefix.users:
                spare -= hit
            if self.decodes or self.prompts:
                spare -= int(self.engine.watermark * self.engine.kv_blocks)
            if self.blocks(r.target) - hit > spare:
                return
            self.waiting.pop(0)
            if math.isnan(r.admitted_s):
                r.admitted_s = self.now_s
            if r.prefix_blocks:
                prefix = self.prefixes.setdefault(r.prefix, Prefix(0, 0, 0))
                prefix.blocks = max(prefix.blocks, r.prefix_blocks)
                prefix.users += 1
                r.shares, r.fresh = r.prefix_blocks, r.prefix_blocks - hit
            r.cached = skip
            self.prompts.append(r)
            self.evict()
            if prefix and self.available() < pending:
                prefix.blocks += self.available() - pending
            budget -= self.serve(r, budget, chunks)

    def serve(self, r: Request, budget: int, chunks: list[tuple[Request, int]]) -> int:
        count = min(r.target - r.cached, budget) if self.engine.chunked else r.target - r.cached
        chunks.append((r, count))
        return count

    def fill(self) -> tuple[list[Request], list[tuple[Request, int]]]:
        """Decodes and chunks of the next step."""
        chunks: list[tuple[Request, int]] = []
        self.swap_s = 0.0
        if self.engine.chunked and self.engine.mixed:
            closed = self.make_room()
            if not closed:
                self.bring_back()
            budget = self.engine.token_budget - len(self.decodes)
            for r in self.prompts:
                budget -= self.serve(r, budget, chunks)
            if not closed and not self.swapped:
                self.admit(budget, self.crossing(), chunks)
            return list(self.decodes), chunks
        budget = self.engine.token_budget
        for r in self.prompts:
            budget -= self.serve(r, budget, chunks)
        if not self.swapped:
            self.admit(budget, 0, chunks)
        if chunks:
            return [], chunks
        short = self.crossing() > self.available()
        if not self.make_room():
            self.bring_back()
        if short and not self.decodes:
            self.admit(self.engine.token_budget, 0, chunks)
        return list(self.decodes), chunks

    def step(self) -> list[Request] | None:
        """One step; the requests that are done after it, or none if there was nothing to do."""
        decodes, chunks = self.fill()
        if not decodes and not chunks:
            return None
        context = sum(r.cached + 1 for r in decodes) / len(decodes) if decodes else 0.0
        if chunks:
            tokens = sum(count for _, count in chunks)
            pairs = sum(count * (r.cached + count / 2) for r, count in chunks)
            ended = sum(r.cached + count == r.target for r, count in chunks)
            past = pairs / tokens - tokens / len(chunks) / 2
            seconds = self.pace.step_s(len(decodes), context, len(chunks), tokens, past, ended)
        else:
            seconds = self.pace.run(len(decodes), context, 1)[1]
        self.now_s += seconds + self.swap_s
        for r in decodes:
            r.cached += 1
            r.made += 1
        self.evict()
        done = sorted((r for r in decodes if r.made == r.output), key=lambda r: r.number)
        for r, count in chunks:
            r.cached += count
            if r.cached == r.target:
                self.prompts.remove(r)
                self.decodes.append(r)
                r.made += 1
                if r.made == 1:
                    r.first_s = self.now_s
                if r.made == r.output:
                    done.append(r)
        for r in done:
            r.finish_s = self.now_s
            self.decodes.remove(r)
            self.leave_prefix(r)
        return done


def replay(pace: Pace, engine: Engine, work: Workload) -> dict[str, np.ndarray]:
    """Serve a workload on one replica; columns of the requests, not a number for those that never fit."""
    reference = Reference(pace, engine)
    requests = [
        Request(i, *row, prefix_blocks=tokens // engine.block_tokens if prefix >= 0 else 0)  # type: ignore[misc]
        for i, (*row, prefix, tokens) in enumerate(
            zip(
                work.arrival_s.tolist(), work.input_tokens.tolist(), work.output_tokens.tolist(),
                work.priority.tolist(), work.prefix.tolist(), work.prefix_tokens.tolist(), strict=True,
            )
        )
        for row in [[*row, prefix]]
    ]  # fmt: skip
    coming = [r for r in requests if reference.blocks(r.prompt + r.output) <= engine.kv_blocks]
    if work.clients:
        for r in requests:
            r.arrival_s = 0.0 if r in coming[: work.clients] else math.nan
        reference.waiting, coming = coming[: work.clients], coming[work.clients :]
    while coming or reference.waiting or reference.swapped or reference.decodes or reference.prompts:
        while coming and not work.clients and coming[0].arrival_s <= reference.now_s:
            reference.waiting.append(coming.pop(0))
        done = reference.step()
        if done is None:
            reference.now_s = coming[0].arrival_s
        elif work.clients:
            for _ in done:
                if coming:
                    coming[0].arrival_s = reference.now_s
                    reference.waiting.append(coming.pop(0))
    names = ("arrival_s", "admitted_s", "first_s", "finish_s", "preemptions")
    return {name: np.array([getattr(r, name) for r in requests]) for name in names}
