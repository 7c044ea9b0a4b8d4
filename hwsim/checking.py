"""Predictions held against measurements, published or made here, and a profile of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from hwsim import arguments
from hwsim.asking import HardwareLike
from hwsim.errors import UsageError, did_you_mean, shorten
from hwsim.specs.library import load_hardware

if TYPE_CHECKING:
    from hwsim.live.calibrate import Calibration
    from hwsim.live.rows import Comparison
    from hwsim.validation.facts import Fact
    from hwsim.validation.published import Scoreboard


def validate_published(group: str | None = None, begin: Callable[[str], None] | None = None) -> Scoreboard:
    """Hold the predictions against every published measurement that ships with hwsim.

    Parameters
    ----------
    group
        Only groups or sources whose name holds this; none: all.
    begin
        Called with the name of each source of serving figures as it begins: those take a minute or two.

    Raises
    ------
    UsageError
        If no group or source has such a name.
    """
    from hwsim.validation.energy import energy_board, energy_facts
    from hwsim.validation.facts import facts
    from hwsim.validation.published import scoreboard
    from hwsim.validation.serving import serving_board, serving_facts

    wanted = None if group is None else arguments.text("group", group).lower()

    def matching(known: Iterable[Fact]) -> list[Fact]:
        return [fact for fact in known if wanted is None or wanted in fact.group.lower() or wanted in fact.source]

    chosen, served, metered = matching(facts()), matching(serving_facts()), matching(energy_facts())
    if not (chosen or served or metered) or (wanted is not None and not wanted.strip()):
        every = (*facts(), *serving_facts(), *energy_facts())
        groups, sources = (sorted({getattr(fact, kind) for fact in every}) for kind in ("group", "source"))
        hint = f"{did_you_mean(wanted or '', [*groups, *sources])} (groups: {', '.join(groups)})"
        msg = f"--group: no group or source holds {shorten(group)}{hint}"
        raise UsageError(msg)
    return scoreboard(chosen).joined(serving_board(served, begin)).joined(energy_board(metered))


def calibrate(device: str = "cpu", *, threads: int | None = None, name: str | None = None) -> Calibration:
    """Measure this machine: `.profile` is what `hardware=` takes (see `hwsim.live.calibrate.calibrate`)."""
    from hwsim.live.calibrate import calibrate as measured

    return measured(device, threads=threads, name=name)


def validate_pytorch(short: bool = False, hardware: HardwareLike | None = None, **given: Any) -> Comparison:
    """Hold the predictions against models that PyTorch builds and trains here (see `hwsim.live.compare.compare`)."""
    from hwsim.live.compare import compare

    return compare(short, None if hardware is None else load_hardware(hardware), **given)


__all__ = ["calibrate", "validate_published", "validate_pytorch"]
