"""A Transformer, described by its shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from hwsim.specs.base import Count, Fraction, Name, NaturalCount, Spec, Text

STACK = (
    "hidden", "heads", "kv_heads", "head_dim", "ffn", "gated", "vocab", "positions", "max_positions", "position_offset",
    "relative_buckets", "norm", "norm_bias", "qkv_bias", "output_bias", "mlp_bias", "embedding_norm", "final_norm",
    "dropout",
)  # fmt: skip
"""What an encoder takes from the decoder it feeds, where its own fields do not say otherwise."""
MLA = ("kv_rank", "rope_dim", "nope_dim", "v_dim")


class Model(Spec):
    """A Transformer: one stack of layers (or a decoder with an encoder or a vision tower before it).

    All but `layers`, `hidden` and `heads` have defaults, which make a decoder-only GPT.

    Examples
    --------
    >>> Model(name="tiny", layers=2, hidden=64, heads=4).ffn
    256
    >>> Model(layers=2, hidden=64, heads=4, encoder={"layers": 3}).encoder.hidden
    64
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
    """Inner width of the MLP (of dense layers, where others have experts). Default: 4 x hidden."""
    gated: bool = False
    """Gated MLP (SwiGLU, GeGLU): three matrices instead of two."""
    vocab: Count = Field(default=50257, le=10**8)
    """Tokens in the vocabulary, as the checkpoint stores it; classes, where the head names classes."""
    tied_embeddings: bool = True
    """The LM head shares the embedding matrix."""
    positions: Literal["learned", "rope", "alibi", "none"] = "learned"
    """Position encoding."""
    max_positions: Count = Field(default=2048, le=10**9)
    """Rows of a learned position table (and the context the model was made for)."""
    position_offset: int = Field(default=0, ge=0, le=1000)
    """Extra rows in a learned position table (OPT has 2)."""
    rotary_share: Fraction = 1.0
    """Part of each head that rotary embeddings turn (GPT-NeoX: a quarter)."""
    relative_buckets: NaturalCount = Field(default=0, le=10**6)
    """Rows of a table of relative positions, one column a head (T5 has 32); 0: none."""
    token_types: NaturalCount = Field(default=0, le=10**4)
    """Rows of a token-type table (BERT has 2); 0: none."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Normalisation: layernorm has scale and shift, rmsnorm scale alone."""
    norm_bias: bool = True
    """Layernorm carries a shift (MPT's does not)."""
    norms: Literal[1, 2, 4] = 2
    """Norms in a layer: 1 shared by parallel attention and MLP, 2 usual, 4 also after attention and MLP (Gemma 2)."""
    parallel: bool = False
    """Attention and MLP read the same input and are added together (GPT-J, GPT-NeoX, Falcon)."""
    qk_norm: bool = False
    """RMSNorm over each query and key head (Qwen3)."""
    qk_norm_wide: bool = False
    """That norm spans all heads at once (MiniMax-M2): tensor-parallel peers add up their sums of squares."""
    embedding_norm: bool = False
    """Layernorm after the embedding (BLOOM)."""
    final_norm: bool = True
    """Normalisation after the last block (post-norm models have none)."""
    embedding_dim: Count | None = Field(default=None, le=10**6)
    """Width of the embedding where it differs from `hidden` (OPT-350M): projections in and out are added."""
    qkv_bias: bool = True
    """The query, key and value projections carry a bias."""
    output_bias: bool = True
    """The attention output projection carries a bias."""
    mlp_bias: bool = True
    """The MLP matrices (of experts too) carry a bias."""
    head_bias: bool = False
    """The LM head carries a bias."""
    head: Literal["lm", "mlm", "class", "none"] = "lm"
    """Output: next token; masked token (a dense layer and norm before the vocabulary); one class; none (a tower)."""
    causal: bool = True
    """Queries see earlier keys only (decoders); false: all keys (encoders)."""
    sinks: bool = False
    """One learned logit per head beside the scores (gpt-oss)."""
    dropout: bool = False
    """Trained with dropout on attention, residuals and embedding: masks are saved for the backward pass."""
    window: Count | None = Field(default=None, le=10**9)
    """Sliding attention window (or chunk) in tokens; none: full attention."""
    window_layers: NaturalCount | None = Field(default=None, le=10_000)
    """Layers that have the window, spread evenly among full ones; default: all of them."""
    kv_rank: NaturalCount = Field(default=0, le=10**6)
    """Multi-head latent attention: width of the latent of keys and values; 0: plain attention."""
    q_rank: NaturalCount = Field(default=0, le=10**6)
    """Width of the latent of queries; 0: queries are projected directly."""
    rope_dim: NaturalCount = Field(default=0, le=10**5)
    """Rotary part of each query head, and of the one key all heads share (MLA)."""
    nope_dim: NaturalCount = Field(default=0, le=10**5)
    """Other part of each query and key head (MLA)."""
    v_dim: NaturalCount = Field(default=0, le=10**5)
    """Width of each value head (MLA)."""
    index_heads: NaturalCount = Field(default=0, le=10**5)
    """Sparse attention of served models: heads of the indexer that chooses keys (DeepSeek-V3.2); 0: all are read."""
    index_dim: NaturalCount = Field(default=0, le=10**5)
    """Width of its heads, and of its one key a token."""
    index_keys: NaturalCount = Field(default=0, le=10**7)
    """Most keys that it leaves to a query."""
    experts: NaturalCount = Field(default=0, le=10**5)
    """Routed experts of a mixture-of-experts layer; 0: dense layers only."""
    experts_per_token: NaturalCount = Field(default=0, le=10**4)
    """Routed experts that a token goes to. Default: 2 where there are experts."""
    expert_ffn: NaturalCount = Field(default=0, le=10**7)
    """Inner width of one expert. Default: `ffn`."""
    shared_experts: NaturalCount = Field(default=0, le=10**4)
    """Experts that every token goes to."""
    shared_ffn: NaturalCount = Field(default=0, le=10**7)
    """Inner width of all shared experts together. Default: shared_experts x expert_ffn."""
    shared_gate: bool = False
    """A learned gate weighs the shared experts (Qwen2-MoE)."""
    routed_nodes: NaturalCount = Field(default=0, le=10_000)
    """Most nodes that the experts of a token are chosen on (DeepSeek-V3: 4); 0: any."""
    router_bias: bool = False
    """The router carries a bias (gpt-oss)."""
    dense_layers: NaturalCount = Field(default=0, le=10_000)
    """First layers without experts (DeepSeek-V3: 3)."""
    expert_layers: NaturalCount | None = Field(default=None, le=10_000)
    """Layers with experts, spread evenly among those after the first dense ones; default: all of them."""
    mtp_layers: NaturalCount = Field(default=0, le=100)
    """Layers that predict further tokens in training (DeepSeek-V3: 1)."""
    patch: NaturalCount = Field(default=0, le=10**4)
    """Edge of an image patch in pixels: the input is images; 0: tokens."""
    image: NaturalCount = Field(default=0, le=10**5)
    """Edge of an image in pixels."""
    channels: Count = Field(default=3, le=1000)
    """Of an image."""
    frames: Count = Field(default=1, le=1000)
    """Frames in a patch (Qwen2-VL: 2)."""
    patch_bias: bool = True
    """The patch projection carries a bias."""
    class_token: bool = False
    """A learned token stands before the patches (ViT, CLIP)."""
    encoder: Model | None = None
    """Stack that reads the source; every decoder layer attends to its output. What it leaves out is the decoder's."""
    vision: Vision | None = None
    """Tower whose image tokens stand among the decoder's tokens."""

    @property
    def is_mla(self) -> bool:
        """Multi-head latent attention."""
        return self.kv_rank > 0

    @property
    def is_tied(self) -> bool:
        """Whether the head multiplies by the token table."""
        return self.tied_embeddings and self.head in ("lm", "mlm") and not self.patch

    @property
    def gate(self) -> float:
        """Matrices by which an MLP widens a token: 2 where one gates the other."""
        return 2.0 if self.gated else 1.0

    @property
    def attention_dim(self) -> float:
        """Width of a head as attention kernels see it: the mean of keys and values where those differ."""
        return 0.5 * (self.nope_dim + self.rope_dim + self.v_dim) if self.is_mla else float(self.head_dim)

    @property
    def image_tokens(self) -> int:
        """Tokens of one image in this stack; 0 for a stack of tokens."""
        return (self.image // self.patch) ** 2 + self.class_token if self.patch else 0

    @model_validator(mode="wrap")
    @classmethod
    def _complete(cls, data: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        """Fill the widths that follow from others (they do not count as set), build, and check that all fits."""
        if not isinstance(data, dict):
            return build(data)
        data = {name: value for name, value in data.items() if value is not None or name not in _NUMBERS}
        model = build(cls._with_defaults(data))
        problem = next((message for wrong, message in _contradictions(model, data) if wrong), None)
        if problem:
            raise ValueError(problem)
        model.model_fields_set.intersection_update(data)
        return model

    @staticmethod
    def _with_defaults(data: dict[str, Any]) -> dict[str, Any]:
        """Add what follows from other fields, and the missing biases of RMSNorm (Llama-style) models."""
        heads, hidden = data.get("heads"), data.get("hidden")
        derived: dict[str, Any] = {"kv_heads": 1, "head_dim": 1, "ffn": 1}
        if isinstance(heads, int) and isinstance(hidden, int) and 0 < heads <= hidden <= 10**6:
            derived = {"kv_heads": heads, "head_dim": hidden // heads, "ffn": 4 * hidden}
        biases = ("qkv_bias", "output_bias", "mlp_bias") if data.get("norm") == "rmsnorm" else ()
        whole = {**derived, **dict.fromkeys(biases, False), **data}
        if whole.get("experts"):
            whole["experts_per_token"] = whole.get("experts_per_token") or 2
            whole["expert_ffn"] = whole.get("expert_ffn") or whole["ffn"]
            whole["shared_ffn"] = whole.get("shared_ffn") or _product(whole.get("shared_experts"), whole["expert_ffn"])
        if isinstance(whole.get("encoder"), Mapping):
            inherited = {name: whole[name] for name in STACK if name in whole}
            sizes = ("kv_heads", "head_dim", "ffn") if {"hidden", "heads"} & set(whole["encoder"]) else ()
            inherited = {name: value for name, value in inherited.items() if name not in sizes}
            whole["encoder"] = {**inherited, "causal": False, "head": "none", **whole["encoder"]}
        return whole


class Vision(Spec):
    """A vision tower and what joins it to a decoder."""

    tower: Model
    """Stack over image patches, without a head."""
    projector: tuple[Count, ...] = ()
    """Widths after each linear layer of the projector; the last is the decoder's `hidden`."""
    projector_bias: bool = True
    """They carry biases."""
    projector_norm: bool = False
    """A norm of the decoder's kind, as wide as the tower, stands before them (Gemma 3)."""
    merge: Count = 1
    """Neighbouring patches joined into one token of the decoder (Qwen2-VL: 4)."""
    pool: Count = 1
    """Neighbouring patches averaged into one token (Gemma 3: 16)."""

    @model_validator(mode="after")
    def _reads_images(self) -> Vision:
        if not (self.tower.patch and self.tower.image):
            msg = "tower: needs patch and image, in pixels"
            raise ValueError(msg)
        return self

    @property
    def tokens(self) -> int:
        """Tokens of one image among the decoder's."""
        return (self.tower.image_tokens - self.tower.class_token) // (self.merge * self.pool)


_NUMBERS = ("experts", "experts_per_token", "shared_experts", "expert_ffn", "dense_layers", "mtp_layers")
"""Fields of mixture-of-experts models that a dense one may give as null."""


def _product(count: Any, width: Any) -> int:
    return count * width if isinstance(count, int) and isinstance(width, int) and count and width <= 10**7 else 0


def _contradictions(m: Model, given: Mapping[str, Any]) -> list[tuple[bool, str]]:
    """What cannot hold at once, and what to say of it."""
    mixed = m.layers - m.dense_layers
    return [
        ("head_dim" not in given and not m.is_mla and m.hidden % m.heads > 0,
         f"heads {m.heads} must divide hidden {m.hidden}, or head_dim be given"),
        (m.heads % m.kv_heads > 0, f"kv_heads {m.kv_heads} must divide heads {m.heads}"),
        (m.experts_per_token > m.experts, f"experts_per_token {m.experts_per_token} is more than experts {m.experts}"),
        (m.experts == 0 and m.shared_experts > 0, "shared_experts need experts"),
        (m.dense_layers >= m.layers and m.experts > 0, f"dense_layers {m.dense_layers} leave none of {m.layers}"),
        ((m.expert_layers or 0) > mixed, f"expert_layers {m.expert_layers} are more than the {mixed} left for them"),
        ((m.window_layers or 0) > m.layers, f"window_layers {m.window_layers} are more than layers {m.layers}"),
        (m.window_layers is not None and m.window is None, "window_layers need a window"),
        (m.is_mla and not all(getattr(m, name) for name in MLA), f"latent attention needs {', '.join(MLA)}"),
        (m.norms == 1 and not m.parallel, "norms: 1 needs parallel attention and MLP"),
        ((m.patch > 0) != (m.image > 0), "patch and image go together"),
        (m.patch > 0 and m.image < m.patch, f"image {m.image} is smaller than its patch {m.patch}"),
        (m.head == "none" and m.encoder is not None, "a decoder needs a head"),
        (m.vision is not None and m.vision.projector[-1:] not in ((), (m.hidden,)),
         f"vision.projector must end at hidden {m.hidden}"),
    ]  # fmt: skip


Model.model_rebuild()
