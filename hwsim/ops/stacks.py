"""A model as stacks of layers: which kinds of layer there are, how many, in which order."""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.specs.model import Model


@dataclass(frozen=True)
class Kind:
    """A sort of layer."""

    window: int | None = None
    """Attention window in tokens."""
    experts: bool = False
    """The MLP is a mixture of experts."""
    cross: bool = False
    """It attends to an encoder's output too."""


@dataclass(frozen=True)
class Segment:
    """Consecutive layers of one stack; their kinds alternate evenly."""

    stack: str
    """decoder, encoder or vision."""
    model: Model
    """Shape of the stack."""
    kinds: tuple[tuple[Kind, int], ...]
    """Every kind and how many layers are of it."""

    @property
    def layers(self) -> int:
        """All of them."""
        return sum(count for _, count in self.kinds)


def segments(model: Model) -> tuple[Segment, ...]:
    """Every layer of a model in order: vision tower, encoder, decoder (its dense layers first)."""
    found: list[Segment] = []
    if model.vision:
        found += _stack("vision", model.vision.tower, cross=False)
    if model.encoder:
        found += _stack("encoder", model.encoder, cross=False)
    return tuple(found + _stack("decoder", model, cross=model.encoder is not None))


def count_layers(model: Model) -> int:
    """Layers of all stacks."""
    return sum(segment.layers for segment in segments(model))


def stacks(model: Model) -> list[Model]:
    """The shape of every stack: decoder, encoder, vision tower."""
    return [stack for stack in (model, model.encoder, model.vision and model.vision.tower) if stack]


def _stack(name: str, model: Model, cross: bool) -> list[Segment]:
    rest = model.layers - model.dense_layers
    mixed = (rest if model.expert_layers is None else model.expert_layers) if model.experts else 0
    parts = [(model.dense_layers, 0), (rest, mixed)] if model.experts else [(model.layers, 0)]
    windowed = 0 if model.window is None else model.layers if model.window_layers is None else model.window_layers
    result: list[Segment] = []
    for layers, with_experts in parts:
        near = round(windowed * layers / model.layers) if not result else windowed - _near(result)
        kinds = _kinds(layers, with_experts, near, model.window, cross)
        result += [Segment(name, model, kinds)] if layers else []
    return result


def _near(parts: list[Segment]) -> int:
    return sum(count for part in parts for kind, count in part.kinds if kind.window is not None)


def _kinds(layers: int, experts: int, near: int, window: int | None, cross: bool) -> tuple[tuple[Kind, int], ...]:
    """Kinds of some layers, `experts` of them with experts and `near` with the window; both as if drawn together.

    Windows and experts act on different halves of a layer, so that only how many there are of either matters.
    """
    both = min(experts, near)
    counts = {
        Kind(window, True, cross): both,
        Kind(None, True, cross): experts - both,
        Kind(window, False, cross): near - both,
        Kind(None, False, cross): layers - experts - near + both,
    }
    return tuple((kind, count) for kind, count in counts.items() if count)
