"""Counts every collective that PyTorch really issues, whoever issues it: DDP, FSDP, autograd or plain code.

All of them pass through PyTorch's dispatcher as operators of the namespace c10d; there they are seen. Needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

KINDS = {
    "allreduce_": ("all_reduce", 0),
    "_allgather_base_": ("all_gather", 0),
    "_reduce_scatter_base_": ("reduce_scatter", 1),
    "alltoall_base_": ("all_to_all", 1),
    "send": ("send_recv", 0),
}
"""Operator to its kind and the argument that is its payload in the sense of nccl-tests."""
FUNCTIONAL = {
    "all_reduce": "all_reduce",
    "all_gather_into_tensor": "all_gather",
    "reduce_scatter_tensor": "reduce_scatter",
    "all_to_all_single": "all_to_all",
}
"""The same of those that DTensor issues; their payload is the larger of input and output."""
RECEIVES = ("recv_", "barrier")
SPLITS = 4
"""Argument of an all-to-all that says how many rows go to each member."""


class Counts(TorchDispatchMode):  # type: ignore[misc, unused-ignore]
    """Calls and bytes by group and kind while it is entered."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        super().__init__()
        self.labels = labels
        """PyTorch's name of a group to ours."""
        self.found: dict[str, list[int]] = {}
        """"group/kind" to calls, payload, and what an all-to-all sends to others. [byte]"""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note a collective and let it run."""
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # what it does with its local tensors comes by next
        result = func(*args, **(kwargs or {}))
        if func.namespace == "c10d":
            self._note(func._opname, args)
        elif func.namespace == "_c10d_functional" and func._opname in FUNCTIONAL:
            self._add(str(args[-1]), FUNCTIONAL[func._opname], max(_bytes(args[0]), _bytes(result)))
        return result

    def _note(self, name: str, args: Any) -> None:
        if name in RECEIVES:
            return
        kind, argument = KINDS.get(name, (name, 0))
        group = _group(args)
        size = _bytes(args[argument])
        self._add(group.group_name, kind, size, size - _kept(args, group, size) if kind == "all_to_all" else 0)

    def _add(self, group: str, kind: str, size: int, away: int = 0) -> None:
        entry = self.found.setdefault(f"{self.labels.get(group, group)}/{kind}", [0, 0, 0])
        for n, value in enumerate((1, size, away)):
            entry[n] += value


def _group(args: Any) -> Any:
    """The process group among the arguments of an operator."""
    for argument in args:
        if isinstance(argument, torch.ScriptObject):
            return dist.ProcessGroup.unbox(argument)
    msg = "a collective without a group"
    raise TypeError(msg)


def _bytes(value: Any) -> int:
    """Of a tensor, or of all in a list. [byte]"""
    if isinstance(value, torch.Tensor):
        return int(value.numel() * value.element_size())
    return sum(_bytes(item) for item in value)


def _kept(args: Any, group: Any, size: int) -> int:
    """Bytes of an all-to-all that stay with their sender."""
    splits = list(args[SPLITS])
    if not splits:
        return size // int(group.size())
    return int(size * splits[group.rank()] / max(sum(splits), 1))
