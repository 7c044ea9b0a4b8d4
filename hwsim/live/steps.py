"""What is timed: steps of small models and of single layers, as closures that say which phase begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from hwsim.live.measure import Bench, Step, torch_module
from hwsim.units import MIB


@dataclass(frozen=True)
class Shape:
    """A small decoder, and the batch it is trained on."""

    hidden: int
    heads: int
    layers: int
    vocab: int
    seq: int
    batch: int
    tied: bool = True

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.seq * self.batch


def training_step(shape: Shape, bench: Bench) -> tuple[Step, int]:
    """A training step of a plain eager decoder with AdamW, and how many parameters it has."""
    torch = torch_module()
    nn, functional = torch.nn, torch.nn.functional
    width, heads = shape.hidden, shape.heads

    def layer() -> Any:
        names = {"n1": nn.LayerNorm(width), "qkv": nn.Linear(width, 3 * width), "out": nn.Linear(width, width)}
        rest = {"n2": nn.LayerNorm(width), "up": nn.Linear(width, 4 * width), "down": nn.Linear(4 * width, width)}
        return nn.ModuleDict(names | rest)

    parts = nn.ModuleDict({
        "token": nn.Embedding(shape.vocab, width), "position": nn.Embedding(shape.seq, width),
        "layers": nn.ModuleList(layer() for _ in range(shape.layers)), "norm": nn.LayerNorm(width),
        "head": nn.Linear(width, shape.vocab, bias=False),
    })  # fmt: skip
    if shape.tied:
        parts["head"].weight = parts["token"].weight
    parts = parts.to(bench.device, bench.torch_dtype)
    optimizer = torch.optim.AdamW(parts.parameters())
    tokens, targets = (torch.randint(0, shape.vocab, (shape.batch, shape.seq), device=bench.device) for _ in range(2))
    places = torch.arange(shape.seq, device=bench.device)

    def attended(x: Any, each: Any) -> Any:
        query, key, value = (
            part.view(shape.batch, shape.seq, heads, -1).transpose(1, 2)
            for part in each["qkv"](each["n1"](x)).split(width, -1)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return each["out"](mixed.transpose(1, 2).reshape(shape.batch, shape.seq, width))

    def loss() -> Any:
        x = parts["token"](tokens) + parts["position"](places)
        for each in parts["layers"]:
            x = x + attended(x, each)
            x = x + each["down"](functional.gelu(each["up"](each["n2"](x))))
        return functional.cross_entropy(parts["head"](parts["norm"](x)).flatten(0, 1), targets.flatten())

    def step(begin: Callable[[str], None]) -> None:
        optimizer.zero_grad(set_to_none=True)
        begin("forward")
        value = loss()
        begin("backward")
        value.backward()
        begin("optimizer")
        optimizer.step()

    return step, sum(each.numel() for each in parts.parameters())


def linear_step(m: int, n: int, k: int, bench: Bench) -> tuple[Step, int]:
    """A linear layer forward and backward; its weights change from call to call as those of a deep model do."""
    torch = torch_module()
    copies = max(2, min(8, int(128 * MIB / (bench.element_bytes * n * k))))
    weights = [bench.normal(n, k, grad=True) for _ in range(copies)]
    source, gradient = bench.normal(m, k, grad=True), bench.normal(m, n)
    turn = count()

    def step(begin: Callable[[str], None]) -> None:
        weight = weights[next(turn) % copies]
        weight.grad = source.grad = None
        begin("forward")
        result = torch.nn.functional.linear(source * 1.0, weight)
        begin("backward")
        result.backward(gradient)
        begin("optimizer")

    return step, 0


def attention_step(batch: int, heads: int, seq: int, width: int, causal: bool, bench: Bench) -> tuple[Step, int]:
    """Attention forward and backward, without the rest."""
    torch = torch_module()
    query, key, value = (bench.normal(batch, heads, seq, width, grad=True) for _ in range(3))
    gradient = bench.normal(batch, heads, seq, width)

    def step(begin: Callable[[str], None]) -> None:
        query.grad = key.grad = value.grad = None
        begin("forward")
        mixed = torch.nn.functional.scaled_dot_product_attention(query * 1.0, key, value, is_causal=causal)
        begin("backward")
        mixed.backward(gradient)
        begin("optimizer")

    return step, 0


def decode_step(batch: int, heads: int, keys: int, width: int, bench: Bench) -> tuple[Step, int]:
    """One query per sequence over a cache of keys and values."""
    torch = torch_module()
    query = bench.normal(batch, heads, 1, width)
    key, value = (bench.normal(batch, heads, keys, width) for _ in range(2))

    def step(begin: Callable[[str], None]) -> None:
        begin("forward")
        with torch.no_grad():
            torch.nn.functional.scaled_dot_product_attention(query, key, value)
        begin("optimizer")

    return step, 0
