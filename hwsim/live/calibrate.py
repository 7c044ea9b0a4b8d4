"""Measure this machine, fit the curves of a profile on what was measured, and write the profile."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.errors import UsageError
from hwsim.fitting.attention import Sample, fit_curve
from hwsim.fitting.collective_rows import Cells
from hwsim.fitting.collectives import LENDERS, borrowed, crowded
from hwsim.fitting.fitted import Column, Fit, errors, fit_rows, parts_of
from hwsim.fitting.gemm import SHARED, fit_shapes
from hwsim.fitting.profile_writer import dumped, lay_fits, styled
from hwsim.fitting.protocols import Lines, Place, fit_protocols, written
from hwsim.fitting.solver import Coefficient, scipy_least_squares
from hwsim.fitting.stream import Kernels, fit_kernels
from hwsim.formulas.collectives import wire_bytes
from hwsim.live import measure, plans
from hwsim.live.measure import Bench
from hwsim.live.processes import run_ranks
from hwsim.live.samples import Samples, samples, weights_by_time
from hwsim.live.sheet import Facts, accelerator_fields, check_name, cluster_fields
from hwsim.specs.hardware import Accelerator, Cluster, CollectiveName
from hwsim.specs.library import load_hardware
from hwsim.units import MIB

DEVICES = ("cpu", "cuda")
KERNELS_S, RATES_S = 60.0, 3.0
"""Time given to kernels, and to memory and launches. [s]"""
TALK_SHARE = 0.18
"""Time given to each group of processes that talk, over that of the kernels."""
PATIENCE = 5.0
"""Times its share after which a group of processes is given up."""
SMALLEST_VISITS = 6
"""How often more than others the step that shows what the host takes is run."""
TILES = {"cpu": {"tile": 32}, "cuda": {}}
"""A core has no large tiles: vectors and a block of the cache."""
FIXED = tuple(replace(one, high=400.0) if one.name == "latency" else one for one in SHARED)
STREAM = (
    Coefficient("efficiency", 0.5, 0.005, 1.0),
    Coefficient("latency", 10.0, 0.1, 20000.0, "us", decimals=2),
)
MASKS = tuple(
    {"query_rows": rows, "decode_rows": 1.0, "lone_rows": 1.0, "packed_heads": 4096.0, "mask_keys": keys}
    for rows in (1.0, 32.0)
    for keys in (0.0, 512.0)
)
"""Traits of attention on a CPU that are tried."""
TALK: Lines = (("ring", 2),) * 2
TIER = "processes"


@dataclass(frozen=True)
class Talk:
    """Measured collectives: bytes, members and seconds by kind."""

    cells: Mapping[CollectiveName, Cells]

    @property
    def rate_bytes_per_s(self) -> float:
        """The most that any collective sent from one member. [byte/s]"""
        rates = [float(np.max(wire_bytes(kind, at.size, at.devices) / at.seconds)) for kind, at in self.cells.items()]
        return max(rates, default=0.0)


@dataclass(frozen=True)
class Calibration:
    """A measured machine."""

    profile: dict[str, Any]
    """The cluster, and the accelerator inside it, as the YAML has them."""
    text: str
    """The YAML."""
    fits: tuple[Fit, ...]
    facts: Facts
    elapsed_s: float

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `hwsim calibrate`."""
        facts = self.facts
        return {
            "schema_version": 1,
            "kind": "calibration",
            "device": facts.device,
            "dtype": facts.dtype,
            "title": facts.title,
            "threads": facts.threads,
            "torch": facts.torch,
            "date": facts.date,
            "elapsed_s": self.elapsed_s,
            "peak_flops_per_s": facts.peak_flops_per_s,
            "memory_bytes_per_s": facts.memory_bytes_per_s,
            "launch_s": facts.launch_s,
            "overhead_s": facts.overhead_s,
            "busy": facts.busy,
            "fits": fit_rows(self.fits),
            "profile": self.profile,
        }


def calibrate(
    device: str = "cpu",
    *,
    threads: int | None = None,
    name: str | None = None,
    plan: plans.Plan | None = None,
    seconds: float = KERNELS_S,
    advance: Callable[[str], None] = lambda part: None,
) -> Calibration:
    """Measure a device of this machine and fit a profile.

    Parameters
    ----------
    device
        "cpu" or "cuda".
    threads
        Of PyTorch; default: as many as it takes by itself, one for each core.
    name
        Id of the profile.
    plan
        What to measure.
    seconds
        For the kernels; collectives and fits come on top. [s]
    advance
        Is called with the name of each of the `PARTS` as it begins.

    Raises
    ------
    UsageError
        If PyTorch, SciPy or the device is missing.
    WorkerError
        If a process that measured collectives failed or was killed.
    """
    check_name(name)
    bench = _bench(device)
    scipy_least_squares()
    begin = time.monotonic()
    chosen = plan or (plans.CPU if device == "cpu" else plans.GPU)
    with measure.threads(threads) if device == "cpu" else nullcontext(0) as count:
        advance("kernels")
        rows = _kernels(chosen, bench, seconds)
        advance("memory")
        cache = measure.cpu_cache_bytes() if device == "cpu" else _gpu().L2_cache_size
        rate = measure.copy_rate(bench, cache, RATES_S)
        launch = measure.launch_s(bench, RATES_S / 10.0)
    advance("collectives")
    talk = _talk(_groups(chosen, device), chosen, device, TALK_SHARE * seconds)
    advance("fits")
    facts = _facts(bench, rows, count, cache, rate, launch, name)
    return fitted(facts, rows, talk, time.monotonic() - begin)


PARTS = ("kernels", "memory", "collectives", "fits")


def _bench(device: str) -> Bench:
    if device not in DEVICES:
        msg = f"device {device}: must be one of {', '.join(DEVICES)}"
        raise UsageError(msg)
    torch = measure.torch_module()
    if device == "cuda" and not torch.cuda.is_available():
        msg = "--device cuda: PyTorch sees no CUDA device here"
        raise UsageError(msg)
    return Bench(device, "fp32" if device == "cpu" else "bf16")


def _gpu() -> Any:
    return measure.torch_module().cuda.get_device_properties(0)


def _kernels(plan: plans.Plan, bench: Bench, seconds: float) -> Samples:
    """All kernels of a plan, as rows."""
    jobs = plan.jobs(bench)
    busy = measure.rounds([*jobs[:1] * SMALLEST_VISITS, *jobs], seconds, bench)
    found = samples([job.steps() for job in jobs], bench.element_bytes, hidden_host=bench.device == "cuda")
    return replace(found, busy=busy)


def _groups(plan: plans.Plan, device: str) -> tuple[int, ...]:
    most = measure.torch_module().cuda.device_count() if device == "cuda" else max(plan.groups, default=0)
    return tuple(size for size in plan.groups if size <= most)


def _talk(groups: tuple[int, ...], plan: plans.Plan, device: str, budget_s: float) -> Talk:
    """Collectives of processes that talk."""
    found: dict[CollectiveName, list[tuple[float, float, float]]] = {}
    for ranks in groups:
        with tempfile.TemporaryDirectory() as folder:
            arguments = {
                "device": device, "store": str(Path(folder) / "store"), "sizes": list(plan.messages),
                "budget_s": budget_s, "threads": 1,
            }  # fmt: skip
            rows, *_ = run_ranks("hwsim.live.talk:measure", ranks, arguments, 60.0 + PATIENCE * budget_s)
        for kind, size, seconds in rows:
            found.setdefault(kind, []).append((size, ranks, seconds))
    columns = {kind: np.array(rows, np.float64).T for kind, rows in found.items()}
    return Talk({kind: Cells(at[0], at[1], at[1], at[2], np.ones(len(at[0]))) for kind, at in columns.items()})


def _facts(
    bench: Bench, rows: Samples, threads: int, cache: float, rate: float, launch: float, name: str | None
) -> Facts:
    torch = measure.torch_module()
    gemm, cpu = rows.gemm, bench.device == "cpu"
    seen = 2.0 * gemm.m * gemm.n * gemm.k / np.maximum(gemm.seconds - rows.overhead_s, 1e-9)
    return Facts(
        name=name or f"my-{bench.device}",
        device=bench.device,
        dtype=bench.dtype,
        title=measure.cpu_title() if cpu else _gpu().name,
        units=threads if cpu else _gpu().multi_processor_count,
        threads=threads,
        processes=max(4, threads) if cpu else torch.cuda.device_count(),
        peak_flops_per_s=float(seen.max()),
        memory_bytes_per_s=rate,
        capacity_bytes=measure.memory_bytes() if cpu else float(_gpu().total_memory),
        cache_bytes=cache,
        launch_s=launch if cpu else max(launch, rows.overhead_s),
        overhead_s=rows.overhead_s,
        busy=rows.busy,
        torch=str(torch.__version__),
        date=datetime.now(UTC).date().isoformat(),
    )


def fitted(facts: Facts, rows: Samples, talk: Talk, elapsed_s: float = 0.0) -> Calibration:
    """The profile of a machine from its rows."""
    begin = time.monotonic()
    device, cluster = accelerator_fields(facts), cluster_fields(facts, talk.rate_bytes_per_s)
    accelerator = Accelerator.model_validate(device)
    device_fits = [*_gemm(facts, accelerator, rows), *_attention(facts, accelerator, rows)]
    device_fits += _streams(facts, accelerator, rows)
    cluster_fits = _collectives(facts, Cluster.model_validate(cluster), talk)
    inside, outside = styled(device), styled(cluster)
    place = Path(f"{facts.name}.yaml")
    lay_fits(inside, place, device_fits, facts.date, "hwsim calibrate")
    lay_fits(outside, place, cluster_fits, facts.date, "hwsim calibrate")
    outside["accelerator"] = inside
    profile = _plain(outside)
    load_hardware(profile)
    whole = elapsed_s + time.monotonic() - begin
    return Calibration(profile, dumped(outside), (*device_fits, *cluster_fits), facts, whole)


def _plain(value: Any) -> Any:
    """What the YAML reader gives, as plain Python."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def _gemm(facts: Facts, accelerator: Accelerator, rows: Samples) -> list[Fit]:
    shapes = replace(rows.gemm, weight=weights_by_time(rows.gemm.seconds))
    data = f"{len(shapes.m)} shapes of {facts.dtype} multiplies, {facts.how}"
    bound = (accelerator, facts.dtype)
    return [fit_shapes(facts.name, ("kernels", "gemm"), data, bound, shapes, FIXED, TILES[facts.device])]


def _attention(facts: Facts, accelerator: Accelerator, rows: Samples) -> list[Fit]:
    data = f"{len(rows.forward)} shapes forward (decode with them), {len(rows.backward)} backward, {facts.how}"
    sample, traits = Sample(accelerator, facts.dtype, rows.forward), MASKS if facts.device == "cpu" else None
    return [fit_curve(facts.name, ("kernels", "attention"), sample, rows.backward, data, traits)]


def _streams(facts: Facts, accelerator: Accelerator, rows: Samples) -> list[Fit]:
    """Memory-bound kernels: all but the update together, then each kind."""
    whole = [stream for kind, stream in rows.streams.items() if kind != "optimizer"]
    parts: dict[tuple[str, ...], tuple[Column, Column]] = {
        (): (np.concatenate([s.size for s in whole]), np.concatenate([s.seconds for s in whole]))
    }
    parts |= {("kinds", kind): (stream.size, stream.seconds) for kind, stream in rows.streams.items()}
    found = []
    for path, (size, seconds) in parts.items():
        data = f"{len(size)} kernels, {facts.how}" if not path else f"{len(size)} kernels"
        kernels = Kernels(size, seconds, weights_by_time(seconds), size)
        bandwidth = accelerator.memory.bandwidth
        found.append(fit_kernels(facts.name, ("kernels", "stream", *path), data, bandwidth, kernels, STREAM))
    return found


def _collectives(facts: Facts, cluster: Cluster, talk: Talk) -> list[Fit]:
    """Protocols of every collective that was measured; the others borrow."""
    if not talk.cells:
        return []
    sharing = crowded(talk.cells, cluster, cluster.tiers[0])
    tier = cluster.tiers[0].model_copy(update={"sharing": sharing})
    cluster = cluster.model_copy(update={"tiers": (tier, *cluster.tiers[1:])})
    fits: dict[CollectiveName, Fit] = {}
    protocols = {}
    for kind, at in talk.cells.items():
        found = fit_protocols(Place(cluster, tier, kind), at, TALK)
        if found is None:
            continue
        protocols[kind] = found.protocols
        large = at.size >= MIB
        fits[kind] = Fit(
            profile=facts.name,
            path=("tiers", tier.name, "collectives"),
            values={kind: written(found.protocols)},
            data=f"{len(at)} sizes and groups",
            inside=errors(found.inside, at.seconds),
            outside=errors(found.outside, at.seconds),
            parts=parts_of(found.outside, at.seconds, {"from 1 MiB": large, "below 1 MiB": ~large}),
        )
    for kind, lender in LENDERS.items():
        if kind not in fits and lender in fits:
            protocols[kind] = borrowed(kind, protocols[lender])
            fits[kind] = replace(fits[lender], values={kind: written(protocols[kind])}, data=f"as {lender}")
    first = next(iter(fits.values()), None)
    shared = replace(first, path=("tiers", tier.name), values={"sharing": sharing}, data=facts.talk) if first else None
    return [*fits.values(), *([shared] if shared else [])]
