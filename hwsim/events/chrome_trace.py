"""A run as events in Chrome's trace format, which Perfetto and chrome://tracing open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from hwsim.events.results import Result
from hwsim.events.timeline import Point, Record
from hwsim.units import MILLION

MOST_REQUESTS = 2000
"""Requests drawn; of more, some evenly spread."""
MOST_EVENTS = 100_000
"""Steps and counters drawn, over all replicas."""
Event = dict[str, Any]
FLEET, REQUESTS = 1, 2
"""Process numbers of the tracks."""


def chrome_trace(result: Result) -> list[Event]:
    """Steps of every replica, counters of its queue, batch and cache, and requests from sending to the last token."""
    events: list[Event] = [_name("process_name", FLEET, 0, "replicas"), _name("process_name", REQUESTS, 0, "requests")]
    busy = [record for record in result.replicas if record.points]
    most = max(MOST_EVENTS // (4 * max(len(busy), 1)), 2)
    for record in busy:
        events.append(_name("thread_name", FLEET, record.number, f"replica {record.number} (pool {record.pool})"))
        events += _steps(record, most)
    events += _requests(result)
    return events


def _name(what: str, process: int, thread: int, text: str) -> Event:
    return {"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": text}}


def _steps(record: Record, most: int) -> Iterator[Event]:
    """A slice for every step kept, and three counters at its end."""
    stride = -(-len(record.points) // most)
    for point in record.points[::stride]:
        where = {"pid": FLEET, "tid": record.number}
        start, end = point.start_s * MILLION, point.end_s * MILLION
        numbers = {
            "steps": point.steps,
            "decodes": point.decodes,
            "chunks": point.chunks,
            "prompt_tokens": point.tokens,
        }
        yield {"ph": "X", "name": _kind(point), "ts": start, "dur": end - start, **where, "args": numbers}
        counted = {
            "queue": point.queue,
            "batch": point.decodes + point.chunks,
            "kv use": point.blocks / record.kv_blocks,
        }
        for name, value in counted.items():
            yield {"ph": "C", "name": f"{name} {record.number}", "ts": end, **where, "args": {name: value}}


def _kind(point: Point) -> str:
    """What a step did."""
    if not point.chunks:
        return f"decode x {point.steps}" if point.steps > 1 else "decode"
    return "prefill and decode" if point.steps else "prefill"


def _requests(result: Result) -> Iterator[Event]:
    """Every request as an async slice, with its waiting, its prompt and its decoding inside."""
    shown = np.flatnonzero(result.completed)
    for number in shown[:: -(-len(shown) // MOST_REQUESTS) or 1].tolist():
        work = result.workload
        lengths = {"input_tokens": int(work.input_tokens[number]), "output_tokens": int(work.output_tokens[number])}
        columns = (result.arrival_s, result.admitted_s, result.first_s, result.finish_s)
        sent, admitted, first, finish = (float(column[number]) * MILLION for column in columns)
        for name, start, end in (
            (f"request {number}", sent, finish),
            ("queue", sent, admitted),
            ("prefill", admitted, first),
            ("decode", first, finish),
        ):
            shared = {"cat": "request", "id": number, "name": name, "pid": REQUESTS, "tid": 0}
            yield {"ph": "b", "ts": start, **shared, "args": lengths}
            yield {"ph": "e", "ts": end, **shared}
