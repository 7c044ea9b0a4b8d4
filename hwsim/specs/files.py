"""Documents into specs: `extends`, settings laid over them, every problem at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from hwsim.errors import InputFileError, UsageError, did_you_mean, printable, shorten
from hwsim.specs.problems import SETTING, explain
from hwsim.specs.reading import MAX_DEPTH, Document, FieldPath, expand, parse_yaml, read_yaml

SpecT = TypeVar("SpecT", bound=BaseModel)
CHOSEN_BY = {"model": "--model", "framework": "--framework", "hardware": "--hardware", "accelerator": "--hardware",
             "cluster": "--hardware"}  # fmt: skip
"""What users try to choose by a setting, and the flag that chooses it."""
Find = Callable[[str], Document]
"""Opens the preset of a name, or raises UsageError."""


def looks_like_path(text: str) -> bool:
    """Whether a reference is spelt as a path and not as a name."""
    return text.endswith((".yaml", ".yml", ".json")) or text.startswith((".", "/", "~"))


def linked(document: Document, field: str, find: Find) -> Document:
    """Open the preset that a field names; what is wrong with the name is said at the field's line."""
    name = document.data.get(field)
    place = f"{document.where((field,))}: {field}"
    if not isinstance(name, str):
        raise InputFileError([f"{place}: {'missing' if name is None else 'must be the name of a profile'}"])
    try:
        return find(name)
    except UsageError as error:
        raise InputFileError([f"{place}: {error}"]) from None


def resolve_extends(document: Document, find: Find) -> Document:
    """Lay a document over the one it ``extends:`` (a preset, or a path seen from its own file), and so on."""
    chain = [document]
    while "extends" in chain[-1].data:
        parent = linked(chain[-1], "extends", lambda name: _parent(chain[-1], name, find))
        if _identity(parent) in map(_identity, chain):
            _refuse_circle(chain[-1], [*chain, parent])
        if len(chain) == MAX_DEPTH:
            raise InputFileError([f"{chain[-1].where(('extends',))}: extends: more than {MAX_DEPTH} profiles deep"])
        chain.append(parent)
    whole = chain.pop()
    for child in reversed(chain):
        own = {key: value for key, value in child.data.items() if key != "extends"}
        handed = replace(whole, data=_handed_down(whole.data, own))
        whole = replace(overlay(handed, replace(child, data=own)), source=child.source, path=child.path)
    return whole


def _handed_down(parent: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """What a profile takes from the one it extends: not its title, and no claim to have been measured."""
    data = {key: value for key, value in parent.items() if key != "title" or "name" not in child}
    kernels = data.get("kernels")
    if isinstance(kernels, Mapping) and kernels.get("status") == "measured":
        data["kernels"] = {**kernels, "status": "inherited"}
    return data


def _parent(child: Document, name: str, find: Find) -> Document:
    if looks_like_path(name) and child.path is not None:
        return read_yaml(child.path.parent / expand(name))
    try:
        return find(name)
    except UsageError:
        if child.path is not None and child.path.stem == name:
            _refuse_circle(child, [child, child])
        raise


def _identity(document: Document) -> str:
    return str(document.path.resolve() if document.path else document.source)


def _refuse_circle(child: Document, chain: Iterable[Document]) -> NoReturn:
    route = " -> ".join(Path(document.source).stem for document in chain)
    raise InputFileError([f"{child.where(('extends',))}: extends: goes round in a circle: {printable(route)}"])


def overlay(document: Document, over: Document | None) -> Document:
    """Lay one document on another: mappings field by field, list entries by index or name, all else replaced."""
    if over is None:
        return document
    origin = dict(document.origin)
    return replace(document, data=_merge(document.data, over.data, over, (), (), origin), origin=origin)


def _merge(
    old: Any, new: Any, over: Document, written: FieldPath, path: FieldPath, origin: dict[FieldPath, str]
) -> Any:
    """`new` on `old`; `written` is how `over` spells the field's `path` (a list entry may go by its name)."""
    into_list = isinstance(old, list) and bool(new)
    if not isinstance(new, Mapping) or not (into_list or isinstance(old, Mapping)):
        _forget_places(old, path, origin)
        _copy_places(new, over, written, path, origin)
        return new
    if written or written in over.origin:
        origin[path] = over.where(written)
    result: Any = list(old) if into_list else dict(old)
    for key, value in new.items():
        spelt = (*written, key)
        at = _position(old, str(key), over.where(spelt), path) if into_list else key
        before = old[at] if into_list else old.get(key)
        result[at] = _merge(before, value, over, spelt, (*path, at), origin)
    return result


def _forget_places(old: Any, path: FieldPath, origin: dict[FieldPath, str]) -> None:
    """Forget the lines of a value that is replaced."""
    if origin.pop(path, None):
        for key, value in _entries(old):
            _forget_places(value, (*path, key), origin)


def _copy_places(new: Any, over: Document, written: FieldPath, path: FieldPath, origin: dict[FieldPath, str]) -> None:
    """Note the lines of the value that replaces it."""
    if written in over.origin:
        origin[path] = over.origin[written]
        for key, value in _entries(new):
            _copy_places(value, over, (*written, key), (*path, key), origin)


def _entries(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def _position(entries: list[Any], key: str, place: str, path: FieldPath) -> int:
    """Index of a list entry that is meant by its index or its name."""
    names = [entry.get("name") if isinstance(entry, Mapping) else None for entry in entries]
    if key in names:
        return names.index(key)
    indices = [str(i) for i in range(len(entries))]
    if key in indices:
        return int(key)
    known = [*(str(name) for name in names if name), *indices]
    shown = ".".join(map(str, (*path, printable(key))))
    raise InputFileError([f"{place}: {shown}: no such entry{did_you_mean(key, known)} (here: {', '.join(known)})"])


def parse_overrides(settings: Iterable[str]) -> dict[str, Document]:
    """Turn ``root.path=value`` settings into one Document per root (accelerator, cluster, model, ...)."""
    documents: dict[str, Document] = {}
    for setting in settings:
        path, equals, value = str(setting).partition("=")
        parts = path.strip().split(".")
        if not equals or len(parts) < 2 or not all(parts):
            msg = f'--set {shorten(setting)}: expected path=value, e.g. --set accelerator.memory.bandwidth="4 TB/s"'
            flag = CHOSEN_BY.get(path.strip()) if value else None
            raise UsageError(msg + (f" (to choose one: {flag} {printable(value.strip(), 60)})" if flag else ""))
        document = _setting(f"{SETTING}{printable(path.strip(), 100)}", parts[1:], value)
        known = documents.get(parts[0])
        documents[parts[0]] = overlay(known, document) if known else document
    return documents


def _setting(place: str, parts: list[str], value: str) -> Document:
    """One setting as a document, its value read as YAML where it is that."""
    try:
        nested = parse_yaml(f"value: {value}", place).data["value"]
    except InputFileError:
        nested = value
    for part in reversed(parts):
        nested = {part: nested}
    origin: dict[FieldPath, str] = {tuple(parts[:end]): place for end in range(1, min(len(parts), MAX_DEPTH) + 1)}
    return Document(nested, place, origin)


def validate(spec: type[SpecT], document: Document) -> SpecT:
    """Build a spec, or raise InputFileError naming file, line, field and nearest fix for every problem at once."""
    try:
        return spec.model_validate(document.data)
    except ValidationError as error:
        raise InputFileError(explain(spec, document, [dict(problem) for problem in error.errors()])) from None
