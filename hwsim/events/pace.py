"""What a replica asks of a cost model: how long its steps take."""

from __future__ import annotations

from typing import Protocol


class Pace(Protocol):
    """How long the steps of a replica take."""

    def step_s(self, decodes: int, context: float, chunks: int, tokens: int, past: float, ended: int) -> float:
        """One step: `decodes` running sequences make a token each over a mean of `context` tokens in their cache (the
        new one included), beside `chunks` prompt chunks of `tokens` tokens in all that attend to a mean of `past`
        earlier tokens; `ended` of the chunks are the last of their prompt, and yield a token. [s]
        """

    def run_s(self, decodes: int, context: float, steps: int) -> float:
        """`steps` steps of decodes alone, the context growing by one token each. [s]"""

    def steps_in(self, decodes: int, context: float, seconds: float, most: int) -> int:
        """Fewest steps, 1 to `most`, that take at least `seconds`."""
