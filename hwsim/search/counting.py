"""Which number of nodes to try next: few trials of something that costs a second each and need not grow evenly.

A trial tells how far a count reaches: 1 or more is enough. Counts that do not split the batch reach less than their
neighbours, so nothing is taken for monotone that was not tried: where few counts are left all of them are tried, and
round ones beside the last are tried in any case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil, log

EXHAUSTIVE = 12
"""So few counts are all tried."""
FINE = 256
"""The smallest count is found to within this part of itself, and exactly below it."""
GUESSED_SHARE = 0.42
"""Of the closed form's peak: where the first trial is made."""
BETTER = 1.02
"""How far a count may outdo, per node, the best one tried."""
AWKWARD = 0.65
"""How far below an awkward count that will do a round one may do as well."""
STRIDE = 4
"""Between the rungs of a ladder of counts."""
NEAR = 25
"""A count within this part of itself may stand in for another one that is less round."""
WIDER = 1.15
"""How far above the largest count that will do round ones are tried."""


@dataclass
class Trials:
    """What was tried: count to how far it reaches."""

    reach: Callable[[int], float]
    """1 or more: enough; 0: nothing fits."""
    most: int
    """Largest count."""
    limit: int
    """Trials that may be made."""
    seen: dict[int, float] = field(default_factory=dict)
    round: int = 4
    """Of those trials, how many are for round counts beside the last."""

    @property
    def left(self) -> int:
        """Trials that may still be made."""
        return self.limit - len(self.seen)

    def at(self, count: int) -> float:
        """Try a count, or remember it."""
        if count not in self.seen:
            self.seen[count] = self.reach(count)
        return self.seen[count]

    @property
    def best_each(self) -> float:
        """Furthest reach per node so far."""
        return max((reach / count for count, reach in self.seen.items()), default=0.0)


def seek_smallest(trials: Trials, least: int, ideal: float) -> None:
    """Try counts from `least` until the smallest that is enough is among those tried, where reach grows with count;
    `ideal` would be enough at the peak of the devices.
    """
    if trials.most < least:
        return
    if trials.most - least < EXHAUSTIVE:
        for count in range(least, trials.most + 1):
            if trials.at(count) >= 1.0:
                return
        return
    failed, met = least - 1, trials.most + 1
    met = min([met, *(count for count, reach in trials.seen.items() if reach >= 1.0)])
    failed = max([failed, *(count for count in trials.seen if count < met)])
    wanted = ceil(met / trials.at(met)) if met <= trials.most else max(ceil(ideal / GUESSED_SHARE), least)
    halve = False
    while met - failed > max(1, met // FINE) and trials.left > trials.round:
        count, gap = roundest(wanted, failed, met), met - failed
        reach = trials.at(count)
        failed, met = (failed, count) if reach >= 1.0 else (count, met)
        halve = met <= trials.most and not halve and met - failed > 0.5 * gap
        wanted = (failed + met) // 2 if halve else ceil(count / reach) if reach > 0.0 else 2 * count
    for time in range(trials.round):  # what few odd factors do better, the last ones tried may not tell
        met = min([trials.most + 1, *(count for count, reach in trials.seen.items() if reach >= 1.0)])
        likely = ceil(1.0 / (BETTER * trials.best_each)) if trials.best_each > 0.0 else least
        if time == 0 and odd_part(met) > 3:
            likely = min(likely, ceil(AWKWARD * met))
        _try_round(trials, max(least, likely), met, 1)


def seek_largest(trials: Trials, first: int) -> None:
    """Try counts until the largest that is enough is among those tried, where reach falls with count."""
    if trials.most <= EXHAUSTIVE:
        for count in range(1, trials.most + 1):
            trials.at(count)
        return
    met = max([0, *(count for count, reach in trials.seen.items() if reach >= 1.0)])
    failed = min([trials.most + 1, *(count for count in trials.seen if count > met)])
    if not met or failed > STRIDE * met:
        met, failed = _ladder(trials, min(max(first, met, 1), trials.most))
    while met > 0 and failed - met > max(1, met // 100) and trials.left > trials.round:
        good, bad = trials.at(met), trials.seen.get(failed, 0.0)
        share = log(good) / (log(good) - log(bad)) if bad > 0.0 and good > bad else 0.5
        count = round(met * (failed / met) ** min(max(share, 0.1), 0.9))
        count = roundest(count, met, failed)
        met, failed = (count, failed) if trials.at(count) >= 1.0 else (met, count)
    if met:
        _try_round(trials, met + 1, min(int(WIDER * failed), trials.most) + 1, trials.round)


def _ladder(trials: Trials, first: int) -> tuple[int, int]:
    """The highest rung that is enough (0: none) and the one above it that is not, going up, then down if none was."""
    met, count = 0, first
    while trials.left > trials.round:
        if trials.at(count) >= 1.0:
            met = count
        elif met or trials.at(count) < max(trials.seen.values()):
            break
        if count == trials.most:
            break
        count = min(STRIDE * count, trials.most)
    if met:
        return met, trials.most + 1 if met == count else count
    failed, count = first, first // 2
    while count and trials.left > trials.round:
        if trials.at(count) >= 1.0:
            return count, failed
        failed, count = count, count // 2
    return 0, first


def odd_part(count: int) -> int:
    """What is left of a count without its twos: 1 for the roundest.

    Examples
    --------
    >>> [odd_part(count) for count in (32, 48, 37)]
    [1, 3, 37]
    """
    return count // (count & -count)


def roundest(count: int, low: int, high: int) -> int:
    """The roundest count near another one, between `low` and `high` (exclusive).

    Examples
    --------
    >>> roundest(123, 0, 1000), roundest(5, 4, 6)
    (124, 5)
    """
    count = min(max(count, low + 1), high - 1)
    near = count // NEAR
    return min(range(max(count - near, low + 1), min(count + near, high - 1) + 1), key=odd_part)


def _try_round(trials: Trials, low: int, high: int, most: int) -> None:
    """Try the roundest counts from `low` to below `high` that were not tried: powers of two times little."""
    untried = [count for count in range(low, high) if count not in trials.seen]
    untried.sort(key=lambda count: (odd_part(count), count))
    for count in untried[: max(min(most, trials.left), 0)]:
        trials.at(count)
