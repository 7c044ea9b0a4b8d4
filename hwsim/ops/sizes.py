"""Logical dimensions of a layer as one device sees them after the parallel axes have divided them."""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.formulas.types import Numeric
from hwsim.ops.axes import context, tensor
from hwsim.specs.model import Model
from hwsim.specs.strategy import Strategies


@dataclass(frozen=True)
class Sizes:
    """Local lengths of the named dimensions; operators know no others."""

    batch: Numeric
    """Sequences in a micro-batch."""
    seq: Numeric
    """Tokens of each sequence that this device's queries cover."""
    context: Numeric
    """Tokens of the whole sequence."""
    residual_seq: Numeric
    """Tokens of each sequence in the norm and residual regions."""
    heads: Numeric
    kv_heads: Numeric
    ffn: Numeric
    vocab: Numeric
    experts: Numeric
    """Experts on this device."""
    expert_ffn: Numeric
    """Inner width of its part of each."""
    shared_ffn: Numeric
    """The same of the shared experts."""

    @property
    def tokens(self) -> Numeric:
        """Rows of the matrix multiplies."""
        return 1.0 * self.batch * self.seq

    @property
    def residual_tokens(self) -> Numeric:
        """Rows of the norms and residual adds."""
        return 1.0 * self.batch * self.residual_seq


def local_sizes(model: Model, s: Strategies) -> Sizes:
    """Divide the dimensions of `model` among the axes of each strategy."""
    seq = context.local_seq(s)
    return Sizes(
        batch=s.micro_batch,
        seq=seq,
        context=s.seq_len,
        residual_seq=tensor.residual_seq(seq, s),
        heads=model.heads / s.tp,
        kv_heads=tensor.local_kv_heads(model.kv_heads, s),
        ffn=model.ffn / s.tp,
        vocab=tensor.local_vocab(model.vocab, s),
        experts=model.experts / s.ep,
        expert_ffn=model.expert_ffn / s.etp,
        shared_ffn=model.shared_ffn / s.tp,
    )
