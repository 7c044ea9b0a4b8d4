"""The facade's part that asks what if: scenario files, their templates and their schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hwsim import arguments
from hwsim.asking import HardwareLike, ModelLike
from hwsim.errors import UsageError, did_you_mean, shorten
from hwsim.scenarios.axes import lay_out
from hwsim.scenarios.faq import Faq
from hwsim.scenarios.faq import faq as answered
from hwsim.scenarios.loading import Loaded, load_scenario
from hwsim.scenarios.question import field_schema
from hwsim.scenarios.run import WhatIf, run
from hwsim.specs.files import parse_overrides
from hwsim.specs.library import DEFAULT_HARDWARE, PACKAGE, profile_folders
from hwsim.specs.scenario import Scenario

SHIPPED = (PACKAGE / "scenarios_shipped", PACKAGE.parent / "scenarios")
"""Where scenarios lie: in the wheel, and in a checkout."""
TEMPLATE = "template"


def whatif(
    scenario: str | Path | Mapping[str, Any],
    *,
    settings: Mapping[str, Any] | None = None,
    profiles: str | Path | None = None,
    begin: Callable[[str], object] | None = None,
) -> WhatIf:
    """Answer a scenario file: every scenario beside the base, with the reasons, what is expected of them, and a sweep.

    Parameters
    ----------
    scenario
        Path of a file, name of one that ships with hwsim, or the fields of one.
    settings
        Fields of the base to change, by path: ``{"gpus": 128, "accelerator.memory.bandwidth": "4 TB/s"}``.
    profiles
        Folder of hardware profiles to look in first.
    begin
        Called with the name of each scenario as it begins.

    Raises
    ------
    InputFileError
        For whatever is wrong with the file, with its line, before any work is done.
    InfeasibleError
        If nothing of it fits.
    """
    return run(resolve_scenario(scenario, settings, profiles), profiles, begin)


def faq(
    model: ModelLike,
    hardware: HardwareLike = DEFAULT_HARDWARE,
    gpus: int | None = None,
    *,
    tokens: float | str | None = None,
    grid: str | None = None,
    profiles: str | Path | None = None,
) -> Faq:
    """Answer what everybody asks of a model, each with its formula (see `hwsim.scenarios.faq.faq`).

    Raises
    ------
    UsageError, InputFileError
        For wrong arguments and files.
    InfeasibleError
        If the model cannot be trained on so many devices.
    """
    if gpus is not None:
        arguments.whole("gpus", gpus, arguments.MAX_DEVICES)
    if tokens != arguments.OPTIMAL:
        arguments.positive("tokens", tokens)
    return answered(model, hardware, gpus, tokens, grid, arguments.folder("profiles", profiles))


def resolve_scenario(
    scenario: str | Path | Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    profiles: str | Path | None = None,
) -> Loaded:
    """Read and check a scenario file and do no work: what `hwsim whatif --resolved` prints."""
    folder = arguments.folder("profiles", profiles)
    profile_folders(folder)
    known = scenario if isinstance(scenario, Mapping) else scenario_path(scenario)
    loaded = load_scenario(known, settings, folder)
    if loaded.scenario.sweep is not None:
        lay_out(loaded, folder)
    return loaded


def scenario_path(reference: str | Path) -> Path:
    """The file of a scenario, by path or by the name of one that ships.

    Raises
    ------
    UsageError
        For a name that is none.
    """
    text = str(reference)
    path = Path(text)
    if not text.strip():
        msg = "scenario: no name given (a .yaml file, or a shipped one)"
        raise UsageError(msg)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    found = next((file for folder in SHIPPED if (file := folder / f"{text}.yaml").is_file()), None)
    if found is None:
        names = shipped_scenarios()
        hint = did_you_mean(text, names) or f" (shipped: {', '.join(names)}; or give a .yaml file)"
        msg = f"unknown scenario {shorten(text)}{hint}"
        raise UsageError(msg)
    return found


def shipped_scenarios() -> list[str]:
    """Names of the scenarios that come with hwsim."""
    return sorted({file.stem for folder in SHIPPED if folder.is_dir() for file in folder.glob("*.yaml")} - {TEMPLATE})


def scenario_template() -> str:
    """A commented scenario file to start from: what `hwsim new scenario` writes."""
    return next(file for folder in SHIPPED if (file := folder / f"{TEMPLATE}.yaml").is_file()).read_text(
        encoding="utf-8"
    )


def scenario_schema() -> dict[str, Any]:
    """The JSON schema of scenario files, for editors."""
    schema = Scenario.model_json_schema(by_alias=True)
    fields = schema["properties"]
    fields["base"] = {**field_schema(), "description": fields["base"].get("description", ""), "minProperties": 1}
    fields["overrides"]["additionalProperties"] = field_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "hwsim scenario", **schema}


def settings_of(texts: list[str]) -> dict[str, Any]:
    """``path=value`` texts as fields of a base."""
    found: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            msg = f"--set {shorten(text)}: expected path=value, e.g. --set gpus=128"
            raise UsageError(msg)
        document = parse_overrides([f"base.{path.strip()}={value}"])["base"]
        leaf: Any = document.data
        for part in path.strip().split("."):
            leaf = leaf[part]
        found[path.strip()] = leaf
    return found


__all__ = ["WhatIf", "faq", "resolve_scenario", "scenario_schema", "scenario_template", "shipped_scenarios", "whatif"]
