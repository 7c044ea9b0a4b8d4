"""Predictions held against measurements, published or made here, and a profile of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwsim import arguments
from hwsim.asking import HardwareLike
from hwsim.errors import UsageError, did_you_mean, shorten
from hwsim.specs.library import load_hardware

if TYPE_CHECKING:
    from hwsim.live.calibrate import Calibration
    from hwsim.live.rows import Comparison
    from hwsim.validation.published import Scoreboard


def validate_published(group: str | None = None) -> Scoreboard:
    """Hold the predictions against every published measurement that ships with hwsim.

    Parameters
    ----------
    group
        Only groups or sources whose name holds this; none: all.

    Raises
    ------
    UsageError
        If no group or source has such a name.
    """
    from hwsim.validation.facts import facts
    from hwsim.validation.published import scoreboard

    wanted = None if group is None else arguments.text("group", group).lower()
    chosen = [fact for fact in facts() if wanted is None or wanted in fact.group.lower() or wanted in fact.source]
    if not chosen or (wanted is not None and not wanted.strip()):
        groups, sources = (sorted({getattr(fact, kind) for fact in facts()}) for kind in ("group", "source"))
        hint = f"{did_you_mean(wanted or '', [*groups, *sources])} (groups: {', '.join(groups)})"
        msg = f"--group: no group or source holds {shorten(group)}{hint}"
        raise UsageError(msg)
    return scoreboard(chosen)


def calibrate(device: str = "cpu", *, threads: int | None = None, name: str | None = None) -> Calibration:
    """Measure this machine: `.profile` is what `hardware=` takes (see `hwsim.live.calibrate.calibrate`)."""
    from hwsim.live.calibrate import calibrate as measured

    return measured(device, threads=threads, name=name)


def validate_pytorch(short: bool = False, hardware: HardwareLike | None = None, **given: Any) -> Comparison:
    """Hold the predictions against models that PyTorch builds and trains here (see `hwsim.live.compare.compare`)."""
    from hwsim.live.compare import compare

    return compare(short, None if hardware is None else load_hardware(hardware), **given)


__all__ = ["calibrate", "validate_published", "validate_pytorch"]
