"""An operator: what one named step of a layer does forward and backward, what it saves, what it stores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hwsim.formulas.types import Numeric
from hwsim.ops.work import Gemm, Stream, Work
from hwsim.specs.job import Autograd

SAVES_NO_MORE = Autograd()
"""Fused kernels throughout."""


@dataclass(frozen=True)
class Operator:
    """One step of a block, per device and micro-batch. The four answers are all read off these fields."""

    name: str
    forward: tuple[Work, ...] = ()
    backward: tuple[Work, ...] = ()
    saved_bytes: Numeric = 0.0
    """Kept from forward to backward. [byte]"""
    parameters: Numeric = 0.0
    """Weights stored on this device. [-]"""
    matmul_parameters: Numeric = 0.0
    """Those of them that a matrix multiply reads. [-]"""
    trained: Numeric | None = None
    """Weights that get a gradient; none: all of `parameters`. [-]"""
    trained_matrices: Numeric = 0.0
    """Trained weights of multiplies. [-]"""
    sides: Numeric | None = None
    """Rows and columns of trained matrices, length of trained vectors; none: vectors alone. [-]"""
    quantised: Numeric = 0.0
    """Frozen weights, among `parameters`, that are stored in a format of their own. [-]"""
    experts: bool = False
    """Its weights belong to experts, which are spread over devices in a way of their own."""
    last: bool = False
    """Nothing in the block's backward pass needs its output."""
    kept_bytes: Numeric | None = None
    """What it still saves when it is run again: its inputs; none: that is all it saves anyway. [byte]"""

    @property
    def trained_parameters(self) -> Numeric:
        """Weights that get a gradient. [-]"""
        return self.parameters if self.trained is None else self.trained

    @property
    def factors(self) -> Numeric:
        """Rows and columns of trained matrices, and the length of trained vectors. [-]"""
        return self.trained_parameters if self.sides is None else self.sides


@dataclass(frozen=True)
class Formats:
    """Bytes per number in each role (hwsim.specs.job.Precision), passes of unfused kernels, and what is trained."""

    activation: float
    gemm_input: float
    saved: float
    """Of what a multiply saves for its backward pass."""
    gathered: float
    """Of the residual stream when tensor-parallel peers gather it."""
    gradient: float
    """Moved by a multiply per weight gradient: written, and read where it is added to a buffer."""
    added: float = 0.0
    """Moved by a kernel of its own that adds a weight gradient to the buffer."""
    norm_passes: float = 1.0
    """Memory traffic over that of a fused kernel; likewise below."""
    activation_passes: float = 1.0
    rope_passes: float = 1.0
    score_passes: float = 1.0
    statistics: float = 0.0
    """Bytes of each number saved per row of a norm (mean and deviation; RMSNorm one); 0: made again."""
    autograd: Autograd = SAVES_NO_MORE
    """What is saved beside what fused kernels save."""
    trains: bool = True
    """Weights get gradients; if not they are frozen."""
    rank: int = 0
    """Of low-rank adapters beside frozen multiplies; 0: none."""
    unpack_bytes: float = 0.0
    """Moved per frozen weight to unpack it before each multiply; 0: it is stored as it is used."""
    weight: float | None = None
    """Of a weight that a multiply reads in another format than its input; none: in the same."""

    @property
    def outside(self) -> Formats:
        """Of what stands outside the layers: no adapters, nothing quantised."""
        return replace(self, rank=0, unpack_bytes=0.0, weight=None)


@dataclass(frozen=True)
class Copies:
    """How many experts a multiply serves at once, each with weights of its own."""

    count: Numeric
    kernels: Numeric = 1.0
    """Launches that takes."""


def linear(
    name: str,
    rows: Numeric,
    out: Numeric,
    inner: Numeric,
    bias: bool,
    formats: Formats,
    saved_rows: Numeric,
    copies: Copies | None = None,
    parts: int = 1,
) -> Operator:
    """Build a linear layer y[rows, out] = x[rows, inner] w: one multiply forward, two backward.

    The weight gradient is added to the gradient buffer by the multiply itself or by a kernel of its own (see
    `Formats`). Backward, a bias reads the output gradient once. A frozen layer has no weight gradient and saves
    nothing; an adapter adds x a b to its output (Hu et al., "LoRA", 2021), one for each of the `parts` that the output
    is made of (queries, keys and values have an adapter each).
    """
    read, wrote = formats.gemm_input, formats.activation
    count: Numeric = 1.0 if copies is None else copies.count
    kernels: Numeric = 1.0 if copies is None else copies.kernels
    inputs_gradient = Gemm(rows, inner, out, count, read, wrote, kernels=kernels)
    forward = Gemm(rows, out, inner, count, read, wrote, kernels=kernels, weight_bytes=formats.weight)
    matrix = count * out * inner if copies else 1.0 * out * inner
    biases = (count * out if copies else out) if bias else 0.0
    everything = matrix + biases
    saved = 1.0 * saved_rows * inner * formats.saved
    if formats.trains:
        weight_gradient = Gemm(out, inner, rows, count, read, formats.gradient, weight_gradient=True, kernels=kernels)
        moved = count * rows * out * wrote if copies else 1.0 * rows * out * wrote
        bias_gradient = (Stream(moved, kind="bias"),) if bias else ()
        added = (Stream(matrix * formats.added),) if formats.added else ()
        backward = (inputs_gradient, weight_gradient, *added, *bias_gradient)
        return Operator(
            name, (forward,), backward, saved, everything, matrix,
            trained_matrices=matrix, sides=count * (out + inner) + biases, experts=copies is not None,
        )  # fmt: skip
    unpack = (Stream(matrix * formats.unpack_bytes),) if formats.unpack_bytes else ()
    frozen = Operator(
        name, (*unpack, forward), (*unpack, inputs_gradient), 0.0, everything, matrix,
        trained=0.0, sides=0.0, quantised=matrix if formats.unpack_bytes else 0.0, experts=copies is not None,
    )  # fmt: skip
    return frozen if not formats.rank or copies else _adapted(frozen, rows, (out, inner, parts), formats, saved)


def _adapted(
    base: Operator, rows: Numeric, shape: tuple[Numeric, Numeric, int], formats: Formats, saved_bytes: Numeric
) -> Operator:
    """A frozen multiply with low-rank adapters beside it; the middle of an adapter is saved too."""
    read, wrote, rank = formats.gemm_input, formats.activation, float(formats.rank)
    out, inner, parts = shape
    middle = rank * parts
    down, up = Gemm(rows, middle, inner, 1.0, read, wrote), Gemm(rows, out, rank, 1.0, read, wrote)
    joined = Stream(3.0 * rows * out * wrote)
    backward = (
        Gemm(rows, rank, out, 1.0, read, wrote),
        Gemm(out, rank, rows, 1.0, read, formats.gradient, weight_gradient=True),
        Gemm(rows, inner, middle, 1.0, read, wrote),
        Gemm(middle, inner, rows, 1.0, read, formats.gradient, weight_gradient=True),
        Stream(3.0 * rows * inner * wrote),
    )
    adapter = rank * out + middle * inner
    return Operator(
        base.name,
        (*base.forward, down, up, joined),
        (*base.backward, *backward),
        saved_bytes + rows * middle * wrote,
        base.parameters + adapter,
        base.matmul_parameters + adapter,
        trained=adapter,
        trained_matrices=adapter,
        sides=out + parts * inner + (1.0 + parts) * rank,
        quantised=base.quantised,
    )


def total(operators: Iterable[Operator], field: str) -> Numeric:
    """Sum one field over operators, in their order."""
    result: Numeric = 0.0
    for operator in operators:
        result = result + getattr(operator, field)
    return result
