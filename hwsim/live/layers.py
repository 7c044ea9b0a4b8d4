"""The layers of the PyTorch models that predictions are held against: attention, MLP, norms, rotary embedding."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from hwsim.specs.model import Model

DROPPED = 0.1
"""Share of numbers that dropout drops. [-]"""
ROTARY_BASE = 10_000.0


class RMSNorm(nn.Module):
    """Root-mean-square norm as Llama's code has it, one PyTorch operator after the other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Any) -> Any:
        """Normalise rows."""
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * scaled.to(x.dtype)


class Dropout(nn.Module):
    """Dropout by the kernel that GPUs run, which saves a mask of one byte; the CPU's own saves a number."""

    def __init__(self, used: bool) -> None:
        super().__init__()
        self.used = used

    def forward(self, x: Any) -> Any:
        """Drop some numbers."""
        return torch.native_dropout(x, DROPPED, True)[0] if self.used else x


def normalisation(model: Model, width: int) -> nn.Module:
    """The model's kind of norm."""
    return RMSNorm(width) if model.norm == "rmsnorm" else nn.LayerNorm(width, bias=model.norm_bias)


def turns(model: Model, place: Any, dtype: Any) -> tuple[Any, Any]:
    """Cosines and sines of the rotary embedding, one row per position."""
    steps = torch.arange(0, model.head_dim, 2, device=place.device) / model.head_dim
    angles = place[:, None] * ROTARY_BASE**-steps
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def turned(x: Any, tables: tuple[Any, Any]) -> Any:
    """Rotate every head of [batch, heads, tokens, width] by its position."""
    cosine, sine = tables
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


class Attention(nn.Module):
    """Attention with any number of key/value heads, to the stack itself or to another, fused or not."""

    def __init__(self, model: Model, source_width: int, causal: bool, fused: bool) -> None:
        super().__init__()
        width, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
        self.model, self.causal, self.fused = model, causal, fused
        self.q = nn.Linear(model.hidden, width, bias=model.qkv_bias)
        self.k = nn.Linear(source_width, keys, bias=model.qkv_bias)
        self.v = nn.Linear(source_width, keys, bias=model.qkv_bias)
        self.out = nn.Linear(width, model.hidden, bias=model.output_bias)
        self.drop = Dropout(model.dropout)
        normed = model.qk_norm
        self.q_norm, self.k_norm = (RMSNorm(model.head_dim) if normed else nn.Identity() for _ in "qk")

    def forward(self, x: Any, source: Any, tables: Any, bias: Any) -> Any:
        """Attend to `source` (none: to `x` itself)."""
        there = x if source is None else source
        split = (self.model.head_dim,)
        q = self.q_norm(self.q(x).unflatten(-1, (self.model.heads, *split))).transpose(1, 2)
        k = self.k_norm(self.k(there).unflatten(-1, (self.model.kv_heads, *split))).transpose(1, 2)
        v = self.v(there).unflatten(-1, (self.model.kv_heads, *split)).transpose(1, 2)
        if tables is not None:
            q, k = turned(q, tables), turned(k, tables)
        return self.out(self.core(q, k, v, bias).transpose(1, 2).flatten(2))

    def core(self, q: Any, k: Any, v: Any, bias: Any) -> Any:
        """Softmax of the scores times the values."""
        if self.fused:
            return functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal, enable_gqa=True)
        copies = self.model.heads // self.model.kv_heads
        if copies > 1:
            k, v = k.repeat_interleave(copies, dim=1), v.repeat_interleave(copies, dim=1)
        scores = q @ k.transpose(-2, -1) * self.model.head_dim**-0.5
        if bias is not None:
            scores = scores + bias
        if self.causal:
            later = torch.full((q.shape[2], k.shape[2]), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
            scores = scores + later
        scores = functional.softmax(scores, dim=-1)  # by the same name, so that nothing holds what was there before
        return self.drop(scores) @ v


class MLP(nn.Module):
    """Two matrices with GELU between, or three with SwiGLU."""

    def __init__(self, model: Model, ffn: int) -> None:
        super().__init__()
        self.gate = nn.Linear(model.hidden, ffn, bias=model.mlp_bias) if model.gated else None
        self.up = nn.Linear(model.hidden, ffn, bias=model.mlp_bias)
        self.down = nn.Linear(ffn, model.hidden, bias=model.mlp_bias)

    def forward(self, x: Any) -> Any:
        """Apply to every row."""
        if self.gate is None:
            return self.down(functional.gelu(self.up(x)))
        return self.down(functional.silu(self.gate(x)) * self.up(x))
