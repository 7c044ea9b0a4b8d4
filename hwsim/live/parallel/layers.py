"""Layers whose weights are shared out over tensor-parallel peers, as Megatron does it. Needs PyTorch.

Activations are [sequence, batch, width]. With sequence parallelism each peer holds a part of the sequence between the
regions; a multiply gathers its input, saves its own part alone and gathers again backward.

Reference: Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", 2022, figures 4 and 5.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

import torch
from torch import nn
from torch.nn import functional

from hwsim.live.parallel.axes import Place, gather, reduced, scatter

SPREAD = 0.08
"""Standard deviation of weights."""


def weight(name: str, *shape: int) -> Any:
    """The whole of a weight, the same in every process."""
    numbers = torch.Generator().manual_seed(crc32(name.encode()))
    return torch.randn(shape, generator=numbers) * SPREAD


def mine(whole: Any, place: Place, dim: int) -> Any:
    """This tensor-parallel peer's part."""
    return whole.chunk(place.sizes["tp"], dim)[place.at["tp"]].contiguous()


class Enter(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """Open a region without sequence parallelism: the input as it is; its gradient is a sum over peers."""

    @staticmethod
    def forward(ctx: Any, x: Any, group: Any) -> Any:
        """The input."""
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        """Sum."""
        return reduced(gradient, ctx.group), None


class Leave(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """Close a region without sequence parallelism: the output is a sum over peers."""

    @staticmethod
    def forward(ctx: Any, x: Any, group: Any) -> Any:
        """Sum."""
        return reduced(x, group)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        """The gradient as it is."""
        return gradient, None


class Scatter(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """Close a region with sequence parallelism: each peer keeps its part of the sum."""

    @staticmethod
    def forward(ctx: Any, x: Any, group: Any) -> Any:
        """Reduce-scatter."""
        ctx.group = group
        return scatter(x, group)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        """All-gather."""
        return gather(gradient, ctx.group), None


class GatheredLinear(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """Open a region with sequence parallelism: gather, multiply, keep one's own part."""

    @staticmethod
    def forward(ctx: Any, x: Any, weights: Any, group: Any) -> Any:
        """All-gather and multiply."""
        ctx.save_for_backward(x, weights)
        ctx.group = group
        return gather(x, group) @ weights.t()

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        """Gather the input again for the weights' gradient; reduce-scatter its own."""
        x, weights = ctx.saved_tensors
        whole = gather(x, ctx.group)
        flat = gradient.flatten(0, 1)
        return scatter(gradient @ weights, ctx.group), flat.t() @ whole.flatten(0, 1), None


def enter(x: Any, weights: Any, bias: Any, place: Place) -> Any:
    """A column-parallel multiply."""
    group = place.group("tp")
    if group is None:
        return functional.linear(x, weights, bias)
    if place.sequence_parallel:
        y = GatheredLinear.apply(x, weights, group)
        return y if bias is None else y + bias
    return functional.linear(Enter.apply(x, group), weights, bias)


def leave(x: Any, place: Place) -> Any:
    """What a region gives back."""
    group = place.group("tp")
    if group is None:
        return x
    return (Scatter if place.sequence_parallel else Leave).apply(x, group)


class Columns(nn.Module):  # type: ignore[misc, unused-ignore]
    """Linear layers side by side on one input, each shared out by outputs."""

    def __init__(self, name: str, outs: tuple[int, ...], inner: int, bias: bool, place: Place) -> None:
        super().__init__()
        self.place = place
        parts = [mine(weight(f"{name} {n}", out, inner), place, 0) for n, out in enumerate(outs)]
        self.widths = [len(part) for part in parts]
        self.weight = nn.Parameter(torch.cat(parts))
        self.bias = nn.Parameter(torch.zeros(sum(self.widths))) if bias else None

    def forward(self, x: Any) -> Any:
        """Their outputs."""
        return enter(x, self.weight, self.bias, self.place).split(self.widths, -1)


class Rows(nn.Module):  # type: ignore[misc, unused-ignore]
    """A linear layer shared out by inputs; the bias is added to the sum."""

    def __init__(self, name: str, out: int, inner: int, bias: bool, place: Place) -> None:
        super().__init__()
        self.place = place
        self.weight = nn.Parameter(mine(weight(name, out, inner), place, 1))
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None
        if self.bias is not None:
            self.bias.partial = place.sequence_parallel

    def forward(self, x: Any) -> Any:
        """The sum over peers."""
        y = leave(functional.linear(x, self.weight), self.place)
        return y if self.bias is None else y + self.bias


class Table(nn.Module):  # type: ignore[misc, unused-ignore]
    """Token table shared out by rows; the head multiplies by one, too."""

    def __init__(self, name: str, vocab: int, width: int, place: Place) -> None:
        super().__init__()
        self.place = place
        self.weight = nn.Parameter(mine(weight(name, vocab, width), place, 0))

    def forward(self, tokens: Any) -> Any:
        """Rows of tokens: peers without them give zeros to the sum."""
        if self.place.group("tp") is None:
            return functional.embedding(tokens, self.weight)
        local = tokens - self.place.at["tp"] * len(self.weight)
        here = (local >= 0) & (local < len(self.weight))
        found = functional.embedding(local * here, self.weight) * here[..., None]
        return leave(found, self.place)

    def loss(self, x: Any, targets: Any) -> Any:
        """Mean cross-entropy of the next tokens."""
        logits = enter(x, self.weight, None, self.place)
        if self.place.group("tp") is None:
            return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        start = self.place.at["tp"] * len(self.weight)
        return SharedLoss.apply(logits, targets, start, self.place.group("tp")).mean()


class SharedLoss(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """Cross-entropy over a vocabulary that is shared out: largest logit, target's logit and sum are exchanged."""

    @staticmethod
    def forward(ctx: Any, logits: Any, targets: Any, start: int, group: Any) -> Any:
        """Loss of each token, in fp32."""
        ctx.dtype, logits = logits.dtype, logits.float()
        logits = logits - reduced(logits.amax(-1), group, largest=True)[..., None]
        local = targets - start
        here = (local >= 0) & (local < logits.shape[-1])
        local = (local * here)[..., None]
        target = reduced(logits.gather(-1, local)[..., 0] * here, group)
        exponentials = logits.exp()
        total = reduced(exponentials.sum(-1), group)
        ctx.save_for_backward(exponentials / total[..., None], local, here)
        return total.log() - target

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        """Softmax less one at the target."""
        softmax, local, here = ctx.saved_tensors
        softmax = softmax.scatter_add(-1, local, -here[..., None].to(softmax.dtype))
        return (softmax * gradient[..., None]).to(ctx.dtype), None, None, None
