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

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "calibrate",
    "collective_time",
    "count_parameters",
    "estimate_training",
    "evaluate",
    "explain",
    "load_hardware",
    "load_model",
    "operator_time",
    "plan",
    "validate_published",
    "validate_pytorch",
]


CHECKING, CHECKS = "hwsim.checking", ("calibrate", "validate_published", "validate_pytorch")
"""What is loaded from elsewhere than the facade."""


def __getattr__(name: str) -> Any:
    """Load the facade on first use, so that ``import hwsim`` costs nothing."""
    if name in __all__:
        return getattr(import_module(CHECKING if name in CHECKS else "hwsim.api"), name)
    msg = f"module 'hwsim' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    """What is there, the facade's names too before their first use."""
    return sorted({*globals(), *__all__})
