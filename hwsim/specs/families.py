"""The families of Hugging Face models: which key of a ``config.json`` is which field of the Model."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from hwsim.specs.config_reader import DERIVED, Family, Fields, Reader, read

FULL = "full_attention"
_SLIDING = (FULL, "sliding_attention")
_CHUNKED = (FULL, "chunked_attention")
_USUAL_IMAGE = 448
"""Pixels of an image's edge where a tower takes any (Qwen2-VL)."""


def _fields(key: str, default: bool, *names: str) -> dict[str, tuple[str, bool]]:
    """One flag that several fields follow."""
    return dict.fromkeys(names, (key, default))


def _use_window(reader: Reader, fields: Fields, key: str, windowed: int) -> None:
    """Give `windowed` layers the window under a key."""
    if not windowed:
        return
    fields["window"] = reader.count("window", key)
    if windowed < fields.get("layers", 0):
        fields["window_layers"] = windowed


def _alternate(reader: Reader, fields: Fields, period: int) -> None:
    """Sliding windows as layer_types has them, or in all but every `period`-th layer."""
    layers = fields.get("layers", 0)
    kinds = reader.kinds("layer_types", layers, _SLIDING)
    full = kinds.count(FULL) if kinds is not None else layers // period
    _use_window(reader, fields, "sliding_window", layers - full)


def _experts_at(fields: Fields, chosen: list[int]) -> None:
    """Experts in the chosen layers: all after the first few, or spread among the others."""
    layers = fields.get("layers", 0)
    if chosen and chosen == list(range(chosen[0], layers)):
        fields["dense_layers"] = chosen[0]
    elif chosen:
        fields["expert_layers"] = len(chosen)


def _mistral(reader: Reader, fields: Fields) -> None:
    if "sliding_window" not in reader.config:
        reader.problem("sliding_window", "missing (a number of tokens, or null for full attention)")
    _window_everywhere(reader, fields)


def _window_everywhere(reader: Reader, fields: Fields) -> None:
    fields["window"] = reader.count("window", "sliding_window", DERIVED)


def _switched_window(reader: Reader, fields: Fields, windowed: int) -> None:
    """Windows of Qwen models: off unless use_sliding_window; then as layer_types has them, or in `windowed` layers."""
    kinds = reader.kinds("layer_types", fields.get("layers", 0), _SLIDING)
    if reader.flag("use_sliding_window", default=False) and reader.get("sliding_window") is not None:
        _use_window(reader, fields, "sliding_window", windowed if kinds is None else len(kinds) - kinds.count(FULL))
    elif kinds and kinds.count(FULL) < len(kinds):
        reader.problem("layer_types", "names sliding_attention, but use_sliding_window or sliding_window is off")


def _qwen2(reader: Reader, fields: Fields) -> None:
    on = reader.get("use_sliding_window") is True
    first = (reader.whole("max_window_layers", low=0) or 0) if on else 0
    _switched_window(reader, fields, max(0, fields.get("layers", 0) - first))


def _qwen2_moe(reader: Reader, fields: Fields) -> None:
    on = reader.get("use_sliding_window") is True
    last = (reader.whole("max_window_layers", low=0) or 0) if on else 0
    _switched_window(reader, fields, len(range(0, min(last, fields.get("layers", 0)), 2)))
    _sparse_step(reader, fields)


def _qwen3_moe(reader: Reader, fields: Fields) -> None:
    _switched_window(reader, fields, fields.get("layers", 0))
    _sparse_step(reader, fields)


def _sparse_step(reader: Reader, fields: Fields) -> None:
    """Experts in every decoder_sparse_step-th layer that mlp_only_layers does not name."""
    layers = fields.get("layers", 0)
    step = reader.whole("decoder_sparse_step", 1) or 1
    dense = reader.indices("mlp_only_layers", layers) or []
    chosen = [i for i in range(step - 1, layers, step) if i not in dense]
    if layers and not chosen:
        reader.problem("decoder_sparse_step", "leaves no layer with experts")
    _experts_at(fields, chosen)


def _llama4(reader: Reader, fields: Fields) -> None:
    layers = fields.get("layers", 0)
    step = reader.whole("interleave_moe_layer_step", 1) or 1
    interval = reader.whole("no_rope_layer_interval", 4) or 4
    moe = reader.indices("moe_layers", layers)
    chosen = list(range(step - 1, layers, step)) if moe is None else moe
    if layers and not chosen:
        reader.problem("moe_layers" if moe is not None else "interleave_moe_layer_step", "leaves no layer with experts")
    _experts_at(fields, chosen)
    kinds = reader.kinds("layer_types", layers, _CHUNKED)
    rotary = _rotary_layers(reader, layers, interval)
    chunked = rotary if kinds is None else len(kinds) - kinds.count(FULL)
    if reader.get("attention_chunk_size") is not None:
        _use_window(reader, fields, "attention_chunk_size", chunked)


def _rotary_layers(reader: Reader, layers: int, interval: int) -> int:
    """How many layers of Llama 4 have rotary embeddings (and chunked attention)."""
    flags = reader.get("no_rope_layers")
    if not flags:
        return layers - layers // interval
    if not isinstance(flags, list) or len(flags) != layers or any(flag not in (0, 1) for flag in flags):
        reader.problem("no_rope_layers", f"must be 0 or 1 for each of {layers} layers")
        return layers
    return sum(flags)


def _gemma3(reader: Reader, fields: Fields) -> None:
    period = reader.whole("sliding_window_pattern", 6) or 6
    _alternate(reader, fields, period)


def _cohere2(reader: Reader, fields: Fields) -> None:
    period = reader.whole("sliding_window_pattern", 4) or 4
    _alternate(reader, fields, period)


def _opt(reader: Reader, fields: Fields) -> None:
    before = reader.flag("do_layer_norm_before", default=True)
    fields["final_norm"] = before and not reader.flag("_remove_final_layer_norm", default=False)
    if fields.get("embedding_dim") == fields.get("hidden"):
        fields.pop("embedding_dim", None)


def _bloom(reader: Reader, fields: Fields) -> None:
    if "hidden" in fields:
        reader.only("n_inner", 4 * fields["hidden"])


def _mpt(reader: Reader, fields: Fields) -> None:
    fields["ffn"] = fields.get("ffn", 1) * fields.get("hidden", 1)
    for bias in ("norm_bias", "qkv_bias", "output_bias", "mlp_bias"):
        fields[bias] = not reader.flag("no_bias", default=True)


def _gptj(reader: Reader, fields: Fields) -> None:
    rotary, width = reader.whole("rotary_dim", DERIVED), fields.get("hidden", 0) // fields.get("heads", 1)
    if rotary and rotary > width > 0:
        reader.problem("rotary_dim", f"{rotary} is more than the {width} of a head")
    fields["rotary_share"] = min(1.0, (rotary or width) / max(1, width)) or 1.0


def _falcon(reader: Reader, fields: Fields) -> None:
    """Two generations: one key/value head and one norm (7B), or several heads and two norms (40B, 180B)."""
    new = reader.flag("new_decoder_architecture", default=False)
    if reader.flag("multi_query", default=True) and not new:
        fields["kv_heads"] = 1
    elif new:
        fields["kv_heads"] = reader.count("kv_heads", "num_kv_heads n_head_kv", DERIVED)
    fields["positions"] = "alibi" if reader.flag("alibi", default=False) else "rope"
    fields["parallel"] = reader.flag("parallel_attn", default=True)
    one = fields["parallel"] and reader.get("num_ln_in_parallel_attn") != 2
    fields["norms"] = 1 if one and (not new or reader.get("num_ln_in_parallel_attn") == 1) else 2


def _shared_norm(reader: Reader, fields: Fields) -> None:
    """One norm where attention and MLP run in parallel."""
    fields["norms"] = 1 if fields["parallel"] else 2


def _roberta(reader: Reader, fields: Fields) -> None:
    """The first two rows of the position table stand for padding."""
    rows = fields.get("max_positions", 3)
    if rows < 3:
        reader.problem(reader.used["max_positions"], f"must be more than 2, not {rows}")
    fields["max_positions"] = max(1, rows - 2)


def _encoder(reader: Reader, fields: Fields, **keys: str) -> None:
    """An encoder beside the decoder, its counts read from their own keys."""
    own = Reader(reader.config, reader.source, reader.problems, reader.prefix)
    counts = {name: own.count(name, key) for name, key in keys.items()}
    fields["encoder"] = {name: value for name, value in counts.items() if value is not None}
    heads = fields["encoder"].get("heads")
    if heads and fields.get("hidden", 0) % heads:
        reader.problem(own.used["heads"], f"{heads} must divide {reader.used['hidden']} {fields['hidden']}")


def _t5(reader: Reader, fields: Fields, default: str = "relu") -> None:
    """The MLP is gated where feed_forward_proj says so; decoder layers default to those of the encoder."""
    _encoder(reader, fields, layers="num_layers")
    fields.setdefault("layers", fields["encoder"].get("layers"))
    projection = default if reader.get("feed_forward_proj") is None else reader.get("feed_forward_proj")
    if isinstance(projection, str):
        fields["gated"] = projection.startswith("gated-")
    else:
        reader.problem("feed_forward_proj", 'must be text such as "relu" or "gated-gelu"')


def _mt5(reader: Reader, fields: Fields) -> None:
    _t5(reader, fields, "gated-gelu")


def _bart(reader: Reader, fields: Fields) -> None:
    _encoder(reader, fields, layers="encoder_layers", heads="encoder_attention_heads", ffn="encoder_ffn_dim")


def _vit(reader: Reader, fields: Fields) -> None:
    """As many classes as id2label names; the reference class has two where nothing names them."""
    labels = reader.get("id2label")
    given = reader.get("num_labels") is None and isinstance(labels, dict) and labels
    fields["vocab"] = len(labels) if given else reader.count("vocab", "num_labels", default=2)
    _image_positions(reader, fields)


def _image_positions(reader: Reader, fields: Fields) -> None:
    """One learned position for each patch, and for the class token."""
    edge = fields.get("image", 0) // fields.get("patch", 1)
    fields["max_positions"] = max(1, edge**2 + int(fields["class_token"]))


def _siglip(reader: Reader, fields: Fields) -> None:
    if reader.get("vision_use_head") is not False:
        reader.problem("vision_use_head", "must be false: a head that pools by attention is not supported")
    _image_positions(reader, fields)


def _any_image(reader: Reader, fields: Fields) -> None:
    """A tower of any image size; a usual one stands for all."""
    edge = fields.get("patch", 1) * 2
    fields["image"] = max(edge, _USUAL_IMAGE // edge * edge)


def _qwen2_vl_tower(reader: Reader, fields: Fields) -> None:
    fields["ffn"] = fields.get("ffn", 4) * fields.get("hidden", 1)
    _any_image(reader, fields)


def _qwen2_5_vl_tower(reader: Reader, fields: Fields) -> None:
    """Windows of window_size pixels in all layers but those of fullatt_block_indexes."""
    _any_image(reader, fields)
    layers, patch = fields.get("layers", 0), fields.get("patch", 1)
    full = reader.indices("fullatt_block_indexes", layers)
    pixels = reader.whole("window_size", 112) or 112
    if pixels < patch:
        reader.problem("window_size", f"{pixels} is less than patch_size {patch}")
    if full is not None and len(full) < layers:
        fields |= {"window": max(1, pixels // patch) ** 2, "window_layers": layers - len(full)}


def _towered(
    reader: Reader, fields: Fields, text: Iterable[str], towers: Iterable[str]
) -> tuple[Fields, Reader] | None:
    """Read the decoder of a text_config into `fields`; give the tower of the vision_config and its reader."""
    decoder, tower = reader.inside("text_config"), reader.inside("vision_config")
    if decoder is None or tower is None:
        return None
    families = [_nested(decoder, text, _TEXTS), _nested(tower, towers, TOWERS)]
    if families[0] is None or families[1] is None:
        return None
    tied = fields.pop("tied_embeddings")
    fields |= read(families[0], decoder)
    fields["tied_embeddings"] = fields["tied_embeddings"] if reader.get("tie_word_embeddings") is None else tied
    return _tower(families[1], tower), tower


def _tower(family: Family, reader: Reader) -> Fields:
    """The fields of a vision tower."""
    return {"head": "none", "causal": False} | {
        name: value for name, value in read(family, reader).items() if name not in ("tied_embeddings", "dropout")
    }


def _nested(reader: Reader, allowed: Iterable[str], table: dict[str, Family]) -> Family | None:
    """The family of a nested config; the first allowed one where its model_type is absent."""
    kinds = list(allowed)
    kind = reader.get("model_type") or kinds[0]
    if kind in kinds:
        return table.get(kind) or FAMILIES[kind]
    reader.only("model_type", *kinds)
    return None


def _llava(reader: Reader, fields: Fields) -> None:
    found = _towered(reader, fields, ("llama", "mistral", "qwen2"), ("clip_vision_model", "siglip_vision_model"))
    if found:
        width = fields.get("hidden", 1)
        bias = reader.flag("multimodal_projector_bias", default=True)
        fields["vision"] = {"tower": found[0], "projector": [width, width], "projector_bias": bias}


def _gemma3_vision(reader: Reader, fields: Fields) -> None:
    found = _towered(reader, fields, ("gemma3_text",), ("siglip_vision_model",))
    if not found or not {"image", "patch"} <= found[0].keys():
        return
    tower, tokens = found[0], reader.whole("mm_tokens_per_image", 256) or 256
    edge, side = tower["image"] // tower["patch"], math.isqrt(tokens)
    if side**2 != tokens or edge < side or edge % side:
        reader.problem("mm_tokens_per_image", f"{tokens} is not a square that divides the {edge} x {edge} patches")
        return
    projector = {"projector": [fields.get("hidden", 1)], "projector_bias": False, "projector_norm": True}
    fields["vision"] = {"tower": tower, **projector, "pool": (edge // side) ** 2}


def _llama4_vision(reader: Reader, fields: Fields) -> None:
    """The tower's adapter (pixel shuffle, two layers) and the projector after it are one projector of three layers."""
    found = _towered(reader, fields, ("llama4_text",), ("llama4_vision_model",))
    if not found:
        return
    tower, keys = found
    width = keys.whole("projector_output_dim", 4096) or 4096
    keys.only("projector_input_dim", width)
    keys.only("pixel_shuffle_ratio", 0.5)
    keys.only("vision_output_dim", width)
    if {"hidden", "ffn"} <= tower.keys():
        keys.only("intermediate_size", 4 * tower["hidden"])
    projector = {"projector": [width, width, fields.get("hidden", 1)], "projector_bias": False, "merge": 4}
    fields["vision"] = {"tower": tower, **projector}


def _qwen2_vl(reader: Reader, fields: Fields, kind: str = "qwen2_vl", out: str = "hidden_size") -> None:
    """The decoder's keys stand in a text_config or beside the vision_config."""
    decoder = reader if reader.get("text_config") is None else reader.inside("text_config")
    keys = reader.inside("vision_config")
    if decoder is None or keys is None:
        return
    tied = fields["tied_embeddings"]
    fields |= read(_TEXTS["qwen2"], decoder)
    fields["tied_embeddings"] = tied if reader.get("tie_word_embeddings") is not None else fields["tied_embeddings"]
    tower = _tower(TOWERS[kind], keys)
    merge = (keys.whole("spatial_merge_size", 2) or 2) ** 2
    if "hidden" in fields:
        keys.only(out, fields["hidden"])
    widths = [merge * tower.get("hidden", 1), fields.get("hidden", 1)]
    fields["vision"] = {"tower": tower, "projector": widths, "merge": merge}


def _qwen2_5_vl(reader: Reader, fields: Fields) -> None:
    _qwen2_vl(reader, fields, "qwen2_5_vl", "out_hidden_size")


_SHAPE = {"layers": "num_hidden_layers", "hidden": "hidden_size", "heads": "num_attention_heads"}
_LLAMA_KEYS = {
    **_SHAPE,
    **{"vocab": "vocab_size", "kv_heads": "num_key_value_heads", "head_dim": "head_dim", "ffn": "intermediate_size"},
    "max_positions": "max_position_embeddings",
}
_PLAIN_KEYS = {name: key for name, key in _LLAMA_KEYS.items() if name not in ("kv_heads", "head_dim")}
_BART_KEYS = {
    **{"layers": "decoder_layers", "hidden": "d_model", "heads": "decoder_attention_heads", "ffn": "decoder_ffn_dim"},
    **{"vocab": "vocab_size", "max_positions": "max_position_embeddings"},
}
_TOWER_KEYS = _SHAPE | {"ffn": "intermediate_size", "image": "image_size", "patch": "patch_size"}
_TOWER_KEYS |= {"channels": "num_channels"}
_QWEN_TOWER_KEYS = {"layers": "depth", "heads": "num_heads", "patch": "patch_size", "frames": "temporal_patch_size"}
_QWEN_TOWER_KEYS |= {"channels": "in_channels in_chans"}
_EXPERTS = {"experts": "num_experts", "experts_per_token": "num_experts_per_tok", "expert_ffn": "moe_intermediate_size"}
_DEEPSEEK_EXPERTS = _EXPERTS | {
    **{"experts": "n_routed_experts", "shared_experts": "n_shared_experts", "dense_layers": "first_k_dense_replace"},
    "mtp_layers": "num_nextn_predict_layers",
}
_DEEPSEEK_DEFAULTS = {"shared_experts": DERIVED, "dense_layers": DERIVED, "mtp_layers": DERIVED}
_MLA_KEYS = {"kv_rank": "kv_lora_rank", "q_rank": "q_lora_rank", "rope_dim": "qk_rope_head_dim"}
_MLA_KEYS |= {"nope_dim": "qk_nope_head_dim", "v_dim": "v_head_dim"}

_LLAMA_STYLE = {"norm": "rmsnorm", "gated": True, "positions": "rope"}
_PARALLEL = {"norm": "layernorm", "positions": "rope", "parallel": True, "norms": 1}
_BERT_STYLE = {
    **{"norm": "layernorm", "positions": "learned", "embedding_norm": True, "final_norm": False},
    **{"causal": False, "head": "mlm", "head_bias": True},
}
_BART_STYLE = {"norm": "layernorm", "positions": "learned", "position_offset": 2, "embedding_norm": True}
_TOWER_STYLE = {"norm": "layernorm", "positions": "learned", "class_token": True}
_LLAMA_DROPOUT = {"attention_dropout": 0.0}
_GPT_DROPOUT = {"attention_dropout": 0.0, "hidden_dropout": 0.0}
_BERT_DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
_BART_DROPOUT = {"dropout": 0.1, "attention_dropout": 0.0}
_HEAD_DIM = {"head_dim": DERIVED}
_KV_HEADS = {"kv_heads": DERIVED, "head_dim": DERIVED}
_ATTENTION_BIAS = _fields("attention_bias", False, "qkv_bias", "output_bias")
_ROTARY = "partial_rotary_factor rope_parameters.partial_rotary_factor"

_LLAMA = Family(
    keys=_LLAMA_KEYS,
    defaults=_KV_HEADS | {"max_positions": 2048},
    fixed=_LLAMA_STYLE,
    flags=_ATTENTION_BIAS | _fields("mlp_bias", False, "mlp_bias"),
    dropout=_LLAMA_DROPOUT,
)
_QWEN2 = Family(
    keys=_LLAMA_KEYS, defaults=_HEAD_DIM, fixed=_LLAMA_STYLE | {"qkv_bias": True}, dropout=_LLAMA_DROPOUT, rest=_qwen2
)
_QWEN3 = Family(
    keys=_LLAMA_KEYS, fixed=_LLAMA_STYLE | {"qk_norm": True}, flags=_ATTENTION_BIAS, dropout=_LLAMA_DROPOUT, rest=_qwen2
)
_GEMMA = Family(keys=_LLAMA_KEYS, fixed=_LLAMA_STYLE, flags=_ATTENTION_BIAS, tied=True, dropout=_LLAMA_DROPOUT)
_GEMMA3 = replace(_GEMMA, fixed=_LLAMA_STYLE | {"norms": 4, "qk_norm": True}, rest=_gemma3)
_COHERE = Family(
    keys=_LLAMA_KEYS,
    defaults=_KV_HEADS,
    fixed=_PARALLEL | {"norm_bias": False, "gated": True, "mlp_bias": False},
    flags=_ATTENTION_BIAS,
    tied=True,
    dropout=_LLAMA_DROPOUT,
    only={"use_qk_norm": (False,)},
)
_DEEPSEEK = Family(
    keys={name: _LLAMA_KEYS[name] for name in _PLAIN_KEYS} | _MLA_KEYS | _DEEPSEEK_EXPERTS,
    defaults=_DEEPSEEK_DEFAULTS | {"q_rank": DERIVED},
    fixed=_LLAMA_STYLE,
    dropout=_LLAMA_DROPOUT,
    only={"attention_bias": (False,), "mlp_bias": (False,), "moe_layer_freq": (1,)},
    parts=("experts",),
)
_BERT = Family(
    keys=_PLAIN_KEYS | {"token_types": "type_vocab_size"},
    defaults={"token_types": 2},
    fixed=_BERT_STYLE,
    tied=True,
    dropout=_BERT_DROPOUT,
    only={"is_decoder": (False,), "position_embedding_type": ("absolute",)},
)
_ROBERTA = replace(_BERT, fixed=_BERT_STYLE | {"position_offset": 2}, rest=_roberta)
_T5 = Family(
    keys={"layers": "num_decoder_layers", "hidden": "d_model", "heads": "num_heads", "head_dim": "d_kv"}
    | {"ffn": "d_ff", "vocab": "vocab_size", "max_positions": "n_positions"}
    | {"relative_buckets": "relative_attention_num_buckets"},
    defaults={"layers": DERIVED, "max_positions": 512, "relative_buckets": 32},
    fixed={"norm": "rmsnorm", "positions": "none"},
    tied=True,
    dropout={"dropout_rate": 0.1},
    parts=("encoder",),
    rest=_t5,
)
_BART = Family(
    keys=_BART_KEYS,
    fixed=_BART_STYLE | {"final_norm": False},
    tied=True,
    dropout=_BART_DROPOUT,
    only={"normalize_before": (False,), "add_final_layer_norm": (False,), "normalize_embedding": (True,)},
    parts=("encoder",),
    rest=_bart,
)
_VIT = Family(
    keys=_TOWER_KEYS,
    defaults={"channels": 3},
    fixed=_TOWER_STYLE | {"head": "class", "head_bias": True, "causal": False},
    flags=_fields("qkv_bias", True, "qkv_bias"),
    dropout=dict.fromkeys(_BERT_DROPOUT, 0.0),
    rest=_vit,
)

FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        keys={"layers": "n_layer", "hidden": "n_embd", "heads": "n_head", "ffn": "n_inner", "vocab": "vocab_size"}
        | {"max_positions": "n_positions n_ctx"},
        defaults={"ffn": DERIVED},
        fixed={"norm": "layernorm", "positions": "learned"},
        tied=True,
        dropout={"attn_pdrop": 0.1, "resid_pdrop": 0.1, "embd_pdrop": 0.1},
    ),
    "llama": _LLAMA,
    "mistral": Family(keys=_LLAMA_KEYS, defaults=_HEAD_DIM, fixed=_LLAMA_STYLE, dropout=_LLAMA_DROPOUT, rest=_mistral),
    "qwen2": _QWEN2,
    "qwen3": _QWEN3,
    "opt": Family(
        keys=_PLAIN_KEYS | {"ffn": "ffn_dim", "embedding_dim": "word_embed_proj_dim"},
        defaults={"embedding_dim": DERIVED},
        fixed={"norm": "layernorm", "positions": "learned", "position_offset": 2},
        flags=_fields("enable_bias", True, "qkv_bias", "output_bias", "mlp_bias"),
        tied=True,
        dropout={"dropout": 0.1, "attention_dropout": 0.0},
        only={"layer_norm_elementwise_affine": (True,)},
        rest=_opt,
    ),
    "bloom": Family(
        keys={"layers": "n_layer num_hidden_layers", "hidden": "hidden_size n_embed", "vocab": "vocab_size"}
        | {"heads": "n_head num_attention_heads", "max_positions": "seq_length"},
        defaults={"max_positions": 2048},
        fixed={"norm": "layernorm", "positions": "alibi", "embedding_norm": True},
        tied=True,
        dropout=_GPT_DROPOUT,
        rest=_bloom,
    ),
    "mpt": Family(
        keys={"layers": "n_layers", "hidden": "d_model", "heads": "n_heads", "vocab": "vocab_size"}
        | {"ffn": "expansion_ratio", "max_positions": "max_seq_len"},
        defaults={"ffn": 4},
        fixed={"norm": "layernorm", "positions": "alibi"},
        tied=True,
        dropout={"emb_pdrop": 0.0, "resid_pdrop": 0.0, "attn_config.attn_pdrop": 0.0},
        only={
            **{"norm_type": ("layernorm", "low_precision_layernorm"), "ffn_config.ffn_type": ("mptmlp",)},
            **{"attn_config.attn_type": ("multihead_attention",), "attn_config.alibi": (True,)},
            **{f"attn_config.{key}": (False,) for key in ("qk_ln", "qk_gn", "rope")},
            "attn_config.sliding_window_size": (-1,),
        },
        rest=_mpt,
    ),
    "gpt_neox": Family(
        keys=_PLAIN_KEYS,
        fixed={"norm": "layernorm", "positions": "rope"},
        flags=_fields("attention_bias", True, "qkv_bias", "output_bias")
        | _fields("use_parallel_residual", True, "parallel"),
        rotary=("rotary_pct rope_parameters.partial_rotary_factor", 0.25),
        dropout=_GPT_DROPOUT,
    ),
    "gptj": Family(
        keys={"layers": "n_layer", "hidden": "n_embd", "heads": "n_head", "ffn": "n_inner", "vocab": "vocab_size"}
        | {"max_positions": "n_positions"},
        defaults={"ffn": DERIVED},
        fixed=_PARALLEL | {"qkv_bias": False, "output_bias": False, "head_bias": True},
        dropout={"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
        rest=_gptj,
    ),
    "falcon": Family(
        keys={"layers": "num_hidden_layers n_layer", "hidden": "hidden_size", "heads": "num_attention_heads n_head"}
        | {"vocab": "vocab_size", "ffn": "ffn_hidden_size", "max_positions": "max_position_embeddings"},
        defaults={"ffn": DERIVED, "max_positions": 2048},
        fixed={"norm": "layernorm"},
        flags=_fields("bias", False, "qkv_bias", "output_bias", "mlp_bias"),
        tied=True,
        dropout=_GPT_DROPOUT,
        only={"num_ln_in_parallel_attn": (1, 2)},
        rest=_falcon,
    ),
    "gemma": _GEMMA,
    "gemma2": replace(
        _GEMMA, fixed=_LLAMA_STYLE | {"norms": 4}, rest=lambda reader, fields: _alternate(reader, fields, 2)
    ),
    "gemma3_text": _GEMMA3,
    "gemma3": Family(tied=True, parts=("vision",), rest=_gemma3_vision),
    "phi": Family(
        keys=_LLAMA_KEYS,
        defaults=_KV_HEADS,
        fixed=_PARALLEL | {"head_bias": True},
        rotary=(_ROTARY, 0.5),
        dropout={"attention_dropout": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
        only={"qk_layernorm": (False,)},
    ),
    "phi3": Family(
        keys=_LLAMA_KEYS,
        defaults=_KV_HEADS,
        fixed=_LLAMA_STYLE,
        rotary=(_ROTARY, 1.0),
        dropout={"attention_dropout": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
        only={"attention_bias": (False,)},
        rest=_window_everywhere,
    ),
    "stablelm": Family(
        keys=_LLAMA_KEYS,
        defaults=_KV_HEADS,
        fixed={"norm": "layernorm", "positions": "rope", "gated": True, "output_bias": False, "mlp_bias": False},
        flags=_fields("use_qkv_bias", False, "qkv_bias") | _fields("use_parallel_residual", False, "parallel"),
        rotary=(_ROTARY, 0.25),
        dropout=_GPT_DROPOUT,
        only={"qk_layernorm": (False,)},
        rest=_shared_norm,
    ),
    "cohere": _COHERE,
    "cohere2": replace(_COHERE, only={}, rest=_cohere2),
    "mixtral": Family(
        keys=_LLAMA_KEYS | {"experts": "num_local_experts", "experts_per_token": "num_experts_per_tok"},
        defaults=_HEAD_DIM,
        fixed=_LLAMA_STYLE,
        dropout=_LLAMA_DROPOUT,
        parts=("experts",),
        rest=_window_everywhere,
    ),
    "qwen2_moe": replace(
        _QWEN2,
        keys=_LLAMA_KEYS | _EXPERTS | {"shared_ffn": "shared_expert_intermediate_size"},
        fixed=_LLAMA_STYLE | {"shared_experts": 1, "shared_gate": True},
        flags=_fields("qkv_bias", True, "qkv_bias"),
        parts=("experts",),
        rest=_qwen2_moe,
    ),
    "qwen3_moe": replace(_QWEN3, keys=_LLAMA_KEYS | _EXPERTS, parts=("experts",), rest=_qwen3_moe),
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "kimi_k2": _DEEPSEEK,
    "llama4_text": Family(
        keys=_LLAMA_KEYS
        | {"ffn": "intermediate_size_mlp", "expert_ffn": "intermediate_size", "experts": "num_local_experts"}
        | {"experts_per_token": "num_experts_per_tok"},
        defaults=_HEAD_DIM,
        fixed=_LLAMA_STYLE | {"shared_experts": 1},
        flags=_ATTENTION_BIAS,
        dropout=_LLAMA_DROPOUT,
        parts=("experts",),
        rest=_llama4,
    ),
    "llama4": Family(parts=("vision",), rest=_llama4_vision),
    "gpt_oss": Family(
        keys=_LLAMA_KEYS | {"experts": "num_local_experts", "experts_per_token": "num_experts_per_tok"},
        fixed=_LLAMA_STYLE | {"sinks": True, "router_bias": True, "mlp_bias": True},
        flags=_fields("attention_bias", True, "qkv_bias", "output_bias"),
        dropout=_LLAMA_DROPOUT,
        parts=("experts",),
        rest=lambda reader, fields: _alternate(reader, fields, 2),
    ),
    "glm4_moe": Family(
        keys=_LLAMA_KEYS | _DEEPSEEK_EXPERTS,
        defaults=_DEEPSEEK_DEFAULTS | _HEAD_DIM,
        fixed=_LLAMA_STYLE,
        flags=_fields("attention_bias", False, "qkv_bias") | _fields("use_qk_norm", False, "qk_norm"),
        rotary=(_ROTARY, 0.5),
        dropout=_LLAMA_DROPOUT,
        parts=("experts",),
    ),
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": Family(
        keys={"layers": "n_layers", "hidden": "dim", "heads": "n_heads", "ffn": "hidden_dim", "vocab": "vocab_size"}
        | {"max_positions": "max_position_embeddings"},
        fixed=_BERT_STYLE,
        tied=True,
        dropout={"dropout": 0.1, "attention_dropout": 0.1},
    ),
    "t5": _T5,
    "mt5": replace(_T5, tied=False, rest=_mt5),
    "bart": _BART,
    "mbart": replace(
        _BART,
        fixed=_BART_STYLE | {"final_norm": True},
        only={"normalize_before": (True,), "add_final_layer_norm": (True,), "normalize_embedding": (True,)},
    ),
    "marian": replace(
        _BART,
        fixed=_BART_STYLE | {"position_offset": 0, "embedding_norm": False, "final_norm": False},
        only={"normalize_before": (False,), "add_final_layer_norm": (False,), "normalize_embedding": (False,)}
        | {"share_encoder_decoder_embeddings": (True,)},
    ),
    "vit": _VIT,
    "llava": Family(parts=("vision",), only={"vision_feature_select_strategy": ("default",)}, rest=_llava),
    "qwen2_vl": Family(parts=("vision",), rest=_qwen2_vl),
    "qwen2_5_vl": Family(parts=("vision",), rest=_qwen2_5_vl),
}
"""By model_type."""

_TEXTS: dict[str, Family] = {
    "llama": replace(
        _LLAMA,
        defaults={**_LLAMA.defaults, "layers": 32, "hidden": 4096, "heads": 32, "ffn": 11008, "vocab": 32000},
    ),
    "gemma3_text": replace(
        _GEMMA3, defaults={"heads": 8, "kv_heads": 4, "head_dim": 256, "vocab": 262208, "max_positions": 131072}
    ),
    "qwen2": replace(_QWEN2, parts=("vision",)),
}
"""Decoders beside a vision tower, where published files leave out what the reference class has by default."""

_QWEN_TOWER_STYLE = {"positions": "rope", "patch_bias": False, "qkv_bias": True, "output_bias": True, "mlp_bias": True}
TOWERS: dict[str, Family] = {
    "clip_vision_model": Family(
        keys=_TOWER_KEYS,
        defaults={"channels": 3},
        fixed=_TOWER_STYLE | {"embedding_norm": True, "patch_bias": False},
        rest=_image_positions,
    ),
    "siglip_vision_model": Family(
        keys=_TOWER_KEYS, defaults={"channels": 3}, fixed=_TOWER_STYLE | {"class_token": False}, rest=_siglip
    ),
    "llama4_vision_model": Family(
        keys=_TOWER_KEYS,
        defaults={"channels": 3},
        fixed=_TOWER_STYLE | {"embedding_norm": True, "patch_bias": False},
        rest=_image_positions,
    ),
    "qwen2_vl": Family(
        keys=_QWEN_TOWER_KEYS | {"hidden": "embed_dim", "ffn": "mlp_ratio"},
        defaults={"ffn": 4, "channels": 3},
        fixed=_QWEN_TOWER_STYLE | {"norm": "layernorm"},
        rest=_qwen2_vl_tower,
    ),
    "qwen2_5_vl": Family(
        keys=_QWEN_TOWER_KEYS | {"hidden": "hidden_size", "ffn": "intermediate_size"},
        defaults={"channels": 3},
        fixed=_QWEN_TOWER_STYLE | {"norm": "rmsnorm", "gated": True},
        rest=_qwen2_5_vl_tower,
    ),
}
"""Vision towers by model_type of the vision_config; the norm before Qwen's merger is the tower's final norm."""
