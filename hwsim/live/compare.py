"""hwsim against PyTorch, number by number: parameters, state, FLOPs, saved bytes, peak memory, time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwsim.analytic.estimate import TrainingEstimate, estimates
from hwsim.analytic.explain import operator_rows
from hwsim.analytic.training import evaluate
from hwsim.asking import asked
from hwsim.errors import UsageError
from hwsim.live.cases import CONVENTIONS, Case, cases
from hwsim.ops.count import parameters
from hwsim.specs.library import load_model
from hwsim.specs.model import Model

if TYPE_CHECKING:
    import pandas as pd

PRECISE = "h100-sxm-80"
"""Hardware that counts of bytes and FLOPs are asked of: they are the same on all."""
PEAK_TOLERANCE = 0.02
STATISTICS_TOLERANCE = 0.005
"""In bf16 on a CPU, where a LayerNorm keeps its statistics in bf16 and not in fp32 as on a GPU."""
PHASES = ("forward", "backward")
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
"""hwsim's name of a format to PyTorch's."""
UPDATES = ("adam", "momentum", "sgd")
"""Optimizers whose state is compared."""


@dataclass(frozen=True)
class Row:
    """One number of PyTorch's and hwsim's."""

    id: str
    group: str
    metric: str
    unit: str
    source: str
    measured: float
    predicted: float
    tolerance: float | None
    """Largest relative error; 0: equal; None: reported only."""

    @property
    def error(self) -> float:
        """Relative error: positive where the prediction is too high."""
        if self.measured == self.predicted:
            return 0.0
        return self.predicted / self.measured - 1.0 if self.measured else 1.0

    @property
    def holds(self) -> bool:
        """Whether the error is within its tolerance."""
        return self.tolerance is None or abs(self.error) <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """As the contract's JSON has it, and more."""
        numbers = {"published": self.measured, "predicted": self.predicted, "error": self.error}
        head = {name: getattr(self, name) for name in ("id", "source", "group", "metric", "unit")}
        return head | numbers | {"tolerance": self.tolerance, "holds": self.holds}


@dataclass(frozen=True)
class Group:
    """How the rows of a group fare."""

    name: str
    rows: int
    equal: int
    """Rows without any difference."""
    worst: float
    """Largest error of the rows that have a tolerance."""
    holds: bool


@dataclass(frozen=True)
class Comparison:
    """All rows, by group."""

    rows: tuple[Row, ...]
    conventions: tuple[str, ...] = CONVENTIONS

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups, in order."""
        names = dict.fromkeys(row.group for row in self.rows)
        return tuple(_group(name, [row for row in self.rows if row.group == name]) for name in names)

    @property
    def holds(self) -> bool:
        """Whether every row is within its tolerance."""
        return all(row.holds for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `hwsim validate pytorch`."""
        return {
            "schema_version": 1,
            "kind": "validation",
            "holds": self.holds,
            "groups": [vars(group) for group in self.groups],
            "rows": [row.to_dict() for row in self.rows],
            "conventions": list(self.conventions),
        }

    def to_frame(self) -> pd.DataFrame:
        """The rows as a table."""
        import pandas as pd

        return pd.DataFrame([row.to_dict() for row in self.rows])


def _group(name: str, rows: list[Row]) -> Group:
    judged = [abs(row.error) for row in rows if row.tolerance is not None]
    equal = sum(row.error == 0.0 for row in rows)
    return Group(name, len(rows), equal, max(judged, default=0.0), all(row.holds for row in rows))


def parts(short: bool) -> list[str]:
    """Names of the cases, in the order they run in."""
    return [case.id for case in cases(short)]


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
        rows += run(Run(case, load_model(case.model), device), hardware)
    return Comparison(tuple(rows))


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


def run(r: Run, hardware: Any) -> list[Row]:
    """All rows of a case."""
    from hwsim.live.measure import one_thread

    with one_thread():
        rows = list(counted(r))
        if not r.case.fake:
            rows += [*twin(r), peak(r), *halved(r), *state_rows(r)]
    return rows + (list(timed(r, hardware)) if hardware is not None and not r.case.fake else [])


def counted(r: Run) -> Iterator[Row]:
    """Parameters, FLOPs of both passes, bytes saved between them."""
    from hwsim.live.measure import run_passes

    with _tensors(r.case.fake):
        model = r.build()
        held = sum(parameter.numel() for parameter in model.parameters())
        found = run_passes(model, r.batch())
    flops = multiplied(r)
    yield r.row("parameters", "", held, parameters(r.model).total)
    yield r.row("forward FLOPs", "FLOP", found.forward_flops, flops["forward"])
    yield r.row("backward FLOPs", "FLOP", found.backward_flops, flops["backward"])
    yield r.row("saved for backward", "B", found.saved_bytes, r.estimate().memory_bytes["activations"])


def halved(r: Run) -> Iterator[Row]:
    """Saved bytes and peak of the model in bf16."""
    from hwsim.live.measure import run_passes

    found, said = run_passes(r.build("bf16"), r.batch()), r.estimate("bf16")
    narrow = r.device == "cpu" and r.model.norm == "layernorm"
    tolerance = STATISTICS_TOLERANCE if narrow else 0.0
    yield r.row("saved for backward, bf16", "B", found.saved_bytes, said.memory_bytes["activations"], tolerance)
    yield peak(r, "bf16")


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


def state_rows(r: Run) -> Iterator[Row]:
    """Bytes of weights and gradients in every format, and of the state of every optimizer."""
    from hwsim.live.measure import states

    for precision in DTYPES:
        for optimizer in UPDATES:
            found = states(r.build(precision), optimizer, r.batch())
            said = r.estimate(precision, optimizer).memory_bytes
            if optimizer == UPDATES[0]:
                yield r.row(f"weights, {precision}", "B", found.parameters, said["weights"])
                yield r.row(f"gradients, {precision}", "B", found.gradients, said["gradients"])
            yield r.row(f"{optimizer} state, {precision}", "B", found.optimizer, said["optimizer"])


def peak(r: Run, precision: str = "fp32") -> Row:
    """Most bytes alive in a step."""
    from hwsim.live import measure

    most = measure.cuda_peak_bytes if r.device == "cuda" else measure.peak_bytes
    found = most(r.build(precision), "adam", (r.batch(), r.batch()))
    name = "peak memory" if precision == "fp32" else f"peak memory, {precision}"
    return r.row(name, "B", found, r.estimate(precision).memory_allocated_bytes, PEAK_TOLERANCE)


def timed(r: Run, hardware: Any) -> Iterator[Row]:
    """Forward, backward and step time of two micro-batches, reported only."""
    from hwsim.live.measure import step_seconds

    found = step_seconds(r.build(), (r.batch(), r.batch()), r.device)
    said = r.estimate(hardware=hardware)
    wanted = {**said.time_s, "step": said.step_time_s}
    for name, seconds in found.items():
        yield r.row(f"{name} time", "s", seconds, wanted[name], None)
