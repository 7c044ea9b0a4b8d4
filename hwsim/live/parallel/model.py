"""A small Transformer, whole or one pipeline stage of it, whole or shared out over its peers. Needs PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from hwsim.live.parallel.axes import Place
from hwsim.live.parallel.experts import Experts
from hwsim.live.parallel.layers import Columns, Rows, Table, weight
from hwsim.live.parallel.ring import attention, positions

ROPE_BASE = 10_000.0


def norm(m: dict[str, Any], place: Place) -> nn.Module:
    """A norm; where the sequence is shared out its gradients are parts of a sum."""
    made = (nn.RMSNorm if m["norm"] == "rmsnorm" else nn.LayerNorm)(m["hidden"], eps=1e-5)
    for parameter in made.parameters():
        parameter.partial = place.sequence_parallel
    return made


class Attention(nn.Module):  # type: ignore[misc, unused-ignore]
    """Heads shared out over tp, tokens over cp."""

    def __init__(self, name: str, m: dict[str, Any], place: Place) -> None:
        super().__init__()
        self.m, self.place = m, place
        self.width = m["hidden"] // m["heads"]
        keys = m["kv_heads"] * self.width
        self.qkv = Columns(f"{name} qkv", (m["hidden"], keys, keys), m["hidden"], m["biases"], place)
        self.out = Rows(f"{name} out", m["hidden"], m["hidden"], m["biases"], place)

    def forward(self, x: Any) -> Any:
        """[tokens, batch, width]."""
        q, k, v = (part.unflatten(-1, (-1, self.width)) for part in self.qkv(x))
        if self.m["positions"] == "rope":
            where = positions(self.m["seq"], self.place.sizes["cp"], self.place.at["cp"]).to(x.device)
            q, k = rotate(q, where), rotate(k, where)
        options = (self.place, self.m["seq"], self.m["gathers"])
        again = self.m["recompute"] == "selective"
        y = checkpoint(attention, q, k, v, *options, use_reentrant=False) if again else attention(q, k, v, *options)
        return self.out(y.flatten(2))


def rotate(heads: Any, where: Any) -> Any:
    """Rotary embedding of [tokens, batch, heads, width]."""
    half = heads.shape[-1] // 2
    angle = where[:, None] * ROPE_BASE ** -(torch.arange(half, device=heads.device) / half)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    a, b = heads.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(heads.dtype)


class Mlp(nn.Module):  # type: ignore[misc, unused-ignore]
    """GELU, or gated SiLU."""

    def __init__(self, name: str, m: dict[str, Any], place: Place) -> None:
        super().__init__()
        outs = (m["ffn"],) * (2 if m["gated"] else 1)
        self.up = Columns(f"{name} up", outs, m["hidden"], m["biases"], place)
        self.down = Rows(f"{name} down", m["hidden"], m["ffn"], m["biases"], place)

    def forward(self, x: Any) -> Any:
        """[tokens, batch, width]."""
        first, *other = self.up(x)
        return self.down(functional.silu(first) * other[0] if other else functional.gelu(first))


class Layer(nn.Module):  # type: ignore[misc, unused-ignore]
    """Pre-norm layer."""

    def __init__(self, name: str, m: dict[str, Any], place: Place) -> None:
        super().__init__()
        self.norms = nn.ModuleList([norm(m, place), norm(m, place)])
        self.attention = Attention(f"{name} attention", m, place)
        self.mlp = (Experts if m["experts"] else Mlp)(f"{name} mlp", m, place)

    def forward(self, x: Any) -> Any:
        """[tokens, batch, width]."""
        x = x + self.attention(self.norms[0](x))
        return x + self.mlp(self.norms[1](x))


class Stage(nn.Module):  # type: ignore[misc, unused-ignore]
    """The layers of one pipeline stage, the embedding before the first, the head after the last."""

    def __init__(self, m: dict[str, Any], place: Place) -> None:
        super().__init__()
        self.m, self.place = m, place
        each = m["layers"] // place.sizes["pp"]
        numbers = range(place.at["pp"] * each, (place.at["pp"] + 1) * each)
        self.layers = nn.ModuleList([Layer(f"layer {n}", m, place) for n in numbers])
        if place.first:
            self.tokens = Table("tokens", m["vocab"], m["hidden"], place)
        if place.first and m["positions"] == "learned":
            self.positions = nn.Parameter(weight("positions", m["seq"], m["hidden"]))
            self.positions.partial = place.sequence_parallel
        if place.last:
            self.norm = norm(m, place)
            held = m["tied"] and place.first
            self.head = self.tokens if held else Table(self.head_name, m["vocab"], m["hidden"], place)

    @property
    def head_name(self) -> str:
        """Of the head's weight: tied ones start alike."""
        return "tokens" if self.m["tied"] else "head"

    @property
    def tied_weight(self) -> Any:
        """What another stage holds, too; None if there is no such."""
        if not self.m["tied"] or self.place.sizes["pp"] == 1 or not (self.place.first or self.place.last):
            return None
        return (self.tokens if self.place.first else self.head).weight

    def boundary(self, batch: int) -> tuple[int, int, int]:
        """Shape of what it hands on for so many sequences."""
        seq = self.m["seq"] // self.place.sizes["cp"]
        return seq // (self.place.sizes["tp"] if self.place.sequence_parallel else 1), batch, self.m["hidden"]

    def forward(self, x: Any, targets: Any) -> Any:
        """Tokens or what the stage before gave, to what the next stage takes, or the loss."""
        x = self.hidden(x)
        return self.head.loss(x, targets) if self.place.last else x

    def hidden(self, x: Any) -> Any:
        """The same without the head."""
        if self.place.first:
            x = self.embed(x)
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if self.m["recompute"] == "full" else layer(x)
        return self.norm(x) if self.place.last else x

    def embed(self, tokens: Any) -> Any:
        """[tokens, batch] to [tokens, batch, width]."""
        x = self.tokens(tokens)
        if self.m["positions"] != "learned":
            return x
        where = positions(self.m["seq"], self.place.sizes["cp"], self.place.at["cp"]).to(tokens.device)
        if self.place.sequence_parallel:
            where = where.chunk(self.place.sizes["tp"])[self.place.at["tp"]]
        return x + self.positions[where, None]
