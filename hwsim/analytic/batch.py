"""A static batch: requests that start together, served as the engine's scheduler would, in closed form."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from hwsim.analytic.pace import Pace


@dataclass(frozen=True)
class Batch:
    """When the requests of a static batch had their first and their last token. [s]"""

    first_s: tuple[float, ...]
    finish_s: tuple[float, ...]

    @property
    def ttft_s(self) -> float:
        """Mean time to first token."""
        return sum(self.first_s) / len(self.first_s)

    def tpot_s(self, output_len: int) -> float:
        """Mean time per further token; 0 where there is none."""
        spans = (last - first for first, last in zip(self.first_s, self.finish_s, strict=True))
        return sum(spans) / len(self.first_s) / max(output_len - 1, 1)

    @property
    def e2e_s(self) -> float:
        """Until the last request has its last token."""
        return max(self.finish_s)


def serve_batch(pace: Pace, batch: int, prompt_len: int, output_len: int) -> Batch:
    """Serve `batch` requests that arrive at once.

    Prompts enter in order, as many tokens a step as the engine's budget allows beside a token for every running
    request; where prompts are not cut, whole ones run while decodes wait.
    """
    engine, job = pace.engine, pace.served.job
    cached = min(int(job.prefix_hit * prompt_len), prompt_len - 1)
    arrival_s = engine.request_host + engine.prompt_host * prompt_len
    state = _Running(pace, arrival_s, prompt_len, output_len)
    place, waiting, together = cached, batch, engine.chunked and engine.mixed
    while waiting:
        budget = engine.token_budget * pace.ranks * pace.stages - (len(state.running) if together else 0)
        chunks, tokens, ended, pairs = 0, 0, 0, 0.0
        while waiting and (budget > tokens or not chunks):
            left = prompt_len - place
            take = min(left, max(budget - tokens, 1)) if engine.chunked else left
            if not engine.chunked and chunks and tokens + take > budget:
                break
            chunks, tokens, pairs = chunks + 1, tokens + take, pairs + take * (place + 0.5 * take)
            place += take
            if place == prompt_len:
                waiting, ended, place = waiting - 1, ended + 1, cached
        past = max(pairs / tokens - 0.5 * tokens / chunks, 0.0)
        state.prompts(chunks, tokens, past, ended, decodes=together)
    state.finish()
    return Batch(tuple(state.first_s), tuple(state.finish_s))


class _Running:
    """Requests that have begun to make tokens; all advance by one token a step, and leave in the order they came."""

    def __init__(self, pace: Pace, now_s: float, prompt_len: int, output_len: int) -> None:
        self.pace, self.now_s = pace, now_s
        self.prompt_len, self.output_len = prompt_len, output_len
        self.running: deque[int] = deque()
        """Steps still to go, plus those done by all."""
        self.done = 0
        self.tokens = 0.0
        """In the caches of the running."""
        self.first_s: list[float] = []
        self.finish_s: list[float] = []

    def prompts(self, chunks: int, tokens: int, past: float, ended: int, decodes: bool) -> None:
        """One step with prompts in it."""
        running = len(self.running) if decodes else 0
        context = (self.tokens + running) / running if running else 0.0
        self.now_s += self.pace.step_s(running, context, chunks, tokens, past, ended)
        if running:
            self._advance(1)
        self.first_s += [self.now_s] * ended
        if self.output_len == 1:
            self.finish_s += [self.now_s] * ended
            return
        self.running.extend([self.done + self.output_len - 1] * ended)
        self.tokens += ended * self.prompt_len

    def finish(self) -> None:
        """Decode until nobody is left."""
        while self.running:
            count = len(self.running)
            steps = self.running[0] - self.done
            self.now_s += self.pace.run_s(count, (self.tokens + count) / count, steps)
            self._advance(steps)

    def _advance(self, steps: int) -> None:
        self.done += steps
        self.tokens += steps * len(self.running)
        while self.running and self.running[0] <= self.done:
            self.running.popleft()
            self.finish_s.append(self.now_s)
            self.tokens -= self.prompt_len + self.output_len - 1
