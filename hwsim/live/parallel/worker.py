"""What each process of a parallel run does: every case in turn, one step of it counted. Needs PyTorch."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from hwsim.live.parallel.axes import Place, alone, place_of
from hwsim.live.parallel.counts import Counts
from hwsim.live.parallel.dtensor import dtensor_step
from hwsim.live.parallel.library import chunk_places, pipelining_step
from hwsim.live.parallel.model import Stage
from hwsim.live.parallel.ring import positions
from hwsim.live.parallel.steps import Micro, Step, ddp_step, fsdp_step, plain_step

STEPS = 3
"""The last is counted: by then every library has settled how it buckets."""
PATIENCE = timedelta(seconds=60)
SEED = 7


def work(
    rank: int, ranks: int, say: Callable[[Any], None], *, device: str, store: str, cases: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Run every case; gives each one's losses and counts.

    Parameters
    ----------
    rank, ranks, say
        As `hwsim.live.processes.run_ranks` gives them.
    device, store
        "cpu" (gloo) or "cuda" (NCCL, a GPU for each rank), and the file by which the ranks find each other.
    cases
        See `hwsim.live.parallel.cases.Case`.
    """
    warnings.simplefilter("ignore", FutureWarning)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    torch.set_num_threads(1)
    if device == "cuda" and torch.cuda.device_count() < ranks:
        msg = f"{ranks} processes need a GPU each; {torch.cuda.device_count()} are here"
        raise RuntimeError(msg)
    torch.backends.cuda.matmul.allow_tf32 = False
    if device == "cuda":
        torch.cuda.set_device(rank)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{store}", rank=rank, world_size=ranks, timeout=PATIENCE)
    results = []
    for case in cases:
        if rank == 0:
            say(case["id"])
        results.append(one_case(rank, ranks, device, case))
    return results


def one_case(rank: int, ranks: int, device: str, case: dict[str, Any]) -> dict[str, Any]:
    """Losses of every step (of this process's part of the batch) and the counts of the last step."""
    s = case["strategy"]
    place = place_of(rank, ranks, s, s["sequence_parallel"])
    labels = {group.group_name: name for name, group in place.groups.items()}
    kind = torch.bfloat16 if case["half"] and case["way"] == "plain" else torch.float32
    nets = [Stage(case["torch_model"], at).to(device, kind) for at in chunk_places(place, s["vpp"])]
    step = way_of(nets, place, case, device, labels)
    micros = share_of(batches(case), place, s["micro_batch"], device)
    counts = Counts(labels)
    losses = [step(micros) for _ in range(STEPS - 1)]
    with counts:
        losses.append(step(micros))
    return {
        "losses": losses if place.last else None,
        "whole": reference(case, device) if rank == 0 else None,
        "stage": place.at["pp"],
        "counts": counts.found,
    }


def way_of(nets: list[Stage], place: Place, case: dict[str, Any], device: str, labels: dict[str, str]) -> Step:
    """How the case shares out batch, weights and layers."""
    s, net = case["strategy"], nets[0]
    if case["way"] == "pipelining":
        return pipelining_step(nets, place, s["schedule"], s["global_batch"] // (s["micro_batch"] * s["dp"]))
    zero, shard = case["strategy"]["zero"], case["strategy"]["shard"]
    if case["way"] == "ddp":
        return ddp_step(net, place)
    if case["way"] == "plain":
        return plain_step(net, place, zero)
    if case["way"] == "dtensor":
        mesh = init_device_mesh(device, (s["tp"],), mesh_dim_names=("tp",))
        labels[mesh.get_group("tp").group_name] = "tp"
        return dtensor_step(case["torch_model"], mesh, device)
    shape = {"replica": place.copies // shard, "shard": shard, "peers": place.sizes["tp"]}
    shape = {name: size for name, size in shape.items() if size > 1}
    mesh = init_device_mesh(device, tuple(shape.values()), mesh_dim_names=tuple(shape))
    names = tuple(name for name in shape if name != "peers")
    labels |= {mesh.get_group(name).group_name: name for name in names}
    return fsdp_step(net, mesh[names], zero, case["keeps_root"], case["half"])


def batches(case: dict[str, Any]) -> Any:
    """Tokens of a step, [sequences, tokens + 1]."""
    m, s = case["torch_model"], case["strategy"]
    numbers = torch.Generator().manual_seed(SEED)
    return torch.randint(m["vocab"], (s["global_batch"], m["seq"] + 1), generator=numbers)


def share_of(tokens: Any, place: Place, micro_batch: int, device: str) -> list[Micro]:
    """Micro-batches of one process: its sequences, its part of each."""
    held = tokens.chunk(place.sizes["dp"])[place.at["dp"]].to(device)
    where = positions(tokens.shape[1] - 1, place.sizes["cp"], place.at["cp"]).to(device)
    parts = held.split(micro_batch)
    return [(part[:, where].t().contiguous(), part[:, where + 1].t().contiguous()) for part in parts]


def reference(case: dict[str, Any], device: str) -> list[float]:
    """Losses of the same steps in one process."""
    place = alone()
    net = Stage(case["torch_model"], place).to(device)
    micros = share_of(batches(case), place, case["strategy"]["micro_batch"], device)
    step = plain_step(net, place, 0)
    return [step(micros) for _ in range(STEPS)]
