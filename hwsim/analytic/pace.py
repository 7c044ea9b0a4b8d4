"""How long the steps of a served replica take, as fast look-ups: what both closed forms and event models ask.

A step's device time is what sees rows, plus attention of its decodes, plus attention of its prompt chunks, plus making
tokens. Costs are worked out for blocks of rows, of batch sizes and of contexts at a time; between contexts (five to an
octave) they are read off straight lines, so that a stretch of decode steps has a closed form: its cost does not grow
with its length.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from math import ceil, sqrt
from typing import NamedTuple

import numpy as np

from hwsim.analytic.blocks import Machine
from hwsim.analytic.serving import (
    Cost,
    Served,
    attention_on,
    before_cost,
    head_cost,
    machine,
    one_row,
    rows_cost,
)
from hwsim.formulas.serving import accepted_tokens
from hwsim.formulas.types import Numeric
from hwsim.ops.plan import Cached, Plan
from hwsim.ops.serving import sharing
from hwsim.specs.library import load_model
from hwsim.specs.strategy import Strategies

OCTAVE = 5
KNOTS = sorted({0, *(round(2 ** (i / OCTAVE)) for i in range(OCTAVE * 21))})
"""Contexts at which attention is costed; straight lines between, and on beyond the last."""
BLOCK = 256
"""Numbers of rows costed at a time."""
ROWS = 16
"""The mean length of several chunks is rounded up to this, as kernels pad rows to tiles of at least as many."""
CHUNKS = 64
"""Lengths of a prompt chunk costed at a time."""
BATCHES = 16
"""Batch sizes whose attention is costed at a time."""


class Rows(NamedTuple):
    """Device seconds and launches of what sees rows alone."""

    seconds: float
    """Of a device with so many."""
    routed_s: float
    """Of experts and their exchange, where every device has so many."""
    kernels: float


class Pace:
    """Step times of one replica: the devices of one strategy that work in step.

    A replica is `tp` times `pp` devices, and as many times more as share experts; its batch is dealt out evenly over
    devices with requests of their own, and over the stages of a pipeline.
    """

    def __init__(self, served: Served, s: Strategies) -> None:
        self.served, self.strategy = served, s
        self.engine = served.job.engine
        self.ranks = round(float(np.max(sharing(s))))
        self.stages = round(float(np.max(s.pp)))
        self._rows: dict[int, list[Rows]] = {}
        self._heads: dict[int, list[Rows]] = {}
        self._decodes: dict[int, list[list[float]]] = {}
        self._steps: dict[int, list[float]] = {}
        self._prompts: dict[tuple[int, int], list[float]] = {}
        self._whole: dict[int, list[Rows]] = {}
        self._before: dict[int, float] = {}

    @cached_property
    def kernels(self) -> float:
        """Launches of attention in one step: a kernel for decodes, or one for prompts."""
        return float(np.max(self._attention_cost(Cached(1.0, 1.0, 1.0, 2.0)).kernels))

    @cached_property
    def launch_s(self) -> float:
        """Host time of one eager kernel."""
        return self.served.hardware.accelerator.kernels.launch + self.engine.kernel_dispatch

    @cached_property
    def yield_tokens(self) -> float:
        """Mean tokens that a sequence gets from one decode step."""
        return float(accepted_tokens(self.served.job.draft_tokens, self.served.job.acceptance))

    @cached_property
    def drafter(self) -> Pace | None:
        """The model that guesses ahead; none: there is none, or it is part of the model."""
        job = self.served.job
        if not job.draft_tokens or job.draft is None:
            return None
        plain = job.model_copy(update={"draft_tokens": 0, "draft": None, "weights": "bf16"})
        return Pace(replace(self.served, model=load_model(job.draft), job=plain), self.strategy)

    def step_s(self, decodes: int, context: float, chunks: int, tokens: int, past: float, ended: int) -> float:
        """One step: `decodes` sequences make a token each over a mean of `context` tokens in their cache, beside
        `chunks` prompt chunks of `tokens` tokens in all that attend to a mean of `past` earlier ones and `ended` of
        which end their prompt. [s]
        """
        if chunks == 0:
            return self.run_s(decodes, context, 1)
        waves = min(max(chunks, decodes), self.stages)
        shared = waves * self.ranks
        each = -(-decodes // shared)
        own = -(-chunks // self.ranks)  # of the device with most: a chunk stays on one
        length = -(-tokens // chunks)
        rows = self.rows(each + -(-own * length // waves))
        met = self.rows(-(-(tokens + decodes) // shared))  # rows of all devices meet at the experts
        device_s = rows.seconds + met.routed_s + self.head_s(each + -(-ended // shared))
        kernels = rows.kernels + self.kernels
        if decodes:
            device_s += _line(self.decode_attention(each), context)
            kernels += self.kernels
        device_s += self.prompts_s(max(own // waves, 1), -(-own * length // max(own, waves)), past)
        if not decodes:  # a pipeline that is at work already has nothing to fill
            device_s *= (waves + self.stages - 1.0) / self.stages
        device_s += self.before_s(ended)
        graph = tokens + decodes <= self.engine.graph_prompt
        return self._paced(device_s, kernels, graph, decodes + ended)

    def run_s(self, decodes: int, context: float, steps: int) -> float:
        """`steps` steps of decodes alone, the context growing by one token each. [s]"""
        times, place, total = self.decode_steps(decodes), bisect_right(KNOTS, context) - 1, 0.0
        while True:
            here, slope, count = _segment(times, place, context, steps)
            total += count * here + 0.5 * slope * count * (count - 1)
            steps -= count
            if steps <= 0:
                return total
            context += count
            place += 1

    def steps_in(self, decodes: int, context: float, seconds: float, most: int) -> int:
        """Fewest steps, 1 to `most`, that take at least `seconds`."""
        times, place, done = self.decode_steps(decodes), bisect_right(KNOTS, context) - 1, 0
        while True:
            here, slope, count = _segment(times, place, context, most - done)
            whole = count * here + 0.5 * slope * count * (count - 1)
            if whole >= seconds or done + count >= most:
                return min(done + _fewest(here, slope, seconds, count), most)
            seconds -= whole
            done += count
            context += count
            place += 1

    def decode_steps(self, decodes: int) -> list[float]:
        """Seconds per token of a batch of decodes, by context."""
        known = self._steps.get(decodes)
        if known is None:
            known = self._steps[decodes] = self._decode_steps(decodes)
        return known

    def _decode_steps(self, decodes: int) -> list[float]:
        each = -(-decodes // (self.ranks * min(self.stages, max(decodes, 1))))
        width = 1 + self.served.job.draft_tokens
        rows = self.rows(each * width)
        fixed_s = rows.seconds + rows.routed_s + self.head_s(each * width)
        graph = decodes <= self.engine.graph_batch
        kernels = rows.kernels + self.kernels
        guesses = self._guesses_s(decodes, each)
        paced = [self._paced(fixed_s + own, kernels, graph, decodes) for own in self.decode_attention(each)]
        return [(step + guess) / self.yield_tokens for step, guess in zip(paced, guesses, strict=True)]

    def _guesses_s(self, decodes: int, each: int) -> list[float]:
        """Guessing ahead, by context: steps of the draft model, or of one more layer and the head."""
        ahead = self.served.job.draft_tokens
        if not ahead:
            return [0.0] * len(KNOTS)
        if self.drafter is not None:
            return [ahead * step for step in self.drafter.decode_steps(decodes)]
        layers = self.served.model.layers
        one = self.rows(each)
        layer_s = (one.seconds + one.routed_s) / layers + self.head_s(each)
        return [ahead * (layer_s + own / layers) for own in self.decode_attention(each)]

    def _paced(self, device_s: float, kernels: float, graph: bool, sequences: int) -> float:
        """The slower of device and host, and what the device waits for between steps."""
        engine = self.engine
        device_s += kernels * engine.kernel_gap
        launched_s = 0.0 if graph else kernels * self.launch_s
        return max(device_s, launched_s) + engine.step_host + engine.sequence_host * (sequences / self.ranks)

    def rows(self, count: int) -> Rows:
        """What sees rows alone."""
        return _blocked(self._rows, count, lambda n: rows_cost(self.served, self.strategy, n))

    def head_s(self, count: int) -> float:
        """Making tokens."""
        return (
            _blocked(self._heads, count, lambda n: head_cost(self.served, self.strategy, n)).seconds if count else 0.0
        )

    def decode_attention(self, sequences: int) -> list[float]:
        """Attention of decodes, by context."""
        block = sequences // BATCHES
        if block not in self._decodes:
            counts = np.maximum(np.arange(block * BATCHES, (block + 1) * BATCHES, dtype=np.float64), 1.0)[:, None]
            width = 1.0 + self.served.job.draft_tokens
            keys = np.maximum(np.array(KNOTS, dtype=np.float64), width)[None, :]
            cost = self._attention_cost(self._cached(counts, width, keys))
            self._decodes[block] = np.broadcast_to(cost.total_s, (BATCHES, len(KNOTS))).tolist()
        return self._decodes[block][sequences % BATCHES]

    def prompts_s(self, chunks: int, tokens: int, past: float) -> float:
        """Attention of `chunks` prompt chunks of `tokens` tokens each that attend to `past` earlier ones. [s]

        Whole prompts, one at a time, have a table of their own: it is the first column of the other, which is large.
        """
        if chunks > 1 or past:
            return _line(self.prompt_attention(chunks, tokens), past)
        return _blocked(self._whole, tokens, lambda n: self._attention_cost(self._cached(1.0, n, n))).seconds

    def prompt_attention(self, chunks: int, tokens: int) -> list[float]:
        """Attention of `chunks` prompt chunks of `tokens` tokens each, by the tokens before them."""
        tokens = tokens if chunks == 1 else -(-tokens // ROWS) * ROWS
        known = self._prompts.get((chunks, tokens))
        if known is None:
            apart = 1 if chunks == 1 else ROWS
            first = tokens // (apart * CHUNKS) * apart * CHUNKS
            alike = range(first, first + apart * CHUNKS, apart)
            lengths = np.maximum(np.array(alike, dtype=np.float64), 1.0)[:, None]
            keys = np.array(KNOTS, dtype=np.float64)[None, :] + lengths
            cost = self._attention_cost(self._cached(1.0 * chunks, lengths, keys))
            rows = np.broadcast_to(cost.total_s, keys.shape).tolist()
            self._prompts.update({(chunks, length): row for length, row in zip(alike, rows, strict=True)})
            known = self._prompts[chunks, tokens]
        return known

    def _attention_cost(self, cached: Cached) -> Cost:
        plan, on = self._bound
        return attention_on(self.served, plan, on, cached)

    @cached_property
    def _bound(self) -> tuple[Plan, Machine]:
        """The plan of one row and the machine that attention runs on."""
        return one_row(self.served, self.strategy), machine(self.served, self.strategy, self.served.plain)

    def before_s(self, prompts: int) -> float:
        """What runs before the decoder for some prompts: an encoder, a vision tower."""
        if self.served.model.encoder is None and self.served.model.vision is None:
            return 0.0
        if prompts not in self._before:
            self._before[prompts] = float(np.max(before_cost(self.served, self.strategy, 1.0 * prompts).total_s))
        return self._before[prompts]

    def _cached(self, sequences: Numeric, queries: Numeric, keys: Numeric) -> Cached:
        return Cached(sequences, queries, keys, self.served.job.cache_bytes)


def _blocked(known: dict[int, list[Rows]], count: int, cost: Callable[[Numeric], Cost]) -> Rows:
    """A cost by a whole number, worked out for a block of neighbours at a time."""
    block = count // BLOCK
    if block not in known:
        numbers = np.maximum(np.arange(block * BLOCK, (block + 1) * BLOCK, dtype=np.float64), 1.0)
        found = cost(numbers)
        routed = found.time_s.get("experts", 0.0) + found.time_s.get("ep", 0.0)
        parts = (found.total_s - routed, routed, found.kernels)
        columns = [np.broadcast_to(part, numbers.shape).tolist() for part in parts]
        known[block] = [Rows(*row) for row in zip(*columns, strict=True)]
    return known[block][count % BLOCK]


def _line(values: list[float], at: float) -> float:
    """A value between knots."""
    place = min(bisect_right(KNOTS, at), len(KNOTS) - 1) - 1
    low = KNOTS[place]
    return values[place] + (values[place + 1] - values[place]) / (KNOTS[place + 1] - low) * (at - low)


def _segment(values: list[float], place: int, context: float, steps: int) -> tuple[float, float, int]:
    """On the line from one knot to the next: the value here, its slope, and how many of `steps` steps lie on it."""
    last = place >= len(KNOTS) - 2
    place = min(place, len(KNOTS) - 2)
    low, high = KNOTS[place], KNOTS[place + 1]
    slope = (values[place + 1] - values[place]) / (high - low)
    here = values[place] + slope * (context - low)
    return here, slope, steps if last else min(steps, ceil(high - context))


def _fewest(here: float, slope: float, seconds: float, count: int) -> int:
    """Fewest steps k, 1 to `count`, with k here + slope k (k - 1) / 2 >= seconds."""
    linear = here - 0.5 * slope
    root = linear * linear + 2.0 * slope * seconds
    guess = 2.0 * seconds / (linear + sqrt(root)) if root > 0.0 and linear + sqrt(root) > 0.0 else float(count)
    steps = max(1, min(count, ceil(guess)))
    while steps > 1 and (steps - 1) * here + 0.5 * slope * (steps - 1) * (steps - 2) >= seconds:
        steps -= 1
    while steps < count and steps * here + 0.5 * slope * steps * (steps - 1) < seconds:
        steps += 1
    return steps
