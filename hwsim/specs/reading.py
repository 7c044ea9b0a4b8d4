"""Files into plain data: small UTF-8 texts, and YAML read in one walk that keeps the line of every field.

Files are data: no anchors, no tags, no nesting deeper than 16, at most 20,000 values and 1 MiB.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwsim.errors import InputFileError, printable, shorten
from hwsim.units import MIB

MAX_FILE_BYTES = int(MIB)
MAX_DEPTH = 16
MAX_VALUES = 20_000
FieldPath = tuple[str | int, ...]
_NULLS = ("", "~", "null", "Null", "NULL")
_TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE = re.compile(r"[+-]?\d(_?\d){0,300}", re.ASCII)
_REAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NO_NUMBERS = re.compile(r"[+-]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Document:
    """Plain data with, for every field path, the file and line it was written on."""

    data: dict[str, Any]
    source: str
    origin: Mapping[FieldPath, str] = field(default_factory=dict)
    path: Path | None = None

    def where(self, path: FieldPath) -> str:
        """``file:line`` of a field, or of the nearest field around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.origin:
                return self.origin[path[:end]]
        return self.source


def expand(text: str) -> Path:
    """A path with its ``~`` resolved where that user exists."""
    with suppress(RuntimeError):
        return Path(text).expanduser()
    return Path(text)


def is_file(path: Path) -> bool:
    """Whether a file is there; no for text that can be no path."""
    with suppress(OSError, ValueError):
        return path.is_file()
    return False


def is_folder(path: Path) -> bool:
    """Whether a folder is there; no for text that can be no path."""
    with suppress(OSError, ValueError):
        return path.is_dir()
    return False


def read_text(path: Path) -> str:
    """Read a small UTF-8 text file (with or without a BOM) or say in one line why it cannot be read."""
    try:
        _refuse_devices(path)
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise InputFileError([f"{printable(path)}: is larger than 1 MiB"])
        return data.decode("utf-8-sig")
    except OSError as error:
        raise InputFileError([f"{printable(path)}: {error.strerror or error}"]) from None
    except UnicodeDecodeError:
        raise InputFileError([f"{printable(path)}: is not UTF-8 text"]) from None
    except ValueError:
        raise InputFileError([f"{printable(path)}: is no path"]) from None


def _refuse_devices(path: Path) -> None:
    """Refuse folders, pipes and devices before they are opened: some never end."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise InputFileError([f"{printable(path)}: is a {'folder' if stat.S_ISDIR(mode) else 'device'}, not a file"])


def read_yaml(path: Path) -> Document:
    """Parse one YAML file; InputFileError with ``file:line`` for anything that is not a mapping of plain data."""
    return parse_yaml(read_text(path), printable(path), path)


def parse_yaml(text: str, source: str, path: Path | None = None) -> Document:
    """Parse YAML 1.2 text: plain data only, duplicate keys refused."""
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.reader import ReaderError

    try:
        walk, data = _walked(text, source)
    except MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputFileError([f"{source}{line}: not valid YAML: {printable(error.problem or error.context)}"]) from None
    except ReaderError as error:
        number = text[: error.position].count("\n") + 1
        found = shorten(chr(error.character))
        raise InputFileError([f"{source}:{number}: not valid YAML: control character {found}"]) from None
    except (ValueError, OverflowError) as error:
        raise InputFileError([f"{source}: not valid YAML: {printable(error)}"]) from None
    if walk.problems:
        raise InputFileError(walk.problems)
    if not isinstance(data, dict):
        found = "nothing: the file is empty" if data is None else f"a {'list' if isinstance(data, list) else 'value'}"
        raise InputFileError([f"{source}: expected a mapping of fields, found {found}"])
    return Document(data, source, walk.origin, path)


def _walked(text: str, source: str) -> tuple[_Walk, Any]:
    """The data of a text: by libyaml, which is fast; what it refuses by the slow parser, which knows all of YAML 1.2
    (such as a URL in braces) and whose errors are told.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    walk = _Walk(YAML(typ="safe").parse(text), source)
    try:
        return walk, walk.document()
    except YAMLError:
        walk = _Walk(YAML(typ="safe", pure=True).parse(text), source)
        return walk, walk.document()


class _Walk:
    """Builds plain data from YAML events, as they come, noting the line of every field."""

    def __init__(self, events: Iterator[Any], source: str) -> None:
        self.events = events
        self.source = source
        self.origin: dict[FieldPath, str] = {}
        self.problems: list[str] = []

    def document(self) -> Any:
        """The data of the one document in the stream; None if there is none."""
        data = None
        documents = 0
        for event in self.events:
            kind = type(event).__name__
            documents += kind == "DocumentStartEvent"
            if documents > 1:
                raise InputFileError([f"{self._place(event)}: more than one YAML document in a file"])
            if not kind.startswith(("Document", "Stream")):
                data = self._value(event, (), self._place(event))
        return data

    def _place(self, event: Any) -> str:
        return f"{self.source}:{event.start_mark.line + 1}"

    def _value(self, event: Any, path: FieldPath, place: str) -> Any:
        """The value that starts with `event`; `place` is the line of its key."""
        self.origin[path] = place
        self._refuse_tricks(event, path)
        kind = type(event).__name__
        if kind == "MappingStartEvent":
            return self._mapping(path)
        if kind == "SequenceStartEvent":
            return self._sequence(path)
        return event.value if event.style else _plain_scalar(event.value)

    def _refuse_tricks(self, event: Any, path: FieldPath) -> None:
        if type(event).__name__ == "AliasEvent" or event.anchor:
            raise InputFileError([f"{self._place(event)}: anchors and aliases are not allowed"])
        if event.tag:
            raise InputFileError([f"{self._place(event)}: tag {shorten(event.tag)} is not allowed: only plain data"])
        if len(path) > MAX_DEPTH:
            raise InputFileError([f"{self._place(event)}: nested deeper than {MAX_DEPTH} levels"])
        if len(self.origin) > MAX_VALUES:
            raise InputFileError([f"{self._place(event)}: more than {MAX_VALUES:,} values in a file"])

    def _mapping(self, path: FieldPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while type(key := next(self.events)).__name__ != "MappingEndEvent":
            if type(key).__name__ != "ScalarEvent":
                raise InputFileError([f"{self._place(key)}: a field name must be text"])
            self._refuse_tricks(key, path)
            if key.value in result:
                self.problems.append(f"{self._place(key)}: duplicate key {shorten(key.value)}")
            result[key.value] = self._value(next(self.events), (*path, key.value), self._place(key))
        return result

    def _sequence(self, path: FieldPath) -> list[Any]:
        result: list[Any] = []
        while type(event := next(self.events)).__name__ != "SequenceEndEvent":
            result.append(self._value(event, (*path, len(result)), self._place(event)))
        return result


def _plain_scalar(text: str) -> Any:
    """What an unquoted YAML 1.2 scalar means: nothing, a truth value, a number or text."""
    if text in _NULLS:
        return None
    if text in _TRUTHS:
        return _TRUTHS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _REAL.fullmatch(text):
        return float(text)
    return float(text.replace(".", "")) if _NO_NUMBERS.fullmatch(text) else text
