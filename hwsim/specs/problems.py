"""What is wrong with a document, in plain words: file, line, field, the range or choice it has, the nearest fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, get_args

from pydantic import BaseModel

from hwsim.errors import did_you_mean, printable, shorten
from hwsim.specs.reading import Document, FieldPath

SETTING = "--set "
"""How the place of a field starts that was written on the command line."""
_MAPPING, _LIST, _TEXT = "expected a mapping of fields", "expected a list", "expected text"
_WHOLE, _NUMBER, _TRUTH = "expected a whole number{range}", "expected a number{range}", "expected true or false"
_WORDS = {
    "missing": "missing",
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "dict_type": _MAPPING,
    "tuple_type": _LIST,
    "string_type": _TEXT,
    "string_unicode": _TEXT,
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _NUMBER,
    "bool_type": _TRUTH,
    "bool_parsing": _TRUTH,
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be{range}",
    "greater_than": "must be{range}",
    "less_than_equal": "must be{range}",
    "less_than": "must be{range}",
    "too_short": "needs at least {min_length} entry",
    "too_long": "takes at most {max_length} entries",
    "string_too_short": "must not be empty",
    "string_too_long": "is longer than {max_length} characters",
    "string_pattern_mismatch": "may hold only letters, digits and . _ + -, and starts with a letter or digit",
    "invalid_key": "a field name must be text",
}
"""pydantic's kinds of errors, for people."""
_SIGNS = {"ge": "from", "gt": "above", "le": "at most", "lt": "below"}
"""Limits of a field, in words."""


def explain(spec: type[BaseModel], document: Document, problems: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line per problem that pydantic found in a document; the fields of a mapping are listed once."""
    lines: list[str] = []
    listed: set[FieldPath] = set()
    for problem in problems:
        path = _path(problem)
        if problem["type"] == "too_short" and any(_path(other)[:-1][: len(path)] == path for other in problems):
            continue  # its entries were not counted: what is wrong with them is said
        message = _unknown_field(spec, path, listed) if problem["type"] == "extra_forbidden" else _said(spec, problem)
        message += _replaced_list(document, problem, listed) if problem["type"] == "missing" else ""
        shown = ".".join(printable(part, 60) for part in path[-8:]) or spec.__name__.lower()
        lines.append(f"{_place(document, path, problem)}: {shown}: {message}")
    return lines


def _path(problem: Mapping[str, Any]) -> FieldPath:
    """The field a problem is about; a wrong key of a mapping stands for itself."""
    path: FieldPath = tuple(problem["loc"])
    return path[:-1] if path[-1:] == ("[key]",) else path


def _place(document: Document, path: FieldPath, problem: Mapping[str, Any]) -> str:
    """Where to mend it; what several fields cause together is blamed on a setting that touched one of them."""
    if problem["type"] == "value_error":
        for field, place in document.origin.items():
            if place.startswith(SETTING) and field[: len(path)] == path:
                return place
    return document.where(path)


def _unknown_field(spec: type[BaseModel], path: FieldPath, listed: set[FieldPath]) -> str:
    missing = getattr(spec, "not_yet", {}).get(path[-1])
    if missing:
        return f"{missing} (leave it out, or 0)"
    fields = _fields_at(spec, path[:-1])
    hint = did_you_mean(str(path[-1]), fields)
    if not hint and fields and path[:-1] not in listed:
        listed.add(path[:-1])
        hint = f" (fields here: {', '.join(fields)})"
    return f"unknown field{hint}"


def _replaced_list(document: Document, problem: Mapping[str, Any], listed: set[FieldPath]) -> str:
    """How to change one entry of a list that was written over a whole one, which the user may have meant; once."""
    path, entry = tuple(problem["loc"])[:-1], problem["input"]
    field = path[:-1]
    sources = {place.rpartition(":")[0] for place in document.origin.values()}
    if not path or not isinstance(path[-1], int) or len(sources) < 2 or field in listed:
        return ""
    listed.add(field)
    name = entry.get("name", path[-1]) if isinstance(entry, Mapping) else path[-1]
    return f" (a list replaces an inherited one whole; to change one entry: {field[-1]}: {{{printable(name)}: …}})"


def _said(spec: type[BaseModel], problem: Mapping[str, Any]) -> str:
    """The message of a problem and the value it is about, each once."""
    value = problem.get("input")
    template = _WORDS.get(problem["type"])
    message = template.format(range=_range(spec, _path(problem)), **problem.get("ctx", {})) if template else ""
    message = message or str(problem["msg"]).removeprefix("Value error, ")
    if value is None:
        return f"{message}, nothing given"
    if isinstance(value, Mapping | list | tuple | BaseModel) or shorten(value) in message:
        return message
    return f"{message} (given {shorten(value) if isinstance(value, str) else printable(value, 60)})"


def _range(spec: type[BaseModel], path: FieldPath) -> str:
    """`` from 1 to 10,000`` for a field with such limits, or for the entries of a list of them."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    field = _fields_at(spec, path[:-1]).get(str(path[-1])) if path else None
    found = {(sign, getattr(limit, sign)) for limit in _metadata(field) for sign in _SIGNS if hasattr(limit, sign)}
    low = max((edge for edge in found if edge[0] in ("ge", "gt")), key=itemgetter(1), default=None)
    high = min((edge for edge in found if edge[0] in ("le", "lt")), key=itemgetter(1), default=None)
    if low is None or high is None:
        return ""
    to = "to" if (low[0], high[0]) == ("ge", "le") else f"and {_SIGNS[high[0]]}"
    return f" {_SIGNS[low[0]]} {low[1]:,.10g} {to} {high[1]:,.10g}"


def _metadata(annotated: Any) -> Iterator[Any]:
    """The limits written in a field or an annotation, however deep."""
    yield from getattr(annotated, "metadata", ()) or getattr(annotated, "__metadata__", ())
    for inner in (getattr(annotated, "annotation", None), *get_args(annotated)):
        if inner is not None:
            yield from _metadata(inner)


def _fields_at(spec: type[BaseModel], path: FieldPath) -> dict[str, Any]:
    """Fields of the spec found by walking `path` from `spec`, by name."""
    current: type[BaseModel] | None = spec
    for part in path:
        if current is None:
            return {}
        if isinstance(part, str) and part in (known := _as_written(current)):
            current = _spec_in(known[part].annotation)
    return _as_written(current) if current else {}


def _as_written(spec: type[BaseModel]) -> dict[str, Any]:
    """Fields of a spec by the names that files use."""
    return {field.alias or name: field for name, field in spec.model_fields.items()}


def _spec_in(annotation: Any) -> type[BaseModel] | None:
    """The one spec class inside an annotation such as ``tuple[Tier, ...] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _spec_in(arg))), None)
