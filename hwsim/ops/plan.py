"""What every operator of a block is built from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from hwsim.formulas.types import Numeric
from hwsim.ops.axes import tensor
from hwsim.ops.operator import Copies, Formats, Operator, linear
from hwsim.ops.sizes import Sizes, local_sizes
from hwsim.ops.stacks import Kind
from hwsim.specs.model import Model
from hwsim.specs.strategy import Strategies

PLAIN = Kind()
FP32_BYTES = 4.0
MASK_BYTES = 1.0


@dataclass(frozen=True)
class Habits:
    """How the software runs what the model asks for."""

    flash: bool = True
    """Attention is fused; else scores are written to memory."""
    logit_bytes: float = 6.0
    """Kept per logit between the loss and its backward pass."""
    logit_traffic_bytes: float = 30.0
    """Moved per logit by the loss, forward and backward."""
    imbalance: float = 1.0
    """Rows that the busiest device's experts get, over the mean."""
    capacity: float = 0.0
    """Rows that every expert is padded or cut to, over the mean; 0: as many as come (dropless)."""
    grouped: bool = True
    """Experts on one device are multiplied by one kernel; if not, by one kernel each."""
    dispatch_domain: float = 0.0
    """Devices that a token travels to once, whatever number of its experts they hold; 0: once per expert."""
    gathers_again: bool = True
    """What sequence parallelism gathers for a multiply is gathered again backward; if not, it is saved whole."""
    fused_residual: bool = False
    """A norm adds the residual stream in the same kernel."""
    fused_sum: bool = False
    """In inference, a norm that follows a small sum over tensor-parallel peers is part of that kernel."""
    cache_passes: float = 0.0
    """Times that a step moves the cached keys and values of every query head beside attending to them."""


@dataclass(frozen=True)
class Cached:
    """What the queries of an inference step see: keys and values of a cache, their own among them."""

    sequences: Numeric
    queries: Numeric
    """Of each sequence, the last of its keys."""
    keys: Numeric
    bytes: float
    """Of a number in the cache."""


@dataclass(frozen=True)
class Plan:
    """What every operator of a block is built from."""

    model: Model
    """Shape of the stack."""
    s: Strategies
    """Tokens and sequences as this stack sees them."""
    sizes: Sizes
    formats: Formats
    habits: Habits
    kind: Kind = PLAIN
    stack: str = "decoder"
    """Which of the model's stacks: decoder, encoder (whose token table is the decoder's) or vision."""
    source: Plan | None = None
    """The encoder that this decoder attends to."""
    cached: tuple[Cached, ...] | None = None
    """What an inference step attends to, kernel by kernel; none: whole sequences, to train on."""

    @cached_property
    def boundary(self) -> tensor.Boundary:
        """What a tensor-parallel region exchanges: the whole residual stream of a micro-batch."""
        return self.boundary_of(self.model.hidden)

    def boundary_of(self, width: int) -> tensor.Boundary:
        """The same for a stream of another width."""
        formats, again = self.formats, self.habits.gathers_again
        return tensor.boundary(self.sizes.tokens * width, formats.gathered, formats.activation, self.s, again)

    @property
    def entered_rows(self) -> Numeric:
        """Rows that a multiply saves of its input where it opens a tensor-parallel region."""
        return self.sizes.residual_tokens if self.habits.gathers_again else self.sizes.tokens

    @cached_property
    def outside(self) -> Plan:
        """The same for what stands outside the layers."""
        return replace(self, formats=self.formats.outside)

    def of(self, kind: Kind) -> Plan:
        """The same for layers of one kind."""
        return replace(self, kind=kind)

    def linear(
        self,
        name: str,
        rows: Numeric,
        out: Numeric,
        inner: Numeric,
        bias: bool,
        saved_rows: Numeric = 0.0,
        copies: Copies | None = None,
        parts: int = 1,
    ) -> Operator:
        """A linear layer in this plan's formats; see `hwsim.ops.operator.linear`."""
        return linear(name, rows, out, inner, bias, self.formats, saved_rows, copies, parts)


def block_plan(model: Model, s: Strategies, formats: Formats, habits: Habits, stack: str = "decoder") -> Plan:
    """Gather what the block builders need."""
    return Plan(model, s, local_sizes(model, s), formats, habits, stack=stack)


def with_collectives(operator: Operator, collectives: tensor.Collectives) -> Operator:
    """Add the collectives that a parallel axis puts at an operator's door."""
    forward, backward = collectives
    return replace(operator, forward=(*operator.forward, *forward), backward=(*operator.backward, *backward))
