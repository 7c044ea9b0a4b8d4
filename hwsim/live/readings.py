"""What a real PyTorch model does in a training step: FLOPs, bytes saved for backward, bytes of state, peak memory."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import SGD, AdamW
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

Batch = tuple[Any, ...]
aten = torch.ops.aten


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward_flops(output: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(output, query, key, value))


CPU_ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}
"""PyTorch's counter leaves out the CPU's fused attention: counted by its own formulas for the GPU's."""
MULTIPLIES = (aten.mm.default, aten.bmm.default, aten.addmm.default)
"""Operators on matrices, which are their last argument."""
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "adam": lambda parameters: AdamW(parameters, lr=1e-4, foreach=False),
    "momentum": lambda parameters: SGD(parameters, lr=1e-4, momentum=0.9, foreach=False),
    "sgd": lambda parameters: SGD(parameters, lr=1e-4, foreach=False),
}
"""hwsim's name of an update rule to PyTorch's, one parameter after the other."""


@dataclass(frozen=True)
class Passes:
    """One forward and backward pass. [FLOP, byte]"""

    forward_flops: int
    backward_flops: int
    saved_bytes: int
    """Storages saved for the backward pass, each once, without parameters and scalars."""


@dataclass(frozen=True)
class States:
    """What stays between steps. [byte]"""

    parameters: int
    gradients: int
    optimizers: dict[str, int]
    """Of each update rule, without scalars (step counters)."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch count on one thread: several that share a busy core wait for each other for minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class WideMultiplies(TorchDispatchMode):
    """Multiplies in fp32 what is bf16: sizes are the same, and PyTorch's own takes a hundred times as long on CPUs
    without units for it.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator."""
        if func in MULTIPLIES and args[-1].dtype == torch.bfloat16:
            return func(*(factor.float() for factor in args), **(kwargs or {})).to(torch.bfloat16)
        return func(*args, **(kwargs or {}))


def tensor_bytes(tensors: Any) -> int:
    """Bytes of tensors with at least one dimension. [byte]"""
    return sum(t.numel() * t.element_size() for t in tensors if torch.is_tensor(t) and t.dim())


def run_passes(model: Any, batch: Batch) -> Passes:
    """Count FLOPs and saved bytes of one forward and backward pass."""
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    saved: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if tensor.dim() and storage._cdata not in weights:
            saved[storage._cdata] = storage
        return tensor

    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(*batch)
        forward = counter.get_total_flops()
        saved_bytes = sum(storage.nbytes() for storage in saved.values())
        saved.clear()
        loss.backward()
    return Passes(forward, counter.get_total_flops() - forward, saved_bytes)


def states(model: Any) -> States:
    """Bytes of the weights and gradients of a model that ran its passes, and of what every optimizer keeps of them."""
    gradients = [parameter.grad for parameter in model.parameters()]
    optimizers = {}
    for name, make in OPTIMIZERS.items():
        update = make(model.parameters())
        update.step()
        optimizers[name] = tensor_bytes(kept(update))
    return States(tensor_bytes(model.parameters()), tensor_bytes(gradients), optimizers)


def kept(update: Any) -> list[Any]:
    """Tensors of an optimizer's state."""
    return [value for state in update.state.values() for value in state.values() if torch.is_tensor(value)]


@dataclass
class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operators make while it is entered, and the most there were at once."""

    now: int = 0
    peak: int = 0
    at: str = ""
    """Operator at the peak."""
    known: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start as a mode."""
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and take note of what it made."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if torch.is_tensor(tensor):
                self.note(tensor)
        if self.now > self.peak:
            self.peak, self.at = self.now, str(func)
        return made

    def note(self, tensor: Any) -> None:
        """Count the storage of a tensor until it is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        size = storage.nbytes()

        def freed(_: Any) -> None:
            self.now -= size
            self.known.pop(key, None)

        self.known[key] = weakref.ref(storage, freed)
        self.now += size


def peak_bytes(model: Any, optimizer: str, batches: tuple[Batch, Batch]) -> int:
    """Most bytes alive at once in a step of two micro-batches, after a step that made the optimizer's state. [byte]"""
    update = OPTIMIZERS[optimizer](model.parameters())

    def step(*micro_batches: Batch) -> None:
        update.zero_grad()
        for batch in micro_batches:
            model(*batch).backward()
        update.step()

    step(batches[0])
    live = LiveBytes()
    for tensor in held(model, update, batches):
        live.note(tensor)
    with live:
        step(*batches)
    return live.peak


def held(model: Any, update: Any, batches: tuple[Batch, Batch]) -> list[Any]:
    """Tensors that are there before a step begins: weights, gradients, optimizer state, the tokens."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    tokens = [tensor for batch in batches for tensor in batch]
    return [*model.parameters(), *model.buffers(), *gradients, *kept(update), *tokens]


def cuda_peak_bytes(model: Any, optimizer: str, batches: tuple[Batch, Batch]) -> int:
    """The same as the CUDA allocator counts it. [byte]"""
    update = OPTIMIZERS[optimizer](model.parameters())
    for measured in (False, True):
        if measured:
            torch.cuda.reset_peak_memory_stats()
        update.zero_grad()
        for batch in batches:
            model(*batch).backward()
        update.step()
    return int(torch.cuda.max_memory_allocated())


def step_seconds(model: Any, batches: tuple[Batch, Batch], device: str, times: int = 3) -> dict[str, float]:
    """Median times of the forward and backward passes and of the whole step, after two steps that warm up. [s]"""
    update = OPTIMIZERS["adam"](model.parameters())
    found: dict[str, list[float]] = {"forward": [], "backward": [], "step": []}
    for _ in range(times + 2):
        marks = {"forward": 0.0, "backward": 0.0}
        begin = now(device)
        update.zero_grad()
        for batch in batches:
            start = now(device)
            loss = model(*batch)
            middle = now(device)
            loss.backward()
            marks["forward"] += middle - start
            marks["backward"] += now(device) - middle
        update.step()
        for name, seconds in (marks | {"step": now(device) - begin}).items():
            found[name].append(seconds)
    return {name: statistics.median(seconds[2:]) for name, seconds in found.items()}


def now(device: str) -> float:
    """The clock, once the device has done what it was given. [s]"""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
