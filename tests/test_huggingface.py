"""Hugging Face config.json files: each family gives the preset's Model, each bad input one line naming its key."""

import json
from pathlib import Path

import pytest

from hwsim import specs
from hwsim.errors import InputFileError
from hwsim.specs.files import read_yaml, validate
from hwsim.specs.huggingface import fields_from_config, load_config
from hwsim.specs.model import Model

PUBLISHED = json.loads((Path(__file__).parent / "data" / "configs.json").read_text(encoding="utf-8"))
"""What published config.json files say of the shape, by preset."""
PRESETS = Path(specs.__file__).parents[1] / "data" / "models"
GPT2 = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "vocab_size": 50257,
}
LLAMA_1 = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_sequence_length": 2048,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
LLAMA_3_1 = LLAMA_1 | {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_key_value_heads": 8,
    "rope_scaling": {"factor": 8.0, "rope_type": "llama3"},
    "vocab_size": 128256,
}
MISTRAL = LLAMA_1 | {
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_key_value_heads": 8,
    "sliding_window": 4096,
}
QWEN2 = {
    "attention_dropout": 0.0,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 24,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3 = QWEN2 | {
    "attention_bias": False,
    "head_dim": 128,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "sliding_window": None,
}
OPT = {
    "attention_dropout": 0.0,
    "do_layer_norm_before": True,
    "dropout": 0.1,
    "ffn_dim": 3072,
    "hidden_size": 768,
    "max_position_embeddings": 2048,
    "model_type": "opt",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "vocab_size": 50272,
    "word_embed_proj_dim": 768,
}
OPT_350M = OPT | {
    "do_layer_norm_before": False,
    "ffn_dim": 4096,
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "word_embed_proj_dim": 512,
}
BLOOM = {
    "apply_residual_connection_post_layernorm": False,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    "model_type": "bloom",
    "n_embed": 1024,
    "n_inner": None,
    "n_layer": 24,
    "num_attention_heads": 16,
    "vocab_size": 250880,
}
MPT = {
    "architectures": ["MPTForCausalLM"],
    "attn_config": {"alibi": True, "attn_pdrop": 0, "attn_type": "multihead_attention", "qk_ln": False},
    "auto_map": {"AutoConfig": "configuration_mpt.MPTConfig"},
    "d_model": 4096,
    "emb_pdrop": 0,
    "expansion_ratio": 4,
    "max_seq_len": 2048,
    "model_type": "mpt",
    "n_heads": 32,
    "n_layers": 32,
    "no_bias": True,
    "norm_type": "low_precision_layernorm",
    "resid_pdrop": 0,
    "vocab_size": 50432,
}
CONFIGS = {
    "gpt2": GPT2,
    "llama-1-7b": LLAMA_1,
    "llama-3.1-8b": LLAMA_3_1,
    "mistral-7b": MISTRAL,
    "mistral-7b-v0.3": MISTRAL | {"sliding_window": None, "vocab_size": 32768},
    "qwen2.5-0.5b": QWEN2,
    "qwen3-0.6b": QWEN3,
    "opt-125m": OPT,
    "opt-350m": OPT_350M,
    "bloom-560m": BLOOM,
    "mpt-7b": MPT,
}
BERT, ROBERTA, T5, BART, MARIAN = (
    PUBLISHED[name] for name in ("bert-base", "roberta-large", "t5-base", "bart-base", "marian-en-de")
)
VIT, LLAVA, QWEN2_VL, GEMMA3 = (
    PUBLISHED[name] for name in ("vit-base-16", "llava-1.5-7b", "qwen2-vl-7b", "gemma-3-4b")
)
GPTJ, FALCON, FALCON_40B, GEMMA2, PHI = (
    PUBLISHED[name] for name in ("gpt-j-6b", "falcon-7b", "falcon-40b", "gemma-2-2b", "phi-2")
)
MIXTRAL, QWEN2_MOE, QWEN3_MOE, DEEPSEEK = (
    PUBLISHED[name] for name in ("mixtral-8x7b", "qwen2-57b-a14b", "qwen3-30b-a3b", "deepseek-v3")
)
LLAMA_4, GPT_OSS, GLM = (PUBLISHED[name] for name in ("llama-4-scout", "gpt-oss-20b", "glm-4.5"))
NEOX = PUBLISHED["pythia-6.9b"]
MBART = BART | {"model_type": "mbart", "normalize_before": True, "add_final_layer_norm": True}
MT5 = {key: T5[key] for key in T5 if key != "tie_word_embeddings"} | {"model_type": "mt5", "num_heads": 6, "d_kv": 64}
STABLELM = LLAMA_3_1 | {"model_type": "stablelm", "use_qkv_bias": True, "partial_rotary_factor": 0.25}
COHERE = {key: LLAMA_3_1[key] for key in LLAMA_3_1 if key != "tie_word_embeddings"} | {"model_type": "cohere"}
COHERE2 = COHERE | {"model_type": "cohere2", "sliding_window": 4096}
QWEN2_5_VL = QWEN2_VL | {
    "model_type": "qwen2_5_vl",
    "vision_config": {
        **{"depth": 32, "fullatt_block_indexes": [7, 15, 23, 31], "hidden_size": 1280, "in_chans": 3, "num_heads": 16},
        **{"intermediate_size": 3420, "out_hidden_size": 3584, "patch_size": 14, "spatial_merge_size": 2},
        **{"temporal_patch_size": 2, "window_size": 112},
    },
}


def within(config, key, change):
    return config | {key: config[key] | change}


def model(config):
    return Model(**fields_from_config(config, "config.json"))


def problems(config):
    with pytest.raises(InputFileError) as caught:
        fields_from_config(config, "config.json")
    return caught.value.problems


def problems_or_none(config):
    try:
        model(config)
    except InputFileError as error:
        return error.problems
    return []


@pytest.mark.parametrize("preset", [*CONFIGS, *PUBLISHED])
def test_config_gives_the_model_of_the_preset(preset):
    ours = {"name", "title", "source"}
    expected = validate(Model, read_yaml(PRESETS / f"{preset}.yaml"))
    assert model({**CONFIGS, **PUBLISHED}[preset]).model_dump(exclude=ours) == expected.model_dump(exclude=ours)


MIXED = ["full_attention", "sliding_attention"] * 12


@pytest.mark.parametrize(
    ("config", "change", "expected"),
    [
        (LLAMA_3_1, {"attention_bias": True}, {"qkv_bias": True, "output_bias": True, "mlp_bias": False}),
        (LLAMA_3_1, {"mlp_bias": True}, {"mlp_bias": True, "qkv_bias": False}),
        (LLAMA_3_1, {"tie_word_embeddings": True, "head_dim": 64}, {"tied_embeddings": True, "head_dim": 64}),
        (LLAMA_3_1, {"attention_dropout": 0.1}, {"dropout": True}),
        (LLAMA_3_1, {"num_key_value_heads": None}, {"kv_heads": 32}),
        (QWEN2, {"use_sliding_window": True, "max_window_layers": 0}, {"window": 32768}),
        (QWEN2, {"use_sliding_window": True}, {"window": None}),
        (QWEN2, {"layer_types": ["full_attention"] * 24}, {"window": None}),
        (QWEN2, {"use_sliding_window": True, "max_window_layers": 18}, {"window": 32768, "window_layers": 6}),
        (QWEN2 | {"use_sliding_window": True}, {"layer_types": MIXED}, {"window": 32768, "window_layers": 12}),
        (QWEN3, {"attention_bias": True}, {"qkv_bias": True, "output_bias": True, "qk_norm": True}),
        (OPT, {"enable_bias": False}, {"qkv_bias": False, "output_bias": False, "mlp_bias": False}),
        (BLOOM, {"n_inner": 4096, "seq_length": 4096}, {"ffn": 4096, "max_positions": 4096}),
        (MPT, {"no_bias": False, "expansion_ratio": 2}, {"mlp_bias": True, "norm_bias": True, "ffn": 8192}),
        (GPT2, {"n_inner": 1000, "tie_word_embeddings": False}, {"ffn": 1000, "tied_embeddings": False}),
        (BERT, {"tie_word_embeddings": False, "type_vocab_size": 0}, {"tied_embeddings": False, "token_types": 0}),
        (ROBERTA, {"model_type": "xlm-roberta"}, {"max_positions": 512, "position_offset": 2, "token_types": 1}),
        (MT5, {}, {"gated": True, "tied_embeddings": False, "head_dim": 64, "relative_buckets": 32}),
        (T5, {"num_decoder_layers": 6}, {"layers": 6, "gated": False, "tied_embeddings": True}),
        (MBART, {}, {"final_norm": True, "embedding_norm": True, "position_offset": 2}),
        (VIT, {"num_labels": None, "id2label": {"0": "cat", "1": "dog", "2": "cow"}}, {"vocab": 3}),
        (VIT, {"num_labels": None, "image_size": 384}, {"vocab": 2, "max_positions": 577, "image_tokens": 577}),
        (NEOX, {"use_parallel_residual": False, "attention_bias": False}, {"parallel": False, "qkv_bias": False}),
        (GPTJ, {"rotary_dim": None}, {"rotary_share": 1.0, "norms": 1, "head_bias": True}),
        (FALCON, {"multi_query": False, "bias": True, "alibi": True}, {"kv_heads": 71, "positions": "alibi"}),
        (FALCON, {"parallel_attn": False}, {"parallel": False, "norms": 2}),
        (FALCON_40B, {"num_kv_heads": None, "num_ln_in_parallel_attn": 1}, {"kv_heads": 128, "norms": 1}),
        (GEMMA2, {"layer_types": ["sliding_attention"] * 26}, {"window": 4096, "window_layers": None}),
        (
            PHI,
            {"partial_rotary_factor": None, "rope_parameters": {"partial_rotary_factor": 0.25}},
            {"rotary_share": 0.25},
        ),
        (STABLELM, {}, {"norms": 2, "qkv_bias": True, "output_bias": False, "norm": "layernorm", "gated": True}),
        (STABLELM, {"use_parallel_residual": True}, {"parallel": True, "norms": 1}),
        (COHERE, {}, {"parallel": True, "norms": 1, "norm_bias": False, "mlp_bias": False, "tied_embeddings": True}),
        (COHERE2, {}, {"window": 4096, "window_layers": 24}),
        (MIXTRAL, {"sliding_window": 4096}, {"window": 4096, "experts": 8, "expert_ffn": 14336}),
        (QWEN2_MOE, {"mlp_only_layers": [0, 1]}, {"dense_layers": 2, "expert_layers": None}),
        (QWEN2_MOE, {"use_sliding_window": True}, {"window": 131072, "window_layers": 14}),
        (QWEN3_MOE, {"decoder_sparse_step": 2}, {"dense_layers": 0, "expert_layers": 24}),
        (
            DEEPSEEK,
            {"num_nextn_predict_layers": None, "n_shared_experts": None},
            {"mtp_layers": 0, "shared_experts": 0},
        ),
        (GLM, {"use_qk_norm": False, "attention_bias": False}, {"qk_norm": False, "qkv_bias": False}),
    ],
)
def test_switches_of_a_family_reach_the_model(config, change, expected):
    read = model(config | change)
    assert {name: getattr(read, name) for name in expected} == expected


def test_an_encoder_keeps_its_own_shape():
    encoder = model(BART | {"encoder_layers": 2, "encoder_attention_heads": 6, "encoder_ffn_dim": 1000}).encoder
    assert (encoder.layers, encoder.heads, encoder.head_dim, encoder.ffn) == (2, 6, 128, 1000)
    assert (encoder.positions, encoder.position_offset, encoder.embedding_norm, encoder.causal) == (
        *("learned", 2, True),
        False,
    )
    assert model(T5 | {"num_decoder_layers": 3}).encoder.layers == 12


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"interleave_moe_layer_step": 2}, {"expert_layers": 24, "dense_layers": 0}),
        ({"moe_layers": list(range(4, 48))}, {"expert_layers": None, "dense_layers": 4}),
        ({"attention_chunk_size": None}, {"window": None, "window_layers": None}),
        ({"no_rope_layers": [1, 0] * 24}, {"window": 8192, "window_layers": 24}),
        ({"layer_types": ["full_attention"] * 40 + ["chunked_attention"] * 8}, {"window_layers": 8}),
    ],
)
def test_llama_4_mixes_layers(change, expected):
    text = model({"model_type": "llama4_text", **LLAMA_4["text_config"], **change})
    beside = model(within(LLAMA_4, "text_config", change))
    for read in (text, beside):
        assert {name: getattr(read, name) for name in expected} == expected
    assert (text.vision, beside.vision.tokens) == (None, 144)


def test_vision_towers():
    window = model(QWEN2_5_VL).vision
    assert (window.tower.window, window.tower.window_layers, window.tower.gated, window.tokens) == (64, 28, True, 256)
    assert window.projector == (5120, 3584)
    nested = {"text_config": {key: QWEN2_VL[key] for key in QWEN2 if key in QWEN2_VL and key != "model_type"}}
    moved = {key: value for key, value in QWEN2_VL.items() if key not in nested["text_config"]} | nested
    assert model(moved) == model(QWEN2_VL)
    siglip = GEMMA3["vision_config"]
    llava = model(LLAVA | {"vision_config": siglip, "multimodal_projector_bias": False}).vision
    assert (llava.tower.class_token, llava.tower.patch_bias, llava.projector_bias) == (False, True, False)
    assert model(within(GEMMA3, "text_config", {"tie_word_embeddings": False})).tied_embeddings is False


@pytest.mark.parametrize(
    ("config", "key"),
    [(config, key) for config in CONFIGS.values() for key in config if key.startswith(("n_l", "n_h", "num_h", "vocab"))]
    + [(config, "num_attention_heads") for config in (LLAMA_1, LLAMA_3_1, MISTRAL, QWEN2, QWEN3, OPT, BLOOM)]
    + [(config, "num_key_value_heads") for config in (MISTRAL, QWEN2, QWEN3)]
    + [(LLAMA_1, "intermediate_size"), (LLAMA_1, "hidden_size"), (GPT2, "n_embd"), (MPT, "d_model"), (OPT, "ffn_dim")]
    + [(QWEN3, "head_dim"), (MISTRAL, "sliding_window"), (OPT, "max_position_embeddings")]
    + [(BERT, "intermediate_size"), (T5, "d_kv"), (T5, "num_layers"), (BART, "encoder_layers"), (MARIAN, "d_model")]
    + [(VIT, "patch_size"), (VIT, "image_size"), (NEOX, "intermediate_size"), (GPTJ, "n_layer"), (FALCON, "vocab_size")]
    + [
        (GEMMA2, "sliding_window"),
        (GEMMA2, "head_dim"),
        (MIXTRAL, "num_local_experts"),
        (MIXTRAL, "num_experts_per_tok"),
    ]
    + [(QWEN2_MOE, "shared_expert_intermediate_size"), (QWEN3_MOE, "moe_intermediate_size"), (GPT_OSS, "head_dim")]
    + [(DEEPSEEK, "kv_lora_rank"), (DEEPSEEK, "v_head_dim"), (DEEPSEEK, "n_routed_experts"), (GLM, "n_routed_experts")]
    + [(LLAVA, "vision_config"), (LLAVA, "text_config"), (LLAMA_4, "text_config"), (QWEN2_VL, "vision_config")],
)
def test_missing_shape_key_is_named(config, key):
    [line] = problems({name: value for name, value in config.items() if name != key})
    named = {"num_attention_heads": "n_head"}.get(key, key) if config is BLOOM else key
    assert line.startswith(f"config.json: {named}: missing")


@pytest.mark.parametrize("bad", ["32", 32.0, True, -1, 0, 10**12, 10**5000, [32], {"a": 1}], ids=range(9))
@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "num_key_value_heads", "vocab_size"])
def test_wrong_number_is_named(key, bad):
    [line] = problems(LLAMA_3_1 | {key: bad})
    assert line.startswith(f"config.json: {key}: must be ")
    assert len(line) < 200


@pytest.mark.parametrize(
    ("config", "change", "expected"),
    [
        (LLAMA_3_1, {"num_attention_heads": 40}, "num_attention_heads: 40 must divide hidden_size 4096"),
        (LLAMA_3_1, {"num_key_value_heads": 5}, "num_key_value_heads: 5 must divide num_attention_heads 32"),
        (GPT2, {"n_head": 7}, "n_head: 7 must divide n_embd 768"),
        (LLAMA_3_1, {"tie_word_embeddings": "yes"}, "tie_word_embeddings: must be true or false, not 'yes'"),
        (LLAMA_3_1, {"attention_dropout": 2}, "attention_dropout: must be a number between 0 and 1, not 2"),
        (LLAMA_3_1, {"num_local_experts": 8}, "num_local_experts: mixture-of-experts layers are not part of"),
        (GPT2, {"add_cross_attention": True}, "add_cross_attention: an encoder or cross-attention"),
        (QWEN2, {"use_sliding_window": True, "max_window_layers": None}, "max_window_layers: must be a whole number"),
        (QWEN2, {"layer_types": MIXED}, "layer_types: names sliding_attention, but use_sliding_window"),
        (QWEN2, {"layer_types": ["full_attention"] * 23}, "layer_types: must name one"),
        (QWEN2, {"layer_types": "full_attention"}, "layer_types: must name one"),
        (OPT, {"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine: false is not supported"),
        (BLOOM, {"n_inner": 5}, "n_inner: 5 is not supported (only 4096)"),
        (MPT, {"attn_config": {"alibi": False}}, "attn_config.alibi: false is not supported (only true)"),
        (MPT, {"attn_config": {"attn_type": "multiquery_attention"}}, "attn_config.attn_type: 'multiquery_attention'"),
        (MPT, {"attn_config": [1]}, "attn_config: must be an object, not a list"),
        (LLAMA_3_1, {"model_type": None}, "model_type: missing (supported: gpt2, llama"),
        (LLAMA_3_1, {"model_type": 3}, "model_type: must be text, not 3"),
        (LLAMA_3_1, {"model_type": "lama"}, "model_type: 'lama' is not supported - did you mean llama, "),
        (LLAMA_3_1, {"model_type": "dbrx"}, "model_type: 'dbrx' is not supported: its experts are laid out"),
        (LLAMA_3_1, {"model_type": "olmo2"}, "model_type: 'olmo2' is not supported: its norm of queries and keys"),
        (LLAMA_3_1, {"model_type": "umt5"}, "model_type: 'umt5' is not supported: its kind of encoder and decoder"),
        (LLAMA_3_1, {"model_type": "mamba"}, "model_type: 'mamba' is not supported: state-space"),
        (LLAMA_3_1, {"vision_config": {}}, "vision_config: a vision tower is not part of this model_type"),
        (BERT, {"is_decoder": True}, "is_decoder: true is not supported (only false)"),
        (BERT, {"position_embedding_type": "relative_key"}, "position_embedding_type: 'relative_key' is not supported"),
        (ROBERTA, {"max_position_embeddings": 2}, "max_position_embeddings: must be more than 2, not 2"),
        (T5, {"feed_forward_proj": 3}, "feed_forward_proj: must be text"),
        (T5, {"num_layers": "12"}, "num_layers: must be a whole number, not '12'"),
        (BART, {"encoder_attention_heads": 7}, "encoder_attention_heads: 7 must divide d_model 768"),
        (BART, {"normalize_before": True}, "normalize_before: true is not supported (only false)"),
        (MARIAN, {"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings: false is not"),
        (VIT, {"patch_size": 300}, "patch_size: 300 is more than image_size 224"),
        (VIT, {"image_size": [224, 224]}, "image_size: must be a whole number, not a list"),
        (GPTJ, {"rotary_dim": 512}, "rotary_dim: 512 is more than the 256 of a head"),
        (NEOX, {"rotary_pct": 0}, "rotary_pct: must be more than 0, not 0"),
        (FALCON_40B, {"num_kv_heads": 3}, "num_kv_heads: 3 must divide num_attention_heads 128"),
        (FALCON, {"num_ln_in_parallel_attn": 3}, "num_ln_in_parallel_attn: 3 is not supported"),
        (PHI, {"qk_layernorm": True}, "qk_layernorm: true is not supported (only false)"),
        (COHERE, {"use_qk_norm": True}, "use_qk_norm: true is not supported (only false)"),
        (GEMMA2, {"layer_types": ["local"] * 26}, "layer_types: must name one of full_attention and sliding_attention"),
        (MIXTRAL, {"num_experts_per_tok": 9}, "num_experts_per_tok: 9 is more than num_local_experts 8"),
        (MIXTRAL, {"num_local_experts": 0}, "num_local_experts: must be between 1 and 100,000"),
        (MIXTRAL, {"num_local_experts": "8"}, "num_local_experts: must be a whole number, not '8'"),
        (QWEN2_MOE, {"mlp_only_layers": list(range(28))}, "decoder_sparse_step: leaves no layer with experts"),
        (QWEN2_MOE, {"mlp_only_layers": [28]}, "mlp_only_layers: must be a list of layer numbers below 28"),
        (QWEN3_MOE, {"decoder_sparse_step": 0}, "decoder_sparse_step: must be between 1 and"),
        (DEEPSEEK, {"first_k_dense_replace": 61}, "first_k_dense_replace: 61 leaves none with experts of num_hidden"),
        (DEEPSEEK, {"moe_layer_freq": 2}, "moe_layer_freq: 2 is not supported (only 1)"),
        (DEEPSEEK, {"num_experts_per_tok": 300}, "num_experts_per_tok: 300 is more than n_routed_experts 256"),
        (LLAVA, {"text_config": "llama"}, "text_config: must be an object, not 'llama'"),
        (LLAVA, {"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy: 'full' is not supported"),
        (LLAVA, {"text_config": {"model_type": "mamba"}}, "text_config.model_type: 'mamba' is not supported (only"),
        (LLAVA, {"text_config": {"hidden_size": 4095}}, "text_config.num_attention_heads: 32 must divide hidden_size"),
        (GEMMA3, {"mm_tokens_per_image": 200}, "mm_tokens_per_image: 200 is not a square"),
        (
            within(GEMMA3, "vision_config", {"vision_use_head": True}),
            {},
            "vision_config.vision_use_head: must be false",
        ),
        (
            within(LLAVA, "vision_config", {"image_size": 10}),
            {},
            "vision_config.patch_size: 14 is more than image_size",
        ),
        (within(LLAVA, "vision_config", {"patch_size": "x"}), {}, "vision_config.patch_size: must be a whole number"),
        (within(LLAMA_4, "vision_config", {"pixel_shuffle_ratio": 1}), {}, "vision_config.pixel_shuffle_ratio: 1 is"),
        (
            within(LLAMA_4, "text_config", {"moe_layers": []}),
            {},
            "text_config.moe_layers: leaves no layer with experts",
        ),
        (within(LLAMA_4, "text_config", {"no_rope_layers": [1]}), {}, "text_config.no_rope_layers: must be 0 or 1 for"),
        (within(QWEN2_VL, "vision_config", {"hidden_size": 1}), {}, "vision_config.hidden_size: 1 is not supported"),
        (within(QWEN2_5_VL, "vision_config", {"window_size": 7}), {}, "vision_config.window_size: 7 is less than"),
    ],
)
def test_what_cannot_be_described_is_one_clear_line(config, change, expected):
    [line] = problems(config | change)
    assert line.startswith(f"config.json: {expected}")


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_spoilt_key_is_named_or_still_makes_a_model(preset):
    published = PUBLISHED[preset]
    spoilt = [(key, published | {key: bad}) for key in published for bad in (None, "x", -1, [], {})]
    spoilt += [
        (key, within(published, part, {key: bad}))
        for part in ("text_config", "vision_config")
        for key in published.get(part, {})
        for bad in (None, "x", -1, [], {})
    ]
    for key, config in spoilt:
        lines = problems_or_none(config)
        assert not lines or key in lines[0]


def test_custom_code_of_a_known_family_is_ignored():
    assert "auto_map" in PUBLISHED["kimi-k2"]
    assert model(PUBLISHED["kimi-k2"]).experts == 384


def test_custom_code_is_never_run():
    [line] = problems({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}})
    assert line.endswith("the code named by auto_map is never run")


def test_all_problems_come_at_once():
    lines = problems({"model_type": "llama", "hidden_size": "big", "mlp_bias": 1})
    keys = [line.split(": ")[1] for line in lines]
    needed = ["num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size"]
    assert sorted(keys) == sorted([*needed, "mlp_bias"])


def test_config_is_read_from_a_file_or_its_folder(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "dropout": 0.5}')
    assert load_config(tmp_path) == load_config(tmp_path / "config.json") == {"model_type": "gpt2", "dropout": 0.5}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{\n"a": 1,\n}', ":3: not valid JSON: "),
        ("", ":1: not valid JSON: "),
        ('{"a": 1, "b": 2, "a": 3}', ": duplicate key 'a'"),
        ('{"a": {"b": 1, "b": 1}}', ": duplicate key 'b'"),
        ('{"a": NaN}', ": 'NaN' is not a finite number"),
        ('{"a": -Infinity}', ": '-Infinity' is not a finite number"),
        ('{"a": 1e999}', ": '1e999' is not a finite number"),
        ('{"a": ' + "9" * 5000 + "}", ": not valid JSON: "),
        ("[" * 100_000, ": nested too deeply"),
        ("[1]", ": expected a JSON object, not a list"),
        ("null", ": expected a JSON object, not null"),
        ("\0", ":1: not valid JSON: "),
        ("{}" + " " * 2**20, ": is larger than 1 MiB"),
    ],
    ids=range(13),
)
def test_unreadable_json_is_one_clear_line(tmp_path, text, expected):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputFileError) as caught:
        load_config(path)
    [line] = caught.value.problems
    assert line.startswith(f"{path}{expected}")
    assert len(line) < len(str(path)) + 200


@pytest.mark.parametrize("name", ["", "nowhere", "x" * 5000, "bad\0name"])
def test_config_that_is_not_there_is_one_clear_line(tmp_path, name):
    with pytest.raises(InputFileError):
        load_config(tmp_path / name)
