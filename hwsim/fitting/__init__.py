"""Fits of the coefficients in the profiles on measured tables: what `hwsim fit` runs."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from hwsim.fitting.fitted import Fit

KINDS = {
    "gemm": ("hwsim.fitting.gemm", "fit_gemms"),
    "attention": ("hwsim.fitting.attention", "fit_attention"),
    "experts": ("hwsim.fitting.experts", "fit_experts"),
    "latent": ("hwsim.fitting.latent", "fit_latent"),
    "stream": ("hwsim.fitting.stream", "fit_streams"),
    "collectives": ("hwsim.fitting.collectives", "fit_collectives"),
}
"""What can be fitted, and the function that does it."""


def available() -> list[str]:
    """Kinds of fits that there are."""
    return [kind for kind, (module, _) in KINDS.items() if find_spec(module)]


def fit(kind: str, folder: Path) -> list[Fit]:
    """Fit everything of one kind on the tables of a folder.

    Raises
    ------
    InputFileError
        If a table is missing or holds what it should not.
    UsageError
        If SciPy is not installed.
    """
    module, function = KINDS[kind]
    found: list[Fit] = getattr(import_module(module), function)(folder)
    return found


__all__ = ["KINDS", "available", "fit"]
