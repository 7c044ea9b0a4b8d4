"""Reading a Hugging Face ``config.json``: its fields become those of `hwsim.specs.model.Model`.

Nothing is downloaded and no code that a config names (``auto_map``) is ever run. A key that is absent takes the default
of the reference class only where published files really leave it out; a missing key that defines the shape is an error.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from hwsim.errors import InputFileError, did_you_mean, printable, shorten
from hwsim.specs.config_reader import Family, Reader, read, show
from hwsim.specs.families import FAMILIES as TEXT_FAMILIES
from hwsim.specs.reading import is_folder, read_text
from hwsim.specs.vision_families import VISION_FAMILIES

FAMILIES = TEXT_FAMILIES | VISION_FAMILIES
"""By model_type."""
_KNOWN_TYPES: dict[str, str] = {
    "its experts are laid out in a way not supported yet": "dbrx phimoe granitemoe ernie4_5_moe hunyuan_v1_moe "
    "jetmoe arctic grok-1 nllb-moe switch_transformers",
    "its norm of queries and keys spans all heads, which is not supported yet": "olmo2 olmo3 olmoe minimax_m2",
    "its kind of encoder and decoder is not supported yet": "umt5 longt5 pegasus m2m_100 blenderbot led fsmt "
    "prophetnet whisper encoder-decoder",
    "its kind of encoder is not supported yet": "albert electra deberta deberta-v2 mpnet modernbert",
    "state-space, linear and recurrent layers are not supported yet": "mamba mamba2 falcon_mamba falcon_h1 rwkv jamba "
    "zamba zamba2 bamba recurrent_gemma qwen3_next minimax kimi_linear",
    "its vision or audio tower is not supported yet": "llava_next mllama qwen3_vl paligemma idefics idefics2 mistral3 "
    "clip siglip",
    "its block layout is not supported yet": "gpt_neo olmo glm4 granite",
}


def fields_from_config(config: dict[str, Any], source: str) -> dict[str, Any]:
    """Turn a parsed ``config.json`` into the fields of a Model, or raise InputFileError with every problem found."""
    reader = Reader(config, source)
    fields = read(_family(config, source), reader)
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
        raise InputFileError([f"{source}: expected a JSON object, not {show(data)}"])
    return data


def _family(config: dict[str, Any], source: str) -> Family:
    """The family of a config's model_type, or one line saying why it has none."""
    kind = config.get("model_type")
    supported = f"(supported: {', '.join(FAMILIES)})"
    if not isinstance(kind, str):
        message = "missing" if kind is None else f"must be text, not {show(kind)}"
        raise InputFileError([f"{source}: model_type: {message} {supported}"])
    if kind in FAMILIES:
        return FAMILIES[kind]
    reasons = [reason for reason, kinds in _KNOWN_TYPES.items() if kind in kinds.split()]
    why = f": {reasons[0]}" if reasons else did_you_mean(kind, FAMILIES)
    code = "; the code named by auto_map is never run" if "auto_map" in config else ""
    raise InputFileError([f"{source}: model_type: {shorten(kind)} is not supported{why} {supported}{code}"])
