"""Latency bounds that a share of the requests must keep."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from hwsim.errors import UsageError
from hwsim.events.ledger import Ledger


@dataclass(frozen=True)
class Slo:
    """Bounds on what clients see."""

    ttft_s: float = inf
    """Time to first token. [s]"""
    tpot_s: float = inf
    """Mean time between the tokens after it. [s]"""
    percentile: float = 99.0
    """Percent of the requests that must keep each bound."""

    def __post_init__(self) -> None:
        if not (self.ttft_s > 0 and self.tpot_s > 0 and 0 < self.percentile <= 100):
            msg = "an SLO needs ttft_s and tpot_s above 0 and a percentile above 0, up to 100"
            raise UsageError(msg)


class Watch:
    """Counts requests that miss their bounds while a run goes on."""

    def __init__(self, slo: Slo, requests: int, ledger: Ledger) -> None:
        self.slo, self.ledger = slo, ledger
        self._most = (1.0 - slo.percentile / 100.0) * requests + 1.0
        """At so many misses the percentile is above the bound, whatever the rest does."""
        self._late = self._slow = 0

    def is_missed(self, request: int) -> bool:
        """Whether the bounds are out of reach, now that a request has ended."""
        ledger, slo = self.ledger, self.slo
        first_s, more = ledger.first_s[request], ledger.outputs[request] - 1
        self._late += first_s - ledger.arrival_s[request] > slo.ttft_s
        self._slow += more > 0 and ledger.finish_s[request] - first_s > slo.tpot_s * more
        return self._late >= self._most or self._slow >= self._most
