"""hwsim against PyTorch, number by number: parameters, state, FLOPs, saved bytes, peak memory, time."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from hwsim.analytic.estimate import TrainingEstimate, estimates
from hwsim.analytic.explain import operator_rows
from hwsim.analytic.training import evaluate
from hwsim.asking import asked
from hwsim.errors import UsageError
from hwsim.live.cases import Case, cases, timed_cases
from hwsim.live.parallel.cases import cases as parallel_cases
from hwsim.live.parallel.compare import REPORTED, compare_parallel
from hwsim.live.rows import Comparison, Row
from hwsim.ops.count import parameters
from hwsim.specs.library import load_model
from hwsim.specs.model import Model

PRECISE = "h100-sxm-80"
"""Hardware that counts of bytes and FLOPs are asked of: they are the same on all."""
PEAK_TOLERANCE = 0.02
MEDIAN_TOLERANCE, WORST_TOLERANCE = 0.10, 0.30
"""Of step times."""
STATISTICS_TOLERANCE = 0.005
"""In bf16 on a CPU, where a LayerNorm keeps its statistics in bf16 and not in fp32 as on a GPU."""
PHASES = ("forward", "backward")
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
"""hwsim's name of a format to PyTorch's."""


def parts(short: bool) -> list[str]:
    """Names of the cases, in the order they run in."""
    return [case.id for case in cases(short)] + [case.id for case in parallel_cases(short)]


def compare(
    short: bool = False, hardware: Any = None, device: str = "cpu", begin: Callable[[str], None] = lambda name: None
) -> Comparison:
    """Run every case in PyTorch and in hwsim.

    Parameters
    ----------
    short
        Only the cases of the short run.
    hardware
        Profile of the machine at hand, as `hwsim calibrate` writes it: step times are compared too.
    device
        "cpu" or "cuda".
    begin
        Is called with the name of each case as it begins.

    Raises
    ------
    UsageError
        If PyTorch is missing, or has no such device.
    """
    _need_torch(device)
    rows: list[Row] = []
    for case in cases(short):
        begin(case.id)
        rows += run(Run(case, load_model(case.model), device))
    rows += collective_rows(device, short, begin)
    rows += step_rows(device, short, hardware, begin) if hardware is not None else []
    return Comparison(tuple(rows))


def collective_rows(device: str, short: bool, begin: Callable[[str], None]) -> list[Row]:
    """Calls and bytes of every collective of real runs in several processes; what is a matter of convention is told."""
    import torch

    source = f"PyTorch {torch.__version__} {device}"
    return [
        Row(
            f"{found.id}/{found.metric.replace(' ', '-')}", f"collectives: {found.group}", found.metric, found.unit,
            source, found.measured, found.predicted, None if found.note in REPORTED else found.tolerance,
        )
        for found in compare_parallel(device, short, lambda name: begin(str(name)))
    ]  # fmt: skip


def step_rows(device: str, short: bool, hardware: Any, begin: Callable[[str], None]) -> list[Row]:
    """Time of a step of models that were not calibrated on, and the median of its errors."""
    rows = []
    for case in timed_cases(short):
        begin(case.id)
        rows.append(timed(Run(case, load_model(case.model), device), hardware))
    median = statistics.median(abs(row.error) for row in rows)
    told = Row(
        "steps/median", rows[0].group, "1 + median error", "", rows[0].source, 1.0, 1.0 + median, MEDIAN_TOLERANCE
    )
    return [*rows, told]


def _need_torch(device: str) -> None:
    try:
        import torch
    except ImportError:
        msg = "PyTorch is not installed: pip install 'hwsim[torch]'"
        raise UsageError(msg) from None
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        msg = f"--device {device}: PyTorch has no such device here (cpu always works)"
        raise UsageError(msg)


@dataclass(frozen=True)
class Run:
    """One case on one device: builds the model and its batches, and makes rows."""

    case: Case
    model: Model
    device: str

    def build(self, precision: str = "fp32") -> Any:
        """The PyTorch model with fresh weights."""
        import torch

        from hwsim.live.models import build

        torch.manual_seed(0)
        with torch.device(self.device):
            built = build(self.model, self.case.attention)
        return built if precision == "fp32" else built.to(getattr(torch, DTYPES[precision]))

    def batch(self) -> tuple[Any, ...]:
        """Tokens, labels and the tokens of a source, drawn at random."""
        import torch

        lengths = [self.case.seq_len] * 2 + [self.case.source_len or self.case.seq_len] * (
            self.model.encoder is not None
        )
        shapes = [(self.case.micro_batch, length) for length in lengths]
        return tuple(torch.randint(self.model.vocab, shape, device=self.device) for shape in shapes)

    def row(self, metric: str, unit: str, measured: float, predicted: float, tolerance: float | None = 0.0) -> Row:
        """A row of this case."""
        import torch

        source = f"PyTorch {torch.__version__} {'fake tensors' if self.case.fake else self.device}"
        name = f"{self.case.id}/{metric.replace(', ', '-').replace(' ', '-')}"
        return Row(name, self.case.group, metric, unit, source, float(measured), float(predicted), tolerance)

    def estimate(self, precision: str = "fp32", optimizer: str = "adam", hardware: Any = PRECISE) -> TrainingEstimate:
        """What hwsim says of the case."""
        given = self.case.job | {"precision": precision, "optimizer": optimizer}
        return estimates(evaluate(*asked(self.model, hardware, 1, **given)))[0]


def run(r: Run) -> list[Row]:
    """All rows of a case."""
    from hwsim.live.readings import WideMultiplies, one_thread

    with one_thread():
        rows = list(counted(r))
        if not r.case.fake:
            rows += [*twin(r), peak(r)]
            with WideMultiplies() if r.device == "cpu" else nullcontext():
                rows += [*halved(r), peak(r, "bf16")]
    return rows


def counted(r: Run) -> Iterator[Row]:
    """Parameters, FLOPs of both passes, bytes saved between them and kept after them."""
    from hwsim.live.readings import run_passes

    with _tensors(r.case.fake):
        model = r.build()
        held = sum(parameter.numel() for parameter in model.parameters())
        found = run_passes(model, r.batch())
    flops = multiplied(r)
    yield r.row("parameters", "", held, parameters(r.model).total)
    yield r.row("forward FLOPs", "FLOP", found.forward_flops, flops["forward"])
    yield r.row("backward FLOPs", "FLOP", found.backward_flops, flops["backward"])
    yield r.row("saved for backward", "B", found.saved_bytes, r.estimate().memory_bytes["activations"])
    if not r.case.fake:
        yield from state_rows(r, model, "fp32")


def halved(r: Run) -> Iterator[Row]:
    """Bytes of the model in bf16, saved between the passes and kept after them."""
    from hwsim.live.readings import run_passes

    model, said = r.build("bf16"), r.estimate("bf16")
    found = run_passes(model, r.batch())
    narrow = r.device == "cpu" and r.model.norm == "layernorm"
    tolerance = STATISTICS_TOLERANCE if narrow else 0.0
    yield r.row("saved for backward, bf16", "B", found.saved_bytes, said.memory_bytes["activations"], tolerance)
    yield from state_rows(r, model, "bf16")


def _tensors(fake: bool) -> AbstractContextManager[Any]:
    """Tensors without memory, or real ones."""
    from torch._subclasses import FakeTensorMode

    return FakeTensorMode() if fake else nullcontext()


def multiplied(r: Run) -> dict[str, float]:
    """FLOPs of the multiplies of one micro-batch, by phase, as if nothing were masked. [FLOP]"""
    fields = r.model.model_dump(exclude_unset=True) | {"causal": False}
    rows = operator_rows(*asked(fields, PRECISE, 1, precision="fp32", **r.case.job))
    return {phase: sum(row["count"] * row["flops"] for row in rows if row["phase"] == phase) for phase in PHASES}


def twin(r: Run) -> Iterator[Row]:
    """Parameters of the same stacks made of torch.nn's own Transformer layers."""
    if not r.case.twin:
        return
    from hwsim.live.models import torch_layers

    stacks = sum(parameter.numel() for parameter in torch_layers(r.model).parameters())
    yield r.row(
        "parameters, torch.nn layers", "", stacks, parameters(r.model).total - 2 * r.model.vocab * r.model.hidden
    )


def state_rows(r: Run, model: Any, precision: str) -> Iterator[Row]:
    """Bytes of the weights and gradients of a model that ran its passes, and of the state of every optimizer."""
    from hwsim.live.readings import states

    found = states(model)
    said = {optimizer: r.estimate(precision, optimizer).memory_bytes for optimizer in found.optimizers}
    yield r.row(f"weights, {precision}", "B", found.parameters, said["adam"]["weights"])
    yield r.row(f"gradients, {precision}", "B", found.gradients, said["adam"]["gradients"])
    for optimizer, kept in found.optimizers.items():
        yield r.row(f"{optimizer} state, {precision}", "B", kept, said[optimizer]["optimizer"])


def peak(r: Run, precision: str = "fp32") -> Row:
    """Most bytes alive in a step."""
    from hwsim.live import readings

    most = readings.cuda_peak_bytes if r.device == "cuda" else readings.peak_bytes
    found = most(r.build(precision), "adam", (r.batch(), r.batch()))
    name = "peak memory" if precision == "fp32" else f"peak memory, {precision}"
    return r.row(name, "B", found, r.estimate(precision).memory_allocated_bytes, PEAK_TOLERANCE)


def timed(r: Run, hardware: Any) -> Row:
    """Time of a step of two micro-batches."""
    from hwsim.live.readings import step_seconds

    found = step_seconds(r.build(), (r.batch(), r.batch()), r.device)["step"]
    return r.row("step time", "s", found, r.estimate(hardware=hardware).step_time_s, WORST_TOLERANCE)
