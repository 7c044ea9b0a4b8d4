"""Work: what a kernel or a collective must do, in numbers that no machine enters."""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.formulas import attention, gemm
from hwsim.formulas.types import Numeric
from hwsim.specs.hardware import CollectiveName, StreamKind


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

    @property
    def flops(self) -> Numeric:
        """[FLOP]"""
        return gemm.gemm_flops(self.m, self.n, self.k, self.batch)

    @property
    def memory_bytes(self) -> Numeric:
        """Device-memory traffic. [byte]"""
        return gemm.gemm_bytes(self.m, self.n, self.k, self.batch, self.input_bytes, self.output_bytes)


@dataclass(frozen=True)
class Attention:
    """Fused attention of `q_len` queries over `kv_len` keys; `backward` runs its gradient."""

    batch: Numeric
    q_len: Numeric
    kv_len: Numeric
    heads: Numeric
    kv_heads: Numeric
    head_dim: Numeric
    causal: float = 1.0
    element_bytes: float = 2.0
    backward: bool = False
    kv_bytes: float | None = None
    """Of an element of the KV cache; default: of any other."""

    @property
    def flops(self) -> Numeric:
        """Executed: the backward kernel recomputes the scores, 2.5 times the forward. [FLOP]"""
        forward = attention.attention_flops(self.batch, self.q_len, self.kv_len, self.heads, self.head_dim, self.causal)
        return forward * (2.5 if self.backward else 1.0)

    @property
    def memory_bytes(self) -> Numeric:
        """Queries, keys, values and output once; twice as many tensors backward. [byte]"""
        query = 1.0 * self.batch * self.q_len * self.heads * self.head_dim
        key = 1.0 * self.batch * self.kv_len * self.kv_heads * self.head_dim
        cached = self.element_bytes if self.kv_bytes is None else self.kv_bytes
        return (2.0 * query * self.element_bytes + 2.0 * key * cached) * (2.0 if self.backward else 1.0)


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


Work = Gemm | Attention | Stream | Collective
