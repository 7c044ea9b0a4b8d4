"""What the fields of a question stand for once they are loaded: the values that multiples and ranges start from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hwsim.errors import UsageError, shorten
from hwsim.scenarios.answers import Asked, ask
from hwsim.scenarios.question import TIMES, Question, is_multiple, located
from hwsim.specs.fields import dimension_of, value_at
from hwsim.specs.scenario import MOST_TIMES
from hwsim.units import write


def scaled(question: Question, profiles: str | Path | None) -> Question:
    """The question with multiples (``{times: 2}``) worked out on what the rest of it says.

    Raises
    ------
    InputFileError
        Where there is nothing to multiply.
    """
    factors = {path: value for path, value in question.fields.items() if is_multiple(value)}
    if not factors:
        return question
    plain = {path: value for path, value in question.fields.items() if path not in factors}
    rest = replace(question, fields={**plain, **question.start})
    subject = Subject(ask(rest, profiles))
    values: dict[str, Any] = {}
    for path, factor in factors.items():
        values |= located(question, lambda path=path, factor=factor: subject.multiples(path, factor[TIMES]))  # type: ignore[misc]
    places = {path: question.where(next(known for known in factors if path.startswith(known))) for path in values}
    return replace(question, fields={**plain, **values}, places={**question.places, **places})


class Subject:
    """What the fields of a question stand for, loaded."""

    def __init__(self, asked: Asked) -> None:
        self.question = asked.question
        setting = asked.setting
        job = setting.job
        self.roots: dict[str, Any] = {"model": setting.model, "job": job}
        self.roots |= {"accelerator": setting.hardware.accelerator, "cluster": setting.hardware.cluster}
        self.roots |= {"engine": getattr(job, "engine", None), "framework": getattr(job, "framework", None)}

    def dimension(self, path: str) -> str | None:
        """The dimension of a field that is a quantity; None for others."""
        root, _, inner = path.partition(".")
        spec = self.roots.get(root) if inner else None
        return dimension_of(spec, inner) if spec is not None else None

    def multiples(self, path: str, factor: Any) -> dict[str, Any]:
        """The field's value times a factor, as files write it; of a group of rates, each of them."""
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= MOST_TIMES:
            msg = f"{path}: times must be a positive number, not {shorten(factor)}"
            raise UsageError(msg)
        root, _, inner = path.partition(".")
        if not inner or root not in self.roots or self.roots[root] is None:
            return {path: _times(self.question.fields.get(path), factor, path)}
        spec = self.roots[root]
        value = value_at(spec, inner)
        if isinstance(value, BaseModel) and root != "job":
            numbers = [name for name, each in value if isinstance(each, int | float) and not isinstance(each, bool)]
            return {f"{path}.{name}": self._written(spec, f"{inner}.{name}", factor, path) for name in numbers}
        return {path: self._written(spec, inner, factor, path)}

    def _written(self, spec: Any, inner: str, factor: float, path: str) -> Any:
        value = value_at(spec, inner)
        if value is None and inner.startswith("tiers.") and inner.endswith(".bandwidth"):
            value = spec.node.nic_share
        dimension = dimension_of(spec, inner)
        if dimension is None or value is None:
            return _times(value, factor, path)
        return write(value * factor, dimension)


def _times(value: Any, factor: float, path: str) -> Any:
    """A plain number times a factor; whole numbers stay whole."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"{path}: the base has no number there to multiply"
        raise UsageError(msg)
    result = value * factor
    return round(result) if isinstance(value, int) else result
