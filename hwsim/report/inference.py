"""The terminal answer of an inference estimate: one screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hwsim.analytic.inference import NAMES
from hwsim.report.plan import NEGLIGIBLE, labelled, part_bars, sizes_line
from hwsim.units import show

if TYPE_CHECKING:
    from hwsim.analytic.inference import InferenceEstimate


def inference_view(estimate: InferenceEstimate) -> list[Any]:
    """The answer, the strategy, memory and time bars, limits, cost."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 4))
    grid.add_row(memory_bars(estimate), phase_bars(estimate, "prefill"), phase_bars(estimate, "decode"))
    return [
        f"[bold]{headline(estimate)}[/bold]",
        labelled({"Strategy": strategy_line(estimate), "": batch_line(estimate)}),
        "",
        grid,
        labelled(
            {
                "Limited by": estimate.bottleneck,
                "Holds": room_line(estimate),
                "Sends": sends_line(estimate),
                "Costs": cost_line(estimate),
                "Accuracy": f"kernel curves {estimate.calibration} (hwsim validate published --group serving)",
            }
        ),
    ]


def headline(estimate: InferenceEstimate) -> str:
    """The answer in one line."""
    verdict = "fits" if estimate.fits else "[red]does not fit[/red]"
    return (
        f"{estimate.model['name']} on {estimate.hardware['devices']:,} × {estimate.hardware['accelerator']}: "
        f"TTFT {show(estimate.ttft_s, 's')}, TPOT {show(estimate.tpot_s, 's')}, "
        f"{show(estimate.output_tokens_per_s, 'count')} output tokens/s, {verdict}"
    )


def strategy_line(estimate: InferenceEstimate) -> str:
    """The strategy in words."""
    s = estimate.strategy
    compute = "" if s["compute"] == s["weights"] else f" (multiplied in {s['compute']})"
    return f"{sizes_line(s)} · weights {s['weights']}{compute} · KV cache {s['kv']} · {s['engine']}"


def batch_line(estimate: InferenceEstimate) -> str:
    """The batch and its lengths."""
    s, job = estimate.strategy, estimate.job
    speculated = f" · {job['draft_tokens']} tokens guessed ahead" if job["draft_tokens"] else ""
    hit = f" · {job['prefix_hit']:.0%} of prompts cached" if job["prefix_hit"] else ""
    return f"batch {s['batch']:,} · {s['input_len']:,} tokens in, {s['output_len']:,} out{hit}{speculated}"


def memory_bars(estimate: InferenceEstimate) -> Any:
    """Parts of memory on the fullest device."""
    capacity, used = estimate.memory_capacity_bytes, estimate.memory_allocated_bytes
    title = f"Memory {show(used, 'bytes')} of {show(capacity, 'bytes')}"
    return part_bars(title, {n: (v, show(v, "bytes")) for n, v in estimate.memory_bytes.items()}, capacity, 12)


def phase_bars(estimate: InferenceEstimate, phase: str) -> Any:
    """Parts of the time to the first token, or of a further one."""
    parts: Mapping[str, float] = estimate.time_s[phase]
    total = sum(parts.values())
    word = "First token" if phase == "prefill" else "Each further token"
    shown = {NAMES[n]: (v, show(v, "s")) for n, v in parts.items() if v > NEGLIGIBLE * total}
    return part_bars(f"{word} {show(total, 's')}", shown, total, 12)


def room_line(estimate: InferenceEstimate) -> str:
    """What else would fit."""
    return (
        f"batches to {estimate.max_batch:,} of these lengths, contexts to {estimate.max_context:,} tokens "
        f"({show(estimate.cache_room_bytes, 'bytes')} for the KV cache of a device)"
    )


def sends_line(estimate: InferenceEstimate) -> str:
    """Traffic of one request."""
    sent = ", ".join(f"{axis} {show(value, 'bytes')}" for axis, value in estimate.traffic_bytes.items() if value)
    return f"{sent or 'nothing'} a device and request"


def cost_line(estimate: InferenceEstimate) -> str:
    """Rent and energy per token."""
    dollars = estimate.cost_usd_per_million_output_tokens
    rent = "rent unknown" if dollars is None else f"{show(dollars, 'usd')} rent"
    joules = show(estimate.energy_j_per_output_token, "j")
    power = show(estimate.average_power_w_per_device, "w")
    return f"{rent} per million output tokens · {joules} a token ({power} a device, its share of the node included)"
