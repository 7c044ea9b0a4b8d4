"""Blocks of a KV cache: how many are free, which decodes need one at which step, what prefixes are shared.

Decodes grow by a token each step, all together. A request with n tokens in its cache needs a block at a step when n is
a multiple of the block size: at the same step modulo the block size for as long as it runs. `crossing` counts requests
by that remainder, so the blocks that a stretch of steps takes are a sum over at most one block size of counts.
"""

from __future__ import annotations


class Blocks:
    """The KV cache of one replica. [blocks]"""

    __slots__ = ("available", "crossing", "idle", "size", "total", "unused", "users")

    def __init__(self, total: int, size: int) -> None:
        self.total, self.size = total, size
        self.available = total
        """Free, or idle."""
        self.idle = 0
        """Of prefixes that nobody uses: they may be evicted."""
        self.crossing = [0] * size
        """Decodes by the step, modulo the block size, at which they need a block."""
        self.users: dict[int, list[int]] = {}
        """Blocks and users of every prefix in use."""
        self.unused: dict[int, int] = {}
        """Blocks of every prefix that nobody uses, least recently used first."""

    def grow(self, step: int, steps: int, decodes: int) -> None:
        """Hand out the blocks that `steps` steps of the decodes take, from step number `step` on."""
        cycles, rest = divmod(steps, self.size)
        first = step % self.size
        last = first + rest
        needed = cycles * decodes + sum(self.crossing[first:last])
        if last > self.size:
            needed += sum(self.crossing[: last - self.size])
        self.take(needed)

    def most_steps(self, step: int, steps: int, decodes: int) -> int:
        """Steps, up to `steps`, for which the available blocks last."""
        if (steps // self.size + 1) * decodes <= self.available:
            return steps
        cycles, left = divmod(self.available, decodes)
        most = cycles * self.size
        for place in range(step, step + self.size):
            left -= self.crossing[place % self.size]
            if left < 0:
                break
            most += 1
        return min(most, steps)

    def take(self, count: int) -> None:
        """Hand out blocks that are available; prefixes unused for longest make room."""
        self.available -= count
        while self.idle > self.available:
            self.idle -= self.unused.pop(next(iter(self.unused)))

    def cached(self, prefix: int) -> int:
        """Blocks of a prefix that are in the cache."""
        known = self.users.get(prefix)
        return known[0] if known else self.unused.get(prefix, 0)

    def pin(self, prefix: int, blocks: int, needed: int) -> None:
        """One more user of a prefix, which grows to `blocks`, where `needed` blocks are about to be taken.

        What others cached of the prefix beyond its own part goes if there is no other way.
        """
        known = self.users.get(prefix)
        if known is None:
            cached = self.unused.pop(prefix, 0)
            self.idle -= cached
            self.available -= cached
            known = self.users[prefix] = [cached, 0]
        if needed > self.available:
            self.cut(prefix, needed - self.available)
        known[0] = max(known[0], blocks)
        known[1] += 1

    def unpin(self, prefix: int) -> None:
        """One user of a prefix less."""
        known = self.users[prefix]
        known[1] -= 1
        if known[1] == 0:
            del self.users[prefix]
            if known[0]:
                self.unused[prefix] = known[0]
                self.idle += known[0]
                self.available += known[0]

    def cut(self, prefix: int, blocks: int) -> None:
        """Give the last blocks of a prefix in use back."""
        self.users[prefix][0] -= blocks
        self.available += blocks
