"""Search every strategy for training: legality, then a memory bound, then full cost of the survivors, in chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import numpy as np
import numpy.typing as npt

from hwsim.analytic.setting import Setting
from hwsim.analytic.training import TrainingColumns, evaluate, illegal
from hwsim.formulas import pipeline
from hwsim.ops.axes import data
from hwsim.search.pareto import pareto_front
from hwsim.search.space import Space, duplicates
from hwsim.specs.job import OPTIMIZER_STATE_BYTES
from hwsim.specs.strategy import Strategies

OUT_OF_MEMORY = "out of memory"
DUPLICATE = "same as another candidate"
CORE_CHUNK = 1 << 16
ROWS_PER_CHUNK = 1 << 17
FRONT_PROBES = 8
HEADROOM = 0.04
"""Share of device memory a plan leaves free, since estimates err and peaks vary."""
Score = Callable[[TrainingColumns], npt.NDArray[np.float64]]


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
    outer = prod(space.outer_shape)
    found.candidates += space.candidates
    for core_index in space.core_chunks(CORE_CHUNK):
        survivors = _legal_cores(setting, space, core_index, outer, found)
        rows = max(1, ROWS_PER_CHUNK // outer)
        for start in range(0, len(survivors), rows):
            _cost(setting, space, survivors[start : start + rows], score, found)


def _legal_cores(
    setting: Setting, space: Space, core_index: npt.NDArray[np.int64], outer: int, found: Found
) -> npt.NDArray[np.int64]:
    """Cores that are legal whatever the open axes say, and whose model state can fit."""
    s = space.decode(core_index)
    plain = Strategies(**{**s.__dict__, "zero": np.zeros_like(s.tp), "sequence_parallel": np.zeros_like(s.tp)})
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
    memory = setting.hardware.accelerator.memory
    return (memory.visible or memory.capacity) * (1.0 - HEADROOM)


def _least_bytes(setting: Setting, space: Space, s: Strategies) -> npt.NDArray[np.float64]:
    """A lower bound on memory: the layers' model state under the best sharding on offer, and one input per layer."""
    precision, framework, model = setting.precision, setting.job.framework, setting.model
    layers = pipeline.stage_layers(model.layers, s.pp, s.vpp, np.minimum(1.0, s.pp - 1.0))
    held = (
        layers * (setting.parameters.matmul - model.vocab * (model.embedding_dim or model.hidden)) / model.layers / s.tp
    )
    optimizer = precision.master + OPTIMIZER_STATE_BYTES[setting.job.optimizer]
    least: npt.NDArray[np.float64] = np.full_like(s.tp, np.inf)
    for zero, shard in space.shardings:
        ranks = s.dp * s.cp if shard == 0 else np.minimum(shard, s.dp * s.cp)
        sharded = Strategies(**{**s.__dict__, "zero": np.full_like(s.tp, zero), "shard": ranks})
        state = (
            precision.weight * data.kept_fraction(3, sharded)
            + framework.gradient_bytes * data.kept_fraction(2, sharded)
            + optimizer * data.kept_fraction(1, sharded)
        )
        least = np.minimum(least, held * state)
    inputs = layers * s.micro_batch * s.seq_len / s.cp / s.tp * model.hidden * precision.activation
    bound: npt.NDArray[np.float64] = least + inputs + framework.context
    return bound


def _cost(setting: Setting, space: Space, core_index: npt.NDArray[np.int64], score: Score, found: Found) -> None:
    """Cost the grid of the open axes against some cores and fold it into `found`."""
    s = space.grid(core_index)
    shape = (*space.outer_shape, len(core_index))
    alive = np.ones(shape, dtype=bool)
    for reason, mask in unwanted(setting, space, s).items():
        _drop(found, alive, reason, mask)
    for reason, mask in illegal(setting.model, s).items():
        _drop(found, alive, reason, mask)
    found.evaluated += int(np.count_nonzero(alive))
    columns = evaluate(setting, s)
    reserved = np.broadcast_to(columns.memory.reserved_bytes, shape)
    if np.any(alive):
        found.note_closest(float(reserved[alive].min()))
    _drop(found, alive, OUT_OF_MEMORY, columns.memory.reserved_bytes > _capacity(setting))
    found.feasible += int(np.count_nonzero(alive))
    _note_best(space, core_index, np.where(alive, score(columns), np.inf), reserved, s, found)
    _note_front(space, core_index, np.where(alive, columns.step_time_s, np.inf), reserved, found)


def unwanted(setting: Setting, space: Space, s: Strategies) -> dict[str, npt.NDArray[np.bool_]]:
    """Candidates that a plan leaves out though an estimate would take them: repeats, and what nobody runs."""
    data_ranks = s.dp * s.cp
    grouped = space.shardings[:, 1].reshape(1, 1, -1, 1, 1) > 0
    plain = np.any(space.shardings[:, 1] == 0)
    chunks = s.pp * s.vpp
    layers = 1.0 * setting.model.layers
    uneven = (np.mod(layers, chunks) != 0) & (np.mod(layers + 2.0, chunks) != 0)
    return {
        DUPLICATE: duplicates(s),
        f"{DUPLICATE}: sequence parallelism without tp": (s.sequence_parallel > 0)
        & (s.tp == 1)
        & (len(space.sequence_parallels) > 1),
        f"{DUPLICATE}: zero without dp or cp": (s.zero > 0) & (data_ranks == 1) & (len(space.shardings) > 1),
        f"{DUPLICATE}: shard group as large as dp x cp": grouped & (s.shard == data_ranks) & plain,
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


def _note_best(
    space: Space,
    core_index: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float64],
    reserved: npt.NDArray[np.float64],
    s: Strategies,
    found: Found,
) -> None:
    """Remember the best candidate of every mesh."""
    flat = scores.reshape(-1, scores.shape[-1])
    winner = flat.argmin(axis=0)
    every = np.arange(len(core_index))
    values, bytes_ = flat[winner, every], reserved.reshape(flat.shape)[winner, every]
    meshes = np.stack([s.tp, s.cp, s.dp, s.pp], axis=1)
    for core in np.flatnonzero(np.isfinite(values)):
        value, memory, mesh = float(values[core]), float(bytes_[core]), tuple(meshes[core].tolist())
        known = found.best.get(mesh)
        if known is None or (value, memory) < known[:2]:
            outer = np.unravel_index(winner[core], space.outer_shape)
            found.best[mesh] = (value, memory, int(space.flat_index(outer, core_index[core])), space)


def _note_front(
    space: Space,
    core_index: npt.NDArray[np.int64],
    seconds: npt.NDArray[np.float64],
    reserved: npt.NDArray[np.float64],
    found: Found,
) -> None:
    """Fold a chunk into the front of time, memory and devices: a few probes clear most rows, the rest is exact."""
    mask = np.isfinite(seconds)
    same = [point for point in found.front if point[2] <= space.devices]
    for point in same[:: max(1, len(same) // FRONT_PROBES)]:
        mask &= (seconds < point[0]) | (reserved < point[1])
    index = np.flatnonzero(mask)
    if not len(index):
        return
    times, bytes_ = seconds.reshape(-1)[index], reserved.reshape(-1)[index]
    order = np.lexsort((bytes_, times))
    lowest = np.minimum.accumulate(bytes_[order])
    first = np.concatenate(([True], lowest[1:] < lowest[:-1]))
    chosen = index[order[first]]
    for flat in chosen:
        *outer, core = np.unravel_index(flat, seconds.shape)
        candidate = int(space.flat_index(outer, core_index[core]))
        found.front.append(
            (
                float(seconds.reshape(-1)[flat]),
                float(reserved.reshape(-1)[flat]),
                float(space.devices),
                candidate,
                space,
            )
        )
    costs = np.array([point[:3] for point in found.front])
    found.front = [found.front[i] for i in pareto_front(costs)]
