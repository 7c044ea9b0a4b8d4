"""How long the steps of a served replica take, as fast look-ups: what both closed forms and event models ask.

A step's device time is what sees rows, plus attention of its decodes, plus attention of its prompt chunks, plus making
tokens. Costs are worked out for blocks of rows, of batch sizes and of contexts at a time; between contexts (five to an
octave) they are read off straight lines, so that a stretch of decode steps has a closed form: its cost does not grow
with its length.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import cached_property
from math import ceil, inf, sqrt
from typing import Any, TypeVar

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
from hwsim.specs.strategy import Column, Strategies

OCTAVE = 5
KNOTS = sorted({0, *(round(2 ** (i / OCTAVE)) for i in range(OCTAVE * 21))})
"""Contexts at which attention is costed; straight lines between, and on beyond the last."""
STARTS, ENDS = KNOTS[:-1], [*KNOTS[1:-1], inf]
"""Where lines between knots start and end; the last goes on."""
BLOCK = 1024
"""Numbers of rows costed at a time."""
ROWS = 16
"""The mean length of several chunks is rounded up to this, as kernels pad rows to tiles of at least as many."""
CHUNKS = 64
"""Lengths of a prompt chunk costed at a time."""
BATCHES = 64
"""Batch sizes costed at a time."""
T = TypeVar("T")
KNOT_COLUMN = np.array(KNOTS, dtype=np.float64)
GAPS = np.diff(KNOT_COLUMN)
"""Tokens from each knot to the next."""


class Known(dict[int, T]):
    """Values by a whole number, each worked out when it is first asked for."""

    __slots__ = ("value_of",)

    def __init__(self, value_of: Callable[[int], T]) -> None:
        super().__init__()
        self.value_of = value_of

    def __missing__(self, number: int) -> T:
        value = self[number] = self.value_of(number)
        return value


def table(block: int, values_of: Callable[[Column], Column]) -> Known[Any]:
    """Values by a whole number, as plain floats or lists, worked out for a block of neighbours at a time."""
    blocks = Known(lambda place: values_of(np.arange(place * block, (place + 1) * block, dtype=np.float64)))
    return Known(lambda number: blocks[number // block][number % block].tolist())


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
        self.rows: Known[list[float]] = table(BLOCK, self._rows)
        """What sees rows alone: device seconds of a device with so many, but for its experts; of experts and their
        exchange where every device has so many; launches."""
        self.head_s: Known[float] = table(BLOCK, self._head_s)
        """Making tokens. [s]"""
        self.steps: Known[list[list[float]]] = table(BATCHES, self._steps)
        """Seconds per token of a number of decodes, by context, and how they grow from there. [s, s per token]"""
        self.decode_attention: Known[list[float]] = table(BATCHES, self._decode_attention)
        """Attention of a number of decodes, by context. [s]"""
        self.prompt_attention: Known[Known[list[float]]] = Known(self._prompt_attention)
        """Attention of a number of prompt chunks, by the tokens of each and by those before them. [s]"""
        self.prompt_s: Known[float] = table(BLOCK, self._prompt_s)
        """Attention of a whole prompt. [s]"""
        self.before_s: Known[float] = Known(self._before_s)
        """What runs before the decoder for a number of prompts: an encoder, a vision tower. [s]"""

    def asked(self, served: Served) -> Pace:
        """The same deployment with other lengths or another batch: what is known of its steps is shared."""
        if served.model.encoder is not None:  # decoders read what it makes of the prompt
            return Pace(served, self.strategy)
        other = copy(self)
        other.served, other.before_s = served, Known(other._before_s)
        return other

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
        rows_s, _, kernels = self.rows[each + -(-own * length // waves)]
        _, routed_s, _ = self.rows[-(-(tokens + decodes) // shared)]  # rows of all devices meet at the experts
        device_s = rows_s + routed_s + self.head_s[each + -(-ended // shared)]
        kernels += self.kernels
        if decodes:
            device_s += _line(self.decode_attention[each], context)
            kernels += self.kernels
        device_s += self.prompts_s(max(own // waves, 1), -(-own * length // max(own, waves)), past)
        if not decodes:  # a pipeline that is at work already has nothing to fill
            device_s *= (waves + self.stages - 1.0) / self.stages
        device_s += self.before_s[ended]
        graph = tokens + decodes <= self.engine.graph_prompt
        return float(self._paced(max, device_s, kernels, graph, decodes + ended))

    def run_s(self, decodes: int, context: float, steps: int) -> float:
        """`steps` steps of decodes alone, the context growing by one token each. [s]"""
        return self.run(decodes, context, steps)[1]

    def run(self, decodes: int, context: float, most: int, seconds: float = inf) -> tuple[int, float]:
        """Steps of decodes alone, the context growing by one token each: the fewest that take at least `seconds`, but
        1 to `most`; and the time they take. [s]
        """
        times, slopes = self.steps[decodes]
        place, done, total = bisect_right(STARTS, context) - 1, 0, 0.0
        while True:
            slope, left = slopes[place], ENDS[place] - context
            here = times[place] + slope * (context - STARTS[place])
            count = most - done
            if count > left:
                count = ceil(left)
            whole = _taken(here, slope, count)
            if total + whole >= seconds:
                count = _fewest(here, slope, seconds - total, count)
                return done + count, total + _taken(here, slope, count)
            done += count
            total += whole
            if done >= most:
                return done, total
            context += count
            place += 1

    def _steps(self, decodes: Column) -> Column:
        """For each number of decodes a row of times and one of slopes, the last slope twice."""
        each = -(-decodes // (self.ranks * np.minimum(self.stages, np.maximum(decodes, 1.0))))
        rows_s, routed_s, kernels, head_s = self._looked_up(each * (1 + self.served.job.draft_tokens))
        attention_s = np.array([self.decode_attention[count] for count in each.astype(int).tolist()])
        device_s, kernels, beside = rows_s + routed_s + head_s + attention_s, kernels + self.kernels, decodes[:, None]
        steps_s = self._paced(np.maximum, device_s, kernels, beside <= self.engine.graph_batch, beside)
        tokens_s = (steps_s + self._guesses_s(decodes, each, attention_s)) / self.yield_tokens
        slopes = np.diff(tokens_s) / GAPS
        return np.stack([tokens_s, np.hstack([slopes, slopes[:, -1:]])], axis=1)

    def _guesses_s(self, decodes: Column, each: Column, attention_s: Column) -> Numeric:
        """Guessing ahead, by context: steps of the draft model, or of one more layer and the head."""
        ahead = self.served.job.draft_tokens
        if not ahead:
            return 0.0
        if self.drafter is not None:
            return ahead * np.array([self.drafter.steps[int(count)][0] for count in decodes])
        layers = self.served.model.layers
        rows_s, routed_s, _, head_s = self._looked_up(each)
        return ahead * ((rows_s + routed_s) / layers + head_s + attention_s / layers)

    def _looked_up(self, rows: Column) -> tuple[Column, Column, Column, Column]:
        """What `rows` and `head_s` say of some numbers of rows, as columns beside contexts."""
        found = [(*self.rows[count], self.head_s[count]) for count in rows.astype(int).tolist()]
        rows_s, routed_s, kernels, head_s = np.array(found).T[:, :, None]
        return rows_s, routed_s, kernels, head_s

    def _paced(
        self, slower: Callable[..., Any], device_s: Numeric, kernels: Numeric, graph: Numeric, sequences: Numeric
    ) -> Any:
        """The slower of device and host, and what the device waits for between steps: of numbers, where `slower` is
        max, or of columns. [s]
        """
        engine = self.engine
        step_s = slower(device_s + kernels * engine.kernel_gap, (1.0 - graph) * kernels * self.launch_s)
        return step_s + engine.step_host + engine.sequence_host * (sequences / self.ranks)

    def prompts_s(self, chunks: int, tokens: int, past: float) -> float:
        """Attention of `chunks` prompt chunks of `tokens` tokens each that attend to `past` earlier ones. [s]

        Whole prompts, one at a time, have a table of their own: it is the first column of the other, which is large.
        """
        if chunks == 1 and not past:
            return self.prompt_s[tokens]
        padded = tokens if chunks == 1 else -(-tokens // ROWS)
        return _line(self.prompt_attention[chunks][padded], past)

    def _rows(self, numbers: Column) -> Column:
        cost = rows_cost(self.served, self.strategy, np.maximum(numbers, 1.0))
        routed = cost.time_s.get("experts", 0.0) + cost.time_s.get("ep", 0.0)
        parts = (cost.total_s - routed, routed, cost.kernels)
        return np.stack([np.broadcast_to(part, numbers.shape) for part in parts], axis=-1)

    def _head_s(self, numbers: Column) -> Column:
        return np.where(numbers > 0, head_cost(self.served, self.strategy, np.maximum(numbers, 1.0)).total_s, 0.0)

    def _decode_attention(self, numbers: Column) -> Column:
        width = 1.0 + self.served.job.draft_tokens
        keys = np.broadcast_to(np.maximum(KNOT_COLUMN, width), (len(numbers), len(KNOTS)))
        return self._attention_s(np.maximum(numbers, 1.0)[:, None], width, keys)

    def _prompt_attention(self, chunks: int) -> Known[list[float]]:
        """By tokens; those of several chunks in multiples of `ROWS`."""
        apart = 1.0 if chunks == 1 else ROWS

        def attention_s(numbers: Column) -> Column:
            lengths = apart * np.maximum(numbers, 1.0)[:, None]
            return self._attention_s(1.0 * chunks, lengths, KNOT_COLUMN + lengths)

        return table(CHUNKS, attention_s)

    def _prompt_s(self, numbers: Column) -> Column:
        lengths = np.maximum(numbers, 1.0)
        return self._attention_s(1.0, lengths, lengths)

    def _attention_s(self, sequences: Numeric, queries: Numeric, keys: Column) -> Column:
        """Attention in the shape of its keys. [s]"""
        return np.broadcast_to(self._attention_cost(self._cached(sequences, queries, keys)).total_s, keys.shape)

    def _before_s(self, prompts: int) -> float:
        if not prompts:
            return 0.0
        return float(np.max(before_cost(self.served, self.strategy, 1.0 * prompts).total_s))

    def _attention_cost(self, cached: Cached) -> Cost:
        plan, on = self._bound
        return attention_on(self.served, plan, on, cached)

    @cached_property
    def _bound(self) -> tuple[Plan, Machine]:
        """The plan of one row and the machine that attention runs on."""
        return one_row(self.served, self.strategy), machine(self.served, self.strategy, self.served.plain)

    def _cached(self, sequences: Numeric, queries: Numeric, keys: Numeric) -> Cached:
        return Cached(sequences, queries, keys, self.served.job.cache_bytes)


def _line(values: list[float], at: float) -> float:
    """A value between knots."""
    place = bisect_right(STARTS, at) - 1
    low = STARTS[place]
    return values[place] + (values[place + 1] - values[place]) / (KNOTS[place + 1] - low) * (at - low)


def _taken(here: float, slope: float, steps: int) -> float:
    """Sum of steps that grow from one to the next. [s]"""
    return steps * here + 0.5 * slope * steps * (steps - 1)


def _fewest(here: float, slope: float, seconds: float, count: int) -> int:
    """Fewest steps k, 1 to `count`, with k here + slope k (k - 1) / 2 >= seconds."""
    linear = here - 0.5 * slope
    root = linear * linear + 2.0 * slope * seconds
    guess = 2.0 * seconds / (linear + sqrt(root)) if root > 0.0 and linear + sqrt(root) > 0.0 else float(count)
    steps = max(1, min(count, ceil(guess)))
    while steps > 1 and _taken(here, slope, steps - 1) >= seconds:
        steps -= 1
    while steps < count and _taken(here, slope, steps) < seconds:
        steps += 1
    return steps
