"""A question as fields by path: what is asked, of which model and machine, and where each field was written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hwsim import arguments, asking_inference
from hwsim.errors import HwsimError, InfeasibleError, InputFileError, UsageError, did_you_mean, printable, shorten
from hwsim.search.serving_space import SIZES
from hwsim.specs.files import looks_like_path
from hwsim.specs.library import OVERRIDE_ROOTS
from hwsim.specs.reading import MAX_DEPTH, Document, FieldPath, expand, read_yaml
from hwsim.specs.strategy import COLUMN_NAMES
from hwsim.units import parse

T = TypeVar("T")
AIMS = {
    "train": ("tokens", "target_days", "target_tokens_per_s"),
    "infer": asking_inference.PROMISES,
}
"""What a plan is held against, by task."""
COMMON = ("task", "model", "hardware", "gpus", "objective", "grid", "prices")
FILES = ("model", "hardware", "grid", "prices")
"""Fields that name a preset, or hold a file of this folder."""
SETTINGS = tuple(root for root in OVERRIDE_ROOTS if root != "job")
"""Roots of overrides of what presets say."""
GROUPS = ("job", "strategy", "pin", *SETTINGS)
COUNTED = ("tokens", "target_tokens_per_s", "gpus")
"""Fields that may be written as 15T."""
TIMES = "times"


@dataclass(frozen=True)
class Question:
    """One question: values by path, and the file and line of each."""

    fields: Mapping[str, Any]
    places: Mapping[str, str] = field(default_factory=dict)
    name: str = "base"
    place: str = ""
    """Where the scenario as a whole was written."""
    start: Mapping[str, Any] = field(default_factory=dict)
    """What multiples (``{times: 2}``) are of, where the question that this is a variation of set it."""

    @property
    def task(self) -> str:
        """train, finetune or infer."""
        task = self.fields.get("task")
        return "train" if task is None else str(task)

    @property
    def serves(self) -> bool:
        """Whether it is about inference."""
        return self.task == "infer"

    def group(self, root: str) -> dict[str, Any]:
        """Fields of one root, such as `job`, without it."""
        return {path[len(root) + 1 :]: value for path, value in self.fields.items() if path.startswith(f"{root}.")}

    def top(self, *names: str) -> dict[str, Any]:
        """Those of some fields that are given."""
        return {name: self.fields[name] for name in names if self.fields.get(name) is not None}

    def chosen(self, name: str, default: str | None = None) -> Any:
        """What a field of `FILES` names or holds; fields that were written in the file know where."""
        value = self.fields.get(name)
        if isinstance(value, Mapping):
            return Document(dict(value), self.where(name), {(): self.where(name)})
        return default if value is None else value

    def where(self, path: str) -> str:
        """File and line of a field, or of the scenario."""
        return self.places.get(path, self.place)

    def settings(self) -> dict[str, Document]:
        """What is laid over presets: a document for each root, which knows its lines."""
        documents = {}
        for root in SETTINGS:
            data: dict[str, Any] = {}
            origin: dict[FieldPath, str] = {}
            for path, value in self.group(root).items():
                parts = tuple(path.split("."))
                _put(data, parts, value)
                origin |= {parts[:end]: self.where(f"{root}.{path}") for end in range(1, len(parts) + 1)}
            if data:
                documents[root] = Document(data, self.place, origin)
        return documents

    def over(self, fields: Mapping[str, Any], places: Mapping[str, str], name: str, place: str) -> Question:
        """This question with other values in some fields; a field that is chosen anew forgets what was set in it."""
        kept = {path: value for path, value in self.fields.items() if not _replaced(path, fields)}
        multiples = [path for path, value in fields.items() if is_multiple(value)]
        start = {path: value for path, value in {**self.start, **self.fields}.items() if _replaced(path, multiples)}
        start = {path: value for path, value in start.items() if not is_multiple(value)}
        both = {path: _product(self.fields.get(path), value) for path, value in fields.items()}
        return Question({**kept, **both}, {**self.places, **places}, name, place, start)

    def plain(self) -> dict[str, Any]:
        """The fields as plain data, in the order of a file."""
        order = [*COMMON, *AIMS["train"], *AIMS["infer"]]
        ranked = sorted(self.fields, key=lambda path: (order.index(path) if path in order else len(order), path))
        return {path: self.fields[path] for path in ranked}


def is_multiple(value: Any) -> bool:
    """Whether a value says how many times what is there it is."""
    return isinstance(value, Mapping) and set(value) == {TIMES}


def _product(old: Any, new: Any) -> Any:
    """A value laid over another one: of two multiples their product."""
    factors = [value[TIMES] for value in (old, new) if is_multiple(value)]
    good = len(factors) == 2 and all(isinstance(each, int | float) and each > 0 for each in factors)
    return {TIMES: factors[0] * factors[1]} if good else new


def _put(data: dict[str, Any], parts: tuple[str, ...], value: Any) -> None:
    for part in parts[:-1]:
        data = data.setdefault(part, {})
    data[parts[-1]] = value


def overlaps(path: str, other: str) -> bool:
    """Whether two fields are one, or one of them holds the other."""
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


def _replaced(path: str, fields: Iterable[str]) -> bool:
    """Whether one of `fields` is what `path` is, is inside it, or holds it."""
    return any(overlaps(path, other) for other in fields)


def flattened(document: Document, at: FieldPath) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of a mapping in a file by dotted path, and the line of each.

    Raises
    ------
    InputFileError
        Naming line, field and the nearest name for every field that no question has.
    """
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    problems: list[str] = []
    inner = document.data
    for part in at:
        inner = inner[part] if isinstance(part, str) else inner
    for path, value, spelt in _leaves(inner, "", at):
        place = document.where(spelt)
        wrong = _unknown(path) or _twice(path, values)
        if wrong:
            problems.append(f"{place}: {printable(path, 100)}: {wrong}")
            continue
        values[path], places[path] = value, place
    if problems:
        raise InputFileError(problems)
    return values, places


def _leaves(data: Mapping[str, Any], prefix: str, spelt: FieldPath) -> Iterator[tuple[str, Any, FieldPath]]:
    """Path, value and place of every leaf; what a root that is chosen by name holds is a spec and stays whole."""
    for key, value in data.items():
        path = f"{prefix}{key}"
        whole = path in FILES or is_multiple(value)
        if isinstance(value, Mapping) and value and not whole:
            yield from _leaves(value, f"{path}.", (*spelt, key))
        else:
            yield path, value, (*spelt, key)


def _unknown(path: str) -> str:
    """What is wrong with the name of a field."""
    root, _, rest = path.partition(".")
    known = [*COMMON, *dict.fromkeys(name for names in AIMS.values() for name in names)]
    if not rest:
        if path in known:
            return ""
        if root in GROUPS:
            return f"name a field of it, such as {root}.{_example(root)}"
        return "unknown field" + (did_you_mean(root, [*known, *GROUPS]) or f" (fields here: {', '.join(known)}, ...)")
    known_there = options(root)
    if known_there is None:
        hint = did_you_mean(root, GROUPS) or f" (roots: {', '.join(GROUPS)})"
        return f"unknown root {shorten(root)}{hint}"
    name = rest.split(".")[0]
    return "" if not known_there or name in known_there else f"unknown field{did_you_mean(name, known_there)}"


def options(root: str) -> list[str] | None:
    """Fields that a root has; None for no root of a question."""
    named: dict[str, tuple[str, ...]] = {
        "job": (*arguments.JOB, "framework", *asking_inference.JOB, "engine", "engine_overhead", "precision"),
        "strategy": (*COLUMN_NAMES[1:], *SIZES),
        "pin": (*COLUMN_NAMES, *SIZES),
    }
    if root in named:
        return list(dict.fromkeys(named[root]))
    return list(OVERRIDE_ROOTS[root].model_fields) if root in SETTINGS else None


def field_schema() -> dict[str, Any]:
    """The fields of a question for a JSON schema: names that an editor can complete; dotted paths stand beside them."""
    names = [*COMMON, *dict.fromkeys(name for aims in AIMS.values() for name in aims)]
    groups = {
        root: {"type": "object", "properties": {name: {} for name in known}}
        for root in GROUPS
        if (known := options(root))
    }
    plain: dict[str, Any] = {name: {} for name in names if name not in groups}
    plain["task"] = {"enum": list(arguments.TASKS)}
    model = {"description": "A preset, a file of this folder, or fields of a model."}
    return {"type": "object", "properties": {**plain, **groups, "model": model}, "additionalProperties": True}


def _example(root: str) -> str:
    return (options(root) or [""])[0]


def _twice(path: str, values: Mapping[str, Any]) -> str:
    """Whether a field, or what holds it or is inside it, is there already under another spelling."""
    other = next((known for known in values if overlaps(known, path) and known not in FILES), None)
    return f"given twice (also as {other})" if other else ""


def checked_files(fields: Mapping[str, Any], places: Mapping[str, str], folder: Path | None) -> dict[str, Any]:
    """The fields with files of the scenario's folder as whole paths.

    Raises
    ------
    InputFileError
        For a file outside that folder.
    """
    result = dict(fields)
    for name in FILES:
        value = fields.get(name)
        if isinstance(value, str) and looks_like_path(value) and folder is not None:
            target = folder / expand(value)
            _refuse_outside(folder.resolve(), target, f"{places[name]}: {name}: {shorten(value)}")
            result[name] = str(target.resolve())
    return result


def _refuse_outside(home: Path, target: Path, said: str, deep: int = 0) -> None:
    """Refuse a file, and what it extends, that lies outside a folder."""
    if not target.resolve().is_relative_to(home):
        raise InputFileError([f"{said} lies outside the scenario's folder"])
    if target.suffix == ".json" or not target.is_file() or deep >= MAX_DEPTH:
        return
    document = read_yaml(target)
    parent = document.data.get("extends")
    if isinstance(parent, str) and looks_like_path(parent):
        place = f"{document.where(('extends',))}: extends: {shorten(parent)}"
        _refuse_outside(home, target.parent / expand(parent), place, deep + 1)


def counted(question: Question) -> dict[str, Any]:
    """Fields that may be written as 15T, as numbers."""
    found: dict[str, Any] = {}
    for name, value in question.top(*COUNTED).items():
        found[name] = value
        if isinstance(value, str) and value != arguments.OPTIMAL:
            try:
                number = parse(value, "count")
            except ValueError as error:
                msg = f"{name}: {error}"
                raise UsageError(msg) from None
            found[name] = int(number) if name == "gpus" and number.is_integer() else number
    return found


def located(question: Question, ask: Callable[[], T]) -> T:
    """What `ask` gives; what is wrong with an argument is said with the file and line it came from."""
    try:
        return ask()
    except (InfeasibleError, InputFileError):
        raise
    except HwsimError as error:
        if not question.place:
            raise
        path = _blamed(question, str(error))
        at = question.where(path) if path else question.place
        about = "" if question.name == "base" else f"{question.name}: "
        raise InputFileError([f"{at}: {about}{error}"]) from None


def _blamed(question: Question, message: str) -> str | None:
    """The field that a message is about: the one it starts with, or whose value it quotes."""
    head = message.split(":", maxsplit=1)[0].split(" ")
    for path in question.fields:
        if (
            path == head[0]
            or path.rpartition(".")[2] in (head[0], head[-1])
            or (head[0] == "unknown" and path == head[1:2][0])
        ):
            return path
    quoted = [path for path, value in question.fields.items() if isinstance(value, str) and f"'{value}'" in message]
    return quoted[0] if quoted else None
