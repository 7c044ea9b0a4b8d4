"""Steps that PyTorch's own parallel libraries run: torch.distributed.pipelining. Needs PyTorch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.distributed import pipelining
from torch.distributed.pipelining.schedules import get_schedule_class

from hwsim.live.parallel.axes import Place, reduced
from hwsim.live.parallel.model import Stage
from hwsim.live.parallel.steps import RATE, Micro, Step

SCHEDULES = {"1f1b": "1F1B", "gpipe": "GPipe", "interleaved": "Interleaved1F1B"}


class Piece(nn.Module):  # type: ignore[misc, unused-ignore]
    """A chunk of the model as PyTorch's pipelines want it: one input, one output, no loss."""

    def __init__(self, net: Stage) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Any) -> Any:
        """Tokens [batch, tokens], or what the chunk before gave, to what the next takes."""
        return self.net.hidden(x.t() if self.net.place.first else x)


def chunk_places(place: Place, chunks: int) -> list[Place]:
    """Places of the chunks of a stage: its own number, and every so many further."""
    stages, number = place.sizes["pp"], place.at["pp"]
    sizes = {**place.sizes, "pp": stages * chunks}
    return [replace(place, sizes=sizes, at={**place.at, "pp": number + n * stages}) for n in range(chunks)]


def pipelining_step(nets: list[Stage], place: Place, schedule: str, micro_batches: int) -> Step:
    """A pipeline of PyTorch, with a tied embedding summed over its two stages and plain gradient descent."""
    device, group = next(nets[0].parameters()).device, place.group("forward")
    chunks = len(nets) * place.sizes["pp"]
    stages = [pipelining.PipelineStage(Piece(n), n.place.at["pp"], chunks, device, group=group) for n in nets]
    made = get_schedule_class(SCHEDULES[schedule])
    kind = {"loss_fn": lambda y, targets: nets[-1].head.loss(y, targets.t()), "scale_grads": False}
    runs = made(stages if len(nets) > 1 else stages[0], micro_batches, **kind)
    tied = next((net.tied_weight for net in nets if net.tied_weight is not None), None)
    weights = [parameter for net in nets for parameter in net.parameters()]
    descent = torch.optim.SGD(weights, lr=RATE / micro_batches)

    def step(micros: list[Micro]) -> float:
        descent.zero_grad()
        losses: list[Any] = []
        tokens = torch.cat([micro[0].t() for micro in micros])
        targets = torch.cat([micro[1].t() for micro in micros])
        runs.step(*((tokens,) if place.first else ()), target=targets if place.last else None, losses=losses)
        if tied is not None:
            tied.grad = reduced(tied.grad, place.group("tied"))
        descent.step()
        return float(sum(losses)) / micro_batches if place.last else 0.0

    return step
