"""Search every strategy for training: legality, then a memory bound, then full cost of the survivors, in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.analytic.blocks import Weights
from hwsim.analytic.communication import weight_blocks
from hwsim.analytic.memory import Share, state_bytes, weight_bytes
from hwsim.analytic.setting import Setting
from hwsim.analytic.training import TrainingColumns, evaluate, illegal
from hwsim.costs.network import AXES
from hwsim.formulas import pipeline
from hwsim.formulas.types import Numeric
from hwsim.ops.axes import data
from hwsim.search.pareto import pareto_front
from hwsim.search.space import Index, Space, repeated_orders, repeated_shardings
from hwsim.specs.job import TrainingJob
from hwsim.specs.strategy import Strategies, strategies

OUT_OF_MEMORY = "out of memory"
DUPLICATE = "same as another candidate"
CORE_CHUNK = 1 << 16
ROWS_PER_CHUNK = 1 << 17
FEW_ROWS = 1 << 14
"""Rows that are costed in about the time that an evaluation takes to begin."""
FRONT_PROBES = 8
HEADROOM = 0.04
"""Share of device memory a plan leaves free, since estimates err and peaks vary."""
Score = Callable[[TrainingColumns], npt.NDArray[np.float64]]
Column = npt.NDArray[np.float64]


@dataclass
class Found:
    """What a search has seen so far: running counts and the best, never the rows themselves."""

    candidates: int = 0
    evaluated: int = 0
    feasible: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    best: dict[tuple[float, ...], tuple[float, float, int, Space]] = field(default_factory=dict)
    """Mesh to (score, reserved bytes, candidate index, space)."""
    front: list[tuple[float, float, float, int, Space]] = field(default_factory=list)
    """(step seconds, reserved bytes, devices, candidate index, space), not dominated."""
    closest_bytes: float = float("inf")
    """Least memory that any legal candidate needs (a lower bound where none was worth costing)."""

    def most_rejected(self, count: int | None = None) -> list[tuple[str, int]]:
        """The most frequent reasons first."""
        return sorted(self.rejected.items(), key=lambda item: -item[1])[:count]

    def note_closest(self, needed_bytes: float) -> None:
        """Remember how little memory a legal candidate can do with."""
        self.closest_bytes = min(self.closest_bytes, needed_bytes)

    def reject(self, reason: str, count: int) -> None:
        """Count candidates rejected for `reason`."""
        if count:
            self.rejected[reason] = self.rejected.get(reason, 0) + count


def search(setting: Setting, space: Space, score: Score, found: Found) -> None:
    """Evaluate every candidate of `space` into `found`; `score` is minimised."""
    found.candidates += space.candidates
    for rule, count in space.dropped.items():
        found.reject(rule, count * space.per_mesh)
    for core_index in space.core_chunks(CORE_CHUNK):
        alike = _alike(space, _legal_cores(setting, space, core_index, found))
        for chunk in _joined([_narrowed(setting, space, cores, found) for cores in alike]):
            for part in chunk.parts():
                _cost(setting, part, score, found)


def _alike(space: Space, core_index: Index) -> list[Index]:
    """Cores grouped by which axes they use at all: those of a group leave the same open choices."""
    s = space.decode(core_index)
    used = np.zeros(len(core_index), dtype=np.int64)
    for axis in AXES:
        used = 2 * used + (getattr(s, axis) > 1)
    return [core_index[used == kind] for kind in np.unique(used)]


def _narrowed(setting: Setting, space: Space, core_index: Index, found: Found) -> _Chunk:
    """A group of cores, open axes narrowed to the positions that any of them can use."""
    s = space.grid(core_index)
    alive = np.ones((*space.outer_shape, len(core_index)), dtype=bool)
    for reason, mask in (unwanted(setting, space, s) | illegal(setting.model, s)).items():
        _drop(found, alive, reason, mask)
    axes = range(alive.ndim - 1)
    picks = [np.flatnonzero(alive.any(axis=tuple(a for a in range(alive.ndim) if a != axis))) for axis in axes]
    found.evaluated += int(np.count_nonzero(alive))
    return _Chunk(space, core_index, picks, alive[np.ix_(*picks, np.arange(len(core_index)))])


def _joined(chunks: Sequence[_Chunk]) -> list[_Chunk]:
    """Chunks with candidates, those together whose grid is hardly larger than theirs: each takes a while to begin."""
    kept: list[_Chunk] = []
    for chunk in sorted(chunks, key=lambda chunk: -chunk.alive.size):
        if not np.any(chunk.alive):
            continue
        for place, other in enumerate(kept):
            if other.size_with(chunk) - other.alive.size - chunk.alive.size <= FEW_ROWS:
                kept[place] = other.join(chunk)
                break
        else:
            kept.append(chunk)
    return kept


@dataclass
class _Chunk:
    """Some cores against the picked positions of the open axes, and which of those candidates are alive."""

    space: Space
    core_index: Index
    picks: list[Index]
    alive: npt.NDArray[np.bool_]

    def candidate(self, coordinates: Sequence[Any]) -> int:
        """Flat candidate index of coordinates in this chunk."""
        *outer, core = coordinates
        chosen = [positions[coordinate] for positions, coordinate in zip(self.picks, outer, strict=True)]
        return int(self.space.flat_index(chosen, self.core_index[core]))

    def parts(self) -> Iterator[_Chunk]:
        """The chunk in pieces that stay in the cache, those without candidates left out."""
        size = max(1, ROWS_PER_CHUNK // max(prod(self.alive.shape[:-1]), 1))
        for start in range(0, len(self.core_index), size):
            cores = slice(start, start + size)
            alive = self.alive[..., cores]
            if np.any(alive):
                yield _Chunk(self.space, self.core_index[cores], self.picks, alive)

    def size_with(self, other: _Chunk) -> int:
        """Rows of one grid that holds this chunk and another."""
        outer = prod(len(np.union1d(mine, its)) for mine, its in zip(self.picks, other.picks, strict=True))
        return outer * (len(self.core_index) + len(other.core_index))

    def join(self, other: _Chunk) -> _Chunk:
        """One chunk that holds the candidates of this one and of another."""
        picks = [np.union1d(mine, its) for mine, its in zip(self.picks, other.picks, strict=True)]
        cores = np.concatenate([self.core_index, other.core_index])
        alive = np.zeros((*map(len, picks), len(cores)), dtype=bool)
        for part, first in ((self, 0), (other, len(self.core_index))):
            places = [np.searchsorted(all_of, own) for all_of, own in zip(picks, part.picks, strict=True)]
            alive[np.ix_(*places, np.arange(first, first + len(part.core_index)))] = part.alive
        return _Chunk(self.space, cores, picks, alive)


def _legal_cores(setting: Setting, space: Space, core_index: Index, found: Found) -> Index:
    """Cores that are legal whatever the open axes say, and whose model state can fit."""
    outer = prod(space.outer_shape)
    s = space.decode(core_index)
    off, one = np.zeros_like(s.tp), np.ones_like(s.tp)
    easiest = {"zero": off, "shard": s.dp * s.cp, "sequence_parallel": one * (setting.model.experts > 0)}
    plain = Strategies(**{**s.__dict__, **easiest, "ep": one, "etp": one})
    alive = np.ones(len(core_index), dtype=bool)
    for reason, mask in illegal(setting.model, plain).items():
        bad = alive & mask
        found.reject(reason, int(np.count_nonzero(bad)) * outer)
        alive = alive & ~bad
    kept = core_index[alive]
    least = _least_bytes(setting, space, s.take(alive))
    fits = least <= _capacity(setting)
    found.reject(OUT_OF_MEMORY, int(np.count_nonzero(~fits)) * outer)
    if len(kept) and not np.any(fits):
        found.note_closest(float(least.min()))
    return kept[fits]


def _capacity(setting: Setting) -> float:
    """Memory a plan may use. [byte]"""
    return setting.hardware.accelerator.memory.usable * (1.0 - HEADROOM)


def _least_bytes(setting: Setting, space: Space, s: Strategies) -> npt.NDArray[np.float64]:
    """A lower bound on memory: the layers' model state under the best sharding on offer, and one input per layer."""
    job, model, net = setting.job, setting.model, 1.0 * setting.layers
    single = strategies(devices=1, global_batch=1, seq_len=1, zero=0)
    share = Share(0.0, tuple(1.0 * segment.layers / net for segment in setting.segments), 0.0, 0.0)
    blocks = weight_blocks(setting, single)
    dense, routed = (share.weights(blocks, which) for which in ("dense", "experts"))
    fullest = pipeline.stage_layers(net, s.pp, s.vpp, np.minimum(1.0, s.pp - 1.0))
    layers = fullest if len(setting.segments) == 1 else net / s.pp
    least: npt.NDArray[np.float64] = np.full_like(s.tp, np.inf)
    for zero, shard in space.shardings:
        ranks = s.dp * s.cp if shard == 0 else np.minimum(shard, s.dp * s.cp)
        sharded = Strategies(**{**s.__dict__, "zero": np.full_like(s.tp, zero), "shard": ranks})
        where = {3: "weights", 2: "optimizer", 1: "optimizer"}
        kept = [data.kept_fraction(stage, sharded) * (where[stage] not in job.offload) for stage in (3, 2, 1)]
        state = _state(dense, job, kept) / s.tp + _state(routed, job, kept) / (s.tp * s.cp * s.dp)
        least = np.minimum(least, layers * state)
    inputs = layers * s.micro_batch * s.seq_len / s.cp / s.tp * model.hidden * setting.precision.activation
    inputs = inputs * ("activations" not in job.offload) * (len({segment.stack for segment in setting.segments}) == 1)
    bound: npt.NDArray[np.float64] = least + inputs + job.framework.context
    return bound


def _state(weights: Weights, job: TrainingJob, kept: Sequence[Numeric]) -> Numeric:
    """Bytes of some weights with their gradients and optimizer state, as much of each as is kept."""
    gradients = weights.trained * job.gradient_bytes
    return weight_bytes(weights, job) * kept[0] + gradients * kept[1] + state_bytes(weights, job) * kept[2]


def _cost(setting: Setting, chunk: _Chunk, score: Score, found: Found) -> None:
    """Cost a chunk and fold it into `found`."""
    alive, s = chunk.alive, chunk.space.grid(chunk.core_index, chunk.picks)
    columns = evaluate(setting, s)
    reserved = np.broadcast_to(columns.memory.reserved_bytes, alive.shape)
    if np.any(alive):
        found.note_closest(float(reserved[alive].min()))
    _drop(found, alive, OUT_OF_MEMORY, columns.memory.reserved_bytes > _capacity(setting))
    found.feasible += int(np.count_nonzero(alive))
    _note_best(chunk, np.where(alive, score(columns), np.inf), reserved, s, found)
    _note_front(chunk, np.where(alive, columns.step_time_s, np.inf), reserved, found)


def unwanted(setting: Setting, space: Space, s: Strategies) -> dict[str, npt.NDArray[np.bool_]]:
    """Candidates that a plan leaves out though an estimate would take them: repeats, and what nobody runs."""
    chunks, layers = s.pp * s.vpp, 1.0 * setting.layers
    uneven = (np.mod(layers, chunks) != 0) & (np.mod(layers + 2.0, chunks) != 0)
    useless = (s.sequence_parallel > 0) & (s.tp == 1) & (len(space.sequence_parallels) > 1)
    return {
        DUPLICATE: repeated_orders(s),
        f"{DUPLICATE}: sharding": repeated_shardings(s),
        f"{DUPLICATE}: sequence parallelism without tp": useless,
        "vpp splits the layers unevenly": (s.vpp > 1) & uneven,
        "micro-batches do not divide by pp (interleaved)": (s.vpp > 1) & (np.mod(s.micro_batches, s.pp) != 0),
        "zero stage is not run with a pipeline": (s.pp > 1)
        & (s.zero > setting.job.framework.zero_with_pipeline)
        & bool(np.any(space.shardings[:, 0] <= setting.job.framework.zero_with_pipeline)),
    }


def _drop(found: Found, alive: npt.NDArray[np.bool_], reason: str, mask: npt.NDArray[np.bool_]) -> None:
    """Reject what is still alive under `mask`, in place."""
    if np.any(mask):
        before = int(np.count_nonzero(alive))
        np.logical_and(alive, ~np.broadcast_to(mask, alive.shape), out=alive)
        found.reject(reason, before - int(np.count_nonzero(alive)))


def _note_best(chunk: _Chunk, scores: Column, reserved: Column, s: Strategies, found: Found) -> None:
    """Remember the best candidate of every mesh; of equals the one that needs least memory."""
    flat, memory = (values.reshape(-1, scores.shape[-1]) for values in (scores, reserved))
    best = flat.min(axis=0)
    winner = np.where(flat == best, memory, np.inf).argmin(axis=0)
    needed = memory[winner, np.arange(len(best))]
    meshes = np.stack([s.tp, s.cp, s.dp, s.pp], axis=1)
    for core in np.flatnonzero(np.isfinite(best)):
        mesh, value = tuple(meshes[core].tolist()), (float(best[core]), float(needed[core]))
        known = found.best.get(mesh)
        if known is None or value < known[:2]:
            outer = np.unravel_index(winner[core], scores.shape[:-1])
            found.best[mesh] = (*value, chunk.candidate((*outer, core)), chunk.space)


def _note_front(chunk: _Chunk, seconds: Column, reserved: Column, found: Found) -> None:
    """Fold a chunk into the front of time, memory and devices: a few probes clear most rows, the rest is exact."""
    mask = np.isfinite(seconds)
    same = [point for point in found.front if point[2] <= chunk.space.devices]
    for point in same[:: max(1, len(same) // FRONT_PROBES)]:
        mask &= (seconds < point[0]) | (reserved < point[1])
    index = np.flatnonzero(mask)
    if not len(index):
        return
    times, needed = seconds.reshape(-1)[index], reserved.reshape(-1)[index]
    order = np.lexsort((needed, times))
    lowest = np.minimum.accumulate(needed[order])
    first = np.concatenate(([True], lowest[1:] < lowest[:-1]))
    for position in order[first]:
        candidate = chunk.candidate(np.unravel_index(index[position], seconds.shape))
        devices = float(chunk.space.devices)
        found.front.append((float(times[position]), float(needed[position]), devices, candidate, chunk.space))
    found.front = [found.front[i] for i in pareto_front(np.array([point[:3] for point in found.front]))]
