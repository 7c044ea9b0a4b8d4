"""Reading a Hugging Face ``config.json``: its fields become those of `hwsim.specs.model.Model`.

Nothing is downloaded and no code that a config names (``auto_map``) is ever run. A key that is absent takes the default
of the reference class only where published files really leave it out; a missing key that defines the shape is an error.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwsim.errors import InputFileError, did_you_mean, printable, shorten
from hwsim.specs.model import Model
from hwsim.specs.reading import is_folder, read_text

REQUIRED = -1
DERIVED = 0
_MOE = "mixture-of-experts layers are not supported yet"
_ENCODER_DECODER = "encoder-decoder models and cross-attention are not supported yet"
_ENCODER = "encoder-only models are not supported yet"
_RECURRENT = "state-space and recurrent layers are not supported yet"
_TOWERS = "models with a vision or audio tower are not supported yet"
_LAYOUT = "its block layout is not supported yet"
_KNOWN_TYPES: dict[str, str] = {
    _MOE: "mixtral qwen2_moe qwen3_moe qwen3_next deepseek_v2 deepseek_v3 kimi_k2 gpt_oss dbrx olmoe phimoe granitemoe "
    "glm4_moe llama4 llama4_text ernie4_5_moe hunyuan_v1_moe minimax minimax_m2 jetmoe arctic grok-1 nllb-moe "
    "switch_transformers",
    _ENCODER_DECODER: "t5 mt5 umt5 longt5 bart mbart pegasus marian m2m_100 blenderbot led fsmt prophetnet whisper "
    "encoder-decoder",
    _ENCODER: "bert roberta xlm-roberta distilbert albert electra deberta deberta-v2 mpnet modernbert camembert vit",
    _RECURRENT: "mamba mamba2 falcon_mamba rwkv jamba zamba zamba2 bamba recurrent_gemma",
    _TOWERS: "llava llava_next mllama qwen2_vl qwen2_5_vl qwen3_vl paligemma idefics idefics2 gemma3 mistral3 clip",
    _LAYOUT: "gpt_neo gpt_neox gptj falcon phi phi3 gemma gemma2 gemma3_text cohere cohere2 stablelm olmo olmo2 glm4",
}
_TELLING_KEYS: dict[str, str] = {
    "num_local_experts": _MOE,
    "num_experts": _MOE,
    "n_routed_experts": _MOE,
    "moe_num_experts": _MOE,
    "is_encoder_decoder": _ENCODER_DECODER,
    "add_cross_attention": _ENCODER_DECODER,
    "vision_config": _TOWERS,
    "audio_config": _TOWERS,
}
_LAYER_KINDS = ("full_attention", "sliding_attention")
_WINDOW_MIX = "layers with and without a sliding window in one model are not supported yet"


@dataclass
class _Reader:
    """Typed look-ups in a config; what is wrong goes to `problems`, each line naming the key."""

    config: dict[str, Any]
    source: str
    problems: list[str] = field(default_factory=list)
    used: dict[str, str] = field(default_factory=dict)

    def problem(self, key: str, message: str) -> None:
        line = f"{self.source}: {key}: {message}"
        if line not in self.problems:
            self.problems.append(line)

    def get(self, key: str) -> Any:
        """The value of a key, or of a dotted path; None where it is absent or null."""
        value: Any = self.config
        path = key.split(".")
        for depth, part in enumerate(path):
            if not isinstance(value, dict):
                self.problem(".".join(path[:depth]), f"must be an object, not {_show(value)}")
                return None
            value = value.get(part)
            if value is None:
                return None
        return value

    def count(self, name: str, keys: str, default: int = REQUIRED, low: int = 1) -> int | None:
        """The whole number under the first of `keys` that is present, within the limits of Model field `name`."""
        names = keys.split()
        key = next((key for key in names if self.get(key) is not None), names[0])
        self.used[name] = key
        value = self.get(key)
        if value is None:
            if default == REQUIRED:
                self.problem(key, "missing" if key not in self.config else "must be a whole number, not null")
            return default if default > 0 else None
        high = _limit(name)
        if isinstance(value, bool) or not isinstance(value, int):
            self.problem(key, f"must be a whole number, not {_show(value)}")
        elif not low <= value <= high:
            self.problem(key, f"must be between {low} and {high:,}")
        else:
            return value
        return None

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            self.problem(key, f"must be true or false, not {_show(value)}")
        return value if isinstance(value, bool) else default

    def probability(self, key: str, default: float) -> float:
        value = self.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            self.problem(key, f"must be a number between 0 and 1, not {_show(value)}")
            return default
        return value

    def only(self, key: str, *allowed: object) -> None:
        """Refuse a value that would make a model which the spec cannot describe."""
        value = self.get(key)
        if value is not None and not any(type(value) is type(item) and value == item for item in allowed):
            shown = " or ".join(json.dumps(item) for item in allowed)
            self.problem(key, f"{_show(value)} is not supported (only {shown})")


Fields = dict[str, Any]


def _llama(reader: _Reader, fields: Fields) -> None:
    fields["qkv_bias"] = fields["output_bias"] = reader.flag("attention_bias", default=False)
    fields["mlp_bias"] = reader.flag("mlp_bias", default=False)


def _mistral(reader: _Reader, fields: Fields) -> None:
    if "sliding_window" not in reader.config:
        reader.problem("sliding_window", "missing (a number of tokens, or null for full attention)")
    fields["window"] = reader.count("window", "sliding_window", DERIVED)


def _qwen2(reader: _Reader, fields: Fields) -> None:
    kinds = reader.get("layer_types")
    if kinds is not None and kinds not in [[kind] * fields.get("layers", 0) for kind in _LAYER_KINDS]:
        reader.problem("layer_types", f"must name one of {' and '.join(_LAYER_KINDS)} for every layer: {_WINDOW_MIX}")
    if not reader.flag("use_sliding_window", default=False) or reader.get("sliding_window") is None:
        return
    fields["window"] = reader.count("window", "sliding_window")
    first = reader.count("layers", "max_window_layers", low=0)
    if first and first >= (fields.get("layers") or 1):
        fields["window"] = None
    elif first:
        reader.problem("max_window_layers", _WINDOW_MIX)


def _qwen3(reader: _Reader, fields: Fields) -> None:
    fields["qkv_bias"] = fields["output_bias"] = reader.flag("attention_bias", default=False)
    _qwen2(reader, fields)


def _opt(reader: _Reader, fields: Fields) -> None:
    before = reader.flag("do_layer_norm_before", default=True)
    fields["final_norm"] = before and not reader.flag("_remove_final_layer_norm", default=False)
    if fields.get("embedding_dim") == fields.get("hidden"):
        fields.pop("embedding_dim", None)
    for bias in ("qkv_bias", "output_bias", "mlp_bias"):
        fields[bias] = reader.flag("enable_bias", default=True)
    reader.only("layer_norm_elementwise_affine", True)


def _bloom(reader: _Reader, fields: Fields) -> None:
    if "hidden" in fields:
        reader.only("n_inner", 4 * fields["hidden"])


def _mpt(reader: _Reader, fields: Fields) -> None:
    fields["ffn"] = fields.get("ffn", 1) * fields.get("hidden", 1)
    for bias in ("norm_bias", "qkv_bias", "output_bias", "mlp_bias"):
        fields[bias] = not reader.flag("no_bias", default=True)
    reader.only("norm_type", "layernorm", "low_precision_layernorm")
    reader.only("ffn_config.ffn_type", "mptmlp")
    reader.only("attn_config.attn_type", "multihead_attention")
    reader.only("attn_config.alibi", True)
    for key in ("qk_ln", "qk_gn", "rope"):
        reader.only(f"attn_config.{key}", False)
    reader.only("attn_config.sliding_window_size", -1)


@dataclass(frozen=True)
class _Family:
    """How one model_type spells the Model fields."""

    keys: Mapping[str, str]
    """Model field -> the key of that count (or several: the first one present)."""
    defaults: Mapping[str, int]
    """Counts whose key published files leave out or set to null; DERIVED: the Model fills it in."""
    fixed: Mapping[str, Any]
    """What every model of the family has."""
    tied: bool
    """The default of tie_word_embeddings."""
    dropout: Mapping[str, float]
    """Keys of dropout probabilities and the defaults of the reference class."""
    rest: Callable[[_Reader, Fields], None] = lambda reader, fields: None
    """Reads what no table can say."""


_LLAMA_KEYS = {
    **{"layers": "num_hidden_layers", "hidden": "hidden_size", "heads": "num_attention_heads", "vocab": "vocab_size"},
    **{"kv_heads": "num_key_value_heads", "head_dim": "head_dim", "ffn": "intermediate_size"},
    "max_positions": "max_position_embeddings",
}
_OPT_KEYS = {name: key for name, key in _LLAMA_KEYS.items() if name not in ("kv_heads", "head_dim")}
_LLAMA_STYLE = {"norm": "rmsnorm", "gated": True, "positions": "rope"}
_LLAMA_DROPOUT = {"attention_dropout": 0.0}
_LLAMA_DEFAULTS = {"kv_heads": DERIVED, "head_dim": DERIVED, "max_positions": 2048}
_FAMILIES: dict[str, _Family] = {
    "gpt2": _Family(
        {"layers": "n_layer", "hidden": "n_embd", "heads": "n_head", "ffn": "n_inner", "vocab": "vocab_size"}
        | {"max_positions": "n_positions n_ctx"},
        {"ffn": DERIVED},
        {"norm": "layernorm", "positions": "learned"},
        True,
        {"attn_pdrop": 0.1, "resid_pdrop": 0.1, "embd_pdrop": 0.1},
    ),
    "llama": _Family(_LLAMA_KEYS, _LLAMA_DEFAULTS, _LLAMA_STYLE, False, _LLAMA_DROPOUT, _llama),
    "mistral": _Family(_LLAMA_KEYS, {"head_dim": DERIVED}, _LLAMA_STYLE, False, _LLAMA_DROPOUT, _mistral),
    "qwen2": _Family(
        _LLAMA_KEYS, {"head_dim": DERIVED}, _LLAMA_STYLE | {"qkv_bias": True}, False, _LLAMA_DROPOUT, _qwen2
    ),
    "qwen3": _Family(_LLAMA_KEYS, {}, _LLAMA_STYLE | {"qk_norm": True}, False, _LLAMA_DROPOUT, _qwen3),
    "opt": _Family(
        _OPT_KEYS | {"ffn": "ffn_dim", "embedding_dim": "word_embed_proj_dim"},
        {"embedding_dim": DERIVED},
        {"norm": "layernorm", "positions": "learned", "position_offset": 2},
        True,
        {"dropout": 0.1, "attention_dropout": 0.0},
        _opt,
    ),
    "bloom": _Family(
        {"layers": "n_layer num_hidden_layers", "hidden": "hidden_size n_embed", "heads": "n_head num_attention_heads"}
        | {"vocab": "vocab_size", "max_positions": "seq_length"},
        {"max_positions": 2048},
        {"norm": "layernorm", "positions": "alibi", "embedding_norm": True},
        True,
        {"hidden_dropout": 0.0, "attention_dropout": 0.0},
        _bloom,
    ),
    "mpt": _Family(
        {"layers": "n_layers", "hidden": "d_model", "heads": "n_heads", "vocab": "vocab_size"}
        | {"ffn": "expansion_ratio", "max_positions": "max_seq_len"},
        {"ffn": 4},
        {"norm": "layernorm", "positions": "alibi"},
        True,
        {"emb_pdrop": 0.0, "resid_pdrop": 0.0, "attn_config.attn_pdrop": 0.0},
        _mpt,
    ),
}


def fields_from_config(config: dict[str, Any], source: str) -> dict[str, Any]:
    """Turn a parsed ``config.json`` into the fields of a Model, or raise InputFileError with every problem found."""
    family = _family(config, source)
    reader = _Reader(config, source)
    for key, reason in _TELLING_KEYS.items():
        if _tells(config, key):
            reader.problem(key, reason)
    fields: Fields = dict(family.fixed)
    for name, keys in family.keys.items():
        fields[name] = reader.count(name, keys, family.defaults.get(name, REQUIRED))
    fields = {name: value for name, value in fields.items() if value is not None}
    fields["tied_embeddings"] = reader.flag("tie_word_embeddings", family.tied)
    fields["dropout"] = max([reader.probability(key, default) for key, default in family.dropout.items()]) > 0
    family.rest(reader, fields)
    _check_heads(reader, fields)
    if reader.problems:
        raise InputFileError(reader.problems)
    return {"source": source[:2000], **fields}


def load_config(path: Path) -> dict[str, Any]:
    """Read a ``config.json``, or the one in a folder: strict JSON, at most 1 MiB, no key twice, numbers finite."""
    path = path / "config.json" if is_folder(path) else path
    source = printable(path)

    def refuse(text: str) -> float:
        raise InputFileError([f"{source}: {shorten(text)} is not a finite number"])

    def finite(text: str) -> float:
        return float(text) if math.isfinite(float(text)) else refuse(text)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        repeated = [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]
        if repeated:
            raise InputFileError([f"{source}: duplicate key {shorten(key)}" for key in repeated])
        return dict(pairs)

    text = read_text(path)
    try:
        data = json.loads(text, parse_float=finite, parse_constant=refuse, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise InputFileError([f"{source}:{error.lineno}: not valid JSON: {error.msg}"]) from None
    except RecursionError:
        raise InputFileError([f"{source}: nested too deeply"]) from None
    except ValueError as error:
        raise InputFileError([f"{source}: not valid JSON: {shorten(error, 120)}"]) from None
    if not isinstance(data, dict):
        raise InputFileError([f"{source}: expected a JSON object, not {_show(data)}"])
    return data


def _family(config: dict[str, Any], source: str) -> _Family:
    """The family of a config's model_type, or one line saying why it has none."""
    kind = config.get("model_type")
    supported = f"(supported: {', '.join(_FAMILIES)})"
    if not isinstance(kind, str):
        message = "missing" if kind is None else f"must be text, not {_show(kind)}"
        raise InputFileError([f"{source}: model_type: {message} {supported}"])
    if kind in _FAMILIES:
        return _FAMILIES[kind]
    reasons = [reason for reason, kinds in _KNOWN_TYPES.items() if kind in kinds.split()]
    reasons += [reason for key, reason in _TELLING_KEYS.items() if _tells(config, key)]
    why = f": {reasons[0]}" if reasons else did_you_mean(kind, _FAMILIES)
    code = "; the code named by auto_map is never run" if "auto_map" in config else ""
    raise InputFileError([f"{source}: model_type: {shorten(kind)} is not supported{why} {supported}{code}"])


def _tells(config: dict[str, Any], key: str) -> bool:
    """Whether a key says that the model has a part the spec lacks: true, more than one expert, a nested config."""
    value = config.get(key)
    return value is True or isinstance(value, dict) or (type(value) is int and value > 1)


def _check_heads(reader: _Reader, fields: Fields) -> None:
    hidden, heads, kv_heads = (fields.get(name) for name in ("hidden", "heads", "kv_heads"))
    if hidden and heads and "head_dim" not in fields and hidden % heads:
        message = f"{heads} must divide {reader.used['hidden']} {hidden}"
        reader.problem(reader.used["heads"], message + (" or head_dim be given" if "head_dim" in reader.used else ""))
    if heads and kv_heads and heads % kv_heads:
        reader.problem(reader.used["kv_heads"], f"{kv_heads} must divide {reader.used['heads']} {heads}")


def _limit(name: str) -> int:
    """The largest value of a Model field."""
    return min(int(item.le) for item in Model.model_fields[name].metadata if hasattr(item, "le"))


def _show(value: object) -> str:
    """A JSON value for a message: short, and never its inside."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return shorten(value, 40) if isinstance(value, str) else shorten(value, 40).strip("'")
