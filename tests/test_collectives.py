"""Collective formulas against a ring played out message by message, the profiles against published measurements."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hwsim
from hwsim.costs.network import network
from hwsim.errors import UsageError
from hwsim.fitting import collectives, protocols
from hwsim.fitting.collective_rows import COLUMNS, CONSTANTS, MAIN, VTRAIN, Cells
from hwsim.fitting.collectives import RINGS, _launch, fit_collectives
from hwsim.fitting.protocols import Place, fit_protocols
from hwsim.formulas.collectives import ceil_log2, crowding, protocol_s, sent_share, steps, wire_bytes
from hwsim.specs.hardware import Protocol
from hwsim.specs.library import load_hardware

OPS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv")
CHUNK = 24
GIB, MIB = 2**30, 2**20


class Ring:
    """Devices 0..n-1, each with n numbered chunks; every message is counted for its sender."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.chunks = [[float(100 * device + chunk + 1) for chunk in range(n)] for device in range(n)]
        self.messages = [0] * n
        self.sent = [0] * n

    def send(self, device: int) -> None:
        self.messages[device] += 1
        self.sent[device] += CHUNK

    def rotate(self, first: Callable[[int], int], take: Callable[[float, float], float]) -> None:
        """Pass one chunk to the right neighbour n-1 times; the chunk sent starts at first(device) and walks back."""
        for turn in range(self.n - 1):
            moving = [(d, (first(d) - turn) % self.n) for d in range(self.n)]
            values = [self.chunks[d][c] for d, c in moving]
            for (device, chunk), value in zip(moving, values, strict=True):
                right = (device + 1) % self.n
                self.chunks[right][chunk] = take(self.chunks[right][chunk], value)
                self.send(device)

    def reduce_scatter(self) -> None:
        """Leave the sum of chunk (d + 1) mod n on device d."""
        self.rotate(lambda device: device, lambda mine, theirs: mine + theirs)

    def all_gather(self) -> None:
        """Spread chunk (d + 1) mod n of device d to everyone."""
        self.rotate(lambda device: device + 1, lambda _, theirs: theirs)

    def all_to_all(self) -> None:
        """Chunk c of device d ends as chunk d of device c."""
        received = [list(row) for row in self.chunks]
        for distance in range(1, self.n):
            for device in range(self.n):
                target = (device + distance) % self.n
                received[target][device] = self.chunks[device][target]
                self.send(device)
        self.chunks = received


def play(op: str, n: int) -> Ring:
    """Run `op` and check that it did what it is called."""
    ring, start = Ring(n), Ring(n).chunks
    sums = [sum(start[d][c] for d in range(n)) for c in range(n)]
    if op == "all_reduce":
        ring.reduce_scatter()
        ring.all_gather()
        assert all(row == sums for row in ring.chunks)
    elif op == "reduce_scatter":
        ring.reduce_scatter()
        assert [ring.chunks[d][(d + 1) % n] for d in range(n)] == [sums[(d + 1) % n] for d in range(n)]
    elif op == "all_gather":
        ring.all_gather()
        wanted = [start[(c - 1) % n][c] for c in range(n)]
        assert all(row == wanted for row in ring.chunks)
    else:
        ring.all_to_all()
        assert ring.chunks == [[start[d][c] for d in range(n)] for c in range(n)]
    return ring


@pytest.mark.parametrize("n", range(1, 10))
@pytest.mark.parametrize("op", ["all_reduce", "all_gather", "reduce_scatter", "all_to_all"])
def test_ring_sends_what_the_formulas_say(op: str, n: int) -> None:
    ring = play(op, n)
    assert ring.messages == [steps(op, "ring", n)] * n
    assert ring.sent == pytest.approx([wire_bytes(op, n * CHUNK, n)] * n, rel=1e-15)


@pytest.mark.parametrize("n", range(1, 70))
def test_tree_is_as_deep_as_halving_says(n: int) -> None:
    depth, left = 0, n
    while left > 1:
        left, depth = (left + 1) // 2, depth + 1
    assert ceil_log2(n) == depth
    assert steps("all_reduce", "tree", n) == 2 * depth
    assert steps("reduce_scatter", "tree", n) == depth


def test_switch_is_one_message_up_and_one_down() -> None:
    assert [float(steps("all_reduce", "switch", n)) for n in (1, 2, 8, 72)] == [0.0, 2.0, 2.0, 2.0]
    assert [float(steps("all_gather", "switch", n)) for n in (1, 2, 8, 72)] == [0.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("algorithm", ["ring", "tree", "switch"])
@pytest.mark.parametrize("op", OPS)
def test_alone_costs_nothing(op: str, algorithm: str) -> None:
    assert wire_bytes(op, GIB, 1) == 0
    assert steps(op, algorithm, 1) == 0
    assert protocol_s(wire_bytes(op, GIB, 1), steps(op, algorithm, 1), 1e-5, 1e-6, 1e11) == 0


def seconds(op: str, algorithm: str, total_bytes: object, devices: object) -> np.ndarray:
    wire, hops = wire_bytes(op, total_bytes, devices), steps(op, algorithm, devices)
    return np.asarray(protocol_s(wire, hops, 7.3e-6, 1.1e-6, 3.3e11))


@pytest.mark.parametrize("algorithm", ["ring", "tree", "switch"])
@pytest.mark.parametrize("op", OPS)
def test_one_row_gives_the_same_bits_as_a_column(op: str, algorithm: str) -> None:
    rng = np.random.default_rng(3)
    sizes, groups = rng.integers(1, 2**40, 999), rng.integers(1, 5000, 999)
    column = seconds(op, algorithm, sizes, groups)
    rows = [float(seconds(op, algorithm, int(s), int(n))) for s, n in zip(sizes, groups, strict=True)]
    assert column.tobytes() == struct.pack(f"{len(rows)}d", *rows)


@pytest.mark.parametrize("op", OPS)
def test_time_grows_with_bytes_and_never_falls_with_devices(op: str) -> None:
    sizes = np.array([2**k for k in range(45)])
    for n in (2, 3, 8, 1024):
        assert (np.diff(seconds(op, "ring", sizes, n)) > 0).all()
    assert (np.diff(seconds(op, "ring", GIB, np.arange(1, 200))) >= 0).all()


def test_integers_do_not_overflow() -> None:
    huge = np.array([2**62])
    assert wire_bytes("all_reduce", huge, np.array([2**31]))[0] == pytest.approx(2.0**63)
    assert wire_bytes("send_recv", 2**70, 2) == 2.0**70


# Published points. (cluster, collective, devices, bytes, bus bandwidth [GB/s])
BANDWIDTH = [
    ("dgx-a100-640", "all_reduce", 8, 512 * MIB, 222),
    ("dgx-a100-640", "all_gather", 8, 512 * MIB, 205),
    ("dgx-a100-640", "reduce_scatter", 8, 512 * MIB, 213),
    ("dgx-a100-640", "all_reduce", 8, 16 * GIB, 235),
    ("dgx-h100", "all_reduce", 8, 512 * MIB, 445),
    ("dgx-h100", "all_gather", 8, 512 * MIB, 335),
    ("dgx-h100", "reduce_scatter", 8, 512 * MIB, 336),
    ("dgx-h200", "all_reduce", 8, 512 * MIB, 461),
    ("dgx-h200", "all_reduce", 4, 8 * GIB, 363),
    ("dgx-h200", "all_reduce", 8, 16 * GIB, 480),
    ("dgx-h200", "all_gather", 8, 16 * GIB, 361),
    ("dgx-b200", "all_reduce", 8, 512 * MIB, 704),
    ("dgx-b200", "all_gather", 8, 512 * MIB, 617),
    ("dgx-b200", "reduce_scatter", 8, 512 * MIB, 613),
    ("dgx-b200", "all_reduce", 4, 8 * GIB, 673),
    ("dgx-b200", "all_reduce", 8, 16 * GIB, 846),
    ("gb200-nvl72", "all_reduce", 72, 8 * GIB, 850),
    ("mi300x-ubb", "all_reduce", 8, 4 * GIB, 313),
    ("mi300x-ubb", "all_reduce", 2, 4 * GIB, 47.7),
    ("dgx-h200", "all_reduce", 32, 4 * GIB, 365),
    ("dgx-b200", "all_reduce", 32, 16 * GIB, 382),
]
# (cluster, devices, NCCL all-reduce of at most 2 KiB [us])
LATENCY = [
    ("dgx-a100-640", 2, 10.0),
    ("dgx-a100-640", 8, 21.8),
    ("dgx-h100", 2, 6.2),
    ("dgx-h100", 8, 15.6),
    ("dgx-h200", 8, 16.0),
    ("dgx-b200", 2, 10.2),
    ("dgx-b200", 8, 25.2),
]


@pytest.mark.parametrize(("cluster", "op", "devices", "size", "published"), BANDWIDTH)
def test_published_bus_bandwidth(cluster: str, op: str, devices: int, size: int, published: float) -> None:
    time_s = hwsim.collective_time(cluster, op, bytes=size, devices=devices)
    assert float(wire_bytes(op, size, devices)) / time_s / 1e9 == pytest.approx(published, rel=0.15)


@pytest.mark.parametrize(("cluster", "devices", "published_us"), LATENCY)
def test_published_latency(cluster: str, devices: int, published_us: float) -> None:
    time_s = hwsim.collective_time(cluster, "all_reduce", bytes=2048, devices=devices)
    assert time_s * 1e6 == pytest.approx(published_us, rel=0.15)


# Measured times, medians over versions: NCCL and oneCCL tables of aiconfigurator, nccl-tests of apex_plus.
# (cluster, collective, devices, bytes, time [us])
MEASURED = [
    ("dgx-a100-640", "all_gather", 2, 8388608, 59.98),
    ("dgx-a100-640", "all_gather", 4, 16384, 13.74),
    ("dgx-a100-640", "all_gather", 4, 524288, 18.46),
    ("dgx-a100-640", "all_gather", 8, 8388608, 73.75),
    ("dgx-a100-640", "all_gather", 8, 33554432, 217.3),
    ("dgx-a100-640", "all_reduce", 2, 2097152, 49.76),
    ("dgx-a100-640", "all_reduce", 8, 8192, 21.52),
    ("dgx-a100-640", "all_to_all", 2, 65536, 13.96),
    ("dgx-a100-640", "all_to_all", 4, 33554432, 172.9),
    ("dgx-a100-640", "reduce_scatter", 2, 8388608, 56.2),
    ("dgx-a100-640", "reduce_scatter", 2, 134217728, 443.5),
    ("dgx-a100-640", "reduce_scatter", 4, 1048576, 21.61),
    ("dgx-h100", "all_gather", 8, 33554432, 122.4),
    ("dgx-h100", "all_reduce", 4, 1048576, 19.5),
    ("dgx-h100", "all_reduce", 8, 16384, 17.03),
    ("dgx-h100", "all_to_all", 2, 2048, 6.59),
    ("dgx-h100", "all_to_all", 2, 4096, 6.69),
    ("dgx-h100", "all_to_all", 4, 512, 6.7),
    ("dgx-h100", "all_to_all", 8, 512, 7.6),
    ("dgx-h100", "reduce_scatter", 2, 512, 5.245),
    ("dgx-h100", "reduce_scatter", 2, 16777216, 53.78),
    ("dgx-h100", "reduce_scatter", 2, 268435456, 595.9),
    ("dgx-h100", "reduce_scatter", 4, 131072, 8.54),
    ("dgx-h100", "reduce_scatter", 8, 134217728, 383.6),
    ("dgx-b200", "all_gather", 2, 2097152, 15.71),
    ("dgx-b200", "all_gather", 2, 8388608, 30.43),
    ("dgx-b200", "all_gather", 8, 2048, 16.88),
    ("dgx-b200", "all_gather", 8, 134217728, 209.9),
    ("dgx-b200", "all_reduce", 2, 16777216, 54.5),
    ("dgx-b200", "all_reduce", 4, 524288, 17.04),
    ("dgx-b200", "all_to_all", 2, 8388608, 29.84),
    ("dgx-b200", "all_to_all", 2, 33554432, 63.67),
    ("dgx-b200", "all_to_all", 4, 8388608, 31.97),
    ("dgx-b200", "all_to_all", 8, 4194304, 25.26),
    ("dgx-b200", "reduce_scatter", 2, 134217728, 197.8),
    ("dgx-b200", "reduce_scatter", 4, 1048576, 14.3),
    ("dgx-b300", "all_gather", 8, 268435456, 392.2),
    ("dgx-b300", "all_reduce", 2, 2097152, 18.88),
    ("dgx-b300", "all_reduce", 2, 16777216, 53.06),
    ("dgx-b300", "all_reduce", 4, 262144, 16.56),
    ("dgx-b300", "all_reduce", 4, 524288, 16.8),
    ("dgx-b300", "all_reduce", 8, 8388608, 72.97),
    ("dgx-b300", "all_to_all", 2, 16777216, 47.84),
    ("dgx-b300", "all_to_all", 4, 33554432, 72.75),
    ("dgx-b300", "all_to_all", 8, 512, 11.09),
    ("dgx-b300", "all_to_all", 8, 16777216, 50.7),
    ("dgx-b300", "reduce_scatter", 2, 131072, 9.5),
    ("dgx-b300", "reduce_scatter", 2, 262144, 9.645),
    ("gb200-nvl72", "all_gather", 2, 268435456, 315.8),
    ("gb200-nvl72", "all_gather", 4, 4194304, 25.25),
    ("gb200-nvl72", "all_reduce", 2, 536870912, 1035),
    ("gb200-nvl72", "all_reduce", 4, 1048576, 19.66),
    ("gb200-nvl72", "all_to_all", 2, 512, 9.82),
    ("gb200-nvl72", "all_to_all", 2, 8388608, 27.43),
    ("gb200-nvl72", "all_to_all", 4, 1024, 10.67),
    ("gb200-nvl72", "all_to_all", 4, 33554432, 72.3),
    ("gb200-nvl72", "reduce_scatter", 2, 8388608, 28.88),
    ("gb200-nvl72", "reduce_scatter", 2, 16777216, 38.97),
    ("gb200-nvl72", "reduce_scatter", 4, 32768, 12.71),
    ("gb200-nvl72", "reduce_scatter", 4, 268435456, 397.5),
    ("gb300-nvl72", "all_gather", 2, 1048576, 12.4),
    ("gb300-nvl72", "all_gather", 4, 16384, 12.2),
    ("gb300-nvl72", "all_gather", 4, 268435456, 365),
    ("gb300-nvl72", "all_gather", 4, 536870912, 703.5),
    ("gb300-nvl72", "all_reduce", 4, 524288, 17.41),
    ("gb300-nvl72", "all_reduce", 4, 2097152, 23.62),
    ("gb300-nvl72", "all_to_all", 4, 2048, 10.46),
    ("gb300-nvl72", "reduce_scatter", 2, 131072, 9.885),
    ("gb300-nvl72", "reduce_scatter", 2, 524288, 10.69),
    ("gb300-nvl72", "reduce_scatter", 4, 4096, 11.53),
    ("gb300-nvl72", "reduce_scatter", 4, 33554432, 73.49),
    ("gb300-nvl72", "reduce_scatter", 4, 268435456, 394.1),
    ("l40s-pcie-8", "all_gather", 2, 134217728, 3463),
    ("l40s-pcie-8", "all_reduce", 8, 8192, 33.11),
    ("l40s-pcie-8", "all_to_all", 2, 33554432, 763.8),
    ("l40s-pcie-8", "all_to_all", 4, 67108864, 10880),
    ("l40s-pcie-8", "all_to_all", 4, 536870912, 88290),
    ("l40s-pcie-8", "all_to_all", 8, 512, 11.83),
    ("l40s-pcie-8", "reduce_scatter", 2, 134217728, 3625),
    ("l40s-pcie-8", "reduce_scatter", 2, 536870912, 13950),
    ("l40s-pcie-8", "reduce_scatter", 8, 1024, 14.61),
    ("l40s-pcie-8", "reduce_scatter", 8, 8192, 17.79),
    ("l40s-pcie-8", "reduce_scatter", 8, 524288, 625.9),
    ("l40s-pcie-8", "reduce_scatter", 8, 16777216, 10450),
    ("pcie-gen5-8", "all_gather", 2, 1048576, 31.22),
    ("pcie-gen5-8", "all_gather", 2, 268435456, 4184),
    ("pcie-gen5-8", "all_gather", 4, 268435456, 8565),
    ("pcie-gen5-8", "all_reduce", 4, 262144, 41.68),
    ("pcie-gen5-8", "all_reduce", 4, 1048576, 89.62),
    ("pcie-gen5-8", "all_reduce", 8, 8388608, 704.6),
    ("pcie-gen5-8", "all_to_all", 2, 16777216, 327.6),
    ("pcie-gen5-8", "all_to_all", 4, 4194304, 166.5),
    ("pcie-gen5-8", "reduce_scatter", 2, 131072, 8.575),
    ("pcie-gen5-8", "reduce_scatter", 4, 131072, 16.52),
    ("pcie-gen5-8", "reduce_scatter", 8, 131072, 34.55),
    ("pcie-gen5-8", "reduce_scatter", 8, 2097152, 138.8),
    ("arc-b60-pcie-8", "all_reduce", 2, 524288, 40.33),
    ("arc-b60-pcie-8", "all_reduce", 2, 2097152, 124.7),
    ("arc-b60-pcie-8", "all_reduce", 2, 16777216, 929.9),
    ("arc-b60-pcie-8", "all_reduce", 4, 512, 18.23),
    ("arc-b60-pcie-8", "all_reduce", 4, 1048576, 98.15),
    ("arc-b60-pcie-8", "reduce_scatter", 2, 32768, 14.91),
    ("arc-b60-pcie-8", "reduce_scatter", 2, 131072, 17.46),
    ("arc-b60-pcie-8", "reduce_scatter", 2, 524288, 26.37),
    ("arc-b60-pcie-8", "reduce_scatter", 2, 2097152, 74.95),
    ("arc-b60-pcie-8", "reduce_scatter", 2, 8388608, 238.3),
    ("arc-b60-pcie-8", "reduce_scatter", 2, 268435456, 7076),
    ("arc-b60-pcie-8", "reduce_scatter", 2, 536870912, 14140),
    ("v100-pcie-4-10gbe", "all_gather", 2, 262144, 65.92),
    ("v100-pcie-4-10gbe", "all_gather", 2, 524288, 109.7),
    ("v100-pcie-4-10gbe", "all_gather", 4, 4194304, 779.4),
    ("v100-pcie-4-10gbe", "all_gather", 8, 8192, 491),
    ("v100-pcie-4-10gbe", "all_reduce", 2, 524288, 165.8),
    ("v100-pcie-4-10gbe", "all_reduce", 2, 134217728, 35750),
    ("v100-pcie-4-10gbe", "all_reduce", 8, 8192, 915),
    ("v100-pcie-4-10gbe", "all_reduce", 8, 8388608, 16910),
    ("v100-pcie-4-10gbe", "all_reduce", 16, 8192, 912),
    ("v100-pcie-4-10gbe", "all_reduce", 16, 33554432, 69490),
    ("v100-pcie-4-10gbe", "all_to_all", 2, 4096, 13),
    ("v100-pcie-4-10gbe", "send_recv", 2, 2097152, 537.1),
]
# All-reduces of serving engines inside a CUDA graph (aiconfigurator). (cluster, library, devices, bytes, time [us])
ENGINES = [
    ("dgx-a100-640", "vllm", 2, 512, 4.854),
    ("dgx-a100-640", "vllm", 2, 524288, 7.986),
    ("dgx-a100-640", "vllm", 4, 65536, 6.567),
    ("dgx-a100-640", "vllm", 8, 8192, 6.323),
    ("dgx-a100-640", "vllm", 8, 1073741824, 8251),
    ("dgx-a100-640", "sglang", 2, 512, 5.053),
    ("dgx-a100-640", "sglang", 2, 524288, 8.192),
    ("dgx-a100-640", "sglang", 4, 65536, 6.571),
    ("dgx-a100-640", "sglang", 8, 8192, 6.421),
    ("dgx-a100-640", "sglang", 8, 1073741824, 8255),
    ("dgx-a100-640", "trtllm", 2, 512, 3.82),
    ("dgx-a100-640", "trtllm", 2, 524288, 7.844),
    ("dgx-a100-640", "trtllm", 4, 65536, 6.031),
    ("dgx-a100-640", "trtllm", 8, 8192, 7.997),
    ("dgx-a100-640", "trtllm", 8, 1073741824, 8264),
    ("dgx-h100", "vllm", 2, 512, 4.246),
    ("dgx-h100", "vllm", 2, 524288, 6.295),
    ("dgx-h100", "vllm", 4, 65536, 5.234),
    ("dgx-h100", "vllm", 8, 8192, 4.978),
    ("dgx-h100", "vllm", 8, 1073741824, 4014),
    ("dgx-h100", "sglang", 2, 512, 4.454),
    ("dgx-h100", "sglang", 2, 524288, 6.351),
    ("dgx-h100", "sglang", 4, 65536, 5.229),
    ("dgx-h100", "sglang", 8, 8192, 5.155),
    ("dgx-h100", "sglang", 8, 1073741824, 4012),
    ("dgx-h100", "trtllm", 2, 512, 2.893),
    ("dgx-h100", "trtllm", 2, 524288, 4.841),
    ("dgx-h100", "trtllm", 8, 8192, 3.732),
    ("dgx-h100", "trtllm", 8, 1073741824, 4011),
    ("dgx-b200", "vllm", 2, 512, 6.595),
    ("dgx-b200", "vllm", 2, 524288, 9.456),
    ("dgx-b200", "vllm", 4, 65536, 7.595),
    ("dgx-b200", "vllm", 8, 8192, 7.886),
    ("dgx-b200", "vllm", 8, 1073741824, 2601),
    ("dgx-b200", "sglang", 2, 512, 6.611),
    ("dgx-b200", "sglang", 2, 524288, 9.57),
    ("dgx-b200", "sglang", 4, 65536, 7.959),
    ("dgx-b200", "sglang", 8, 8192, 7.546),
    ("dgx-b200", "sglang", 8, 1073741824, 2602),
    ("dgx-b200", "trtllm", 2, 512, 4.646),
    ("dgx-b200", "trtllm", 2, 524288, 5.391),
    ("dgx-b200", "trtllm", 4, 65536, 5.42),
    ("dgx-b200", "trtllm", 8, 8192, 5.635),
    ("dgx-b200", "trtllm", 8, 1073741824, 2592),
    ("gb200-nvl72", "vllm", 2, 512, 4.966),
    ("gb200-nvl72", "vllm", 2, 524288, 7.975),
    ("gb200-nvl72", "vllm", 4, 65536, 5.627),
    ("gb200-nvl72", "sglang", 2, 512, 6.233),
    ("gb200-nvl72", "sglang", 2, 524288, 8.854),
    ("gb200-nvl72", "sglang", 4, 65536, 6.96),
    ("gb200-nvl72", "trtllm", 2, 512, 4.137),
    ("gb200-nvl72", "trtllm", 2, 524288, 5.213),
    ("gb200-nvl72", "trtllm", 4, 65536, 5.003),
]


@pytest.mark.parametrize("cluster", sorted({row[0] for row in MEASURED}))
def test_measured_times(cluster: str) -> None:
    rows = [row[1:] for row in MEASURED if row[0] == cluster]
    times = [hwsim.collective_time(cluster, op, bytes=size, devices=n) for op, n, size, _ in rows]
    miss = np.abs(np.array(times) * 1e6 / np.array([us for *_, us in rows]) - 1.0)
    assert len(rows) >= 10
    assert np.median(miss) < 0.06, list(zip(rows, miss.round(2), strict=True))
    assert miss.max() < 0.4, list(zip(rows, miss.round(2), strict=True))


@pytest.mark.parametrize(("cluster", "library", "devices", "size", "measured_us"), ENGINES)
def test_measured_engine_all_reduces(cluster: str, library: str, devices: int, size: int, measured_us: float) -> None:
    time_s = hwsim.collective_time(cluster, "all_reduce", bytes=size, devices=devices, library=library)
    assert time_s * 1e6 == pytest.approx(measured_us, rel=0.25)


def test_engine_all_reduces_are_quicker_than_nccl_when_small_and_the_same_when_large() -> None:
    sizes = np.array([256.0, 2.0**30])
    nccl = hwsim.collective_time("dgx-h100", "all_reduce", bytes=sizes, devices=8)
    for library in ("vllm", "sglang", "trtllm"):
        own = hwsim.collective_time("dgx-h100", "all_reduce", bytes=sizes, devices=8, library=library)
        assert own[0] < 0.5 * nccl[0]
        assert own[1] == nccl[1]


def test_names_of_libraries() -> None:
    def time_s(library: str | None) -> float:
        return float(hwsim.collective_time("dgx-h100", "all_reduce", bytes=4096, devices=8, library=library))

    assert time_s(None) == time_s("nccl") == time_s("nccl-tests")
    assert time_s("vllm") == time_s("vllm_custom") != time_s("nccl")
    assert time_s("torch.distributed") == time_s("nccl(torch.distributed)")
    with pytest.raises(UsageError, match=r"library: 'horovod' is none of nccl, .*vllm"):
        time_s("horovod")


def test_eager_calls_wait_for_the_host() -> None:
    """vidur, 8 H100 called through torch.distributed: 37 us for 2 KiB; large messages hide the host."""
    small, large = hwsim.collective_time(
        "dgx-h100", "all_reduce", bytes=np.array([2048.0, 2.0**28]), devices=8, library="torch.distributed"
    )
    assert small * 1e6 == pytest.approx(37, rel=0.15)
    assert large == hwsim.collective_time("dgx-h100", "all_reduce", bytes=2.0**28, devices=8)
    alone = hwsim.collective_time("dgx-h100", "all_reduce", bytes=2048, devices=1, library="torch.distributed")
    assert alone == 0.0


def test_a_library_that_was_not_measured_is_nccl() -> None:
    sizes = np.logspace(2, 9, 20)
    plain = hwsim.collective_time("mi300x-ubb", "all_reduce", bytes=sizes, devices=8)
    assert hwsim.collective_time("mi300x-ubb", "all_reduce", bytes=sizes, devices=8, library="vllm").tolist() == (
        plain.tolist()
    )


@pytest.mark.parametrize("cluster", ["dgx-h100", "dgx-b200", "gb200-nvl72", "l40s-pcie-8", "pcie-gen5-8"])
@pytest.mark.parametrize("op", OPS)
def test_time_never_falls_with_bytes_nor_much_with_members(cluster: str, op: str) -> None:
    sizes = np.logspace(0, 10.5, 400)
    by_members = []
    for n in range(2, 9):
        for library in ("nccl", "vllm", "torch.distributed"):
            times = hwsim.collective_time(cluster, op, bytes=sizes, devices=n, library=library)
            assert (np.diff(times) >= 0).all(), (n, library)
            # nowhere more than in proportion to the bytes
            assert (times[1:] / times[:-1] <= sizes[1:] / sizes[:-1] * (1 + 1e-9)).all(), (n, library)
        by_members.append(hwsim.collective_time(cluster, op, bytes=sizes, devices=n))
    assert (np.diff(by_members, axis=0) >= -0.25 * np.array(by_members[1:])).all()  # the switch starts to reduce


# PCIe without peer access: everybody shares the host bridge.


@pytest.mark.parametrize(
    ("cluster", "devices", "published"),
    [
        ("l40s-pcie-8", 2, 20),
        ("l40s-pcie-8", 4, 5.2),
        ("pcie-gen5-8", 2, 38.6),
        ("pcie-gen5-8", 4, 26.4),
        ("pcie-gen5-8", 8, 24.7),
    ],
)
def test_bus_bandwidth_over_pcie(cluster: str, devices: int, published: float) -> None:
    size = 512 * MIB
    time_s = hwsim.collective_time(cluster, "all_reduce", bytes=size, devices=devices)
    assert float(wire_bytes("all_reduce", size, devices)) / time_s / 1e9 == pytest.approx(published, rel=0.1)


def test_bridges_are_shared_and_switches_are_not() -> None:
    groups = np.arange(1, 100)
    assert crowding(groups, 0.0).tolist() == [1.0] * 99
    assert (np.diff(crowding(groups, 1.9)) <= 0).all()
    for low, high in ((0.0, 0.5), (0.5, 1.0), (1.0, 1.5), (1.5, 2.0)):
        assert (crowding(groups, low) >= crowding(groups, high)).all()


def test_the_own_share_costs_small_groups_most() -> None:
    assert [float(sent_share(n, 0.5)) for n in (1, 2, 3, 5)] == [2 / 3, 2 / 3, 0.8, 8 / 9]
    assert float(sent_share(7, 0.0)) == 1.0
    switch = [float(wire_bytes("all_reduce", 1.0, n) / sent_share(n, 1.0)) for n in (2, 5, 8, 72)]
    assert switch == pytest.approx([2.0] * 4)  # one buffer up and one down, whatever the group


# Tori: "How to Scale Your Model", part 3. One v5e link carries 45 GB/s each way, one of v5p 90 GB/s.

GB = 1e9


@pytest.mark.parametrize(
    ("cluster", "job", "size", "bytes_per_s"),
    [
        ("tpu-v5e-pod", 256, 16, 90 * GB),  # an axis of 16 closes: both directions
        ("tpu-v5e-pod", 256, 256, 180 * GB),  # both axes
        ("tpu-v5e-pod", 256, 8, 45 * GB),  # half an axis is a line: its ends have one link
        ("tpu-v5e-pod", 16, 4, 45 * GB),  # a 4 x 4 slice closes nowhere
        ("tpu-v5e-pod", 16, 16, 90 * GB),
        ("tpu-v5p-pod", 64, 4, 180 * GB),  # a 4 x 4 x 4 cube closes everywhere
        ("tpu-v5p-pod", 64, 16, 360 * GB),
        ("tpu-v5p-pod", 64, 64, 540 * GB),
    ],
)
@pytest.mark.parametrize(("op", "phases"), [("all_gather", 1), ("reduce_scatter", 1), ("all_reduce", 2)])
def test_torus_bandwidth(cluster: str, job: int, size: int, bytes_per_s: float, op: str, phases: int) -> None:
    lines = network(load_hardware(cluster).cluster, job)
    total = 1e13
    seconds = float(lines.seconds(op, total, lines.group(size, 1)))  # type: ignore[arg-type]
    assert seconds == pytest.approx(phases * total * (size - 1) / size / bytes_per_s, rel=1e-3)


@pytest.mark.parametrize(
    ("cluster", "job", "size", "over_all_gather"),
    [
        ("tpu-v5e-pod", 256, 16, 0.25),  # of the gather of all that is exchanged
        ("tpu-v5p-pod", 64, 4, 0.25),
        ("tpu-v5e-pod", 16, 4, 0.25),  # a line halves both
        ("tpu-v5e-pod", 256, 256, 0.25 * 16 / 128),  # k/4 links per axis; two axes gather n = k*k in half the time
    ],
)
def test_torus_all_to_all(cluster: str, job: int, size: int, over_all_gather: float) -> None:
    lines = network(load_hardware(cluster).cluster, job)
    mine = 1e12
    group = lines.group(size, 1)
    exchange = float(lines.seconds("all_to_all", mine, group))
    gather = float(lines.seconds("all_gather", mine * size, group)) * size / (size - 1)
    assert exchange / gather == pytest.approx(over_all_gather, rel=1e-3)


@pytest.mark.parametrize(("job", "size", "hops"), [(256, 16, 8), (256, 256, 16), (256, 8, 7), (16, 16, 6)])
def test_torus_latency(job: int, size: int, hops: int) -> None:
    """A closed axis of k chips is walked both ways: k/2 hops of 1 us; a line takes k - 1."""
    lines = network(load_hardware("tpu-v5e-pod").cluster, job)
    link = lines.links[0].tier
    fixed_s = link.latency + link.collectives["all_gather"][0].latency
    seconds = float(lines.seconds("all_gather", 1.0, lines.group(size, 1)))
    assert (seconds - fixed_s) * 1e6 == pytest.approx(hops, rel=1e-3)


# Fits.

TRUE = (
    Protocol.model_validate({"latency": "6 us", "hop_latency": "0.8 us", "efficiency": 0.1}),
    Protocol.model_validate({"latency": "30 us", "hop_latency": "2 us", "efficiency": 0.75, "own_share": 0.3}),
)


def made(noise: float) -> tuple[Place, Cells]:
    """Cells that two known protocols make on the A100's switch."""
    cluster = load_hardware("dgx-a100-640").cluster
    place = Place(cluster, cluster.tiers[0], "all_gather")
    size, devices = (part.ravel() for part in np.meshgrid(2.0 ** np.arange(9, 31), np.array([2.0, 4.0, 8.0])))
    rng = np.random.default_rng(5)
    plain = Cells(size, devices, devices, np.ones(len(size)), np.ones(len(size)))
    seconds = place.predict(TRUE, plain) * np.exp(rng.normal(0.0, noise, len(size)))
    return place, Cells(size, devices, devices, seconds, plain.weight)


def test_known_protocols_are_found_again() -> None:
    place, at = made(noise=0.02)
    found = fit_protocols(place, at, RINGS[:2])
    assert found is not None
    assert np.median(np.abs(found.outside / at.seconds - 1.0)) < 0.03
    large = max(found.protocols, key=lambda protocol: protocol.efficiency)
    assert large.efficiency == pytest.approx(0.75, rel=0.05)
    assert large.own_share == pytest.approx(0.3, abs=0.1)
    truth = place.predict(TRUE, at)
    assert np.abs(place.predict(found.protocols, at) / truth - 1.0).max() < 0.12


def test_too_few_cells_are_notfit_protocols() -> None:
    place, at = made(noise=0.0)
    assert fit_protocols(place, at.take(np.arange(len(at)) < 4), RINGS) is None


def test_launch_is_what_small_calls_take() -> None:
    _, at = made(noise=0.0)
    slow = Cells(at.size, at.devices, at.per_node, np.maximum(at.seconds, 40e-6), at.weight)
    assert _launch(at.seconds, slow) == pytest.approx(40e-6, rel=0.03)


def table(folder: Path) -> Path:
    """Tables of a made-up A100 node, whose rows are what the profile says, and nothing published."""
    sizes, place = 2.0 ** np.arange(9, 29, 2), "dgx-a100-640"
    rows = [
        ("a100", "nccl", "2", op, n, np.nan, size, hwsim.collective_time(place, op, bytes=size, devices=n) * 1e6)
        for op in ("all_reduce", "all_gather")
        for n in (2, 4, 8)
        for size in sizes
    ]
    quick = [
        ("a100", "vllm_custom", "1", "all_reduce", n, np.nan, size, 4.0 + size / 2e5) for size in sizes for n in (2, 8)
    ]
    eager = [
        ("a100_dgx", "nccl(torch.distributed)", "1", "all_reduce", 8, 8, size, max(60.0, size / 2e5)) for size in sizes
    ]
    far = [("a100_dgx", "nccl(torch.distributed)", "1", "all_reduce", 16, 8, size, 90.0 + size / 2e4) for size in sizes]
    out = [("a100", "nccl", "2", "all_to_all", 16, 8, size, 200.0 + size / 1e4) for size in sizes]
    main = pd.DataFrame([*rows, *quick, *eager, *far, *out], columns=COLUMNS)
    main.to_csv(folder / MAIN, index=False)
    (folder / CONSTANTS).parent.mkdir()
    pd.DataFrame(columns=["hardware", "num_gpus", "bytes", "measured_value"]).to_csv(folder / VTRAIN, index=False)
    constants = [
        (
            "busbw_measured",
            "busbw_512MiB",
            "A100 SXM NVLink3",
            "all_gather",
            8,
            2.0**29,
            205,
            110,
            "low = at 16 MiB; 1 MiB 34.2",
        ),
        ("alpha_measured", "small", "A100 SXM NVLink3", "all_gather", 8, "<=2048", 15.0, "", ""),
        ("latency", "hop", "A100 SXM NVLink3", "all_gather", 8, "", 1.0, "", ""),
        ("busbw_measured", "peak", "some other machine", "all_gather", 8, "", 1.0, "", ""),
    ]
    names = ["category", "key", "system", "op", "n_devices", "message_bytes", "value", "low", "notes"]
    pd.DataFrame(constants, columns=names).to_csv(folder / CONSTANTS, index=False)
    return folder


def test_a_folder_of_tables_becomes_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = collectives.Target("dgx-a100-640", "a100", eager="a100_dgx", way_out=True, same=("aws-p4d",), shared=True)
    monkeypatch.setattr(collectives, "TARGETS", (target,))
    monkeypatch.setattr(protocols, "STARTS", 1)
    fits = fit_collectives(table(tmp_path))
    found = {(fit.profile, fit.path[1:], *fit.values): fit for fit in fits}
    nvlink, libraries = ("nvlink", "collectives"), ("nvlink", "libraries")
    assert found["dgx-a100-640", nvlink, "all_reduce"].outside.median < 0.1
    assert found["dgx-a100-640", nvlink, "all_gather"].inside.rows == 3 * 10 + 4  # the published points are new cells
    for borrowed in ("reduce_scatter", "all_to_all", "send_recv"):
        assert found["dgx-a100-640", nvlink, borrowed].data.startswith("as all_")
    assert found["dgx-a100-640", libraries, "vllm"].inside.median < 0.1
    launch = found["dgx-a100-640", libraries, "torch.distributed"].values["torch.distributed"]["launch"]
    assert launch["all_gather"] == "60 us"
    assert ("dgx-a100-640", ("rail", "libraries"), "torch.distributed") in found
    assert ("dgx-a100-640", ("rail", "collectives"), "all_to_all") in found
    assert ("aws-p4d", nvlink, "all_reduce") in found
    assert all(path[0] == "nvlink" for profile, path, *_ in found if profile == "aws-p4d")
    main = pd.read_csv(tmp_path / MAIN)
    main.groupby("library").head(4).to_csv(tmp_path / MAIN, index=False)
    few = [fit for fit in fit_collectives(tmp_path) if fit.path[-1] == "libraries" or "all_reduce" in fit.values]
    assert not few, "four cells give no fit, and no warning"


def test_protocols_say_what_ended_at_a_bound() -> None:
    place, at = made(noise=0.0)
    slow = Cells(at.size, at.devices, at.per_node, at.seconds + 0.1, at.weight)
    found, far = fit_protocols(place, at, RINGS[:2]), fit_protocols(place, slow, RINGS[:2])
    assert found is not None
    assert far is not None
    assert "0.latency" not in found.at_bound
    assert "0.latency" in far.at_bound
