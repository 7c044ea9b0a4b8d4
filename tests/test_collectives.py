"""Collective formulas against a ring played out message by message, and the profiles against published bandwidths."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest

from hwsim.formulas.collectives import ceil_log2, protocol_s, steps, wire_bytes

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
    import hwsim

    time_s = hwsim.collective_time(cluster, op, bytes=size, devices=devices)
    assert float(wire_bytes(op, size, devices)) / time_s / 1e9 == pytest.approx(published, rel=0.15)


@pytest.mark.parametrize(("cluster", "devices", "published_us"), LATENCY)
def test_published_latency(cluster: str, devices: int, published_us: float) -> None:
    import hwsim

    time_s = hwsim.collective_time(cluster, "all_reduce", bytes=2048, devices=devices)
    assert time_s * 1e6 == pytest.approx(published_us, rel=0.15)
