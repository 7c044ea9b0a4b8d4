"""Hugging Face config.json files: each family gives the preset's Model, each bad input one line naming its key."""

from pathlib import Path

import pytest

from hwsim import specs
from hwsim.errors import InputFileError
from hwsim.specs.files import read_yaml, validate
from hwsim.specs.huggingface import fields_from_config, load_config
from hwsim.specs.model import Model

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


def model(config):
    return Model(**fields_from_config(config, "config.json"))


def problems(config):
    with pytest.raises(InputFileError) as caught:
        fields_from_config(config, "config.json")
    return caught.value.problems


@pytest.mark.parametrize("preset", CONFIGS)
def test_config_gives_the_model_of_the_preset(preset):
    ours = {"name", "title", "source"}
    expected = validate(Model, read_yaml(PRESETS / f"{preset}.yaml"))
    assert model(CONFIGS[preset]).model_dump(exclude=ours) == expected.model_dump(exclude=ours)


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
        (QWEN3, {"attention_bias": True}, {"qkv_bias": True, "output_bias": True, "qk_norm": True}),
        (OPT, {"enable_bias": False}, {"qkv_bias": False, "output_bias": False, "mlp_bias": False}),
        (BLOOM, {"n_inner": 4096, "seq_length": 4096}, {"ffn": 4096, "max_positions": 4096}),
        (MPT, {"no_bias": False, "expansion_ratio": 2}, {"mlp_bias": True, "norm_bias": True, "ffn": 8192}),
        (GPT2, {"n_inner": 1000, "tie_word_embeddings": False}, {"ffn": 1000, "tied_embeddings": False}),
    ],
)
def test_switches_of_a_family_reach_the_model(config, change, expected):
    read = model(config | change)
    assert {name: getattr(read, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("config", "key"),
    [(config, key) for config in CONFIGS.values() for key in config if key.startswith(("n_l", "n_h", "num_h", "vocab"))]
    + [(config, "num_attention_heads") for config in (LLAMA_1, LLAMA_3_1, MISTRAL, QWEN2, QWEN3, OPT, BLOOM)]
    + [(config, "num_key_value_heads") for config in (MISTRAL, QWEN2, QWEN3)]
    + [(LLAMA_1, "intermediate_size"), (LLAMA_1, "hidden_size"), (GPT2, "n_embd"), (MPT, "d_model"), (OPT, "ffn_dim")]
    + [(QWEN3, "head_dim"), (MISTRAL, "sliding_window"), (OPT, "max_position_embeddings")],
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
        (LLAMA_3_1, {"num_local_experts": 8}, "num_local_experts: mixture-of-experts layers are not supported yet"),
        (GPT2, {"add_cross_attention": True}, "add_cross_attention: encoder-decoder models"),
        (QWEN2, {"use_sliding_window": True, "max_window_layers": 12}, "max_window_layers: layers with and without"),
        (QWEN2, {"layer_types": ["full_attention", "sliding_attention"] * 12}, "layer_types: must name one"),
        (QWEN2, {"layer_types": "full_attention"}, "layer_types: must name one"),
        (OPT, {"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine: false is not supported"),
        (BLOOM, {"n_inner": 5}, "n_inner: 5 is not supported (only 4096)"),
        (MPT, {"attn_config": {"alibi": False}}, "attn_config.alibi: false is not supported (only true)"),
        (MPT, {"attn_config": {"attn_type": "multiquery_attention"}}, "attn_config.attn_type: 'multiquery_attention'"),
        (MPT, {"attn_config": [1]}, "attn_config: must be an object, not a list"),
        (LLAMA_3_1, {"model_type": None}, "model_type: missing (supported: gpt2, llama"),
        (LLAMA_3_1, {"model_type": 3}, "model_type: must be text, not 3"),
        (LLAMA_3_1, {"model_type": "lama"}, "model_type: 'lama' is not supported - did you mean llama?"),
        (LLAMA_3_1, {"model_type": "mixtral"}, "model_type: 'mixtral' is not supported: mixture-of-experts layers are"),
        (LLAMA_3_1, {"model_type": "t5"}, "model_type: 't5' is not supported: encoder-decoder models"),
        (LLAMA_3_1, {"model_type": "bert"}, "model_type: 'bert' is not supported: encoder-only models"),
        (LLAMA_3_1, {"model_type": "new", "n_routed_experts": 64}, "model_type: 'new' is not supported: mixture-of-"),
    ],
)
def test_what_cannot_be_described_is_one_clear_line(config, change, expected):
    [line] = problems(config | change)
    assert line.startswith(f"config.json: {expected}")


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
