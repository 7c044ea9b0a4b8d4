"""Fitted values into profiles: only their own fields and sources change, comments and style of the rest stay."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, FoldedScalarString

from hwsim.errors import InputFileError, UsageError, printable
from hwsim.fitting.fitted import Fit
from hwsim.specs.library import ACCELERATORS, CLUSTERS

LONGEST_TEXT = 2000
"""Characters that a source may have."""
BESIDE = "libraries"
"""Field of a tier that says nothing of its own protocols."""
PARTS = ("dtypes", "kinds")
"""Fields of a curve that hold curves of their own, which its source speaks of too."""
LAST = "dtypes"
"""Field of a curve that stays behind its numbers."""


def write_fits(fits: Sequence[Fit], profiles: Path, date: str) -> list[Path]:
    """Write fits into the profiles of a folder, each file all at once, and name the files.

    Parameters
    ----------
    fits
        What was found.
    profiles
        Folder that holds ``accelerators/`` and ``clusters/``.
    date
        Day of the fit, as the sources will say.

    Raises
    ------
    UsageError
        If the folder holds no profile of a name, or it cannot be written.
    InputFileError
        If a profile is no YAML, or lacks the tier that a fit is for.
    """
    paths = {fit.profile: _file(profiles, fit.profile) for fit in fits}
    for name, path in paths.items():
        replace_text(path, with_fits(_read(path), path, [fit for fit in fits if fit.profile == name], date))
    return list(paths.values())


def with_fits(text: str, path: Path, fits: Sequence[Fit], date: str) -> str:
    """The text of a profile with fits in their places."""
    yaml = _yaml()
    try:
        document = yaml.load(text)
    except YAMLError as error:
        raise InputFileError([f"{printable(path)}: is no YAML: {' '.join(str(error).split())}"]) from None
    if not isinstance(document, CommentedMap):
        raise InputFileError([f"{printable(path)}: is no profile"])
    lay_fits(document, path, fits, date)
    return dumped(document)


def lay_fits(document: CommentedMap, path: Path, fits: Sequence[Fit], date: str, by: str = "hwsim fit") -> None:
    """Put fits into their places of a profile that was read or made; `by` is the command that found them."""
    for fit in fits:
        node = _place(document, fit.path, path)
        for key, value in fit.values.items():
            _set(node, key, styled(value))
        if fit.path[-1] != BESIDE or fit.path[0] != "tiers":
            _mark_measured(document, fit.path)
    for owner, own in _by_source(fits):
        _set(_place(document, owner[:-1], path), owner[-1], _source(own, date, by))


def dumped(document: CommentedMap) -> str:
    """The YAML of a profile."""
    yaml, buffer = _yaml(), io.StringIO()
    yaml.dump(document, buffer)
    return buffer.getvalue()


def _yaml() -> YAML:
    """Reader and writer that keep what they do not touch."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return yaml


def _file(profiles: Path, name: str) -> Path:
    for kind in (ACCELERATORS, CLUSTERS):
        path = profiles / kind / f"{name}.yaml"
        if path.is_file():
            return path
    msg = f"--profiles {printable(profiles)}: holds no profile {name}"
    raise UsageError(msg)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputFileError([f"{printable(path)}: {getattr(error, 'strerror', None) or 'is not UTF-8'}"]) from None


def _place(document: CommentedMap, fields: Sequence[str], path: Path) -> Any:
    """The mapping at a field path, made where it is missing; a list is entered by the name of its entry."""
    node: Any = document
    for before, key in zip(("", *fields), fields, strict=False):
        if isinstance(node, CommentedSeq):
            node = next((entry for entry in node if entry.get("name") == key), None)
            if node is None:
                raise InputFileError([f"{printable(path)}: {before}: has no entry {key}"])
            continue
        if not isinstance(node.get(key), CommentedMap | CommentedSeq):
            _set(node, key, CommentedMap())
        node = node[key]
        node.fa.set_block_style()
    return node


def _set(node: CommentedMap, key: str, value: Any) -> None:
    """Set a field: where it is, or behind the others of its kind."""
    if key not in node and LAST in node:
        node.insert(list(node).index(LAST), key, value)
    else:
        node[key] = value


def styled(value: Any) -> Any:
    """A value as profiles are written: mappings and lists of plain values on one line."""
    made: Any
    if isinstance(value, Mapping):
        made, items = CommentedMap((key, styled(item)) for key, item in value.items()), list(value.values())
    elif isinstance(value, list | tuple):
        made, items = CommentedSeq(styled(item) for item in value), list(value)
    else:
        return value
    if not any(isinstance(item, Mapping | list | tuple) for item in items):
        made.fa.set_flow_style()
    return made


def _mark_measured(document: CommentedMap, fields: Sequence[str]) -> None:
    """Say that the curves (or the tier) of a field are measured."""
    node = document[fields[0]]
    if isinstance(node, CommentedSeq):
        node = next(entry for entry in node if entry.get("name") == fields[1])
    elif fields[0] == "tiers":
        node = node[fields[1]]
    if "status" in node:
        node["status"] = "measured"
    elif fields[0] == "kernels":
        node.insert(0, "status", "measured")


def _by_source(fits: Sequence[Fit]) -> Iterator[tuple[tuple[str, ...], list[Fit]]]:
    """Fits by the place of their source: a tier has its own, other fields are named under `sources`."""

    def owner(fit: Fit) -> tuple[str, ...]:
        if fit.path[0] == "tiers" and fit.path[-1] != BESIDE:
            return (*fit.path[:2], "source")
        end = next((fit.path.index(part) for part in PARTS if part in fit.path), len(fit.path))
        return ("sources", ".".join(fit.path[:end]))

    ordered = sorted(fits, key=lambda fit: (owner(fit), len(fit.path)))
    for place, own in groupby(ordered, key=owner):
        yield place, list(own)


def _source(fits: Sequence[Fit], date: str, by: str) -> CommentedMap:
    """What was fitted on what, how well, and when."""
    text = f"fitted by {by}: " + "; ".join(map(_sentence, fits))
    text = text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
    return CommentedMap(kind="measured", text=FoldedScalarString(text), date=DoubleQuotedScalarString(date))


def _sentence(fit: Fit) -> str:
    part = f"{fit.path[-1]}: " if set(PARTS) & set(fit.path) else ""
    if fit.path[0] == "tiers":
        part = f"{', '.join(map(str, fit.values))}: "
    inside, outside = fit.inside, fit.outside
    return (
        f"{part}{fit.data}, median error {100 * inside.median:.1f} %, p90 {100 * inside.p90:.0f} %"
        f" (left out of the fit: {100 * outside.median:.1f} %, {100 * outside.p90:.0f} %)"
    )


def replace_text(path: Path, text: str) -> None:
    """Write to a temporary file beside `path`, then rename: never half a profile.

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", text=True)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(path.stat().st_mode & 0o777)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        msg = f"{printable(path)}: {error.strerror or error}"
        raise UsageError(msg) from None


__all__ = ["dumped", "lay_fits", "replace_text", "styled", "with_fits", "write_fits"]
