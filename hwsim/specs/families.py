"""The families of Hugging Face models that read text: which key of a ``config.json`` is which field of the Model."""

from __future__ import annotations

from dataclasses import replace

from hwsim.specs import family_rules as rules
from hwsim.specs.config_reader import DERIVED, Family


def _fields(key: str, default: bool, *names: str) -> dict[str, tuple[str, bool]]:
    """One flag that several fields follow."""
    return dict.fromkeys(names, (key, default))


SHAPE = {"layers": "num_hidden_layers", "hidden": "hidden_size", "heads": "num_attention_heads"}
_LLAMA_KEYS = {
    **SHAPE,
    **{"vocab": "vocab_size", "kv_heads": "num_key_value_heads", "head_dim": "head_dim", "ffn": "intermediate_size"},
    "max_positions": "max_position_embeddings",
}
_PLAIN_KEYS = {name: key for name, key in _LLAMA_KEYS.items() if name not in ("kv_heads", "head_dim")}
_BART_KEYS = {
    **{"layers": "decoder_layers", "hidden": "d_model", "heads": "decoder_attention_heads", "ffn": "decoder_ffn_dim"},
    **{"vocab": "vocab_size", "max_positions": "max_position_embeddings"},
}
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
    keys=_LLAMA_KEYS,
    defaults=_HEAD_DIM,
    fixed=_LLAMA_STYLE | {"qkv_bias": True},
    dropout=_LLAMA_DROPOUT,
    rest=rules.qwen2,
)
_QWEN3 = Family(
    keys=_LLAMA_KEYS,
    fixed=_LLAMA_STYLE | {"qk_norm": True},
    flags=_ATTENTION_BIAS,
    dropout=_LLAMA_DROPOUT,
    rest=rules.qwen2,
)
_GEMMA = Family(keys=_LLAMA_KEYS, fixed=_LLAMA_STYLE, flags=_ATTENTION_BIAS, tied=True, dropout=_LLAMA_DROPOUT)
_GEMMA3 = replace(_GEMMA, fixed=_LLAMA_STYLE | {"norms": 4, "qk_norm": True}, rest=rules.gemma3)
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
    rest=rules.deepseek,
)
_BERT = Family(
    keys=_PLAIN_KEYS | {"token_types": "type_vocab_size"},
    defaults={"token_types": 2},
    fixed=_BERT_STYLE,
    tied=True,
    dropout=_BERT_DROPOUT,
    only={"is_decoder": (False,), "position_embedding_type": ("absolute",)},
)
_ROBERTA = replace(_BERT, fixed=_BERT_STYLE | {"position_offset": 2}, rest=rules.roberta)
_T5 = Family(
    keys={"layers": "num_decoder_layers", "hidden": "d_model", "heads": "num_heads", "head_dim": "d_kv"}
    | {"ffn": "d_ff", "vocab": "vocab_size", "max_positions": "n_positions"}
    | {"relative_buckets": "relative_attention_num_buckets"},
    defaults={"layers": DERIVED, "max_positions": 512, "relative_buckets": 32},
    fixed={"norm": "rmsnorm", "positions": "none"},
    tied=True,
    dropout={"dropout_rate": 0.1},
    parts=("encoder",),
    rest=rules.t5,
)
_BART = Family(
    keys=_BART_KEYS,
    fixed=_BART_STYLE | {"final_norm": False},
    tied=True,
    dropout=_BART_DROPOUT,
    only={"normalize_before": (False,), "add_final_layer_norm": (False,), "normalize_embedding": (True,)},
    parts=("encoder",),
    rest=rules.bart,
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
    "mistral": Family(
        keys=_LLAMA_KEYS, defaults=_HEAD_DIM, fixed=_LLAMA_STYLE, dropout=_LLAMA_DROPOUT, rest=rules.mistral
    ),
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
        rest=rules.opt,
    ),
    "bloom": Family(
        keys={"layers": "n_layer num_hidden_layers", "hidden": "hidden_size n_embed", "vocab": "vocab_size"}
        | {"heads": "n_head num_attention_heads", "max_positions": "seq_length"},
        defaults={"max_positions": 2048},
        fixed={"norm": "layernorm", "positions": "alibi", "embedding_norm": True},
        tied=True,
        dropout=_GPT_DROPOUT,
        rest=rules.bloom,
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
        rest=rules.mpt,
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
        rest=rules.gptj,
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
        rest=rules.falcon,
    ),
    "gemma": _GEMMA,
    "gemma2": replace(
        _GEMMA, fixed=_LLAMA_STYLE | {"norms": 4}, rest=lambda reader, fields: rules.alternate(reader, fields, 2)
    ),
    "gemma3_text": _GEMMA3,
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
        rest=rules.window_everywhere,
    ),
    "stablelm": Family(
        keys=_LLAMA_KEYS,
        defaults=_KV_HEADS,
        fixed={"norm": "layernorm", "positions": "rope", "gated": True, "output_bias": False, "mlp_bias": False},
        flags=_fields("use_qkv_bias", False, "qkv_bias") | _fields("use_parallel_residual", False, "parallel"),
        rotary=(_ROTARY, 0.25),
        dropout=_GPT_DROPOUT,
        only={"qk_layernorm": (False,)},
        rest=rules.shared_norm,
    ),
    "cohere": _COHERE,
    "cohere2": replace(_COHERE, only={}, rest=rules.cohere2),
    "mixtral": Family(
        keys=_LLAMA_KEYS | {"experts": "num_local_experts", "experts_per_token": "num_experts_per_tok"},
        defaults=_HEAD_DIM,
        fixed=_LLAMA_STYLE,
        dropout=_LLAMA_DROPOUT,
        parts=("experts",),
        rest=rules.window_everywhere,
    ),
    "qwen2_moe": replace(
        _QWEN2,
        keys=_LLAMA_KEYS | _EXPERTS | {"shared_ffn": "shared_expert_intermediate_size"},
        fixed=_LLAMA_STYLE | {"shared_experts": 1, "shared_gate": True},
        flags=_fields("qkv_bias", True, "qkv_bias"),
        parts=("experts",),
        rest=rules.qwen2_moe,
    ),
    "qwen3_moe": replace(_QWEN3, keys=_LLAMA_KEYS | _EXPERTS, parts=("experts",), rest=rules.qwen3_moe),
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
        rest=rules.llama4,
    ),
    "gpt_oss": Family(
        keys=_LLAMA_KEYS | {"experts": "num_local_experts", "experts_per_token": "num_experts_per_tok"},
        fixed=_LLAMA_STYLE | {"sinks": True, "router_bias": True, "mlp_bias": True},
        flags=_fields("attention_bias", True, "qkv_bias", "output_bias"),
        dropout=_LLAMA_DROPOUT,
        parts=("experts",),
        rest=lambda reader, fields: rules.alternate(reader, fields, 2),
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
    "mt5": replace(_T5, tied=False, rest=rules.mt5),
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
}
"""By model_type."""
