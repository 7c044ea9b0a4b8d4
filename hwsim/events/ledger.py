"""What happens to each request of a run: columns that replicas write and results read."""

from __future__ import annotations

from array import array
from math import nan

import numpy as np

from hwsim.events.workload import Workload

SHIFT = 32
"""Bits of a request's number in a key; the bits above hold what sorts before it."""
NUMBER = (1 << SHIFT) - 1
"""Mask that takes the number out of a key."""
UNFINISHED, COMPLETED, REJECTED = 0, 1, 2
STATUS = ("unfinished", "completed", "rejected")


class Ledger:
    """Requests by number, in the order they arrive: plain lists, since NumPy scalars are slow one at a time."""

    __slots__ = (
        "admitted_s", "arrival_s", "finish_s", "first_s", "inputs", "keys", "made", "outputs", "preemptions",
        "prefix", "prefix_tokens", "ranked", "replica", "restarts", "status",
    )  # fmt: skip

    def __init__(self, workload: Workload) -> None:
        count = workload.size
        self.inputs: list[int] = workload.input_tokens.tolist()
        self.outputs: list[int] = workload.output_tokens.tolist()
        self.ranked = bool(np.any(workload.priority != workload.priority[:1]))
        """Whether priorities differ."""
        self.keys: list[int] = ((workload.priority << SHIFT) + np.arange(count)).tolist()
        """Most urgent first, then first come."""
        shares = bool(np.any((workload.prefix >= 0) & (workload.prefix_tokens > 0)))
        self.prefix: list[int] = workload.prefix.tolist() if shares else []
        """Empty: no request has one."""
        self.prefix_tokens: list[int] = workload.prefix_tokens.tolist() if shares else []
        self.made: dict[int, int] = {}
        """Tokens made so far by requests that lost their cache."""
        self.restarts: dict[int, int] = {}
        """How often a failure hit a request."""
        self.arrival_s = array("d", [nan]) * count if workload.clients else array("d", workload.arrival_s.tobytes())
        self.admitted_s, self.first_s, self.finish_s = (array("d", [nan]) * count for _ in range(3))
        self.preemptions, self.replica = array("i", [0]) * count, array("i", [-1]) * count
        self.status = bytearray(count)
