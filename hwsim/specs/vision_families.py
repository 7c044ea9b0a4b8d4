"""The families of Hugging Face models that read images: a tower alone, or one beside a decoder of text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from hwsim.specs.config_reader import Family, Fields, Reader, read
from hwsim.specs.families import FAMILIES, SHAPE

_USUAL_IMAGE = 448
"""Pixels of an image's edge where a tower takes any (Qwen2-VL)."""


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
    families = [_nested(decoder, text, _TEXTS), _nested(tower, towers, _TOWERS)]
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
    tower = _tower(_TOWERS[kind], keys)
    merge = (keys.whole("spatial_merge_size", 2) or 2) ** 2
    if "hidden" in fields:
        keys.only(out, fields["hidden"])
    widths = [merge * tower.get("hidden", 1), fields.get("hidden", 1)]
    fields["vision"] = {"tower": tower, "projector": widths, "merge": merge}


def _qwen2_5_vl(reader: Reader, fields: Fields) -> None:
    _qwen2_vl(reader, fields, "qwen2_5_vl", "out_hidden_size")


_TOWER_KEYS = SHAPE | {"ffn": "intermediate_size", "image": "image_size", "patch": "patch_size"}
_TOWER_KEYS |= {"channels": "num_channels"}
_QWEN_TOWER_KEYS = {"layers": "depth", "heads": "num_heads", "patch": "patch_size", "frames": "temporal_patch_size"}
_QWEN_TOWER_KEYS |= {"channels": "in_channels in_chans"}
_TOWER_STYLE = {"norm": "layernorm", "positions": "learned", "class_token": True}

_TEXTS: dict[str, Family] = {
    "llama": replace(
        FAMILIES["llama"],
        defaults={
            **FAMILIES["llama"].defaults,
            "layers": 32,
            "hidden": 4096,
            "heads": 32,
            "ffn": 11008,
            "vocab": 32000,
        },
    ),
    "gemma3_text": replace(
        FAMILIES["gemma3_text"],
        defaults={"heads": 8, "kv_heads": 4, "head_dim": 256, "vocab": 262208, "max_positions": 131072},
    ),
    "qwen2": replace(FAMILIES["qwen2"], parts=("vision",)),
}
"""Decoders beside a vision tower, where published files leave out what the reference class has by default."""

_QWEN_TOWER_STYLE = {"positions": "rope", "patch_bias": False, "qkv_bias": True, "output_bias": True, "mlp_bias": True}
_TOWERS: dict[str, Family] = {
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

VISION_FAMILIES: dict[str, Family] = {
    "vit": Family(
        keys=_TOWER_KEYS,
        defaults={"channels": 3},
        fixed=_TOWER_STYLE | {"head": "class", "head_bias": True, "causal": False},
        flags={"qkv_bias": ("qkv_bias", True)},
        dropout={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        rest=_vit,
    ),
    "llava": Family(parts=("vision",), only={"vision_feature_select_strategy": ("default",)}, rest=_llava),
    "qwen2_vl": Family(parts=("vision",), rest=_qwen2_vl),
    "qwen2_5_vl": Family(parts=("vision",), rest=_qwen2_5_vl),
    "gemma3": Family(tied=True, parts=("vision",), rest=_gemma3_vision),
    "llama4": Family(parts=("vision",), rest=_llama4_vision),
}
"""By model_type."""
