"""Names to specs: presets, aliases, files, dicts, with overrides laid over them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from hwsim.errors import InputFileError, UsageError, did_you_mean, printable, shorten
from hwsim.specs.base import Spec
from hwsim.specs.economy import Grid, Prices
from hwsim.specs.engine import Engine
from hwsim.specs.files import linked, looks_like_path, overlay, parse_overrides, resolve_extends, validate
from hwsim.specs.hardware import Accelerator, Cluster, Hardware
from hwsim.specs.job import Framework, TrainingJob
from hwsim.specs.model import Model
from hwsim.specs.reading import Document, expand, is_file, is_folder, read_yaml
from hwsim.specs.tiers import GIVEN, Source

PACKAGE = Path(__file__).parent.parent
DATA = PACKAGE / "data"
ACCELERATORS, CLUSTERS, MODELS, FRAMEWORKS = "accelerators", "clusters", "models", "frameworks"
ENGINES, GRIDS, PRICES = "engines", "grids", "prices"
PROFILES = (ACCELERATORS, CLUSTERS, GRIDS, PRICES)
"""Folders that a profile folder may hold."""
DEFAULT_HARDWARE, DEFAULT_GRID, DEFAULT_PRICES = "h100-sxm-80", "usa", "market-2026-11"
"""Device, place and price book where none is named."""
OVERRIDE_ROOTS: Mapping[str, type[Spec]] = {
    "accelerator": Accelerator, "cluster": Cluster, "model": Model, "framework": Framework, "job": TrainingJob,
    "engine": Engine,
}  # fmt: skip
"""What a setting changes, by the first part of its path."""
CLUSTER_FIELDS = frozenset({"accelerator", "node", "tiers"})
"""Fields that clusters have and accelerators lack."""
SEE = "see `hwsim hardware list`"
Reference = str | Path | Mapping[str, Any] | Document
EconomyT = TypeVar("EconomyT", Grid, Prices)


def profile_folders(extra: str | Path | None = None) -> list[Path]:
    """Folders of hardware profiles, nearest first: `extra`, HWSIM_PROFILES, ./hardware_profiles, the package's."""
    named = [Path(str(folder)) for folder in (extra, os.environ.get("HWSIM_PROFILES")) if folder]
    for folder in named:
        _check_profiles(folder)
    shipped = [PACKAGE / "hardware_profiles", PACKAGE.parent / "hardware_profiles"]
    return [folder for folder in (*named, Path("hardware_profiles"), *shipped) if folder.is_dir()]


def _check_profiles(folder: Path) -> None:
    """Refuse a folder that cannot hold a profile."""
    if any(is_folder(folder / kind) for kind in PROFILES):
        return
    why = "does not exist"
    if is_file(folder):
        why = "is not a folder"
    elif is_folder(folder):
        why = f"holds none of {', '.join(f'{kind}/' for kind in PROFILES)}"
    msg = f"profile folder {printable(folder)} {why}"
    raise UsageError(msg)


def names(kind: str, extra: str | Path | None = None) -> list[str]:
    """Ids of all presets of a kind (accelerators, clusters, grids, prices, models, frameworks), sorted."""
    folders = [DATA] if kind in (MODELS, FRAMEWORKS, ENGINES) else profile_folders(extra)
    return sorted({path.stem for folder in folders for path in (folder / kind).glob("*.yaml")})


def find(kind: str, name: str, extra: str | Path | None = None) -> Path | None:
    """The file of a preset, or None."""
    folders = [DATA] if kind in (MODELS, FRAMEWORKS, ENGINES) else profile_folders(extra)
    if not name or Path(name).name != name or len(name) > 100:
        return None
    return next((path for folder in folders if is_file(path := folder / kind / f"{name}.yaml")), None)


def _read_preset(path: Path) -> Document:
    """Read the file of a preset, once while it stays as it is."""
    info = path.stat()
    return _read_once(path.absolute(), path, (info.st_ino, info.st_mtime_ns, info.st_size))


@cache
def _read_once(whole: Path, path: Path, stamp: tuple[int, ...]) -> Document:
    return read_yaml(path)


@cache
def aliases() -> Mapping[str, str]:
    """Model aliases: short name to preset id."""
    return dict(read_yaml(DATA / "aliases.yaml").data)


def _refuse(what: str, name: str, options: Sequence[str], advice: str) -> NoReturn:
    """UsageError for a name that is no preset: the nearest names, else where to look."""
    hint = did_you_mean(name, options) or f" ({advice})"
    msg = f"unknown {what} {shorten(name)}{hint}" if name.strip() else f"{what}: no name given ({advice})"
    raise UsageError(msg)


def _document(reference: Reference, open_name: Callable[[str], Document]) -> Document:
    """A reference as a Document, before `extends` is resolved."""
    if isinstance(reference, Document):
        return reference
    if isinstance(reference, Mapping):
        return Document(dict(reference), "given fields", {(): "given fields"})
    text = str(reference)
    path = expand(text)
    if looks_like_path(text) or (text.strip() and (is_file(path) or is_folder(path))):
        return read_yaml(path)
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
        reference = reference.model_dump(exclude_unset=True)
    if isinstance(reference, str | Path) and _is_config(str(reference)):
        return validate(Model, overlay(_config_document(expand(str(reference))), settings))
    document = resolve_extends(_document(reference, _open_model), _open_model)
    return validate(Model, overlay(document, settings))


def _open_model(name: str) -> Document:
    path = find(MODELS, aliases().get(name.lower(), name.lower()))
    if path is None:
        _refuse("model", name, [*names(MODELS), *aliases()], "see `hwsim models list`")
    return _read_preset(path)


def _is_config(text: str) -> bool:
    return text.endswith(".json") or (bool(text.strip()) and is_folder(expand(text)))


def _config_document(path: Path) -> Document:
    from hwsim.specs.huggingface import fields_from_config, load_config

    file, stem = path, path.parent.name or path.stem
    if is_folder(path):
        file, stem = path / "config.json", path.name
        if not file.exists():
            raise InputFileError([f"{printable(path)}: holds no config.json"])
    source = printable(file)
    given = fields_from_config(load_config(path), source)
    safe = "".join(c if c.isalnum() or c in "._+-" else "-" for c in stem).strip("._+-") or "config"
    return Document({"name": safe[:80], **given}, source)


def load_framework(name: str, settings: Document | None = None) -> Framework:
    """Load a training framework's habits by preset id."""
    path = find(FRAMEWORKS, str(name).lower())
    if path is None:
        _refuse("framework", str(name), names(FRAMEWORKS), f"known: {', '.join(names(FRAMEWORKS))}")
    return validate(Framework, overlay(_read_preset(path), settings))


def load_engine(name: str, settings: Document | None = None) -> Engine:
    """Load an inference engine's habits by preset id."""
    path = find(ENGINES, str(name).lower())
    if path is None:
        _refuse("engine", str(name), names(ENGINES), f"known: {', '.join(names(ENGINES))}")
    return validate(Engine, overlay(_read_preset(path), settings))


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
    device, cluster = _Shelf(profiles).pair(reference, over.get("accelerator"))
    accelerator = _own_prices(validate(Accelerator, device), over.get("accelerator"))
    _check_framework(accelerator, device)
    return Hardware(accelerator=accelerator, cluster=validate(Cluster, overlay(cluster, over.get("cluster"))))


def _own_prices(device: Accelerator, settings: Document | None) -> Accelerator:
    """The device with the prices that the asker set marked as such."""
    asked = settings.data.get("price") if settings else None
    if not isinstance(asked, Mapping):
        return device
    return device.model_copy(update={"sources": with_own_prices(device.sources, asked)})


def with_own_prices(sources: Mapping[str, Source], asked: Iterable[str]) -> dict[str, Source]:
    """Sources that say of some prices that the asker set them: they go before those of a price book."""
    return {**sources, **{f"price.{name}": GIVEN for name in asked}}


def _check_framework(accelerator: Accelerator, device: Document) -> None:
    known, name = names(FRAMEWORKS), accelerator.usual_framework
    if name not in known:
        place = f"{device.where(('usual_framework',))}: usual_framework"
        hint = f"{did_you_mean(name, known)} (known: {', '.join(known)})"
        raise InputFileError([f"{place}: unknown framework {shorten(name)}{hint}"])


def load_grid(reference: Reference | Grid, profiles: str | Path | None = None) -> Grid:
    """Load a place's electricity from a preset, YAML file, dict of fields or Grid.

    Raises
    ------
    UsageError
        For a name that is no preset.
    InputFileError
        For a file or dict that describes no grid.
    """
    return reference if isinstance(reference, Grid) else _load(Grid, GRIDS, reference, profiles)


def load_prices(reference: Reference | Prices, profiles: str | Path | None = None) -> Prices:
    """Load a price book from a preset, YAML file, dict of fields or Prices; errors as for `load_grid`."""
    return reference if isinstance(reference, Prices) else _load(Prices, PRICES, reference, profiles)


def _load(spec: type[EconomyT], kind: str, reference: Reference, profiles: str | Path | None) -> EconomyT:
    def opened(name: str) -> Document:
        path = find(kind, name.lower(), profiles)
        if path is None:
            what = "grid" if kind == GRIDS else "price book"
            _refuse(what, name, names(kind, profiles), f"see `hwsim {kind} list`")
        return _read_preset(path)

    return validate(spec, resolve_extends(_document(reference, opened), opened))


@dataclass(frozen=True)
class _Shelf:
    """Hardware profiles by name."""

    profiles: str | Path | None

    def either(self, name: str) -> Document:
        """The accelerator or cluster of a name."""
        if path := self._find(ACCELERATORS, name) or self._find(CLUSTERS, name):
            return _read_preset(path)
        known = [*names(ACCELERATORS, self.profiles), *names(CLUSTERS, self.profiles)]
        _refuse("hardware", name, known, SEE)

    def accelerator(self, name: str) -> Document:
        """The accelerator of a name."""
        if path := self._find(ACCELERATORS, name):
            return self._whole(path)
        if path := self._find(CLUSTERS, name):
            msg = f"{name} is a cluster, not an accelerator - did you mean {self._whole(path).data.get('accelerator')}?"
            raise UsageError(msg)
        _refuse("accelerator", name, names(ACCELERATORS, self.profiles), SEE)

    def cluster(self, name: str) -> Document:
        """The cluster of a name."""
        if path := self._find(CLUSTERS, name):
            return self._whole(path)
        if path := self._find(ACCELERATORS, name):
            usual = self._whole(path).data.get("usual_cluster")
            msg = f"{name} is an accelerator, not a cluster - did you mean {usual}?"
            raise UsageError(msg)
        _refuse("cluster", name, names(CLUSTERS, self.profiles), SEE)

    def _find(self, kind: str, name: str) -> Path | None:
        return find(kind, name.lower(), self.profiles)

    def _whole(self, path: Path) -> Document:
        return resolve_extends(_read_preset(path), self.either)

    def pair(self, reference: Reference, settings: Document | None) -> tuple[Document, Document]:
        """The device (with the settings laid over it) and the cluster that a reference stands for."""
        document = resolve_extends(_document(reference, self.either), self.either)
        if CLUSTER_FIELDS.isdisjoint(document.data):
            device = _resized(document, settings)
            cluster = linked(device, "usual_cluster", self.cluster)
        else:
            device = _resized(self._device_of(document), settings)
            cluster = document
        named = {**cluster.data, "accelerator": device.data.get("name", "custom")}
        return device, replace(cluster, data=named)

    def _device_of(self, cluster: Document) -> Document:
        """The device in a cluster: a preset, or fields written in the cluster's own file."""
        fields = cluster.data.get("accelerator")
        if not isinstance(fields, Mapping):
            return linked(cluster, "accelerator", self.accelerator)
        origin = {path[1:]: place for path, place in cluster.origin.items() if path[:1] == ("accelerator",)}
        return resolve_extends(replace(cluster, data=dict(fields), origin=origin), self.either)


def _resized(device: Document, settings: Document | None) -> Document:
    """The device with settings laid over it; another capacity, and no word of what is visible, is all visible."""
    whole = overlay(device, settings)
    asked = settings.data.get("memory") if settings else None
    memory = whole.data.get("memory")
    if (
        not (isinstance(asked, Mapping) and isinstance(memory, Mapping))
        or "capacity" not in asked
        or "visible" in asked
    ):
        return whole
    kept = {name: value for name, value in memory.items() if name != "visible"}
    return replace(whole, data={**whole.data, "memory": kept})


def split_settings(settings: str | Iterable[str]) -> dict[str, Document]:
    """Parse ``--set`` values and refuse roots that do not exist."""
    documents = parse_overrides([settings] if isinstance(settings, str) else settings)
    for root in documents:
        if root not in OVERRIDE_ROOTS:
            msg = f"--set {shorten(root)}: must start with one of {', '.join(OVERRIDE_ROOTS)}"
            owners = [f"{owner}.{root}" for owner, spec in OVERRIDE_ROOTS.items() if root in spec.model_fields]
            hint = f" - did you mean {' or '.join(owners)}?" if owners else did_you_mean(root, OVERRIDE_ROOTS)
            raise UsageError(msg + hint)
    if "accelerator" in documents.get("cluster", Document({}, "")).data:
        msg = "--set cluster.accelerator: name the device with --hardware, change it with --set accelerator.FIELD=VALUE"
        raise UsageError(msg)
    return documents
