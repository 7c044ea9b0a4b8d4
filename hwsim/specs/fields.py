"""One field of a spec by its dotted path: what it is, how its unit is written, the spec with another value there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args

from pydantic import BaseModel

from hwsim.errors import UsageError, did_you_mean, printable
from hwsim.specs.base import Quantity

Part = str | int


def value_at(spec: BaseModel, path: str) -> Any:
    """The value of a field: in SI for quantities; entries of lists go by name or index.

    Raises
    ------
    UsageError
        For a field that is not there, with the nearest ones.

    Examples
    --------
    >>> from hwsim.specs.library import load_hardware
    >>> value_at(load_hardware("h100-sxm-80"), "accelerator.memory.bandwidth") / 1e12
    3.35
    """
    value: Any = spec
    for part in path.split("."):
        value = _entry(value, _key(value, part, path))
    return value


def with_values(spec: Any, values: Mapping[str, Any]) -> Any:
    """The spec with other values in some fields, taken as they are: a column of numbers is one, nothing is checked."""
    for path, value in values.items():
        spec = _with(spec, path.split("."), value, path)
    return spec


def dimension_of(spec: BaseModel, path: str) -> str | None:
    """The dimension of a quantity (a key of `hwsim.units.DIMENSIONS`); None for other fields."""
    found = next(_quantities(field_at(spec, path)), None)
    return found.dimension if found else None


def field_at(spec: BaseModel, path: str) -> Any:
    """The annotation of a field with its limits, for `pydantic.TypeAdapter`; entries of mappings may be anything."""
    *above, last = path.split(".")
    owner: Any = spec
    for part in above:
        owner = _entry(owner, _key(owner, part, path))
    _key(owner, last, path)
    if not isinstance(owner, BaseModel):
        return Any
    field = type(owner).model_fields[last]
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _quantities(annotated: Any) -> Iterator[Quantity]:
    """The quantities that a field or an annotation is made of, however deep."""
    marks = getattr(annotated, "metadata", ()) or getattr(annotated, "__metadata__", ())
    yield from (mark for mark in marks if isinstance(mark, Quantity))
    for inner in (getattr(annotated, "annotation", None), *get_args(annotated)):
        if inner is not None:
            yield from _quantities(inner)


def _key(value: Any, part: str, path: str) -> Part:
    """How `part` of a path is spelt in what it is looked up in."""
    options: dict[str, Part] = {}
    if isinstance(value, BaseModel):
        options = {name: name for name in type(value).model_fields}
    elif isinstance(value, Mapping):
        options = {str(name): name for name in value}
    elif isinstance(value, list | tuple):
        options = {str(i): i for i in range(len(value))}
        options |= {str(name): i for i, entry in enumerate(value) if (name := getattr(entry, "name", None))}
    if part not in options:
        msg = f"{printable(path)}: no field {printable(part, 60)} there{did_you_mean(part, options)}"
        raise UsageError(msg)
    return options[part]


def _entry(value: Any, key: Part) -> Any:
    return getattr(value, str(key)) if isinstance(value, BaseModel) else value[key]


def _with(owner: Any, parts: list[str], new: Any, path: str) -> Any:
    if not parts:
        return new
    key = _key(owner, parts[0], path)
    inner = _with(_entry(owner, key), parts[1:], new, path)
    if isinstance(owner, BaseModel):
        return owner.model_copy(update={str(key): inner})
    if isinstance(owner, Mapping):
        return {**owner, key: inner}
    return tuple(inner if i == key else entry for i, entry in enumerate(owner))
