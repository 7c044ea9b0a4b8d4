"""Attention over a sequence that is shared out: keys and values go round a ring, or are gathered. Needs PyTorch.

Each process holds an early and a late piece of the sequence, so that causal work is even. Backward, keys and values go
round again and the gradients of both with them; a process keeps its own contribution apart, so that a sum is complete
when it comes home after one pass less than there are processes.

Reference: H. Liu et al., "Ring Attention with Blockwise Transformers", 2023.
"""

from __future__ import annotations

from typing import Any

import torch

from hwsim.live.parallel.axes import gather, pass_on, scatter

NEVER = -1e30
"""Score of a key that is not seen."""


def positions(seq: int, pieces: int, number: int) -> Any:
    """Tokens of one process."""
    if pieces == 1:
        return torch.arange(seq)
    chunks = torch.arange(seq).chunk(2 * pieces)
    return torch.cat([chunks[number], chunks[2 * pieces - 1 - number]])


def attention(q: Any, k: Any, v: Any, place: Any, seq: int, gathers: bool) -> Any:
    """Causal attention of this process's queries [tokens, batch, heads, width] to all keys."""
    group = place.group("cp")
    size = place.sizes["cp"]
    kv = torch.stack([k, v], 1)
    held = [positions(seq, size, n).to(q.device) for n in range(size)]
    if group is not None:
        return (Gathered if gathers else Ring).apply(q, kv, held, group)
    return attend(q, kv, held[0][:, None] >= held[0][None, :])


def attend(q: Any, kv: Any, seen: Any) -> Any:
    """Attention to keys and values that are all here."""
    return torch.einsum("bhqk,kbhd->qbhd", scores(q, kv[:, 0], seen).softmax(-1), wide(kv[:, 1], q))


def wide(heads: Any, q: Any) -> Any:
    """Key or value heads copied for the query heads that share them."""
    return heads.repeat_interleave(q.shape[2] // heads.shape[2], 2)


def scores(q: Any, k: Any, seen: Any) -> Any:
    """Scaled products of queries and keys, [batch, heads, queries, keys]."""
    products = torch.einsum("qbhd,kbhd->bhqk", q, wide(k, q)) * q.shape[-1] ** -0.5
    return products.masked_fill(~seen, NEVER)


class Gathered(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """All keys and values at once; only one's own are saved, and the others' gathered again backward."""

    @staticmethod
    def forward(ctx: Any, q: Any, kv: Any, held: Any, group: Any) -> Any:
        """All-gather and attend."""
        ctx.save_for_backward(q, kv)
        ctx.seen, ctx.group = held[group.rank()][:, None] >= torch.cat(held)[None, :], group
        return attend(q, gather(kv, group), ctx.seen)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        """All-gather again; reduce-scatter the gradients."""
        q, kv = ctx.saved_tensors
        inputs = q.detach().requires_grad_(), gather(kv, ctx.group).requires_grad_()
        with torch.enable_grad():
            dq, whole = torch.autograd.grad(attend(*inputs, ctx.seen), inputs, gradient)
        return dq, scatter(whole, ctx.group), None, None


class Ring(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """Keys and values of one process at a time."""

    @staticmethod
    def forward(ctx: Any, q: Any, kv: Any, held: Any, group: Any) -> Any:
        """Merge the attention to each part by its log-sum-exp."""
        number, size = group.rank(), group.size()
        part, out, total = kv.contiguous(), torch.zeros_like(q), torch.full_like(q[..., 0], NEVER)
        for step in range(size):
            seen = held[number][:, None] >= held[(number - step) % size][None, :]
            products = scores(q, part[:, 0], seen)
            sums = products.logsumexp(-1)
            values = torch.einsum("bhqk,kbhd->qbhd", (products - sums[..., None]).exp(), wide(part[:, 1], q))
            sums = sums.permute(2, 0, 1)
            joined = torch.logaddexp(total, sums)
            out = out * (total - joined).exp()[..., None] + values * (sums - joined).exp()[..., None]
            total = joined
            part = pass_on(part, group) if step < size - 1 else part
        ctx.save_for_backward(q, kv, out, total)
        ctx.held, ctx.group = held, group
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        """The same way again, gradients of keys and values a step behind."""
        q, kv, out, total = ctx.saved_tensors
        group, held = ctx.group, ctx.held
        number, size = group.rank(), group.size()
        delta = (gradient * out).sum(-1)
        dq, part, travelling = torch.zeros_like(q), kv.contiguous(), torch.zeros_like(kv)
        own = travelling
        for step in range(size):
            seen = held[number][:, None] >= held[(number - step) % size][None, :]
            query, both = _gradients(q, part, seen, (gradient, delta, total))
            dq = dq + query
            if step == 0:
                own = both
            else:
                travelling = pass_on(travelling + both if step > 1 else both, group)
            part = pass_on(part, group) if step < size - 1 else part
        return dq, own + travelling, None, None


def _gradients(q: Any, kv: Any, seen: Any, saved: tuple[Any, Any, Any]) -> tuple[Any, Any]:
    """Of queries, and of keys and values, from one part."""
    gradient, delta, total = saved
    k, v = wide(kv[:, 0], q), wide(kv[:, 1], q)
    probabilities = (scores(q, kv[:, 0], seen) - total.permute(1, 2, 0)[..., None]).exp()
    weighted = torch.einsum("qbhd,kbhd->bhqk", gradient, v) - delta.permute(1, 2, 0)[..., None]
    ds = probabilities * weighted * q.shape[-1] ** -0.5
    dk, dv = torch.einsum("bhqk,qbhd->kbhd", ds, q), torch.einsum("bhqk,qbhd->kbhd", probabilities, gradient)
    both = torch.stack([dk, dv], 1).unflatten(3, (kv.shape[3], -1)).sum(4)
    return torch.einsum("bhqk,kbhd->qbhd", ds, k), both
