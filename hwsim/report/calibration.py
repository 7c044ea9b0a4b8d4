"""A calibration as tables."""

from __future__ import annotations

from hwsim.fitting.fitted import Fit
from hwsim.live.calibrate import Calibration
from hwsim.report.plan import simple_table
from hwsim.units import show


def calibration_view(found: Calibration, written: str | None) -> list[object]:
    """What was measured, how well the curves fit it, and what to do next."""
    facts = found.facts
    rates = {
        f"fastest {facts.dtype} multiply": show(facts.peak_flops_per_s, "flops_per_s"),
        "memory": show(facts.memory_bytes_per_s, "bytes_per_s"),
        "memory capacity": show(facts.capacity_bytes, "bytes"),
        "launch": show(facts.launch_s, "s"),
        "Python and autograd per kernel": show(facts.overhead_s, "s"),
    }
    head = f"{facts.title}: PyTorch {facts.torch}, {facts.date}, {show(found.elapsed_s, 's')}"
    names = [{"what": name, "value": value} for name, value in rates.items()]
    name = written or "my-machine.yaml"
    use = f"hwsim estimate train --hardware {name} --precision {facts.dtype} --model ..."
    end = f"Written to {written}. Use it: {use}" if written else f"Not written; add -o {name}, then: {use}"
    return [head, simple_table(names), "", simple_table([_line(fit) for fit in found.fits]), "", end]


def _line(fit: Fit) -> dict[str, str]:
    what = ", ".join(fit.values) if fit.path[0] == "tiers" else ".".join(fit.path[1:])
    return {
        "what": what,
        "rows": f"{fit.inside.rows:,}",
        "median error": f"{fit.inside.median:.1%}",
        "p90": f"{fit.inside.p90:.0%}",
        "left out": f"{fit.outside.median:.1%}",
        "left-out p90": f"{fit.outside.p90:.0%}",
    }
