"""The models that `hwsim validate pytorch` builds: small ones to train, presets to run without memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """One model and the batch it is given."""

    group: str
    """What the rows are listed under."""
    id: str
    model: str | Mapping[str, Any]
    """Preset, or fields of a model."""
    seq_len: int
    micro_batch: int
    attention: str = "flash"
    source_len: int | None = None
    """Tokens of the source, where there is an encoder."""
    fake: bool = False
    """Run on tensors without memory: what needs real ones is left out."""
    short: bool = True
    """Part of the short run."""
    twin: bool = False
    """A model of torch.nn's own layers with as many parameters can be made."""

    @property
    def job(self) -> dict[str, Any]:
        """Arguments of an estimate: one device, steps of two micro-batches."""
        source = {} if self.source_len is None else {"source_len": self.source_len}
        batch = {"micro_batch": self.micro_batch, "global_batch": 2 * self.micro_batch, "seq_len": self.seq_len}
        return {"framework": "pytorch", "attention": self.attention, **batch, **source}


@dataclass(frozen=True)
class Shapes:
    """Models small enough to train on two cores."""

    gpt: Mapping[str, Any] = field(
        default_factory=lambda: {"layers": 4, "hidden": 256, "heads": 4, "vocab": 1000, "max_positions": 128}
    )
    textbook: Mapping[str, Any] = field(
        default_factory=lambda: {
            "layers": 3, "hidden": 128, "heads": 4, "vocab": 500, "positions": "none", "final_norm": False,
            "tied_embeddings": False, "dropout": True, "encoder": {"layers": 2},
        }
    )  # fmt: skip
    llama: Mapping[str, Any] = field(
        default_factory=lambda: {
            "layers": 4, "hidden": 256, "heads": 8, "kv_heads": 2, "ffn": 688, "gated": True, "vocab": 1000,
            "tied_embeddings": False, "positions": "rope", "norm": "rmsnorm",
        }
    )  # fmt: skip
    experts: Mapping[str, Any] = field(
        default_factory=lambda: {
            "experts": 8, "experts_per_token": 2, "expert_ffn": 256, "shared_experts": 1, "dense_layers": 1,
        }
    )  # fmt: skip


def cases(short: bool) -> list[Case]:
    """Every case, or those of the short run."""
    s = Shapes()
    mixture = {**s.llama, **s.experts}
    narrow = {**s.gpt, "vocab": 64}
    every = [
        Case("GPT decoder", "gpt", {"name": "gpt", **s.gpt}, 128, 4),
        Case("GPT decoder", "gpt-unfused", {"name": "gpt", **s.gpt, "dropout": True}, 128, 4, "unfused"),
        Case("GPT decoder", "gpt-narrow", {"name": "gpt", **narrow}, 128, 4, short=False),
        Case("GPT decoder", "gpt-long", {"name": "gpt", **narrow, "hidden": 128, "max_positions": 512}, 512, 1,
             "unfused", short=False),
        Case("GPT decoder", "gpt-wide", {"name": "gpt", **s.gpt, "vocab": 16_000}, 64, 1, short=False),
        Case("encoder-decoder", "textbook", {"name": "textbook", **s.textbook}, 96, 4, "unfused", 64, twin=True),
        Case("encoder-decoder", "textbook-flash", {"name": "textbook", **s.textbook, "dropout": False}, 96, 4, "flash",
             64, short=False, twin=True),
        Case("Llama-style decoder", "llama", {"name": "llama", **s.llama}, 128, 4),
        Case("Llama-style decoder", "llama-unfused", {"name": "llama", **s.llama, "qk_norm": True}, 128, 2, "unfused",
             short=False),
        Case("mixture of experts", "experts", {"name": "experts", **mixture}, 128, 4),
        Case("mixture of experts", "experts-4", {"name": "experts", **mixture, "experts_per_token": 4,
             "shared_experts": 0, "dense_layers": 0}, 64, 4, short=False),
        Case("presets without memory", "t5-11b", "t5-11b", 512, 1, "unfused", 512, fake=True, short=False),
        Case("presets without memory", "llama-3-70b", "llama-3-70b", 512, 1, fake=True, short=False),
        Case("presets without memory", "mixtral-8x7b", "mixtral-8x7b", 512, 1, fake=True, short=False),
    ]  # fmt: skip
    return [case for case in every if case.short or not short]


STEPS = (
    (128, 64, 8, 2, 1000), (128, 256, 2, 4, 4000), (192, 128, 4, 3, 2000), (256, 64, 8, 4, 8000),
    (256, 256, 2, 2, 1000), (320, 128, 4, 4, 4000), (384, 96, 4, 6, 2000), (384, 256, 1, 3, 8000),
    (448, 128, 4, 2, 1000), (512, 64, 4, 4, 4000), (512, 384, 1, 2, 2000), (576, 128, 2, 4, 4000),
    (640, 192, 2, 3, 1000), (768, 64, 4, 2, 8000), (768, 256, 1, 3, 2000), (1024, 128, 2, 2, 4000),
)  # fmt: skip
"""Width, tokens, sequences in a micro-batch, layers and vocabulary of the models whose steps are timed."""


def timed_cases(short: bool) -> list[Case]:
    """Models to time, every second of them like Llama; a quarter of them in the short run."""
    found = []
    for place, (hidden, seq_len, batch, layers, vocab) in enumerate(STEPS):
        name, heads = f"{'llama' if place % 2 else 'gpt'}-{hidden}-{seq_len}", hidden // 64
        shape = {"name": name, "layers": layers, "hidden": hidden, "heads": heads, "vocab": vocab}
        shared = heads if heads % 2 else heads // 2
        gated = {"gated": True, "norm": "rmsnorm", "positions": "rope", "kv_heads": shared, "ffn": 3 * hidden}
        fields = shape | (gated if place % 2 else {"max_positions": seq_len})
        found.append(Case("step times", name, fields, seq_len, batch))
    return found[:: 4 if short else 1]


CONVENTIONS = (
    "FLOPs are those of multiplies, as torch.utils.flop_counter counts them: norms, softmax, GELU, look-ups and the "
    "optimizer have none.",
    "Fused attention: PyTorch's counter takes the whole square of scores, hwsim the causal triangle that is executed; "
    "compared is hwsim's count of the same model without a mask.",
    "Fused attention on a CPU is missing in PyTorch's counter: counted with PyTorch's own formulas for a GPU's kernel.",
    "Saved bytes: each storage once, as autograd's pack hook sees them; without parameters (they are weights) and "
    "scalars (the loss divides by one).",
    "LayerNorm in bf16: a CPU keeps its statistics in bf16, a GPU in fp32, as predicted: 0.5 % allowed on a CPU.",
    "Optimizer state: without step counters, one scalar per tensor.",
    "Experts: every expert gets the same number of rows (a bias on the choice sees to it); sums do not depend on it.",
    "Dropout: torch.native_dropout, the kernel of GPUs, with a mask of one byte; the CPU's own keeps a number.",
    "Activation: GELU, or SwiGLU where it is gated; a model's fields do not name others.",
    "RMSNorm: one PyTorch operator after the other, as Llama's code has it, not a fused kernel.",
    "Collectives: every call PyTorch issues, counted in processes that talk through gloo or NCCL. Told, not judged: "
    "row counts that experts exchange first, rows that really leave a device (the router decides), gradients of norms "
    "that sequence parallelism leaves in parts.",
    "Peak: storages alive at once in a step of two micro-batches, gradients kept between them; the optimizer updates "
    "one parameter after the other (foreach=False); what a kernel takes and gives back inside itself is not seen.",
)
"""What both sides agree to count, and why."""
