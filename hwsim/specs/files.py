"""YAML and dicts into specs: safe parsing with line numbers, `extends`, overrides, every problem at once.

The look-up order of a name is: an explicit path, ``--profiles DIR``, ``HWSIM_PROFILES``, ``./hardware_profiles``, the
packaged copy. Files are data: no anchors, no tags, no nesting deeper than 16, at most 1 MiB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from hwsim.errors import InputFileError, UsageError, did_you_mean, shorten

MAX_FILE_BYTES = 2**20
MAX_DEPTH = 16
SpecT = TypeVar("SpecT", bound=BaseModel)
Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """Plain data with, for every field path, the file and line it was written on."""

    data: dict[str, Any]
    source: str
    origin: Mapping[Path_, str] = field(default_factory=dict)

    def where(self, path: Path_) -> str:
        """``file:line`` of a field, or of the nearest field around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.origin:
                return self.origin[path[:end]]
        return self.source


def read_text(path: Path) -> str:
    """Read a small UTF-8 text file or say in one line why it cannot be read."""
    try:
        if path.exists() and not path.is_file():
            raise InputFileError([f"{shorten(path, 200)}: is a {'folder' if path.is_dir() else 'device'}, not a file"])
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputFileError([f"{path}: is larger than 1 MiB ({path.stat().st_size:,} bytes)"])
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise InputFileError([f"{shorten(path, 200)}: {reason}"]) from None


def read_yaml(path: Path) -> Document:
    """Parse one YAML file; InputFileError with ``file:line`` for anything that is not a mapping of plain data."""
    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str, source: str) -> Document:
    """Parse YAML 1.2 text: plain data only, duplicate keys refused."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError, YAMLStreamError

    try:
        _refuse_tricks(YAML(typ="safe", pure=True).parse(text), source)
        node = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        line = f":{mark.line + 1}" if mark else ""
        raise InputFileError([f"{source}{line}: not valid YAML: {error.problem}"]) from None
    except (YAMLError, YAMLStreamError, ValueError) as error:
        raise InputFileError([f"{source}: not valid YAML: {shorten(error, 120)}"]) from None
    origin: dict[Path_, str] = {}
    problems: list[str] = []
    data = _plain(node, (), source, origin, problems) if node is not None else None
    if problems:
        raise InputFileError(problems)
    if not isinstance(data, dict):
        raise InputFileError([f"{source}: expected a mapping of fields, found {type(data).__name__}"])
    return Document(data, source, origin)


def _refuse_tricks(events: Iterator[Any], source: str) -> None:
    """Walk the event stream (no recursion): refuse aliases, custom tags, several documents and deep nesting."""
    depth = documents = 0
    for event in events:
        kind = type(event).__name__
        line = event.start_mark.line + 1 if event.start_mark else 1
        documents += kind == "DocumentStartEvent"
        depth += kind in ("MappingStartEvent", "SequenceStartEvent")
        depth -= kind in ("MappingEndEvent", "SequenceEndEvent")
        if kind == "AliasEvent" or getattr(event, "anchor", None):
            raise InputFileError([f"{source}:{line}: anchors and aliases are not allowed"])
        if depth > MAX_DEPTH:
            raise InputFileError([f"{source}:{line}: nested deeper than {MAX_DEPTH} levels"])
        if documents > 1:
            raise InputFileError([f"{source}:{line}: more than one YAML document in a file"])


def _plain(node: Any, path: Path_, source: str, origin: dict[Path_, str], problems: list[str]) -> Any:
    """Turn a YAML node into plain Python data, noting the line of every field."""
    origin[path] = here = f"{source}:{node.start_mark.line + 1}"
    kind = type(node).__name__
    if kind == "MappingNode":
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)[:200]
            if key in result:
                problems.append(f"{source}:{key_node.start_mark.line + 1}: duplicate key {shorten(key)}")
            result[key] = _plain(value_node, (*path, key), source, origin, problems)
            origin[(*path, key)] = f"{source}:{key_node.start_mark.line + 1}"
        return result
    if kind == "SequenceNode":
        return [_plain(item, (*path, i), source, origin, problems) for i, item in enumerate(node.value)]
    return _scalar(node, here, problems)


def _scalar(node: Any, here: str, problems: list[str]) -> Any:
    tag = str(node.tag).rsplit(":", 1)[-1]
    text = node.value
    try:
        if tag == "int":
            return int(text.replace("_", ""), 0)
        if tag == "float":
            return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan").replace(".NaN", "nan"))
    except ValueError:
        return text
    if tag == "bool":
        return text.lower() == "true"
    if tag == "null":
        return None
    if tag not in ("str", "timestamp"):
        problems.append(f"{here}: tag {shorten(node.tag)} is not allowed: only plain data")
    return text


def resolve_extends(document: Document, find: Any, seen: tuple[str, ...] = ()) -> Document:
    """Merge a document over the one it ``extends:``; `find(name)` gives the parent Document."""
    parent_name = document.data.get("extends")
    if parent_name is None:
        return document
    if not isinstance(parent_name, str):
        raise InputFileError([f"{document.where(('extends',))}: extends: must be the name of a profile"])
    chain = (*seen, document.source)
    parent = find(parent_name)
    if parent.source in chain:
        route = " -> ".join(Path(source).stem for source in (*chain, parent.source))
        raise InputFileError([f"{document.where(('extends',))}: extends: goes round in a circle: {route}"])
    parent = resolve_extends(parent, find, chain)
    own = {key: value for key, value in document.data.items() if key != "extends"}
    return Document(merge(parent.data, own), document.source, {**parent.origin, **document.origin})


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `over` on `base`: mappings are merged field by field, everything else is replaced."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def parse_overrides(settings: Sequence[str]) -> dict[str, Document]:
    """Turn ``root.path=value`` settings into one Document per root (accelerator, cluster, model, framework)."""
    documents: dict[str, Document] = {}
    for setting in settings:
        path, equals, value = setting.partition("=")
        parts = path.strip().split(".")
        if not equals or len(parts) < 2 or not all(parts):
            msg = f'--set {shorten(setting)}: expected path=value, e.g. --set accelerator.memory.bandwidth="4 TB/s"'
            raise UsageError(msg)
        where = f"--set {path.strip()[:100]}"
        try:
            parsed = parse_yaml(f"value: {value}", where).data["value"]
        except InputFileError:
            parsed = value
        nested: Any = parsed
        for part in reversed(parts[1:]):
            nested = {part: nested}
        origin: dict[Path_, str] = {tuple(parts[1:end]): where for end in range(2, len(parts) + 1)}
        known = documents.get(parts[0])
        documents[parts[0]] = Document(
            merge(known.data if known else {}, nested), where, {**(known.origin if known else {}), **origin}
        )
    return documents


def overlay(document: Document, over: Document | None) -> Document:
    """Lay the settings of one root over a document."""
    if over is None:
        return document
    return Document(merge(document.data, over.data), document.source, {**document.origin, **over.origin})


def validate(spec: type[SpecT], document: Document) -> SpecT:
    """Build a spec, or raise InputFileError naming file, line, field and nearest fix for every problem at once."""
    try:
        return spec.model_validate(document.data)
    except ValidationError as error:
        raise InputFileError([_explain(spec, document, dict(problem)) for problem in error.errors()]) from None


def _explain(spec: type[BaseModel], document: Document, problem: dict[str, Any]) -> str:
    path: Path_ = tuple(problem["loc"])
    shown = ".".join(str(part)[:60] for part in path) or spec.__name__.lower()
    where = document.where(path)
    if problem["type"] == "extra_forbidden":
        fields = _fields_at(spec, path[:-1])
        return f"{where}: {shown}: unknown field{did_you_mean(str(path[-1]), fields) or _listed(fields)}"
    if problem["type"] == "missing":
        return f"{where}: {shown}: missing"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    value = problem.get("input")
    given = "" if value is None or isinstance(value, dict | list) else f" (given {shorten(value, 40)})"
    return f"{where}: {shown}: {message[:1].lower()}{message[1:]}{given}"


def _listed(fields: Sequence[str]) -> str:
    return f" (fields here: {', '.join(fields)})" if fields else ""


def _fields_at(spec: type[BaseModel], path: Path_) -> list[str]:
    """Names of the fields of the model found by walking `path` from `spec`."""
    current: type[BaseModel] | None = spec
    for part in path:
        if current is None:
            return []
        if isinstance(part, str) and part in current.model_fields:
            current = _model_in(current.model_fields[part].annotation)
    return list(current.model_fields) if current else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the one spec class inside an annotation such as ``tuple[Tier, ...] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _model_in(arg))), None)
