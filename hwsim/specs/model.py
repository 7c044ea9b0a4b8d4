"""A Transformer, described by its shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from hwsim.specs.base import Count, Name, Spec, Text


class Model(Spec):
    """A decoder-only Transformer. All but `layers`, `hidden` and `heads` have defaults.

    Examples
    --------
    >>> Model(name="tiny", layers=2, hidden=64, heads=4).ffn
    256
    """

    not_yet: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("experts", "experts_per_token", "shared_experts", "expert_ffn", "dense_layers"),
        "mixture-of-experts layers are not supported yet",
    )
    """Fields of other models, which a dense one may give as 0 or null, and what is missing for them."""

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

    @model_validator(mode="wrap")
    @classmethod
    def _complete(cls, data: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        """Fill the widths that follow from others (they do not count as set), build, and check that the heads fit."""
        if isinstance(data, dict):
            data = {name: value for name, value in data.items() if value or name not in cls.not_yet}
        given = cls._with_defaults(data) if isinstance(data, dict) else data
        model = build(given)
        if isinstance(data, dict) and "head_dim" not in data and model.hidden % model.heads:
            msg = f"heads {model.heads} must divide hidden {model.hidden}, or head_dim be given"
            raise ValueError(msg)
        if model.heads % model.kv_heads:
            msg = f"kv_heads {model.kv_heads} must divide heads {model.heads}"
            raise ValueError(msg)
        if isinstance(data, dict):
            model.model_fields_set.intersection_update(data)
        return model

    @staticmethod
    def _with_defaults(data: dict[str, Any]) -> dict[str, Any]:
        """Add the widths that follow from others, and the missing biases of RMSNorm (Llama-style) models."""
        heads, hidden = data.get("heads"), data.get("hidden")
        derived = {"kv_heads": 1, "head_dim": 1, "ffn": 1}
        if isinstance(heads, int) and isinstance(hidden, int) and 0 < heads <= hidden <= 10**6:
            derived = {"kv_heads": heads, "head_dim": hidden // heads, "ffn": 4 * hidden}
        biases = ("qkv_bias", "output_bias", "mlp_bias") if data.get("norm") == "rmsnorm" else ()
        return {**derived, **dict.fromkeys(biases, False), **data}
