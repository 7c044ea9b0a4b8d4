"""The parallel runs that are held against hwsim: small models, each way of sharing a step over 2 or 4 processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SEQ_LEN = 32
GPT: Mapping[str, Any] = {
    "layers": 2, "hidden": 64, "heads": 4, "ffn": 256, "vocab": 128, "max_positions": SEQ_LEN,
}  # fmt: skip
LLAMA: Mapping[str, Any] = {
    "layers": 2, "hidden": 64, "heads": 8, "kv_heads": 4, "ffn": 192, "vocab": 128, "max_positions": SEQ_LEN,
    "gated": True, "norm": "rmsnorm", "positions": "rope", "tied_embeddings": False,
}  # fmt: skip
MOE: Mapping[str, Any] = {**LLAMA, "experts": 8, "experts_per_token": 2, "expert_ffn": 64}
DEEP_GPT: Mapping[str, Any] = {**GPT, "layers": 4}
DEEP_LLAMA: Mapping[str, Any] = {**LLAMA, "layers": 4}
ONE_CALL = "one call for all gradients (DDP's default buckets of 25 MiB hold these, too)"
BY_LAYER = "one call per layer and one for what lies outside, as fully_shard wraps them"
RING = "cp - 1 sends round a ring for each gather or scatter that hwsim lists"
NORMS = "DTensor sums the gradient of every norm over its peers, once a step each: listed, in no estimate"
SAVED_WHOLE = ("framework.gathers_again=false",)
"""DTensor saves what it gathers for a multiply."""
SCATTERED = ("framework.scatter_sends=true",)
"""Tensor-parallel peers send a piece each of what they hand on, and gather on arrival (Megatron)."""


@dataclass(frozen=True)
class Case:
    """One parallel run and the strategy it stands for."""

    id: str
    group: str
    """Which kind of parallelism it is about."""
    ranks: int
    model: Mapping[str, Any]
    """As `hwsim.specs.model.Model` reads it."""
    strategy: Mapping[str, int | str]
    """What differs from one process, one micro-batch at a time, no ZeRO."""
    way: str = "plain"
    """Who reduces gradients: plain code, ddp or fsdp; pipelining and dtensor are those libraries of PyTorch."""
    note: str = ""
    short: bool = False
    """It is among the few of a short comparison."""
    gathers: bool = False
    """Context parallelism gathers keys and values instead of passing them round."""
    keeps_root: bool = False
    """FSDP keeps what lies outside the layers whole until the backward pass: its default."""
    half: bool = False
    """In bf16: all of it, or with FSDP what is gathered but not what is reduced. The loss is nearly that of fp32."""
    settings: tuple[str, ...] = ()
    """Habits of the software that differ from framework `pytorch`."""
    columns: Mapping[str, Any] = field(init=False)
    """The whole strategy."""

    def __post_init__(self) -> None:
        usual = {"tp": 1, "pp": 1, "cp": 1, "ep": 1, "zero": 0, "micro_batch": 2, "sequence_parallel": 0,
                 "recompute": "none", "vpp": 1, "schedule": "1f1b"}  # fmt: skip
        columns: dict[str, Any] = {**usual, "seq_len": SEQ_LEN, **self.strategy}
        columns["dp"] = self.ranks // (columns["tp"] * columns["pp"] * columns["cp"])
        columns.setdefault("shard", columns["dp"] * columns["cp"])
        columns.setdefault("global_batch", 2 * columns["micro_batch"] * columns["dp"])
        columns["sequence_parallel"] = bool(columns["sequence_parallel"])
        object.__setattr__(self, "columns", columns)

    @property
    def framework(self) -> str:
        """Whose habits hwsim is asked about: those of plain PyTorch, or of FSDP where it has the weights."""
        return "fsdp" if self.way == "fsdp" else "pytorch"

    @property
    def rings(self) -> bool:
        """Its keys and values go round by sends."""
        return self.columns["cp"] > 1 and not self.gathers

    def order(self) -> dict[str, Any]:
        """What its processes are told."""
        m = self.model
        model = {
            "layers": m["layers"], "hidden": m["hidden"], "heads": m["heads"],
            "kv_heads": m.get("kv_heads", m["heads"]),
            "ffn": m["ffn"], "vocab": m["vocab"], "seq": SEQ_LEN, "gated": m.get("gated", False),
            "norm": m.get("norm", "layernorm"), "biases": m.get("norm", "layernorm") == "layernorm",
            "positions": m.get("positions", "learned"), "tied": m.get("tied_embeddings", True),
            "experts": m.get("experts", 0), "experts_per_token": m.get("experts_per_token", 0),
            "expert_ffn": m.get("expert_ffn", 0), "gathers": self.gathers, "scatters": self.settings == SCATTERED,
            "recompute": self.columns["recompute"],
        }  # fmt: skip
        strategy = dict(self.columns)
        return {
            "id": self.id, "torch_model": model, "strategy": strategy, "way": self.way, "keeps_root": self.keeps_root,
            "half": self.half,
        }  # fmt: skip


def cases(short: bool) -> tuple[Case, ...]:
    """All of them, or a few."""
    return tuple(case for case in CASES if case.short or not short)


CASES = (
    Case("ddp-2", "data", 2, GPT, {}, "ddp", ONE_CALL, short=True),
    Case("ddp-4", "data", 4, LLAMA, {}, "ddp", ONE_CALL),
    Case("zero1-2", "data", 2, GPT, {"zero": 1}, short=True),
    Case("zero1-4", "data", 4, LLAMA, {"zero": 1}),
    Case("zero2-2", "sharded", 2, GPT, {"zero": 2}, "fsdp", BY_LAYER),
    Case("zero2-4", "sharded", 4, LLAMA, {"zero": 2}, "fsdp", BY_LAYER),
    Case("zero3-2", "sharded", 2, GPT, {"zero": 3}, "fsdp", BY_LAYER, short=True),
    Case("zero3-4", "sharded", 4, LLAMA, {"zero": 3}, "fsdp", BY_LAYER),
    Case("hsdp-4", "sharded", 4, GPT, {"zero": 3, "shard": 2}, "fsdp", BY_LAYER),
    Case("zero3-bf16-2", "sharded", 2, GPT, {"zero": 3}, "fsdp", BY_LAYER, half=True),
    Case("zero3-root-2", "sharded", 2, GPT, {"zero": 3}, "fsdp", BY_LAYER, keeps_root=True),
    Case("zero3-again-2", "sharded", 2, GPT, {"zero": 3, "recompute": "full"}, "fsdp", BY_LAYER),
    Case("tp-fsdp-4", "sharded", 4, LLAMA, {"zero": 3, "tp": 2}, "fsdp", BY_LAYER),
    Case("tp-2", "tensor", 2, GPT, {"tp": 2}, short=True),
    Case("tp-4", "tensor", 4, LLAMA, {"tp": 4}),
    Case("tp-sp-2", "tensor", 2, LLAMA, {"tp": 2, "sequence_parallel": 1}, short=True),
    Case("tp-bf16-2", "tensor", 2, LLAMA, {"tp": 2}, half=True),
    Case("tp-sp-gpt-2", "tensor", 2, GPT, {"tp": 2, "sequence_parallel": 1}),
    Case("tp-sp-4", "tensor", 4, LLAMA, {"tp": 4, "sequence_parallel": 1}),
    Case("tp-dp-4", "tensor", 4, GPT, {"tp": 2, "zero": 1}),
    Case("tp-again-2", "tensor", 2, GPT, {"tp": 2, "recompute": "full"}),
    Case("tp-sp-again-2", "tensor", 2, LLAMA, {"tp": 2, "sequence_parallel": 1, "recompute": "full"}),
    Case("tp-dtensor-2", "tensor", 2, LLAMA, {"tp": 2, "sequence_parallel": 1}, "dtensor", NORMS, settings=SAVED_WHOLE),
    Case("tp-dtensor-4", "tensor", 4, LLAMA, {"tp": 4, "sequence_parallel": 1}, "dtensor", NORMS, settings=SAVED_WHOLE),
    Case("pp-2", "pipeline", 2, GPT, {"pp": 2, "global_batch": 8}, short=True),
    Case("pp-4", "pipeline", 4, DEEP_GPT, {"pp": 4, "global_batch": 16}),
    Case("pp-tp-4", "pipeline", 4, LLAMA, {"pp": 2, "tp": 2, "sequence_parallel": 1, "global_batch": 8}),
    Case("pp-scatter-4", "pipeline", 4, GPT, {"pp": 2, "tp": 2, "global_batch": 8}, settings=SCATTERED),
    Case("pp-dp-4", "pipeline", 4, GPT, {"pp": 2, "zero": 1, "global_batch": 16}),
    Case("pp-library-2", "pipeline", 2, GPT, {"pp": 2, "global_batch": 8}, "pipelining"),
    Case("pp-gpipe-4", "pipeline", 4, DEEP_GPT, {"pp": 4, "global_batch": 16, "schedule": "gpipe"}, "pipelining"),
    Case(
        "pp-interleaved-2",
        "pipeline",
        2,
        DEEP_GPT,
        {"pp": 2, "vpp": 2, "global_batch": 8, "schedule": "interleaved"},
        "pipelining",
    ),
    Case("cp-2", "context", 2, LLAMA, {"cp": 2}, note=RING, short=True),
    Case("cp-4", "context", 4, LLAMA, {"cp": 4}, note=RING),
    Case("cp-gather-4", "context", 4, LLAMA, {"cp": 4}, gathers=True),
    Case("cp-again-2", "context", 2, LLAMA, {"cp": 2, "recompute": "selective"}, note=RING),
    Case("cp-gather-again-2", "context", 2, LLAMA, {"cp": 2, "recompute": "full"}, gathers=True),
    Case("cp-tp-4", "context", 4, LLAMA, {"cp": 2, "tp": 2, "sequence_parallel": 1}, note=RING),
    Case("cp-fsdp-4", "context", 4, LLAMA, {"cp": 2, "zero": 3}, "fsdp", RING),
    Case("ep-2", "expert", 2, MOE, {"ep": 2}, short=True),
    Case("ep-4", "expert", 4, MOE, {"ep": 4}),
    Case("ep-dp-4", "expert", 4, MOE, {"ep": 2}),
    Case("ep-zero1-4", "expert", 4, MOE, {"ep": 2, "zero": 1}),
    Case("ep-tp-2", "expert", 2, MOE, {"ep": 2, "tp": 2, "sequence_parallel": 1}),
    Case("ep-tp-4", "expert", 4, MOE, {"ep": 4, "tp": 2, "sequence_parallel": 1}),
    Case("ep-again-2", "expert", 2, MOE, {"ep": 2, "recompute": "full"}),
    Case("ep-pp-4", "expert", 4, MOE, {"ep": 2, "pp": 2, "global_batch": 8}),
)
