"""What everybody asks of a model: how much data, how long, how many devices, how fast, how much energy and carbon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hwsim.analytic.estimate import TrainingEstimate
from hwsim.analytic.inference import InferenceEstimate
from hwsim.analytic.setting import Setting
from hwsim.arguments import longest_sequence
from hwsim.errors import InfeasibleError, UsageError
from hwsim.formulas.training import optimal_tokens
from hwsim.ops.count import parameters
from hwsim.scenarios.answers import Outcome, answer, ask, nothing
from hwsim.scenarios.question import Question
from hwsim.specs.library import DEFAULT_HARDWARE, load_hardware, load_model
from hwsim.units import DAY_S, TERA, show

if TYPE_CHECKING:
    import pandas as pd

DEADLINE_DAYS = 30.0
USUAL_MFU, MOST_DEVICES = 0.4, 16_384
"""Of runs on thousands of devices: what a first number of devices is chosen by."""
INPUT_LEN, OUTPUT_LEN = 1024, 256
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Item:
    """A question, its answer, and where the answer comes from."""

    question: str
    answer: str
    formula: str
    """With its numbers."""
    source: str
    values: Mapping[str, float]
    """The figures of the answer, units in the names."""


@dataclass(frozen=True)
class Faq:
    """The questions about one model on one kind of hardware."""

    model: str
    hardware: str
    devices: int
    items: tuple[Item, ...]
    training: Outcome
    serving: Outcome

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `hwsim faq --json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "faq",
            "model": self.model,
            "hardware": {"name": self.hardware, "devices": self.devices},
            "questions": self.rows(),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row per question."""
        return [
            {"question": i.question, "answer": i.answer, "formula": i.formula, "source": i.source, **i.values}
            for i in self.items
        ]

    def to_frame(self) -> pd.DataFrame:
        """The same as a table."""
        import pandas as pd

        return pd.DataFrame(self.rows())


def faq(
    model: Any,
    hardware: Any = DEFAULT_HARDWARE,
    gpus: int | None = None,
    tokens: float | str | None = None,
    grid: str | None = None,
    profiles: str | Path | None = None,
) -> Faq:
    """Answer what everybody asks of a model.

    Parameters
    ----------
    model, hardware
        As for `hwsim.plan`.
    gpus
        Devices to train on; default: about as many as finish in 30 days.
    tokens
        Training tokens; default: compute-optimal.
    grid
        Where the electricity comes from.

    Raises
    ------
    InfeasibleError
        If the model cannot be trained on so many devices.
    """
    spec, machine = load_model(model), load_hardware(hardware, profiles)
    counts = parameters(spec)
    best = float(optimal_tokens(counts.active))
    budget = best if tokens in (None, "optimal") else float(tokens)
    node = machine.cluster.node.devices
    devices = gpus or usual_devices(counts.active, budget, machine)
    place = {"grid": grid} if grid else {}
    fields = {"model": model, "hardware": hardware, "gpus": devices, "tokens": budget, **place}
    trained = answer(ask(Question(fields), profiles))
    if trained.estimate is None:
        raise InfeasibleError(trained.why_not)
    served = serve(model, hardware, node, profiles)
    items = [
        how_much_data(counts, budget, best),
        how_much_compute(trained, budget),
        does_it_fit(trained),
        how_long(trained, budget),
        how_many(trained, budget, node),
        how_fast(served),
        how_many_users(served),
        how_much_energy(trained),
        how_much_money(trained),
    ]
    return Faq(
        spec.title or spec.name, machine.accelerator.name, devices, tuple(i for i in items if i), trained, served
    )


def usual_devices(active: float, tokens: float, machine: Any) -> int:
    """Whole nodes, a power of two of them, that finish a budget in 30 days at 40 % MFU."""
    peak = machine.accelerator.peak.bf16 or machine.accelerator.peak.fp16 or machine.accelerator.peak.fp32
    needed = 6.0 * active * tokens / (USUAL_MFU * peak * DEADLINE_DAYS * DAY_S)
    devices = int(machine.cluster.node.devices)
    while devices < needed and devices < min(MOST_DEVICES, machine.cluster.most_devices):
        devices *= 2
    return devices


def serve(model: Any, hardware: Any, node: int, profiles: str | Path | None) -> Outcome:
    """One request alone on the fewest devices of a node that hold the model; on a node where none does."""
    longest = min(longest_sequence(load_model(model)), INPUT_LEN + OUTPUT_LEN)
    output = int(longest * OUTPUT_LEN / (INPUT_LEN + OUTPUT_LEN))
    lengths = {"job.input_len": int(longest) - output, "job.output_len": output}
    why_not, devices = f"no layout of {node} devices holds it", 1
    while devices <= node:
        fields = {"task": "infer", "model": model, "hardware": hardware, "gpus": devices, "strategy.tp": devices}
        question = Question({**fields, **lengths})
        try:
            outcome = answer(ask(question, profiles))
        except UsageError as error:  # so many devices do not split it
            outcome = nothing(question, str(error))
        if outcome.fits:
            return outcome
        why_not = outcome.why_not or why_not
        devices *= 2
    return nothing(Question({"task": "infer", "model": model, "hardware": hardware}), why_not)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def how_much_data(counts: Any, budget: float, best: float) -> Item:
    """Tokens, by the compute-optimal rule."""
    ratio = budget / counts.active
    said = f"{show(best, 'count')} tokens are compute-optimal"
    if budget != best:
        said += f"; {show(budget, 'count')} as asked is {ratio:,.0f} a parameter"
    return Item(
        "How much data does it need?", said,
        f"tokens = 20 × active parameters = 20 × {show(counts.active, 'count')}",
        "Hoffmann et al. 2022, table 3; Llama 3 trained on 15T tokens, 200 to 2,000 a parameter",
        {"optimal_tokens": best, "tokens": budget, "tokens_per_parameter": ratio},
    )  # fmt: skip


def _trained(outcome: Outcome) -> tuple[TrainingEstimate, Setting]:
    return cast("TrainingEstimate", outcome.estimate), cast("Setting", outcome.setting)


def how_much_compute(outcome: Outcome, budget: float) -> Item:
    """FLOPs of the whole run."""
    found, _ = _trained(outcome)
    flops = found.model_tflops_per_device * TERA * found.hardware["devices"] / found.tokens_per_s * budget
    plain = 6.0 * found.model["active_parameters"] * budget
    return Item(
        "How much compute is that?", f"{flops:.3g} FLOPs",
        f"6 × parameters × tokens = {plain:.3g}, and attention's {flops / plain - 1.0:.0%}",
        "Kaplan et al. 2020; Narayanan et al. 2021, appendix", {"training_flops": flops},
    )  # fmt: skip


def does_it_fit(outcome: Outcome) -> Item:
    """Bytes of state against the memory there is."""
    found, _ = _trained(outcome)
    bytes_of = found.bytes_per_number
    each = bytes_of["weight"] + bytes_of["gradient"] + bytes_of["master_weight"] + bytes_of["optimizer_state"]
    state = each * found.model["parameters"]
    least, devices = ceil(state / found.memory_capacity_bytes), found.hardware["devices"]
    taken = f"{show(found.memory_reserved_bytes, 'bytes')} of {show(found.memory_capacity_bytes, 'bytes')}"
    kept = bytes_of["master_weight"] + bytes_of["optimizer_state"]
    parts = f"{bytes_of['weight']:g} weight + {bytes_of['gradient']:g} gradient + {kept:g} optimizer"
    return Item(
        "How much memory does training take?",
        f"{show(state, 'bytes')} of weights, gradients and optimizer state: no fewer than {_counted(least, 'device')}; "
        f"the plan takes {taken} on each of {devices:,}",
        f"{each:g} bytes a parameter ({parts}) × {show(found.model['parameters'], 'count')}",
        "Rajbhandari et al. 2020 (ZeRO), section 3; activations and buffers as hwsim counts them",
        {"state_bytes": state, "least_devices": float(least), "memory_bytes": found.memory_reserved_bytes},
    )  # fmt: skip


def how_long(outcome: Outcome, budget: float) -> Item:
    """Days on the devices asked for."""
    found, setting = _trained(outcome)
    seconds = budget / found.tokens_per_s
    low, high = (seconds * edge / found.step_time_s for edge in (found.step_time_low_s, found.step_time_high_s))
    devices, name = found.hardware["devices"], setting.hardware.accelerator.name
    return Item(
        "How long does training take?",
        f"{show(seconds, 's')} on {devices:,} × {name} ({show(low, 's')} to {show(high, 's')}), without interruptions",
        f"tokens / throughput = {show(budget, 'count')} / {show(found.tokens_per_s, 'count')} tokens/s "
        f"({found.mfu:.0%} MFU)",
        "hwsim plan; the range is that of published runs of its kind",
        {"days": seconds / DAY_S, "days_low": low / DAY_S, "days_high": high / DAY_S, "devices": float(devices)},
    )  # fmt: skip


def how_many(outcome: Outcome, budget: float, node: int) -> Item:
    """Devices that finish in 30 days."""
    found, setting = _trained(outcome)
    rate = budget / (DEADLINE_DAYS * DAY_S)
    devices = ceil(rate / found.tokens_per_s_per_device / node) * node
    name = setting.hardware.accelerator.name
    each = show(found.tokens_per_s_per_device, "count")
    return Item(
        f"How many devices train it in {DEADLINE_DAYS:.0f} days?",
        f"about {devices:,} × {name} ({_counted(devices // node, 'node')}); hwsim size searches and adds headroom",
        f"tokens / (30 days × throughput of a device) = {show(budget, 'count')} / (30 days × {each} tokens/s)",
        "throughput of a device as planned above", {"devices_for_30_days": float(devices)},
    )  # fmt: skip


def how_fast(outcome: Outcome) -> Item | None:
    """Latency of one request alone."""
    found = outcome.estimate
    if not isinstance(found, InferenceEstimate):
        return None
    devices, name = found.hardware["devices"], found.hardware["accelerator"]
    asked = f"{found.strategy['input_len']:,} tokens in, {found.strategy['output_len']:,} out"
    return Item(
        "How fast is inference?",
        f"{1.0 / found.tpot_s:,.0f} tokens/s for one user on {devices} × {name}: the first token after "
        f"{show(found.ttft_s, 's')}, then one every {show(found.tpot_s, 's')} ({asked}, {found.strategy['weights']})",
        f"at best weights / memory bandwidth: {show(found.memory_bytes['weights'], 'bytes')} a device for each token",
        "hwsim estimate infer", {"ttft_s": found.ttft_s, "tpot_s": found.tpot_s, "serving_devices": float(devices)},
    )  # fmt: skip


def how_many_users(outcome: Outcome) -> Item | None:
    """Requests that fit at once."""
    found = outcome.estimate
    if not isinstance(found, InferenceEstimate):
        return None
    length = float(found.strategy["input_len"] + found.strategy["output_len"])
    each = float(found.memory_bytes["kv_cache"]) / found.strategy["batch"]
    return Item(
        "How many users at once?",
        f"{found.max_batch:,} requests of {length:,.0f} tokens; each takes {show(each, 'bytes')} of KV cache a device",
        f"KV cache room / bytes of a request = {show(found.cache_room_bytes, 'bytes')} / {show(each, 'bytes')}",
        "hwsim estimate infer; under load: hwsim plan --task infer, hwsim simulate serving",
        {"max_batch": float(found.max_batch), "kv_bytes_per_request": each},
    )  # fmt: skip


def how_much_energy(outcome: Outcome) -> Item | None:
    """Energy and emissions of training."""
    bill = outcome.bill
    if bill is None:
        return None
    energy, carbon = bill.facility_energy_j, bill.total_carbon_kg
    shown = [show(float(each), "kg") for each in carbon]
    power, seconds = float(bill.energy_j.expected / bill.seconds.expected), float(bill.seconds.expected)
    return Item(
        "How much energy and carbon does training take?",
        f"{show(float(energy.expected), 'j')} and {shown[1]} of CO2e ({shown[0]} to {shown[2]}), grid: {bill.grid}",
        f"{show(power, 'w')} at the nodes × {show(seconds, 's')} × PUE × carbon of the grid, and the machines' share",
        "; ".join(bill.sources[name] for name in ("carbon", "pue") if name in bill.sources) or "hwsim grids show",
        {"energy_j": float(energy.expected), "carbon_kg": float(carbon.expected)},
    )  # fmt: skip


def how_much_money(outcome: Outcome) -> Item | None:
    """Rent and ownership."""
    bill = outcome.bill
    rent = bill.rent_usd["on_demand"] if bill else None
    if bill is None or rent is None:
        return None
    owned = "" if bill.owned_usd is None else f"; {show(float(bill.owned_usd.expected), 'usd')} on one's own machines"
    hours, shown = float(bill.device_hours.expected), [show(float(each), "usd") for each in rent]
    return Item(
        "What does training cost?",
        f"{shown[1]} to rent on demand ({shown[0]} to {shown[2]}){owned}",
        f"{hours:,.0f} device-hours × {float(rent.expected) / hours:.2f} USD",
        f"price book {bill.prices} ({bill.date})",
        {"rent_usd": float(rent.expected), "device_hours": hours},
    )  # fmt: skip
