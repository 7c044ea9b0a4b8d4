"""How a family spells the Model fields, and typed look-ups of them: what is wrong is one line that names the key."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hwsim.errors import shorten
from hwsim.specs.model import Model

Fields = dict[str, Any]
REQUIRED = -1
DERIVED = 0
PARTS = {
    "experts": "mixture-of-experts layers are not part of this model_type",
    "encoder": "an encoder or cross-attention is not part of this model_type",
    "vision": "a vision tower is not part of this model_type",
    "audio": "audio towers are not supported yet",
}
TELLING_KEYS = {
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"), "experts"),
    **dict.fromkeys(("is_encoder_decoder", "add_cross_attention"), "encoder"),
    **{"vision_config": "vision", "audio_config": "audio"},
}
"""Keys that tell of a part which not every family has."""
_MAY_BE_ZERO = ("dense_layers", "mtp_layers", "shared_experts", "token_types", "window_layers")


@dataclass
class Reader:
    """A config, or one nested in it under `prefix`; problems of both go to one list."""

    config: dict[str, Any]
    source: str
    problems: list[str] = field(default_factory=list)
    prefix: str = ""
    used: dict[str, str] = field(default_factory=dict)
    """Model field -> the key it was read from."""

    def problem(self, key: str, message: str) -> None:
        """Note what is wrong with a key, once."""
        line = f"{self.source}: {self.prefix}{key}: {message}"
        if line not in self.problems:
            self.problems.append(line)

    def get(self, key: str) -> Any:
        """The value of a key, or of a dotted path; None where it is absent or null."""
        value: Any = self.config
        path = key.split(".")
        for depth, part in enumerate(path):
            if not isinstance(value, dict):
                self.problem(".".join(path[:depth]), f"must be an object, not {show(value)}")
                return None
            value = value.get(part)
            if value is None:
                return None
        return value

    def inside(self, key: str) -> Reader | None:
        """A reader of the config nested under a key; None where there is none, which is a problem."""
        value = self.get(key)
        if isinstance(value, dict):
            return Reader(value, self.source, self.problems, f"{self.prefix}{key}.")
        self.problem(key, "missing" if key not in self.config else f"must be an object, not {show(value)}")
        return None

    def first(self, keys: str) -> str:
        """The first of the keys that is present, or the first of all."""
        names = keys.split()
        return next((key for key in names if self.get(key) is not None), names[0])

    def count(self, name: str, keys: str, default: int = REQUIRED) -> int | None:
        """The whole number under the first of `keys` that is present, within the limits of Model field `name`."""
        key = self.first(keys)
        self.used[name] = key
        return self.whole(key, default, int(name not in _MAY_BE_ZERO), _limit(name))

    def whole(self, key: str, default: int = REQUIRED, low: int = 1, high: int = 100_000) -> int | None:
        """The whole number under a key, or the default (DERIVED: none)."""
        value = self.get(key)
        if value is None:
            if default == REQUIRED:
                self.problem(key, "missing" if key not in self.config else "must be a whole number, not null")
            return default if default > 0 else None
        if isinstance(value, bool) or not isinstance(value, int):
            self.problem(key, f"must be a whole number, not {show(value)}")
        elif not low <= value <= high:
            self.problem(key, f"must be between {low} and {high:,}")
        else:
            return value
        return None

    def flag(self, key: str, default: bool) -> bool:
        """True or false under a key, or the default."""
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            self.problem(key, f"must be true or false, not {show(value)}")
        return value if isinstance(value, bool) else default

    def probability(self, key: str, default: float) -> float:
        """A number between 0 and 1 under a key, or the default."""
        value = self.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            self.problem(key, f"must be a number between 0 and 1, not {show(value)}")
            return default
        return value

    def share(self, keys: str, default: float) -> float:
        """A part of a whole, more than none of it, under the first of `keys` that is present."""
        key = self.first(keys)
        value = self.probability(key, default)
        if value < 1e-4:
            self.problem(key, f"must be more than 0, not {show(value)}")
        return value

    def indices(self, key: str, layers: int) -> list[int] | None:
        """The layers that a list names by number; None where it is absent."""
        value = self.get(key)
        if value is None or not layers:
            return None
        if not isinstance(value, list) or any(type(item) is not int or not 0 <= item < layers for item in value):
            self.problem(key, f"must be a list of layer numbers below {layers}")
            return None
        return sorted(set(value))

    def kinds(self, key: str, layers: int, allowed: tuple[str, ...]) -> list[str] | None:
        """The kind that a list names for every layer; None where it is absent."""
        value = self.get(key)
        if value is None or not layers:
            return None
        if not isinstance(value, list) or len(value) != layers or any(item not in allowed for item in value):
            self.problem(key, f"must name one of {' and '.join(allowed)} for each of {layers} layers")
            return None
        return value

    def only(self, key: str, *allowed: object) -> None:
        """Refuse a value that would make a model which the spec cannot describe."""
        value = self.get(key)
        if value is not None and not any(type(value) is type(item) and value == item for item in allowed):
            shown = " or ".join(json.dumps(item) for item in allowed)
            self.problem(key, f"{show(value)} is not supported (only {shown})")


@dataclass(frozen=True)
class Family:
    """How one model_type spells the Model fields."""

    keys: Mapping[str, str] = field(default_factory=dict)
    """Model field -> the key of that count (or several: the first one present)."""
    defaults: Mapping[str, int] = field(default_factory=dict)
    """Counts whose key published files leave out or set to null; DERIVED: the Model fills it in."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """What every model of the family has."""
    flags: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    """Model field -> the key of that flag, and the default of the reference class."""
    rotary: tuple[str, float] | None = None
    """Keys of `rotary_share` and the default of the reference class."""
    tied: bool = False
    """The default of tie_word_embeddings."""
    dropout: Mapping[str, float] = field(default_factory=dict)
    """Keys of dropout probabilities and the defaults of the reference class."""
    only: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    """Keys whose other values make a model that the spec cannot describe."""
    parts: tuple[str, ...] = ()
    """Which of PARTS it has."""
    rest: Callable[[Reader, Fields], None] = lambda reader, fields: None
    """Reads what no table can say."""


def read(family: Family, reader: Reader) -> Fields:
    """The Model fields that a config gives; what is wrong goes to the reader's problems."""
    for key, part in TELLING_KEYS.items():
        if part not in family.parts and _tells(reader.config.get(key)):
            reader.problem(key, PARTS[part])
    for key, allowed in family.only.items():
        reader.only(key, *allowed)
    counts = {name: reader.count(name, keys, family.defaults.get(name, REQUIRED)) for name, keys in family.keys.items()}
    fields = {**family.fixed, **{name: value for name, value in counts.items() if value is not None}}
    fields |= {name: reader.flag(key, default) for name, (key, default) in family.flags.items()}
    fields["tied_embeddings"] = reader.flag("tie_word_embeddings", family.tied)
    fields["dropout"] = max([0.0, *(reader.probability(key, default) for key, default in family.dropout.items())]) > 0
    if family.rotary:
        fields["rotary_share"] = reader.share(*family.rotary)
    family.rest(reader, fields)
    _check(reader, fields)
    return {name: value for name, value in fields.items() if value is not None}


def _tells(value: object) -> bool:
    """Whether a telling key says that the model has the part: true, more than one expert, a nested config."""
    return value is True or isinstance(value, dict) or (type(value) is int and value > 1)


def _check(reader: Reader, fields: Fields) -> None:
    """Name the key of a number that contradicts another."""
    used = reader.used
    hidden, heads = fields.get("hidden"), fields.get("heads")
    free = {"head_dim", "kv_rank"} & fields.keys() or ("head_dim" in used and reader.get(used["head_dim"]) is not None)
    if not free and {"hidden", "heads"} <= used.keys() and hidden and heads and hidden % heads:
        hint = " or head_dim be given" if "head_dim" in used else ""
        reader.problem(used["heads"], f"{heads} must divide {used['hidden']} {hidden}{hint}")
    for name, other, relation, wrong in _RELATIONS:
        own, its = fields.get(name), fields.get(other)
        if own and its and {name, other} <= used.keys() and wrong(own, its):
            reader.problem(used[name], f"{own} {relation} {used[other]} {its}")


_RELATIONS: list[tuple[str, str, str, Callable[[int, int], bool]]] = [
    ("kv_heads", "heads", "must divide", lambda own, its: its % own > 0),
    ("experts_per_token", "experts", "is more than", lambda own, its: own > its),
    ("dense_layers", "layers", "leaves none with experts of", lambda own, its: own >= its),
    ("patch", "image", "is more than", lambda own, its: own > its),
]
"""Two fields read from keys, what to say of them, and when."""


def show(value: object) -> str:
    """A JSON value for a message: short, and never its inside."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return shorten(value, 40) if isinstance(value, str) else shorten(value, 40).strip("'")


def _limit(name: str) -> int:
    """The largest value of a Model field."""
    return min(int(item.le) for item in Model.model_fields[name].metadata if hasattr(item, "le"))
