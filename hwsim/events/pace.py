"""What a replica asks of a cost model: how long its steps take."""

from __future__ import annotations

from math import inf
from typing import Protocol


class Pace(Protocol):
    """How long the steps of a replica take."""

    def step_s(self, decodes: int, context: float, chunks: int, tokens: int, past: float, ended: int) -> float:
        """One step: `decodes` running sequences make a token each over a mean of `context` tokens in their cache (the
        new one included), beside `chunks` prompt chunks of `tokens` tokens in all that attend to a mean of `past`
        earlier tokens; `ended` of the chunks are the last of their prompt, and yield a token. [s]
        """

    def run(self, decodes: int, context: float, most: int, seconds: float = inf) -> tuple[int, float]:
        """Steps of decodes alone, the context growing by one token each: the fewest that take at least `seconds`, but
        1 to `most`; and the time they take. [s]
        """
