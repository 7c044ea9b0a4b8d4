"""Scenario files: a base question, named overrides of its fields, scenarios, a sweep, and what is expected of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from hwsim.specs.base import Count, Spec

MOST_SCENARIOS = 200
MOST_POINTS = 100_000
"""Most points that a sweep may expand to."""
MOST_TIMES = 1e9
"""Largest multiple of what a base has."""
Label = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A name that a person reads: spaces are fine, control characters are not."""
Words = Annotated[str, Field(max_length=4000)]


class Told(Spec):
    """A part of a scenario file: editors show the text under a field (reading it takes a while: nothing else does)."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Axis(Told):
    """Values that a field takes: a list of them, a range, or multiples of what the base has."""

    values: tuple[Any, ...] | None = Field(default=None, min_length=1, max_length=MOST_POINTS)
    """The values one by one; a plain list means the same."""
    start: Any = Field(default=None, alias="from")
    """First value of a range; with the unit of the field where it has one."""
    stop: Any = Field(default=None, alias="to")
    """Last value of a range."""
    points: Annotated[int, Field(ge=2, le=MOST_POINTS)] | None = None
    """How many values a range has, both ends counted ..."""
    step: Any = None
    """... or how far apart they are."""
    spacing: Literal["linear", "log"] = "linear"
    """Equal differences, or equal ratios."""
    times: tuple[Annotated[float, Field(gt=0, le=MOST_TIMES)], ...] | None = Field(
        default=None, min_length=1, max_length=MOST_POINTS
    )
    """Multiples of what the base has, such as [0.5, 1, 2]."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        fields = handler.resolve_ref_schema(handler(schema))
        return {"anyOf": [{"type": "array", "minItems": 1, "maxItems": MOST_POINTS}, fields]}

    @model_validator(mode="before")
    @classmethod
    def _list_is_values(cls, given: Any) -> Any:
        return {"values": given} if isinstance(given, list | tuple) else given

    @model_validator(mode="after")
    def _one_kind(self) -> Axis:
        ranged = self.start is not None and self.stop is not None
        kinds = [self.values is not None, ranged, self.times is not None]
        if sum(kinds) != 1:
            msg = "needs one of a list of values, a range (from, to) and times"
            raise ValueError(msg)
        if ranged and (self.points is None) == (self.step is None):
            msg = "a range needs either points (how many) or step (how far apart)"
            raise ValueError(msg)
        if self.step is not None and self.spacing == "log":
            msg = "a log range takes points, not step"
            raise ValueError(msg)
        return self


class Sweep(Told):
    """Points laid out along axes."""

    axes: dict[str, Axis] = Field(min_length=1, max_length=8)
    """Field to a list of values, a range `{from:, to:, points:, spacing: linear|log}`, or `{times: [0.5, 1, 2]}`. The
    field `scenario` takes names of scenarios."""
    combine: Literal["cross", "zip"] = "cross"
    """Every combination, or the first values together, the second ones, ..."""
    replan: bool = True
    """Search a strategy for every point; if not, the one found for the base is kept. Points without a search are a
    thousand times cheaper: beyond 200 a sweep must say `replan: false`, or name its strategy."""


class Expectation(Told):
    """What must hold, in some or all scenarios."""

    what: Label
    """`fits`, or a measure: days, cost, energy, carbon, step_time, tokens_per_s, mfu, memory, power, devices, ttft,
    tpot, output_tokens_per_s."""
    at_least: Any = None
    """Smallest value that will do."""
    at_most: Any = None
    """Largest value that will do."""
    scenarios: tuple[Label, ...] = Field(default=(), alias="in")
    """Names of the scenarios it is about; none: all, the base too."""

    @model_validator(mode="after")
    def _says_something(self) -> Expectation:
        bounds = (self.at_least, self.at_most)
        if self.what == "fits" and bounds != (None, None):
            msg = "fits takes no bound"
            raise ValueError(msg)
        if self.what != "fits" and bounds == (None, None):
            msg = "needs at_least or at_most"
            raise ValueError(msg)
        return self


class Scenario(Told):
    """A question, its variations, and what is expected of them."""

    title: Words
    """What is asked, as a headline."""
    question: Words = ""
    """The same for somebody who has not been in the room."""
    notes: Words = ""
    """What a reader of the answer should know."""
    base: dict[str, Any] = Field(min_length=1)
    """Fields of the question: task, model, hardware, gpus, tokens, job.FIELD, strategy.FIELD, accelerator.FIELD, ..."""
    baseline: Label = "base"
    """What to call the base."""
    overrides: dict[Label, dict[str, Any]] = Field(default_factory=dict, max_length=MOST_SCENARIOS)
    """Named changes: field to value, or to `{times: FACTOR}`."""
    scenarios: dict[Label, Annotated[tuple[Label, ...], Field(max_length=MOST_SCENARIOS)]] = Field(
        default_factory=dict, max_length=MOST_SCENARIOS
    )
    """Name to overrides (or other scenarios) in the order they are laid over the base."""
    replan: bool = True
    """Search a strategy for every scenario; if not, the one found for the base is kept."""
    sweep: Sweep | None = None
    """Points laid out along axes."""
    expect: tuple[Expectation, ...] = Field(default=(), max_length=MOST_SCENARIOS)
    """What must hold."""
    top: Count = 5
    """Plans to show in a report."""


def spaced(start: float, stop: float, points: int, spacing: str) -> list[float]:
    """Numbers from one end to the other, the ends exactly as given."""
    laid = np.geomspace if spacing == "log" else np.linspace
    values = laid(start, stop, points)
    return [start, *map(float, values[1:-1]), stop]
