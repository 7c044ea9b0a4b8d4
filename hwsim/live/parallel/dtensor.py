"""Tensor parallelism as torchtitan has it: a plain model, DTensor and a plan of who holds what. Needs PyTorch.

Reference: torchtitan, models/llama3/infra/parallelize.py, apply_non_moe_tp.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)
from torch.nn import functional

from hwsim.live.parallel.layers import weight
from hwsim.live.parallel.model import rotate
from hwsim.live.parallel.ring import attend
from hwsim.live.parallel.steps import RATE, Micro, Step

SEQ = 1
"""Dimension of the tokens: activations are [batch, tokens, width] here."""


def linear(name: str, out: int, inner: int) -> nn.Linear:
    """A linear layer without bias, its weight that of the other models."""
    made = nn.Linear(inner, out, bias=False)
    made.weight = nn.Parameter(weight(name, out, inner))
    return made


class Attention(nn.Module):  # type: ignore[misc, unused-ignore]
    """Heads that are here."""

    def __init__(self, name: str, m: dict[str, Any]) -> None:
        super().__init__()
        self.width = m["hidden"] // m["heads"]
        keys, hidden = m["kv_heads"] * self.width, m["hidden"]
        self.wq, self.wk, self.wv = (linear(f"{name} qkv {n}", o, hidden) for n, o in enumerate((hidden, keys, keys)))
        self.wo = linear(f"{name} out", hidden, hidden)

    def forward(self, x: Any) -> Any:
        """[batch, tokens, width]."""
        q, k, v = (w(x).transpose(0, 1).unflatten(-1, (-1, self.width)) for w in (self.wq, self.wk, self.wv))
        where = torch.arange(len(q), device=q.device)
        kv = torch.stack([rotate(k, where), v], 1)
        y = attend(rotate(q, where), kv, where[:, None] >= where[None, :])
        return self.wo(y.flatten(2).transpose(0, 1))


class Mlp(nn.Module):  # type: ignore[misc, unused-ignore]
    """Gated SiLU."""

    def __init__(self, name: str, m: dict[str, Any]) -> None:
        super().__init__()
        self.w1, self.w3 = (linear(f"{name} up {n}", m["ffn"], m["hidden"]) for n in range(2))
        self.w2 = linear(f"{name} down", m["hidden"], m["ffn"])

    def forward(self, x: Any) -> Any:
        """[batch, tokens, width]."""
        return self.w2(functional.silu(self.w1(x)) * self.w3(x))


class Layer(nn.Module):  # type: ignore[misc, unused-ignore]
    """Pre-norm layer."""

    def __init__(self, name: str, m: dict[str, Any]) -> None:
        super().__init__()
        self.attention_norm, self.ffn_norm = (nn.RMSNorm(m["hidden"], eps=1e-5) for _ in range(2))
        self.attention, self.feed_forward = Attention(f"{name} attention", m), Mlp(f"{name} mlp", m)

    def forward(self, x: Any) -> Any:
        """[batch, tokens, width]."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.ffn_norm(x))


class Plain(nn.Module):  # type: ignore[misc, unused-ignore]
    """A Llama that knows nothing of parallelism."""

    def __init__(self, m: dict[str, Any]) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(m["vocab"], m["hidden"])
        self.tok_embeddings.weight = nn.Parameter(weight("tokens", m["vocab"], m["hidden"]))
        self.layers = nn.ModuleList([Layer(f"layer {n}", m) for n in range(m["layers"])])
        self.norm = nn.RMSNorm(m["hidden"], eps=1e-5)
        self.output = linear("head", m["vocab"], m["hidden"])

    def forward(self, tokens: Any) -> Any:
        """Logits of [batch, tokens]."""
        x = self.tok_embeddings(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.output(self.norm(x))


def spread(net: Plain, mesh: Any) -> None:
    """Share out a model with sequence parallelism, by torchtitan's plan."""
    near, whole = Shard(SEQ), Replicate()
    parallelize_module(net, mesh, {
        "tok_embeddings": RowwiseParallel(input_layouts=whole, output_layouts=near),
        "norm": SequenceParallel(),
        "output": ColwiseParallel(input_layouts=near, output_layouts=Shard(-1), use_local_output=False),
    })  # fmt: skip
    columns, rows = ColwiseParallel(), RowwiseParallel(output_layouts=near)
    gathered = PrepareModuleInput(input_layouts=(near,), desired_input_layouts=(whole,))
    plan = {
        "attention_norm": SequenceParallel(), "ffn_norm": SequenceParallel(),
        "attention": gathered, "feed_forward": gathered,
        "attention.wq": columns, "attention.wk": columns, "attention.wv": columns, "attention.wo": rows,
        "feed_forward.w1": columns, "feed_forward.w2": rows, "feed_forward.w3": columns,
    }  # fmt: skip
    for layer in net.layers:
        parallelize_module(layer, mesh, plan)


def dtensor_step(m: dict[str, Any], mesh: Any, device: str) -> Step:
    """A step of the shared-out model, cross-entropy over the vocabulary where it lies."""
    net = Plain(m).to(device)
    spread(net, mesh)
    descent = torch.optim.SGD(net.parameters(), lr=RATE)

    def step(micros: list[Micro]) -> float:
        descent.zero_grad()
        losses = 0.0
        for tokens, targets in micros:
            with loss_parallel():
                logits = net(tokens.t().contiguous())
                loss = functional.cross_entropy(logits.flatten(0, 1), targets.t().flatten()) / len(micros)
                loss.backward()
            losses += float(loss.to_local() if isinstance(loss, DTensor) else loss)
        descent.step()
        return losses

    return step
