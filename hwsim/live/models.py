"""Real PyTorch models in the shape of a model spec, in plain modules, to hold predictions against.

Pre-norm where the model ends with a norm, post-norm (Vaswani et al., 2017) where it does not; GELU, or SwiGLU where it
is gated. Import this file where torch is needed, not before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from hwsim.errors import UsageError
from hwsim.live.experts import Experts
from hwsim.live.layers import MLP, Attention, Dropout, normalisation, turns
from hwsim.ops.stacks import segments
from hwsim.specs.model import Model


class Branch(nn.Module):
    """A branch beside the residual stream: the norm stands before it, or after the sum."""

    def __init__(self, model: Model, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.norm = inner, normalisation(model, model.hidden)
        self.drop, self.before = Dropout(model.dropout), model.final_norm

    def forward(self, x: Any, *context: Any) -> Any:
        """Add what the branch makes of the stream."""
        if self.before:
            return x + self.drop(self.inner(self.norm(x), *context))
        return self.norm(x + self.drop(self.inner(x, *context)))


class Layer(nn.Module):
    """Attention to the stack itself, attention to an encoder, MLP or experts."""

    def __init__(self, model: Model, fused: bool, source: Model | None, experts: bool) -> None:
        super().__init__()
        self.attention = Branch(model, Attention(model, model.hidden, model.causal, fused))
        self.cross = Branch(model, Attention(model, source.hidden, False, fused)) if source else None
        self.mlp = Branch(model, Experts(model) if experts else MLP(model, model.ffn))

    def forward(self, x: Any, positions: Any, memory: Any) -> Any:
        """One layer of the stream; `positions`: rotary tables and bias."""
        x = self.attention(x, None, *positions)
        if self.cross is not None:
            x = self.cross(x, memory, None, None)
        return self.mlp(x)


class Stack(nn.Module):
    """Embedded tokens in, the stream after the last layer out."""

    def __init__(self, model: Model, name: str, fused: bool, source: Model | None = None) -> None:
        super().__init__()
        self.model = model
        found = [segment for segment in segments(model) if segment.stack == name]
        kinds = [kind for segment in found for kind, count in segment.kinds for _ in range(count)]
        self.layers = nn.ModuleList(Layer(model, fused, source, kind.experts) for kind in kinds)
        rows = model.max_positions + model.position_offset
        self.places = nn.Embedding(rows, model.hidden) if model.positions == "learned" else None
        self.buckets = nn.Embedding(model.relative_buckets, model.heads) if model.relative_buckets else None
        self.drop = Dropout(model.dropout)
        self.norm = normalisation(model, model.hidden) if model.final_norm else nn.Identity()

    def forward(self, x: Any, memory: Any = None) -> Any:
        """Run all layers."""
        place = torch.arange(x.shape[1], device=x.device)
        if self.places is not None:
            x = x + self.places(place + self.model.position_offset)
        positions = (turns(self.model, place, x.dtype) if self.model.positions == "rope" else None, self.bias(place))
        x = self.drop(x)
        for layer in self.layers:
            x = layer(x, positions, memory)
        return self.norm(x)

    def bias(self, place: Any) -> Any:
        """Learned bias of every head for every distance, the same in all layers; none where the model has none."""
        if self.buckets is None:
            return None
        distance = (place[None, :] - place[:, None]).abs().clamp(max=self.model.relative_buckets - 1)
        return self.buckets(distance).permute(2, 0, 1)


class Transformer(nn.Module):
    """Token table, encoder where there is one, decoder, LM head, loss."""

    def __init__(self, model: Model, fused: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(model.vocab, model.hidden)
        self.encoder = Stack(model.encoder, "decoder", fused) if model.encoder else None
        self.decoder = Stack(model, "decoder", fused, model.encoder)
        self.head = nn.Linear(model.hidden, model.vocab, bias=model.head_bias)
        if model.tied_embeddings:
            self.head.weight = self.embed.weight

    def forward(self, tokens: Any, labels: Any, source: Any = None) -> Any:
        """Mean cross-entropy of the next token."""
        memory = None if self.encoder is None else self.encoder(self.embed(source))
        logits = self.head(self.decoder(self.embed(tokens), memory))
        return functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten())


def refuse_unknown(model: Model) -> None:
    """Refuse a model with a feature that these modules lack.

    Raises
    ------
    UsageError
        Naming the first.
    """
    for stack in (model, *([model.encoder] if model.encoder else [])):
        unknown = {
            "latent attention": stack.is_mla,
            "a vision tower": stack.vision is not None or stack.patch > 0,
            "parallel attention and MLP": stack.parallel,
            f"{stack.norms} norms a layer": stack.norms != 2,
            f"{stack.positions} positions": stack.positions == "alibi",
            "partial rotary embedding": stack.rotary_share != 1.0,
            "sliding windows": stack.window is not None,
            "attention sinks": stack.sinks,
            "token types": stack.token_types > 0,
            "an embedding norm": stack.embedding_norm,
            "a narrow embedding": stack.embedding_dim is not None,
            "multi-token prediction": stack.mtp_layers > 0,
            "a gate of shared experts": stack.shared_gate,
            f"a {stack.head} head": stack.head not in ("lm", "none"),
        }
        found = next((feature for feature, present in unknown.items() if present), None)
        if found:
            msg = f"model {model.name}: no PyTorch model here has {found}"
            raise UsageError(msg)


def build(model: Model, attention: str) -> Transformer:
    """The model, `attention` "flash" or "unfused", with fresh weights."""
    refuse_unknown(model)
    return Transformer(model, attention == "flash")


def torch_layers(model: Model) -> nn.Module:
    """The stacks of an encoder-decoder made of torch.nn's own layers (post-norm, with biases), without the ends."""
    if model.encoder is None:
        msg = f"model {model.name}: torch.nn's Transformer has an encoder"
        raise UsageError(msg)
    shape: dict[str, Any] = {
        "nhead": model.heads,
        "dim_feedforward": model.ffn,
        "batch_first": True,
        "activation": "gelu",
    }
    encoder = nn.TransformerEncoderLayer(model.encoder.hidden, **shape)
    decoder = nn.TransformerDecoderLayer(model.hidden, **shape)
    return nn.ModuleList(
        [
            nn.TransformerEncoder(encoder, model.encoder.layers, enable_nested_tensor=False),
            nn.TransformerDecoder(decoder, model.layers),
        ]
    )


def copy_layers(theirs: Any, ours: Transformer) -> None:
    """Give our encoder and decoder the weights of those of `torch_layers`."""
    stacks: tuple[Any, ...] = (ours.encoder, ours.decoder)
    for their_stack, our_stack in zip(theirs, stacks, strict=True):
        for given, layer in zip(their_stack.layers, our_stack.layers, strict=True):
            _copy_attention(given.self_attn, layer.attention.inner)
            norms = [given.norm1, given.norm2]
            branches = [layer.attention, layer.mlp]
            if layer.cross is not None:
                _copy_attention(given.multihead_attn, layer.cross.inner)
                norms.append(given.norm3)
                branches.insert(1, layer.cross)
            layer.mlp.inner.up.load_state_dict(given.linear1.state_dict())
            layer.mlp.inner.down.load_state_dict(given.linear2.state_dict())
            for norm, branch in zip(norms, branches, strict=True):
                branch.norm.load_state_dict(norm.state_dict())


def _copy_attention(given: Any, attention: Attention) -> None:
    weights, biases = given.in_proj_weight.chunk(3), given.in_proj_bias.chunk(3)
    for linear, weight, bias in zip((attention.q, attention.k, attention.v), weights, biases, strict=True):
        linear.load_state_dict({"weight": weight, "bias": bias})
    attention.out.load_state_dict(given.out_proj.state_dict())
