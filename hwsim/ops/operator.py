"""An operator: what one named step of a layer does forward and backward, what it saves, what it stores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hwsim.formulas.types import Numeric
from hwsim.ops.work import Gemm, Stream, Work


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
    last: bool = False
    """Nothing in the block's backward pass needs its output."""
    kept_bytes: Numeric | None = None
    """What it still saves when it is run again: its inputs; none: that is all it saves anyway. [byte]"""


@dataclass(frozen=True)
class Formats:
    """Bytes per number in each role (hwsim.specs.job.Precision), and how often unfused kernels move them."""

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


def linear(
    name: str, rows: Numeric, out: Numeric, inner: Numeric, bias: bool, formats: Formats, saved_rows: Numeric
) -> Operator:
    """Build a linear layer y[rows, out] = x[rows, inner] w: one multiply forward, two backward.

    The weight gradient is added to the gradient buffer by the multiply itself or by a kernel of its own (see
    `Formats`). Backward, a bias reads the output gradient once.
    """
    read, wrote = formats.gemm_input, formats.activation
    inputs_gradient = Gemm(rows, inner, out, input_bytes=read, output_bytes=wrote)
    weight_gradient = Gemm(out, inner, rows, input_bytes=read, output_bytes=formats.gradient, weight_gradient=True)
    bias_gradient = (Stream(1.0 * rows * out * wrote, kind="bias"),) if bias else ()
    added = (Stream(1.0 * out * inner * formats.added),) if formats.added else ()
    return Operator(
        name,
        forward=(Gemm(rows, out, inner, input_bytes=read, output_bytes=wrote),),
        backward=(inputs_gradient, weight_gradient, *added, *bias_gradient),
        saved_bytes=1.0 * saved_rows * inner * formats.saved,
        parameters=1.0 * out * inner + (out if bias else 0.0),
        matmul_parameters=1.0 * out * inner,
    )


def total(operators: Iterable[Operator], field: str) -> Numeric:
    """Sum one field over operators, in their order."""
    result: Numeric = 0.0
    for operator in operators:
        result = result + getattr(operator, field)
    return result
