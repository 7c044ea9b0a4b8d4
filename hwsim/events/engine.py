"""How an engine fills its steps and its KV cache."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hwsim.errors import UsageError


@dataclass(frozen=True)
class Engine:
    """Limits and habits of the scheduler of one replica."""

    kv_blocks: int
    """Blocks of the KV cache."""
    block_tokens: int = 16
    """Tokens of a block; 1: no paging."""
    token_budget: int = 8192
    """Most tokens of a step that holds a prompt; a longer prompt that may not be cut runs alone."""
    max_sequences: int = 256
    """Most requests in the running batch."""
    chunked: bool = True
    """Prompts are cut into chunks; if not, whole prompts run first and decodes wait."""
    mixed: bool = True
    """Chunks run beside decodes; if not, decodes wait until no prompt can be served."""
    preemption: Literal["recompute", "swap"] = "recompute"
    """What happens to the cache of a request that has to make room: dropped, or moved to the host."""
    swap_s_per_token: float = 0.0
    """Moving the cache of one token to the host or back, which the step waits for. [s]"""
    watermark: float = 0.01
    """Share of the blocks that an admission leaves free, unless nothing runs."""
    prefix_hit_share: float = 0.0
    """Share of every prompt that is found in the cache, whatever it holds."""

    def __post_init__(self) -> None:
        for name in ("kv_blocks", "block_tokens", "token_budget", "max_sequences"):
            at_least(name, getattr(self, name), 1)
        at_least("swap_s_per_token", self.swap_s_per_token, 0.0)
        for name in ("watermark", "prefix_hit_share"):
            if not 0 <= getattr(self, name) <= 1:
                msg = f"{name} must be between 0 and 1, not {getattr(self, name)!r}"
                raise UsageError(msg)
        if self.preemption not in {"recompute", "swap"}:
            msg = f"preemption must be recompute or swap, not {self.preemption!r}"
            raise UsageError(msg)
        if self.together and self.token_budget < self.max_sequences:
            msg = f"token_budget {self.token_budget:,} must be at least max_sequences {self.max_sequences:,}"
            raise UsageError(msg)

    @property
    def together(self) -> bool:
        """Whether a step may hold decodes and prompts."""
        return self.chunked and self.mixed

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        return self.kv_blocks * self.block_tokens


def at_least(name: str, value: float, least: float) -> None:
    """Refuse a number that is too small, infinite or none at all."""
    if not (math.isfinite(value) and value >= least):
        msg = f"{name} must be a finite number of at least {least:g}, not {value!r}"
        raise UsageError(msg)
