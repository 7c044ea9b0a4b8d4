"""How far predictions like this one have been from published measurements."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated

from pydantic import Field

from hwsim.specs.base import Count, Fraction, Spec, Text
from hwsim.specs.files import validate
from hwsim.specs.library import DATA
from hwsim.specs.reading import read_yaml

EVERYTHING = "any"
"""Family of every published run: for what nobody measured."""
Ratio = Annotated[float, Field(gt=0, lt=20, allow_inf_nan=False)]


class Band(Spec):
    """Published over predicted step time in one family of runs."""

    low: Ratio
    """Few runs of the family were faster than this, over the prediction. [-]"""
    high: Ratio
    """Few runs of the family were slower than this. [-]"""
    coverage: Fraction
    """Share of the runs of a model that such a band holds when it is made without that model's runs."""
    rows: Count
    """Published runs in the family."""
    groups: Count
    """Models and sources they come from."""


class Bands(Spec):
    """The bands of all families."""

    date: Text
    """When the predictions were made that they rest on."""
    families: dict[str, Band]
    """``framework on device family`` (fsdp on hopper), framework or device family alone, or ``any``."""


@cache
def bands() -> Bands:
    """The bands that ship with the package."""
    return validate(Bands, read_yaml(DATA / "bands.yaml"))


def family_names(framework: str, device_family: str, experts: bool) -> tuple[str, ...]:
    """Families that a run belongs to, narrowest first; mixtures of experts are apart from dense models."""
    if experts:
        return (
            f"{framework} with experts on {device_family}", f"{framework} with experts", "any with experts", EVERYTHING
        )  # fmt: skip
    return f"{framework} on {device_family}", framework, device_family, EVERYTHING


def family(framework: str, device_family: str, experts: bool) -> tuple[str, Band]:
    """The narrowest family that holds a run and that was measured, and its band.

    Where the framework was not measured on the device family, the band also holds that of all runs.
    """
    known: Mapping[str, Band] = bands().families
    names = family_names(framework, device_family, experts)
    name = next(name for name in names if name in known)
    own, every = known[name], known[EVERYTHING]
    if name == names[0]:
        return name, own
    return name, own.model_copy(update={"low": min(own.low, every.low), "high": max(own.high, every.high)})
