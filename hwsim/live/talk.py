"""Collectives timed by processes that talk to each other: what each rank of `hwsim calibrate` runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hwsim.live.measure import torch_module

KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv")
WARM, FEWEST, MOST, ROUNDS = 1, 4, 40, 3
PATIENCE = timedelta(seconds=60)


def measure(
    rank: int,
    ranks: int,
    say: Callable[[Any], None],
    *,
    device: str,
    store: str,
    sizes: list[int],
    budget_s: float,
    threads: int,
) -> list[list[Any]]:
    """Time every collective that the backend has at every size, in turns; gives rows (kind, bytes, seconds).

    Parameters
    ----------
    rank, ranks, say
        As `hwsim.live.processes.run_ranks` gives them.
    device, store
        "cpu" (gloo) or "cuda" (NCCL, a GPU for each rank), and the file by which the ranks find each other.
    sizes
        In the nccl-tests sense. [byte]
    budget_s
        For all of it. [s]
    threads
        Of PyTorch in each rank.
    """
    torch = torch_module()
    import torch.distributed as dist

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    torch.set_num_threads(threads)
    if device == "cuda":
        torch.cuda.set_device(rank)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{store}", rank=rank, world_size=ranks, timeout=PATIENCE)
    kinds = [kind for kind in KINDS if kind != "send_recv" or ranks == 2]
    share_s = budget_s / (ROUNDS * len(kinds) * len(sizes))
    best: dict[tuple[str, int], float] = {}
    for _ in range(ROUNDS):
        for kind in kinds:
            for size in sizes:
                try:
                    seconds = _timed(_call(kind, size, rank, ranks, device), device, share_s)
                except (RuntimeError, ValueError, NotImplementedError):  # not every backend has every collective
                    break
                best[kind, size] = min(seconds, best.get((kind, size), seconds))
            if rank == 0:
                say(kind)
    return [[kind, size, seconds] for (kind, size), seconds in best.items()]


def _call(kind: str, size: int, rank: int, ranks: int, device: str) -> Callable[[], Any]:
    """One collective over `size` bytes."""
    torch = torch_module()
    import torch.distributed as dist

    count = max(size // 4 // ranks, 1)
    whole, part = torch.zeros(count * ranks, device=device), torch.zeros(count, device=device)
    if kind == "all_reduce":
        return lambda: dist.all_reduce(whole)
    if kind == "all_gather":
        return lambda: dist.all_gather_into_tensor(whole, part)
    if kind == "reduce_scatter":
        return lambda: dist.reduce_scatter_tensor(part, whole)
    if kind == "all_to_all":
        other = torch.zeros_like(whole)
        return lambda: dist.all_to_all_single(other, whole)
    return lambda: dist.send(whole, 1) if rank == 0 else dist.recv(whole, 0)


def _timed(run: Callable[[], Any], device: str, budget_s: float) -> float:
    """Seconds of one call: the slowest rank's, a quiet one of many."""
    torch = torch_module()
    import torch.distributed as dist

    def once() -> float:
        dist.barrier()
        begin = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    found = [once() for _ in range(WARM)]
    agreed = torch.tensor([budget_s / max(2.0 * max(found), 1e-6)], device=device)
    dist.all_reduce(agreed, dist.ReduceOp.MIN)
    found = [once() for _ in range(int(min(max(float(agreed), FEWEST), MOST)))]
    slowest = torch.tensor(found, dtype=torch.float64, device=device)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    return float(slowest.min())
