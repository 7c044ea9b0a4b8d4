"""What a run gives: columns of requests, records of replicas, summaries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hwsim.events.fleet import Fleet
from hwsim.events.ledger import COMPLETED, REJECTED, UNFINISHED, Ledger
from hwsim.events.load import Column, Overload, overload, tokens_per_s
from hwsim.events.members import Members
from hwsim.events.slo import Slo
from hwsim.events.timeline import Record
from hwsim.events.workload import Workload

PERCENTILES = (50, 90, 95, 99)
WARM_SHARE = 0.1
"""Share of the requests of an open workload that find a fleet which is not yet in its steady state."""


@dataclass(frozen=True, eq=False)
class Result:
    """What happened to every request, one entry each in every column, and to every replica."""

    workload: Workload
    arrival_s: Column
    """When the client sent it; not a number: it never did. [s]"""
    admitted_s: Column
    """When its prompt entered a batch for the first time. [s]"""
    first_s: Column
    """When its first token was there. [s]"""
    finish_s: Column
    """When its last token was there. [s]"""
    client_s: Column
    """From the client to the queue and back: part of its latency, not of its queueing. [s]"""
    preemptions: NDArray[np.int32]
    replica: NDArray[np.int32]
    """That made its last token; -1: none did."""
    status: NDArray[np.uint8]
    """Place in `ledger.STATUS`."""
    replicas: tuple[Record, ...]
    over_s: float
    """When the run ended. [s]"""
    stopped: str
    """Why it ended before its last request; empty: it did not."""

    @property
    def interrupted(self) -> bool:
        """Whether the user stopped the run."""
        return self.stopped == "interrupted"

    @cached_property
    def completed(self) -> NDArray[np.bool_]:
        """Which requests got all their tokens."""
        done: NDArray[np.bool_] = self.status == COMPLETED
        return done

    @property
    def ttft_s(self) -> Column:
        """Time to first token, as the client sees it. [s]"""
        return self.first_s - self.arrival_s

    @property
    def tpot_s(self) -> Column:
        """Mean time per token after the first; not a number where there is none. [s]"""
        more = self.workload.output_tokens - 1.0
        return (self.finish_s - self.first_s) / np.where(more > 0, more, np.nan)

    @property
    def e2e_s(self) -> Column:
        """From sending to the last token. [s]"""
        return self.finish_s - self.arrival_s

    @property
    def queue_s(self) -> Column:
        """From the queue to the batch. [s]"""
        return np.maximum(self.admitted_s - self.arrival_s - self.client_s, 0.0)

    @cached_property
    def makespan_s(self) -> float:
        """From the first request to the last token. [s]"""
        return self.end_s - float(np.nanmin(self.arrival_s, initial=np.inf)) if np.any(self.completed) else 0.0

    @cached_property
    def end_s(self) -> float:
        """When the last token was there. [s]"""
        return float(np.max(self.finish_s[self.completed], initial=0.0))

    @property
    def output_tokens_per_s(self) -> float:
        """Tokens of completed requests over the makespan. [tokens/s]"""
        return _over(float(np.sum(self.workload.output_tokens[self.completed])), self.makespan_s)

    @property
    def steady_tokens_per_s(self) -> float:
        """Tokens made while the load was full: without the first wave, and what was left after the last was sent.
        [tokens/s]
        """
        sent_s = self.arrival_s[self._sent]
        if self.workload.clients:
            ended_s = np.sort(self.finish_s[self.completed])
            start_s = float(ended_s[min(self.workload.clients, len(ended_s)) - 1]) if len(ended_s) else 0.0
        else:
            start_s = float(np.quantile(sent_s, WARM_SHARE)) if len(sent_s) else 0.0
        stop_s = float(np.max(sent_s, initial=0.0))
        if stop_s <= start_s:
            return self.output_tokens_per_s
        return float(tokens_per_s(self.replicas, np.array([start_s, stop_s]))[0])

    @cached_property
    def _sent(self) -> NDArray[np.bool_]:
        """Requests that were sent and not rejected."""
        sent: NDArray[np.bool_] = (self.status != REJECTED) & (self.arrival_s <= self.over_s)
        return sent

    def goodput_per_s(self, slo: Slo) -> float:
        """Completed requests that kept both bounds, over the makespan. [requests/s]"""
        return _over(float(np.count_nonzero(self.kept(slo))), self.makespan_s)

    def kept(self, slo: Slo) -> NDArray[np.bool_]:
        """Which completed requests kept both bounds."""
        return self.completed & (self.ttft_s <= slo.ttft_s) & ~(self.tpot_s > slo.tpot_s)

    def meets(self, slo: Slo) -> bool:
        """Whether every request was served, the queue is bounded, and both bounds hold at their percentile."""
        if self.stopped or not np.all(self.completed) or self.overload:
            return False
        late, slow = ((column > bound) for column, bound in ((self.ttft_s, slo.ttft_s), (self.tpot_s, slo.tpot_s)))
        most = (1.0 - slo.percentile / 100.0) * self.workload.size
        return bool(max(np.count_nonzero(late), np.count_nonzero(slow)) <= most)

    @cached_property
    def overload(self) -> Overload | None:
        """The verdict on an open workload whose queue grows over the second half of its arrivals without bound."""
        if self.workload.clients:
            return None
        stages = (self.arrival_s, self.admitted_s, self.finish_s)
        sent_s, admitted_s, finish_s = (np.where(np.isnan(times_s), np.inf, times_s)[self._sent] for times_s in stages)
        return overload(sent_s, admitted_s, finish_s, self.replicas)

    def summary(self, slo: Slo | None = None) -> dict[str, Any]:
        """Counts, mean and percentiles of latencies, throughput, use of cache and batch."""
        done, records = self.completed, self.replicas
        on_s = sum(record.on_s for record in records)
        block_s = sum(record.on_s * record.kv_blocks for record in records)
        found: dict[str, Any] = {
            "requests": self.workload.size,
            "completed": int(np.count_nonzero(done)),
            "rejected": int(np.count_nonzero(self.status == REJECTED)),
            "unfinished": int(np.count_nonzero(self.status == UNFINISHED)),
            "preemptions": int(np.sum(self.preemptions)),
            "ttft_s": _spread(self.ttft_s[done]),
            "tpot_s": _spread(self.tpot_s[done]),
            "e2e_s": _spread(self.e2e_s[done]),
            "queue_s": _spread(self.queue_s[done]),
            "output_tokens_per_s": self.output_tokens_per_s,
            "steady_tokens_per_s": self.steady_tokens_per_s,
            "kv_use": {
                "mean": _over(sum(record.blocks_s for record in records), block_s),
                "max": max(record.most_blocks / record.kv_blocks for record in records),
            },
            "batch": {
                "mean": _over(sum(record.batch_s for record in records), on_s),
                "max": max(record.most_batch for record in records),
            },
            "busy_s": [record.busy_s for record in records],
            "on_s": [record.on_s for record in records],
            "makespan_s": self.makespan_s,
            "overload": str(self.overload) if self.overload else None,
            "stopped": self.stopped or None,
        }
        if slo is not None:
            found["goodput_per_s"] = self.goodput_per_s(slo)
            found["slo_share"] = _over(float(np.count_nonzero(self.kept(slo))), float(self.workload.size))
        return found


def _over(amount: float, total: float) -> float:
    """A ratio; 0 of nothing is 0."""
    return amount / total if total > 0 else 0.0


def _spread(values: Column) -> dict[str, float | None]:
    """Mean and percentiles; none of them where there are no values."""
    known = values[np.isfinite(values)]
    names = ["mean", *(f"p{percent}" for percent in PERCENTILES)]
    if not len(known):
        return dict.fromkeys(names)
    return dict(zip(names, [float(np.mean(known)), *np.percentile(known, PERCENTILES).tolist()], strict=True))


class Run(Protocol):
    """A run that is over."""

    ledger: Ledger
    members: list[Members]
    now_s: float
    stopped: str


def collect(fleet: Fleet, workload: Workload, run: Run) -> Result:
    """Close the books of a run."""
    ledger, over_s = run.ledger, run.now_s
    columns = {
        name: np.frombuffer(getattr(ledger, name), dtype=np.float64)
        for name in ("arrival_s", "admitted_s", "first_s", "finish_s")
    }
    return Result(
        workload=workload,
        **columns,
        client_s=fleet.client_s(workload.input_tokens),
        preemptions=np.frombuffer(ledger.preemptions, dtype=np.int32),
        replica=np.frombuffer(ledger.replica, dtype=np.int32),
        status=np.frombuffer(ledger.status, dtype=np.uint8),
        replicas=tuple(
            _record(pool, group, place, over_s)
            for pool, group in enumerate(run.members)
            for place in range(len(group.replicas))
        ),
        over_s=over_s,
        stopped=run.stopped,
    )


def _record(pool: int, group: Members, place: int, over_s: float) -> Record:
    """What one replica did until the end of the run."""
    replica = group.replicas[place]
    meter = replica.meter
    return Record(
        number=replica.number,
        pool=pool,
        kv_blocks=replica.engine.kv_blocks,
        on_s=group.on_until(place, over_s),
        busy_s=meter.busy_s,
        steps=meter.steps,
        batch_s=meter.batch_s,
        blocks_s=meter.blocks_s,
        most_batch=meter.most_batch,
        most_blocks=meter.most_blocks,
        failures=replica.epoch,
        points=tuple(meter.points),
    )
