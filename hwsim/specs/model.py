"""A Transformer, described by its shape."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from hwsim.specs.base import Count, Name, Spec, Text


class Model(Spec):
    """A decoder-only Transformer. All but `layers`, `hidden` and `heads` have defaults.

    Examples
    --------
    >>> Model(name="tiny", layers=2, hidden=64, heads=4).ffn
    256
    """

    name: Name = "custom"
    """Preset name."""
    title: Text = ""
    """The name people know it by."""
    source: Text = ""
    """Where the shape was read."""
    layers: Count = Field(le=10_000)
    """Transformer blocks."""
    hidden: Count = Field(le=10**6)
    """Width of the residual stream."""
    heads: Count = Field(le=10**5)
    """Query heads."""
    kv_heads: Count = Field(le=10**5)
    """Key/value heads: `heads` for MHA, 1 for MQA, between for GQA. Default: `heads`."""
    head_dim: Count = Field(le=10**5)
    """Width of one head. Default: hidden / heads."""
    ffn: Count = Field(le=10**7)
    """Inner width of the MLP. Default: 4 x hidden."""
    gated: bool = False
    """Gated MLP (SwiGLU, GeGLU): three matrices instead of two."""
    vocab: Count = Field(default=50257, le=10**8)
    """Tokens in the vocabulary, as the checkpoint stores it."""
    tied_embeddings: bool = True
    """The LM head shares the embedding matrix."""
    positions: Literal["learned", "rope", "alibi", "none"] = "learned"
    """Position encoding."""
    max_positions: Count = Field(default=2048, le=10**9)
    """Rows of a learned position table (and the context the model was made for)."""
    position_offset: int = Field(default=0, ge=0, le=1000)
    """Extra rows in a learned position table (OPT has 2)."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Normalisation: layernorm has scale and shift, rmsnorm scale alone."""
    norm_bias: bool = True
    """Layernorm carries a shift (MPT's does not)."""
    qk_norm: bool = False
    """RMSNorm over each query and key head (Qwen3)."""
    embedding_norm: bool = False
    """Layernorm after the embedding (BLOOM)."""
    final_norm: bool = True
    """Normalisation after the last block."""
    embedding_dim: Count | None = Field(default=None, le=10**6)
    """Width of the embedding where it differs from `hidden` (OPT-350M): projections in and out are added."""
    qkv_bias: bool = True
    """The query, key and value projections carry a bias."""
    output_bias: bool = True
    """The attention output projection carries a bias."""
    mlp_bias: bool = True
    """The MLP matrices carry a bias."""
    head_bias: bool = False
    """The LM head carries a bias."""
    dropout: bool = False
    """Trained with dropout on attention, residuals and embedding: masks are saved for the backward pass."""
    window: Count | None = Field(default=None, le=10**9)
    """Sliding attention window in tokens (Mistral-7B v0.1); none: full attention."""

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, data: Any) -> Any:
        """Fill the widths that follow from others, and the missing biases of RMSNorm (Llama-style) models."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        heads, hidden = (data.get(name) for name in ("heads", "hidden"))
        readable = isinstance(heads, int) and isinstance(hidden, int) and heads > 0 and hidden > 0
        data.setdefault("kv_heads", heads if readable else 1)
        data.setdefault("head_dim", max(1, hidden // heads) if readable else 1)
        data.setdefault("ffn", 4 * hidden if readable else 1)
        if data.get("norm") == "rmsnorm":
            for bias in ("qkv_bias", "output_bias", "mlp_bias"):
                data.setdefault(bias, False)
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        if self.heads % self.kv_heads:
            msg = f"kv_heads {self.kv_heads} must divide heads {self.heads}"
            raise ValueError(msg)
        return self
