"""Training steps under each way of sharing the batch, the weights and the layers. Needs PyTorch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from hwsim.live.parallel.axes import Place, gather, reduced, scatter
from hwsim.live.parallel.layers import mine
from hwsim.live.parallel.model import Stage

RATE = 0.5
"""Of plain gradient descent."""
ONE_BUCKET = 1024
"""Size of DDP's buckets that holds the gradients of every model here in one. [MiB]"""
Micro = tuple[Any, Any]
"""Tokens and targets of a micro-batch, [tokens, batch]."""
Step = Callable[[list[Micro]], float]
"""Takes the micro-batches of a step and gives their mean loss (0 where another stage has it)."""


def plain_step(net: Stage, place: Place, zero: int) -> Step:
    """Gradients in one buffer: all-reduced, or reduce-scattered and weights gathered (ZeRO 1)."""
    dense = [p for p in net.parameters() if not getattr(p, "expert", False)]
    experts = [p for p in net.parameters() if getattr(p, "expert", False)]

    def step(micros: list[Micro]) -> float:
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        loss = one_f_one_b(net, place, micros)
        sum_partial(dense, place)
        if net.tied_weight is not None:
            net.tied_weight.grad = reduced(net.tied_weight.grad, place.group("tied"))
        with torch.no_grad():
            update(dense, place.group("data"), place.copies, zero)
            update(experts, place.group("expert data"), place.copies, zero)
        return loss

    return step


def sum_partial(parameters: list[Any], place: Place) -> None:
    """Sum gradients that sequence parallelism leaves in parts, in one call."""
    parts = [p for p in parameters if getattr(p, "partial", False)]
    if not parts:
        return
    spread(reduced(flat([p.grad for p in parts]), place.group("partial")), [p.grad for p in parts])


def update(parameters: list[Any], group: Any, copies: int, zero: int) -> None:
    """Reduce gradients over a group and take a step of gradient descent."""
    if not parameters:
        return
    gradients, weights = flat([p.grad for p in parameters]) / copies, flat(parameters)
    if group is not None and zero:
        part = weights.chunk(group.size())[group.rank()] - RATE * scatter(gradients, group)
        weights = gather(part, group)
    else:
        weights = weights - RATE * (gradients if group is None else reduced(gradients, group))
    spread(weights, parameters)


def flat(tensors: list[Any]) -> Any:
    """All in one."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def spread(values: Any, tensors: list[Any]) -> None:
    """The way back."""
    for tensor, part in zip(tensors, values.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def one_f_one_b(net: Stage, place: Place, micros: list[Micro]) -> float:
    """All micro-batches forward and backward, alternating as soon as the pipeline is full."""
    stages, number = place.sizes["pp"], place.at["pp"]
    waiting: deque[tuple[Any, Any]] = deque()
    sent: list[Any] = []
    losses = 0.0
    warm = min(stages - number - 1, len(micros))
    for turn in range(len(micros) + warm):
        if turn < len(micros):
            tokens, targets = micros[turn]
            x = tokens if place.first else receive(net, place, tokens.shape[1]).requires_grad_()
            y = net(x, targets)
            if place.last:
                y = y / len(micros)
                losses += float(y)
            else:
                sent.append(hand_on(net, y.detach(), "forward"))
            waiting.append((x, y))
        if turn >= warm:
            x, y = waiting.popleft()
            y.backward(None if place.last else receive(net, place, y.shape[1], "backward"))
            if not place.first:
                sent.append(hand_on(net, x.grad, "backward"))
    for work, _ in sent:
        work.wait()
    return losses


def receive(net: Stage, place: Place, batch: int, way: str = "forward") -> Any:
    """What a neighbouring stage hands on; pieces that tensor-parallel peers were sent are put together."""
    group, weights = place.group(way), next(net.parameters())
    tokens, *others = net.boundary(batch)
    pieces = place.sizes["tp"] if net.m["scatters"] else 1
    came = torch.empty((tokens // pieces, *others), device=weights.device, dtype=weights.dtype)
    neighbour = place.at["pp"] + (-1 if way == "forward" else 1)
    dist.recv(came, dist.get_global_rank(group, neighbour), group=group)
    return gather(came, place.group("tp")) if pieces > 1 else came


def hand_on(net: Stage, message: Any, way: str) -> tuple[Any, Any]:
    """Start to send to another stage; forward and backward have a group each, so that neither waits for the other."""
    place = net.place
    group, neighbour = place.group(way), place.at["pp"] + (1 if way == "forward" else -1)
    message = (mine(message, place, 0) if net.m["scatters"] else message).contiguous()
    return dist.isend(message, dist.get_global_rank(group, neighbour), group=group), message


def ddp_step(net: Stage, place: Place) -> Step:
    """PyTorch's DistributedDataParallel, gradients accumulated over micro-batches and reduced with the last."""
    shared = nn.parallel.DistributedDataParallel(net, bucket_cap_mb=ONE_BUCKET, process_group=place.group("data"))
    descent = torch.optim.SGD(net.parameters(), lr=RATE)

    def step(micros: list[Micro]) -> float:
        descent.zero_grad()
        losses = 0.0
        for number, (tokens, targets) in enumerate(micros):
            last = number == len(micros) - 1
            with nullcontext() if last else shared.no_sync():
                loss = shared(tokens, targets) / len(micros)
                loss.backward()
            losses += float(loss)
        descent.step()
        return losses

    return step


def fsdp_step(net: Stage, mesh: Any, zero: int, keeps_root: bool, half: bool) -> Step:
    """PyTorch's fully_shard by layer: weights gathered every micro-batch (ZeRO 3) or once a step (ZeRO 2)."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    again = zero == 3
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if half else MixedPrecisionPolicy()
    for layer in net.layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=again, mp_policy=policy)
    fully_shard(net, mesh=mesh, reshard_after_forward=again and not keeps_root, mp_policy=policy)
    descent = torch.optim.SGD(net.parameters(), lr=RATE)

    def step(micros: list[Micro]) -> float:
        descent.zero_grad()
        losses = 0.0
        for number, (tokens, targets) in enumerate(micros):
            last = number == len(micros) - 1
            net.set_reshard_after_backward(again or last)
            net.set_requires_all_reduce(last)
            loss = net(tokens, targets) / len(micros)
            loss.backward()
            losses += float(loss)
        descent.step()
        return losses

    return step
