"""Work: what a kernel or a collective must do, in numbers that no machine enters."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwsim.formulas import attention, experts, gemm
from hwsim.formulas.types import Numeric
from hwsim.specs.hardware import CollectiveName, ExpertsFormat, StreamKind


@dataclass(frozen=True)
class Gemm:
    """`batch` matrix multiplies y[m, n] = x[m, k] w[k, n] in one kernel."""

    m: Numeric
    n: Numeric
    k: Numeric
    batch: Numeric = 1.0
    input_bytes: float = 2.0
    output_bytes: float = 2.0
    weight_gradient: bool = False
    """Needs no successor: zero-bubble schedules move it into the bubble."""
    kernels: Numeric = 1.0
    """Launches that it takes."""
    weight_bytes: float | None = None
    """Of an element of w where it is stored in another format than x."""

    @property
    def flops(self) -> Numeric:
        """[FLOP]"""
        return gemm.gemm_flops(self.m, self.n, self.k, self.batch)

    @property
    def memory_bytes(self) -> Numeric:
        """Device-memory traffic. [byte]"""
        sizes = (self.m, self.n, self.k, self.batch)
        return gemm.gemm_bytes(*sizes, self.input_bytes, self.output_bytes, self.weight_bytes)


@dataclass(frozen=True)
class Experts:
    """The experts of one device in one fused call: both multiplies of every expert that gets a row, the activation
    between them, rows put in order before and summed after."""

    tokens: Numeric
    """Rows before they are copied to their experts: those of all devices that share the experts."""
    topk: Numeric
    """Experts that a row goes to, of all there are."""
    experts: Numeric
    """On this device."""
    total_experts: Numeric
    hidden: Numeric
    ffn: Numeric
    """Inner width of this device's part of an expert."""
    gated: bool = True
    input_bytes: float = 2.0
    """Of an element of the rows as they are multiplied."""
    weight_bytes: float = 2.0
    """Of an element of the weights, scales included."""
    kind: ExpertsFormat | None = None
    """Format whose kernels run; none: what the widths of the elements suggest."""
    skew: float = 0.0
    """Exponent of the experts' popularity; 0: all alike; below: rows are dealt out evenly."""
    kernels: Numeric = 5.0
    """Launches: rows put in order, up, activation, down, rows summed."""
    gathered: bool = True
    """Every device has the rows of all (all-gather); if not, they travel to their experts alone (all-to-all)."""

    @property
    def routing(self) -> experts.Routing:
        """Rows and active experts of the busiest device."""
        among = (self.tokens, self.topk, self.experts, self.total_experts, self.skew)
        rows = experts.busiest_rows(*among)
        elsewhere = (self.tokens * self.topk - rows) * float(self.gathered)
        return experts.Routing(rows, experts.busiest_experts(*among), elsewhere)

    @property
    def present(self) -> Numeric:
        """Tokens with rows on a device."""
        return self.tokens if self.gathered else np.minimum(self.tokens, self.rows)

    @property
    def rows(self) -> Numeric:
        """Rows of a device's experts together, the mean of the devices."""
        return 1.0 * self.tokens * self.topk * (self.experts / self.total_experts)

    @property
    def active(self) -> Numeric:
        """Experts of a device that get any row, the mean of the devices."""
        active = experts.active_experts(self.tokens, self.total_experts, self.topk, self.skew)
        return active * (self.experts / self.total_experts)

    @property
    def flops(self) -> Numeric:
        """[FLOP]"""
        return experts.experts_flops(self.rows, self.hidden, self.ffn, self.gated)

    @property
    def memory_bytes(self) -> Numeric:
        """Weights of experts that get a row, and rows in and out of both multiplies. [byte]"""
        widths = (self.hidden, self.ffn, self.gated, self.weight_bytes)
        return experts.experts_bytes(self.rows, self.active, *widths)


@dataclass(frozen=True)
class Attention:
    """Fused attention of `q_len` queries over `kv_len` keys; `backward` runs its gradient."""

    batch: Numeric
    q_len: Numeric
    kv_len: Numeric
    heads: Numeric
    kv_heads: Numeric
    head_dim: Numeric
    causal: Numeric = 1.0
    element_bytes: float = 2.0
    backward: bool = False
    kv_bytes: float | None = None
    """Of an element of the KV cache; default: of any other."""
    value_dim: Numeric | None = None
    """Width of a value where it is not that of a key, as in multi-head latent attention (MLA)."""
    shared: Numeric | bool = False
    """Whether values are part of the keys (the latents of MLA): both are read at once."""

    @property
    def width(self) -> Numeric:
        """Mean width of keys and values: what FLOPs, queries and outputs go by."""
        return self.head_dim if self.value_dim is None else (self.head_dim + self.value_dim) / 2.0

    @property
    def cached_bytes(self) -> Numeric:
        """Bytes of the cache per element of width, keys and values counted apart. [byte]"""
        cached = self.element_bytes if self.kv_bytes is None else self.kv_bytes
        return np.where(self.shared, cached * self.head_dim / (2.0 * self.width), cached)

    @property
    def flops(self) -> Numeric:
        """Executed: the backward kernel recomputes the scores, 2.5 times the forward. [FLOP]"""
        forward = attention.attention_flops(self.batch, self.q_len, self.kv_len, self.heads, self.width, self.causal)
        return forward * (2.5 if self.backward else 1.0)

    @property
    def memory_bytes(self) -> Numeric:
        """Queries, keys, values and output once; twice as many tensors backward. [byte]"""
        query = 1.0 * self.batch * self.q_len * self.heads * self.width
        key = 1.0 * self.batch * self.kv_len * self.kv_heads * self.width
        cached = self.cached_bytes
        return (2.0 * query * self.element_bytes + 2.0 * key * cached) * (2.0 if self.backward else 1.0)


EITHER = ("batch", "q_len", "kv_len", "kv_heads", "head_dim", "value_dim", "causal", "shared")
"""What two attention kernels that do the same may differ in."""


def either(which: NDArray[np.bool_], one: Attention, other: Attention) -> Attention:
    """The first kernel where `which` holds and the second elsewhere, row by row: both have a width of their values."""
    return replace(other, **{name: np.where(which, getattr(one, name), getattr(other, name)) for name in EITHER})


@dataclass(frozen=True)
class Stream:
    """A memory-bound kernel: norm, activation, residual add, softmax, optimizer, ..."""

    memory_bytes: Numeric
    flops: Numeric = 0.0
    kernels: int = 1
    kind: StreamKind | None = None
    """None: any of them."""


@dataclass(frozen=True)
class Collective:
    """A collective over one parallel axis; `hidden` runs beside the compute of the same operator."""

    kind: CollectiveName
    axis: str
    total_bytes: Numeric
    hidden: bool = False


Work = Gemm | Experts | Attention | Stream | Collective
