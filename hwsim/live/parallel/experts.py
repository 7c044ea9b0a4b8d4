"""A mixture of experts whose experts are shared out: rows travel to them and back by all-to-all. Needs PyTorch.

Dropless: every row goes to the experts it chose, however many go to one. Results are weighted where they come home.

Reference: D. Lepikhin et al., "GShard", ICLR 2021.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from hwsim.live.parallel.axes import Place
from hwsim.live.parallel.layers import weight


class Exchange(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """Rows to other processes; their gradients come back the same way."""

    @staticmethod
    def forward(ctx: Any, rows: Any, came: list[int], went: list[int], group: Any) -> Any:
        """All-to-all."""
        ctx.splits, ctx.group = (went, came), group
        return _exchange(rows, came, went, group)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        """All-to-all."""
        came, went = ctx.splits
        return _exchange(gradient, came, went, ctx.group), None, None, None


def _exchange(rows: Any, came: list[int], went: list[int], group: Any) -> Any:
    result = rows.new_empty((sum(came), rows.shape[1]))
    dist.all_to_all_single(result, rows.contiguous(), came, went, group=group)
    return result


class Experts(nn.Module):  # type: ignore[misc, unused-ignore]
    """Router and this process's experts."""

    def __init__(self, name: str, m: dict[str, Any], place: Place) -> None:
        super().__init__()
        self.place, self.chosen = place, m["experts_per_token"]
        self.each = m["experts"] // place.sizes["ep"]
        numbers = range(place.at["ep"] * self.each, (place.at["ep"] + 1) * self.each)
        width, inner = m["hidden"], m["expert_ffn"]
        self.router = nn.Parameter(weight(f"{name} router", m["experts"], width))
        self.up = nn.Parameter(torch.stack([weight(f"{name} up {n}", 2 * inner, width) for n in numbers]))
        self.down = nn.Parameter(torch.stack([weight(f"{name} down {n}", width, inner) for n in numbers]))
        self.up.expert = self.down.expert = True
        self.router.partial = place.sequence_parallel

    def forward(self, x: Any) -> Any:
        """Each row through the experts it chose."""
        rows = x.flatten(0, 1)
        best, chosen = (rows @ self.router.t()).topk(self.chosen, -1)
        shares = best.softmax(-1).flatten()
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=self.each * self.place.sizes["ep"])
        done = self.away(rows[order // self.chosen], counts.view(-1, self.each))
        weighted = done * shares[order, None]
        return torch.zeros_like(rows).index_add(0, order // self.chosen, weighted).view_as(x)

    def away(self, rows: Any, counts: Any) -> Any:
        """Rows in the order of their experts, of which there are so many each, to the experts and back."""
        group = self.place.group("ep")
        if group is None:
            return self.multiply(rows, counts)
        coming = torch.empty_like(counts)
        dist.all_to_all_single(coming, counts, group=self.place.group("ep counts"))
        went, came = counts.sum(1).tolist(), coming.sum(1).tolist()
        there = self.multiply(Exchange.apply(rows, came, went, group), coming)
        return Exchange.apply(there, went, came, group)

    def multiply(self, rows: Any, counts: Any) -> Any:
        """The experts of this process; rows stand by sender, then by expert."""
        experts = torch.arange(self.each, device=rows.device).repeat(len(counts))
        order = experts.repeat_interleave(counts.flatten()).argsort(stable=True)
        parts = rows[order].split(counts.sum(0).tolist())
        done = torch.cat([self.expert(part, n) for n, part in enumerate(parts)])
        return torch.zeros_like(done).index_copy(0, order, done)

    def expert(self, rows: Any, number: int) -> Any:
        """One expert."""
        gate, up = (rows @ self.up[number].t()).chunk(2, -1)
        return (functional.silu(gate) * up) @ self.down[number].t()
