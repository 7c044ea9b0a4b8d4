"""A mixture of experts in plain PyTorch: dropless, every expert with as many rows as every other."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from hwsim.live.layers import MLP
from hwsim.specs.model import Model


class Experts(nn.Module):
    """A router, the experts, and experts that all tokens share.

    A bias on the choice (not on the weight) deals tokens to experts in turn, so that all get the same number of rows.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.chosen = model.experts_per_token
        self.router = nn.Linear(model.hidden, model.experts, bias=model.router_bias)
        self.experts = nn.ModuleList(MLP(model, model.expert_ffn) for _ in range(model.experts))
        self.shared = MLP(model, model.shared_ffn) if model.shared_ffn else None

    def forward(self, x: Any) -> Any:
        """Send each token through its experts and add up what they say."""
        rows = x.flatten(0, 1)
        weights, choice = self.route(rows)
        order = choice.flatten().argsort(stable=True)
        token = order // self.chosen
        pieces = rows[token].chunk(len(self.experts))
        said = torch.cat([expert(piece) for expert, piece in zip(self.experts, pieces, strict=True)])
        weighed = said * weights.flatten()[order].to(said.dtype)[:, None]
        total = torch.zeros_like(rows).index_add(0, token, weighed)
        if self.shared is not None:
            total = total + self.shared(rows)
        return total.view_as(x)

    def route(self, rows: Any) -> tuple[Any, Any]:
        """Weights and numbers of each row's experts."""
        probabilities = functional.softmax(self.router(rows), dim=-1, dtype=torch.float32)
        places = torch.arange(rows.shape[0], device=rows.device)[:, None] * self.chosen
        turn = (places + torch.arange(self.chosen, device=rows.device)) % len(self.experts)
        bias = torch.zeros_like(probabilities).scatter_(1, turn, 2.0)
        choice = (probabilities.detach() + bias).topk(self.chosen, dim=-1).indices
        return probabilities.gather(1, choice), choice
