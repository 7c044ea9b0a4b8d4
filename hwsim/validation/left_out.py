"""Out of sample: every source predicted with constants that were chosen without it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, reduce
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hwsim.analytic.estimate import estimates
from hwsim.analytic.setting import Setting
from hwsim.analytic.training import evaluate
from hwsim.asking import asked
from hwsim.specs.base import Name, Spec, Text
from hwsim.specs.files import parse_overrides, validate
from hwsim.specs.library import load_framework, load_hardware
from hwsim.specs.reading import Document, read_yaml
from hwsim.specs.strategy import Strategies
from hwsim.validation.facts import FOLDER, MEMORY, Fact, facts
from hwsim.validation.published import Row, seconds_ratio, value_of

SWEEPS = 2
"""Times that every constant is chosen again, the others standing."""
PARTS = 5
"""Parts that the models of a source are dealt into where it is alone in its group."""
Mask = npt.NDArray[np.bool_]
Choice = tuple[int, ...]
"""Place of each constant's value among those tried."""


class Constant(Spec):
    """A constant that was chosen on published runs."""

    of: tuple[Name, ...]
    """Frameworks or accelerators that share it."""
    field: Text
    """`framework.FIELD` or `accelerator.FIELD`."""
    tried: Annotated[tuple[Any, ...], Field(min_length=2)]
    """Values it is chosen from; the first is what one would assume without a run."""

    @cached_property
    def path(self) -> list[str]:
        """Names that lead to it, from the framework or accelerator on."""
        return self.field.split(".")[1:]

    @cached_property
    def values(self) -> list[Any]:
        """The values tried, in SI units."""
        return [self._read(value) for value in self.tried]

    def _read(self, value: Any) -> Any:
        root = self.field.split(".")[0]
        settings = parse_overrides([f"{self.field}={value}"])
        owner = self.of[0]
        spec = load_framework(owner, settings[root]) if root == "framework" else load_hardware(owner, settings=settings)
        return reduce(getattr, self.path, spec if root == "framework" else spec.accelerator)  # type: ignore[union-attr]

    def rules(self, setting: Setting) -> bool:
        """Whether a run goes by it."""
        owner = setting.job.framework if self.field.startswith("framework.") else setting.hardware.accelerator
        return owner.name in self.of

    def put(self, setting: Setting, place: int) -> Setting:
        """The setting under the value tried at `place`."""
        value = self.values[place]
        if self.field.startswith("framework."):
            framework = _with(setting.job.framework, self.path, value)
            return replace(setting, job=setting.job.model_copy(update={"framework": framework}))
        accelerator = _with(setting.hardware.accelerator, self.path, value)
        return replace(setting, hardware=setting.hardware.model_copy(update={"accelerator": accelerator}))


def _with(spec: Any, path: Sequence[str], value: Any) -> Any:
    first, *rest = path
    return spec.model_copy(update={first: _with(getattr(spec, first), rest, value) if rest else value})


@cache
def constants() -> tuple[Constant, ...]:
    """Every constant that was chosen on published runs."""
    document = read_yaml(FOLDER / "constants.yaml")
    return tuple(validate(Constant, Document(fields, document.source)) for fields in document.data["constants"])


@dataclass(frozen=True)
class LeftOut:
    """One source, predicted with constants chosen on all others."""

    source: str
    rows: int
    mean: float
    """Mean error in step time."""
    by_model: bool
    """Models were left out, not the source."""
    chosen: str
    """Constants it was predicted with."""


COLUMNS = ("source", "rows", "mean", "left_out", "chosen")


class Runs:
    """Published step times under any choice of constants; each is predicted once per choice that it goes by."""

    def __init__(self, chosen: Sequence[Fact]) -> None:
        self.facts = [fact for fact in chosen if fact.metric not in MEMORY]
        self.source = np.array([fact.source for fact in self.facts])
        self._asked = [_ask(fact) for fact in self.facts]
        self.rules = np.array([[constant.rules(setting) for constant in constants()] for setting, _ in self._asked])
        self._seen: dict[tuple[int, Choice], float] = {}

    def error(self, at: int, choice: Choice) -> float:
        """Absolute error in step time of one run. [-]"""
        own = tuple(place if rules else -1 for place, rules in zip(choice, self.rules[at], strict=True))
        if (at, own) not in self._seen:
            setting, strategies = self._asked[at]
            for constant, place in zip(constants(), own, strict=True):
                setting = constant.put(setting, place) if place >= 0 else setting
            estimate = estimates(evaluate(setting, strategies))[0]
            fact = self.facts[at]
            self._seen[at, own] = abs(seconds_ratio(Row(fact, value_of(estimate, fact.metric), True)) - 1.0)
        return self._seen[at, own]

    def mean(self, rows: Mask, choice: Choice) -> float:
        """Mean error of some rows, every source counted alike; 0 for none. [-]"""
        errors = np.array([self.error(at, choice) for at in map(int, np.flatnonzero(rows))])
        sources = self.source[rows]
        return (
            float(np.mean([errors[sources == name].mean() for name in dict.fromkeys(sources)])) if len(errors) else 0.0
        )

    def parts(self, name: str) -> list[Mask]:
        """Rows of a source that are left out at a time."""
        own = self.source == name
        group = self.facts[int(np.argmax(own))].group
        if any(fact.group == group for fact in np.array(self.facts, dtype=object)[~own]):
            return [own]
        models = [str(fact.model) for fact in self.facts]
        order = {model: at % PARTS for at, model in enumerate(sorted({models[at] for at in np.flatnonzero(own)}))}
        dealt = np.array([order.get(model, -1) for model in models])
        return [own & (dealt == part) for part in range(min(PARTS, len(order)))]

    def choose(self, rows: Mask) -> Choice:
        """The constants that suit some rows best, chosen one after another from what one would assume."""
        choice = [0] * len(constants())
        for _ in range(SWEEPS):
            for place, constant in enumerate(constants()):
                heard = rows & self.rules[:, place]
                options = [(*choice[:place], at, *choice[place + 1 :]) for at in range(len(constant.values))]
                choice[place] = int(np.argmin([self.mean(heard, option) for option in options]))
        return tuple(choice)


def _ask(fact: Fact) -> tuple[Setting, Strategies]:
    return asked(fact.model, fact.hardware, fact.devices, settings=fact.settings, **fact.given)


def leave_out(step: Callable[[str], Any] = lambda name: None) -> list[LeftOut]:
    """Choose the constants again without each source, and predict that source with them.

    Where nobody else is in the group of a source, a fifth of its models is left out at a time instead.

    Parameters
    ----------
    step
        Called with the name of each source before its turn.
    """
    runs, result = Runs(facts()), []
    for name in sources_of_steps():
        step(name)
        parts = runs.parts(name)
        choices = [runs.choose(~part) for part in parts]
        means = [runs.mean(part, choice) for part, choice in zip(parts, choices, strict=True)]
        rows = [int(part.sum()) for part in parts]
        mean = float(np.average(means, weights=rows))
        chosen = _words(choices, np.any(runs.rules[parts[0]], axis=0))
        result.append(LeftOut(name, sum(rows), mean, len(parts) > 1, chosen))
    return result


def _words(choices: Sequence[Choice], rules: Sequence[bool] | Mask) -> str:
    """The constants that matter to some rows, and what was chosen."""
    columns = zip(constants(), zip(*choices, strict=True), rules, strict=True)
    return "; ".join(
        f"{constant.field} {' or '.join(str(constant.tried[at]) for at in sorted(set(places)))}"
        for constant, places, heard in columns
        if heard
    )


def sources_of_steps() -> list[str]:
    """Sources that say how long a step took."""
    return list(dict.fromkeys(fact.source for fact in facts() if fact.metric not in MEMORY))


def record(found: Sequence[LeftOut]) -> str:
    """The errors as the scoreboard reads them."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for left in found:
        what = f"1/{PARTS} of its models" if left.by_model else "source"
        writer.writerow([left.source, left.rows, f"{left.mean:.4f}", what, left.chosen])
    return file.getvalue()
