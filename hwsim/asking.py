"""What is asked: the setting and the strategies that loose arguments stand for, with a good engineer's defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from hwsim import arguments, kernel_arguments
from hwsim.analytic.setting import Setting
from hwsim.costs.compute import device
from hwsim.defaults import DEFAULT_SEQ_LEN, usual_batch, usual_precision
from hwsim.errors import UsageError
from hwsim.search.plan import OBJECTIVES, Request
from hwsim.search.space import parse_pins
from hwsim.specs.economy import Grid, Prices
from hwsim.specs.hardware import Hardware
from hwsim.specs.job import ModuleName, TrainingJob
from hwsim.specs.library import (
    DEFAULT_GRID,
    DEFAULT_PRICES,
    Reference,
    load_framework,
    load_grid,
    load_hardware,
    load_model,
    load_prices,
    split_settings,
)
from hwsim.specs.model import Model
from hwsim.specs.reading import Document
from hwsim.specs.strategy import COLUMN_NAMES, Strategies, strategies

SHARED = ("global_batch", "seq_len")
"""What both a job and a strategy say."""
OTHERS = ("framework", "profiles")
ModelLike = Reference | Model
HardwareLike = Reference | Hardware
Settings = str | Sequence[str] | Mapping[str, Document]
"""Overrides as ``path=value`` texts, or as documents by root (accelerator, model, ...) that know their lines."""


def call_of(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call of a facade's function that are neither its defaults nor how its progress is told."""
    usual = {name: each.default for name, each in signature(function).parameters.items()}
    return {
        name: value
        for name, value in values.items()
        if name not in ("progress", "given")
        and value is not None
        and not (isinstance(value, list | tuple | str) and not value)
        and not (isinstance(value, str | int | float) and usual.get(name) == value)
    }


def names_batch(given: Mapping[str, Any], settings: Settings) -> bool:
    """Whether the user chose the global batch."""
    return given.get("global_batch") is not None or "global_batch" in arguments.job_settings(
        overrides(settings).get("job")
    )


def loaded(
    model: ModelLike, hardware: HardwareLike, gpus: int, over: Mapping[str, Document], profiles: str | Path | None
) -> tuple[Model, Hardware]:
    """The model and the machine that were named, with their ``--set`` fields."""
    spec = load_model(model.model_dump(exclude_unset=True) if isinstance(model, Model) else model, over.get("model"))
    folder = arguments.folder("profiles", profiles)
    machine = load_hardware(hardware, folder, {k: over[k] for k in ("accelerator", "cluster") if k in over})
    arguments.enough_devices("gpus", gpus, machine.cluster)
    return spec, machine


def books(
    prices: Reference | Prices | None, grid: Reference | Grid | None, profiles: str | Path | None
) -> tuple[Prices, Grid]:
    """The price book and the place that were named, else the usual ones."""
    folder = arguments.folder("profiles", profiles)
    book = load_prices(DEFAULT_PRICES if prices is None else prices, folder)
    return book, load_grid(DEFAULT_GRID if grid is None else grid, folder)


def make_setting(
    model: ModelLike,
    hardware: HardwareLike,
    gpus: int,
    *,
    settings: Settings = (),
    profiles: str | Path | None = None,
    framework: str | None = None,
    modules: tuple[ModuleName, ...] = (),
    **job: Any,
) -> Setting:
    """Load and check everything but the strategy, filling in a good engineer's defaults."""
    arguments.whole("gpus", gpus, arguments.MAX_DEVICES)
    over = overrides(settings)
    given, fixed = arguments.job_fields(job), arguments.job_settings(over.get("job"))
    arguments.named(job, (*arguments.JOB, "framework"))
    arguments.given_once(given, fixed)
    spec, machine = loaded(model, hardware, gpus, over, profiles)
    name = machine.accelerator.usual_framework if framework is None else arguments.text("framework", framework)
    habits = load_framework(name, over.get("framework"))
    kernel_arguments.check_framework(habits, machine.accelerator, over.get("framework"))
    length = min(DEFAULT_SEQ_LEN, spec.max_positions)
    usual = {"precision": usual_precision(machine), "seq_len": length, "attention": habits.usual_attention}
    wanted = {**usual, **given, **fixed}
    arguments.check_sequence(spec, wanted["seq_len"])
    arguments.check_parts(spec, {**given, **fixed})
    wanted.setdefault("global_batch", usual_batch(wanted["seq_len"], gpus))
    asked = TrainingJob(framework=habits, modules=modules, **wanted)
    device(machine.accelerator, asked.numbers.compute)
    if asked.offload and machine.accelerator.host_bandwidth is None:
        msg = f"offload: {machine.accelerator.name} has no host_bandwidth (--set accelerator.host_bandwidth='64 GB/s')"
        raise UsageError(msg)
    return Setting(spec, machine, asked, gpus)


def training_request(
    model: ModelLike,
    hardware: HardwareLike,
    gpus: int,
    *,
    objective: str = "throughput",
    top: int = 10,
    pin: str | Sequence[str] = (),
    tokens: float | str | None = None,
    target_days: float | None = None,
    target_tokens_per_s: float | None = None,
    settings: Settings = (),
    profiles: str | Path | None = None,
    **job: Any,
) -> Request:
    """What is asked of the planner; the arguments are those of `hwsim.plan`."""
    arguments.choice("objective", objective, OBJECTIVES)
    budget = arguments.token_budget(tokens, model)
    needed = arguments.target_tokens_per_s(budget, target_days, target_tokens_per_s)
    arguments.whole("top", top, 1000)
    pins = parse_pins(arguments.texts("pin", pin))
    setting = make_setting(model, hardware, gpus, settings=settings, profiles=profiles, **job)
    return Request(
        model=setting.model,
        hardware=setting.hardware,
        job=setting.job,
        devices=gpus,
        objective=objective,
        top=top,
        pins=pins,
        tokens=budget,
        target_tokens_per_s=needed,
        usual_batch=None if names_batch(job, settings) else partial(usual_batch, setting.job.seq_len),
    )


def asked(
    model: ModelLike, hardware: HardwareLike, gpus: int, *, settings: Settings = (), **given: Any
) -> tuple[Setting, Strategies]:
    """The setting and the strategies asked for, legal ones only, with defaults where nothing was."""
    setting, s = asked_rows(model, hardware, gpus, settings=settings, **given)
    arguments.refuse_illegal(setting.model, s)
    return setting, s


def asked_rows(
    model: ModelLike, hardware: HardwareLike, gpus: int, *, settings: Settings = (), **given: Any
) -> tuple[Setting, Strategies]:
    """The same, legal or not."""
    arguments.named(given, (*COLUMN_NAMES[1:], *arguments.JOB, *OTHERS))
    job = {name: given.pop(name) for name in (*arguments.JOB_ALONE, *OTHERS) if name in given}
    modules = arguments.take_modules(given)
    columns = arguments.strategy_columns(given)
    shared = {name: given[name] for name in SHARED if name in columns and not columns[name].ndim}
    setting = make_setting(model, hardware, gpus, settings=settings, modules=modules, **shared, **job)
    base: dict[str, Any] = {name: getattr(setting.job, name) for name in SHARED}
    habits = setting.job.framework
    if habits.usual_zero != 1:
        base["zero"] = habits.usual_zero
    if not habits.sequence_parallel:
        base["sequence_parallel"] = False
    s = strategies(devices=gpus, **{**base, **columns})
    if not names_batch(columns, settings):
        unit = s.dp * s.micro_batch
        s = replace(s, global_batch=np.asarray(np.ceil(s.global_batch / unit) * unit))
    return setting, s


def overrides(settings: Settings) -> dict[str, Document]:
    """Settings (`accelerator.memory.bandwidth=4 TB/s`, ...) by what they change."""
    if isinstance(settings, Mapping):
        return dict(settings)
    return split_settings(arguments.texts("settings", settings))
