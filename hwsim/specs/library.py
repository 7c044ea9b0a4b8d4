"""Names to specs: presets, aliases, files, dicts, with overrides laid over them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from hwsim.errors import InputFileError, UsageError, did_you_mean, shorten
from hwsim.specs.files import Document, merge, overlay, parse_overrides, read_yaml, resolve_extends, validate
from hwsim.specs.hardware import Accelerator, Cluster, Hardware
from hwsim.specs.job import Framework
from hwsim.specs.model import Model

PACKAGE = Path(__file__).parent.parent
DATA = PACKAGE / "data"
ACCELERATORS, CLUSTERS, MODELS, FRAMEWORKS = "accelerators", "clusters", "models", "frameworks"
OVERRIDE_ROOTS = ("accelerator", "cluster", "model", "framework")
Reference = str | Path | Mapping[str, Any]


def profile_folders(extra: str | Path | None = None) -> list[Path]:
    """Folders of hardware profiles, nearest first: `extra`, HWSIM_PROFILES, ./hardware_profiles, the package's."""
    named = [Path(folder) for folder in (extra, os.environ.get("HWSIM_PROFILES")) if folder]
    for folder in named:
        if not folder.is_dir():
            msg = f"profile folder {shorten(folder, 200)} does not exist"
            raise UsageError(msg)
    shipped = [PACKAGE / "hardware_profiles", PACKAGE.parent / "hardware_profiles"]
    return [folder for folder in (*named, Path("hardware_profiles"), *shipped) if folder.is_dir()]


def names(kind: str, extra: str | Path | None = None) -> list[str]:
    """Ids of all presets of a kind (accelerators, clusters, models, frameworks), sorted."""
    folders = [DATA] if kind in (MODELS, FRAMEWORKS) else profile_folders(extra)
    return sorted({path.stem for folder in folders for path in (folder / kind).glob("*.yaml")})


def find(kind: str, name: str, extra: str | Path | None = None) -> Path | None:
    """The file of a preset, or None."""
    if not name or Path(name).name != name or len(name) > 100:
        return None
    folders = [DATA] if kind in (MODELS, FRAMEWORKS) else profile_folders(extra)
    return next((path for folder in folders if (path := folder / kind / f"{name}.yaml").is_file()), None)


@cache
def aliases() -> Mapping[str, str]:
    """Model aliases: short name to preset id."""
    return dict(read_yaml(DATA / "aliases.yaml").data)


def _looks_like_path(text: str) -> bool:
    return text.endswith((".yaml", ".yml", ".json")) or text.startswith((".", "/", "~")) or Path(text).exists()


def _refuse(what: str, name: str, options: Sequence[str], advice: str) -> NoReturn:
    """UsageError for a name that is no preset: the nearest names, else where to look."""
    hint = did_you_mean(name, options) or f" ({advice})"
    msg = f"unknown {what} {shorten(name)}{hint}"
    raise UsageError(msg)


def _document(reference: Reference, open_name: Callable[[str], Document]) -> Document:
    """A reference as a Document, before `extends` is resolved."""
    if isinstance(reference, Mapping):
        return Document(dict(reference), "given fields")
    text = str(reference)
    if len(text) > 4096 or "\0" in text:
        msg = f"{shorten(text)} is no name or path"
        raise UsageError(msg)
    if _looks_like_path(text):
        return read_yaml(Path(text).expanduser())
    return open_name(text)


def load_model(reference: Reference | Model, settings: Document | None = None) -> Model:
    """Load a model from a preset, alias, YAML file, Hugging Face ``config.json`` (or its folder), dict or Model.

    Raises
    ------
    UsageError
        For a name that is no preset or alias.
    InputFileError
        For a file or dict that does not describe a model.
    """
    if isinstance(reference, Model):
        reference = reference.model_dump()
    if isinstance(reference, str | Path) and _is_config(str(reference)):
        return validate(Model, overlay(_config_document(Path(reference).expanduser()), settings))
    document = resolve_extends(_document(reference, _open_model), _open_model)
    return validate(Model, overlay(document, settings))


def _open_model(name: str) -> Document:
    path = find(MODELS, aliases().get(name.lower(), name.lower()))
    if path is None:
        _refuse("model", name, [*names(MODELS), *aliases()], "see `hwsim models list`")
    return read_yaml(path)


def _is_config(text: str) -> bool:
    if len(text) > 4096 or "\0" in text:
        return False
    path = Path(text).expanduser()
    return text.endswith(".json") or (path / "config.json").is_file()


def _config_document(path: Path) -> Document:
    from hwsim.specs.huggingface import fields_from_config, load_config

    source = str(path / "config.json" if path.is_dir() else path)
    given = fields_from_config(load_config(path), source)
    stem = path.name if path.is_dir() else path.parent.name or path.stem
    safe = "".join(c if c.isalnum() or c in "._+-" else "-" for c in stem).strip("._+-") or "config"
    return Document({"name": safe[:80], **given}, source)


def load_framework(name: str, settings: Document | None = None) -> Framework:
    """Load a training framework's habits by preset id."""
    path = find(FRAMEWORKS, name)
    if path is None:
        _refuse("framework", name, names(FRAMEWORKS), f"known: {', '.join(names(FRAMEWORKS))}")
    return validate(Framework, overlay(read_yaml(path), settings))


def load_hardware(
    reference: Reference | Hardware, profiles: str | Path | None = None, settings: Mapping[str, Document] | None = None
) -> Hardware:
    """Load an accelerator with its usual cluster, or a cluster with its accelerator.

    Parameters
    ----------
    reference
        Accelerator or cluster id, YAML file of either, dict of fields of either, or Hardware.
    profiles
        Folder to look in first.
    settings
        Overrides by root (`accelerator`, `cluster`), see `hwsim.specs.files.parse_overrides`.

    Raises
    ------
    UsageError
        For a name that is no preset.
    InputFileError
        For a file or dict that describes neither.
    """
    over = dict(settings or {})
    if isinstance(reference, Hardware):
        if over:
            msg = "overrides apply to names, files and dicts; change a Hardware object with model_copy(update=...)"
            raise UsageError(msg)
        return reference
    device, cluster = _pair(reference, profiles)
    accelerator = validate(Accelerator, overlay(device, over.get("accelerator")))
    return Hardware(accelerator=accelerator, cluster=validate(Cluster, overlay(cluster, over.get("cluster"))))


def _pair(reference: Reference, profiles: str | Path | None) -> tuple[Document, Document]:
    """The device document and the cluster document that a reference stands for."""

    def open_either(name: str) -> Document:
        path = find(ACCELERATORS, name.lower(), profiles) or find(CLUSTERS, name.lower(), profiles)
        if path is None:
            known = [*names(ACCELERATORS, profiles), *names(CLUSTERS, profiles)]
            _refuse("hardware", name, known, "see `hwsim hardware list`")
        return read_yaml(path)

    document = resolve_extends(_document(reference, open_either), open_either)
    if "tiers" not in document.data:
        usual = document.data.get("usual_cluster")
        if not isinstance(usual, str):
            raise InputFileError([f"{document.source}: usual_cluster: missing (the cluster this device sits in)"])
        cluster = resolve_extends(open_either(usual), open_either)
        renamed = {"accelerator": document.data.get("name", "custom")}
        return document, Document(merge(cluster.data, renamed), cluster.source, cluster.origin)
    device = document.data.get("accelerator")
    if isinstance(device, Mapping):
        inline = resolve_extends(Document(dict(device), document.source, document.origin), open_either)
        renamed = {"accelerator": inline.data.get("name", "custom")}
        return inline, Document(merge(document.data, renamed), document.source, document.origin)
    if not isinstance(device, str):
        raise InputFileError([f"{document.where(('accelerator',))}: accelerator: missing or not a name"])
    return resolve_extends(open_either(device), open_either), document


def split_settings(settings: Sequence[str]) -> dict[str, Document]:
    """Parse ``--set`` values and refuse roots that do not exist."""
    documents = parse_overrides(settings)
    for root in documents:
        if root not in OVERRIDE_ROOTS:
            msg = f"--set {shorten(root)}: must start with one of {', '.join(OVERRIDE_ROOTS)}"
            raise UsageError(msg + did_you_mean(root, OVERRIDE_ROOTS))
    return documents
