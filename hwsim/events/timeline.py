"""What a replica does over time: sums for the means, and a bounded number of points for plots and traces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_POINTS = 4096
"""Of each replica; when they are full every other one is dropped, and points are taken half as often."""


class Point(NamedTuple):
    """A step or a stretch of steps, and how things stood when it ended."""

    start_s: float
    end_s: float
    steps: int
    """Tokens that each decode made; 0: decodes waited."""
    decodes: int
    chunks: int
    tokens: int
    """Of the prompt chunks."""
    queue: int
    """Requests that waited."""
    blocks: int
    """In use, unused prefixes not counted."""
    made: int
    """Tokens made in it."""
    total: int
    """Tokens made by its end."""


class Meter:
    """Running sums over the steps of a replica."""

    __slots__ = (
        "batch_s",
        "blocks_s",
        "busy_s",
        "gap_s",
        "most_batch",
        "most_blocks",
        "next_s",
        "points",
        "steps",
        "total",
    )

    def __init__(self) -> None:
        self.busy_s = self.batch_s = self.blocks_s = 0.0
        self.most_batch = self.most_blocks = self.steps = self.total = 0
        self.points: list[Point] = []
        self.next_s = self.gap_s = 0.0

    def add(self, seconds: float, steps: int, batch: int, made: int, before: int, blocks: int) -> None:
        """One more step or stretch, which made so many tokens and began and ended with so many blocks in use."""
        self.busy_s += seconds
        self.batch_s += batch * seconds
        self.blocks_s += 0.5 * (before + blocks) * seconds
        self.steps += steps or 1
        self.total += made
        self.most_batch = max(self.most_batch, batch)
        self.most_blocks = max(self.most_blocks, blocks)

    def keep(self, point: Point) -> None:
        """Keep a point, if it is due: the run has reached `next_s`."""
        points = self.points
        if len(points) == MOST_POINTS:
            del points[::2]
            self.gap_s = 2.0 * (point.end_s - points[0].start_s) / MOST_POINTS
        points.append(point)
        self.next_s = point.end_s + self.gap_s


@dataclass(frozen=True)
class Record:
    """What one replica did in a run."""

    number: int
    pool: int
    kv_blocks: int
    on_s: float
    """Switched on, cold starts and repairs included. [s]"""
    busy_s: float
    """In steps. [s]"""
    steps: int
    batch_s: float
    """Integral of the running requests over time. [requests × s]"""
    blocks_s: float
    """Integral of the blocks in use over time. [blocks × s]"""
    most_batch: int
    most_blocks: int
    failures: int
    points: tuple[Point, ...] = field(repr=False)
    """A sample of the steps, at most 4,096, evenly spread over time."""

    def tokens_by(self, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Tokens made up to some times; between the points on a straight line."""
        spans = [(p.start_s, p.end_s, p.total - p.made, p.total) for p in self.points] or [(0.0, 0.0, 0, 0)]
        edges = np.array(spans, dtype=np.float64).reshape(-1, 2, 2)
        return np.interp(times_s, edges[:, 0].ravel(), edges[:, 1].ravel())
