"""hwsim: will this Transformer fit, how fast will it train, what does it cost, what limits it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwsim.api import (
        collective_time,
        count_parameters,
        estimate_training,
        evaluate,
        explain,
        load_hardware,
        load_model,
        operator_time,
        plan,
    )
    from hwsim.checking import calibrate, validate_published, validate_pytorch
    from hwsim.deciding import sensitivity, size
    from hwsim.reporting import report as write_report
    from hwsim.scenario_api import faq, resolve_scenario, scenario_schema, scenario_template, whatif
    from hwsim.serving_api import estimate_inference, plan_inference, simulate_serving
    from hwsim.specs.library import load_grid, load_prices

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "calibrate",
    "collective_time",
    "count_parameters",
    "estimate_inference",
    "estimate_training",
    "evaluate",
    "explain",
    "faq",
    "load_grid",
    "load_hardware",
    "load_model",
    "load_prices",
    "operator_time",
    "plan",
    "plan_inference",
    "resolve_scenario",
    "scenario_schema",
    "scenario_template",
    "sensitivity",
    "simulate_serving",
    "size",
    "validate_published",
    "validate_pytorch",
    "whatif",
    "write_report",
]


ELSEWHERE = {
    "hwsim.checking": ("calibrate", "validate_published", "validate_pytorch"),
    "hwsim.specs.library": ("load_grid", "load_prices"),
    "hwsim.scenario_api": ("faq", "resolve_scenario", "scenario_schema", "scenario_template", "whatif"),
    "hwsim.deciding": ("sensitivity", "size"),
    "hwsim.serving_api": ("estimate_inference", "plan_inference", "simulate_serving"),
}
"""What is loaded from elsewhere than the facade, by module."""
RENAMED = {"write_report": ("hwsim.reporting", "report")}
"""What goes by another name here, as `hwsim.report` is a package."""


def __getattr__(name: str) -> Any:
    """Load the facade on first use, so that ``import hwsim`` costs nothing."""
    if name in RENAMED:
        module, known = RENAMED[name]
        return getattr(import_module(module), known)
    if name in __all__:
        module = next((module for module, names in ELSEWHERE.items() if name in names), "hwsim.api")
        return getattr(import_module(module), name)
    msg = f"module 'hwsim' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    """What is there, the facade's names too before their first use."""
    return sorted({*globals(), *__all__})
