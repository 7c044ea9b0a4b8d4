"""Where a process stands among the axes of a strategy, and the groups it talks to. Needs PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
import torch.distributed as dist

AXES = ("tp", "cp", "dp", "pp")
"""Nearest first: Megatron's order."""


@dataclass(frozen=True)
class Place:
    """One process of a parallel run. Groups of one member are not there."""

    sizes: Mapping[str, int]
    """Members by axis: tp, cp, dp, pp, ep."""
    at: Mapping[str, int]
    """Number of this process on each axis."""
    sequence_parallel: bool = False
    groups: Mapping[str, Any] = field(default_factory=dict)
    """tp, partial (the same for gradients that sequence parallelism leaves in parts), cp, data (who holds the same
    weights), ep, ep counts, expert data, tied, forward and backward (along the pipeline)."""

    def group(self, name: str) -> Any:
        """The group of that name; None where this process is alone."""
        return self.groups.get(name)

    @property
    def first(self) -> bool:
        """It holds the embedding."""
        return self.at["pp"] == 0

    @property
    def last(self) -> bool:
        """It holds the head."""
        return self.at["pp"] == self.sizes["pp"] - 1

    @property
    def copies(self) -> int:
        """Processes that hold the same dense weights."""
        return self.sizes["cp"] * self.sizes["dp"]


def alone() -> Place:
    """The only process."""
    axes = (*AXES, "ep")
    return Place(dict.fromkeys(axes, 1), dict.fromkeys(axes, 0))


def place_of(rank: int, ranks: int, sizes: Mapping[str, int], sequence_parallel: bool) -> Place:
    """Find the coordinates of a process and make all groups; every process must call it at once."""
    sizes = {axis: sizes.get(axis, 1) for axis in (*AXES, "ep")}
    everyone = [_coordinates(other, sizes) for other in range(ranks)]
    inner = ranks // sizes["pp"]
    by_name = {
        "tp": _alike(everyone, ("cp", "dp", "pp")),
        "partial": _alike(everyone, ("cp", "dp", "pp")) if sequence_parallel and sizes["tp"] > 1 else [],
        "cp": _alike(everyone, ("tp", "dp", "pp")),
        "data": _alike(everyone, ("tp", "pp")),
        "forward": _alike(everyone, ("tp", "cp", "dp")),
        "backward": _alike(everyone, ("tp", "cp", "dp")),
        "tied": [[n, n + (sizes["pp"] - 1) * inner] for n in range(inner)] if sizes["pp"] > 1 else [],
    }
    if sizes["ep"] > 1:
        by_name["ep"] = [list(range(n, n + sizes["ep"])) for n in range(0, ranks, sizes["ep"])]
        by_name["ep counts"] = by_name["ep"]
        stages = product(range(0, ranks, inner), range(sizes["ep"]))
        by_name["expert data"] = [list(range(start + n, start + inner, sizes["ep"])) for start, n in stages]
    at = everyone[rank] | {"ep": rank % sizes["ep"]}
    groups = {name: mine for name, parts in by_name.items() if (mine := _make(rank, parts))}
    return Place(sizes, at, sequence_parallel and sizes["tp"] > 1, groups)


def _coordinates(rank: int, sizes: Mapping[str, int]) -> dict[str, int]:
    at = {}
    for axis in AXES:
        rank, at[axis] = divmod(rank, sizes[axis])
    return at


def _alike(everyone: list[dict[str, int]], axes: tuple[str, ...]) -> list[list[int]]:
    """Processes with the same coordinates on some axes, together."""
    found: dict[tuple[int, ...], list[int]] = {}
    for rank, at in enumerate(everyone):
        found.setdefault(tuple(at[axis] for axis in axes), []).append(rank)
    return list(found.values())


def _make(rank: int, parts: list[list[int]]) -> Any:
    mine = None
    for members in parts:
        if len(members) > 1:
            made = dist.new_group(members)
            mine = made if rank in members else mine
    return mine


def gather(part: Any, group: Any) -> Any:
    """All members' parts, one after the other along the first dimension."""
    whole = part.new_empty((part.shape[0] * group.size(), *part.shape[1:]))
    dist.all_gather_into_tensor(whole, part.contiguous(), group=group)
    return whole


def scatter(whole: Any, group: Any) -> Any:
    """This member's part of the sum over all members."""
    part = whole.new_empty((whole.shape[0] // group.size(), *whole.shape[1:]))
    dist.reduce_scatter_tensor(part, whole.contiguous(), group=group)
    return part


def reduced(values: Any, group: Any, largest: bool = False) -> Any:
    """The sum (or the largest) over all members."""
    result = values.contiguous().clone()
    dist.all_reduce(result, dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM, group=group)
    return result


def pass_on(message: Any, group: Any) -> Any:
    """Give a tensor to the next member of a ring and take one like it from the one before."""
    came = torch.empty_like(message)
    rank, size = group.rank(), group.size()
    after, before = (dist.get_global_rank(group, (rank + step) % size) for step in (1, -1))
    calls = [dist.P2POp(dist.isend, message, after, group), dist.P2POp(dist.irecv, came, before, group)]
    for work in dist.batch_isend_irecv(calls):
        work.wait()
    return came
