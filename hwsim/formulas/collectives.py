"""Collectives on one network tier: bytes on the wire, steps, and the time of one protocol.

A library has several protocols for a collective; each is a fixed time, plus a time per step of its algorithm, plus the
bytes over the bandwidth it reaches. The fastest one wins at each size, and that minimum of straight lines is what makes
the bus bandwidth rise slowly with the message: no extra saturation term is needed.
"""

from __future__ import annotations

import numpy as np

from hwsim.formulas.types import Numeric

RING_PHASES = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0, "all_to_all": 1.0}
"""Times that the whole buffer, less the member's own share, goes round; send_recv is no ring."""


def _present(devices: Numeric) -> Numeric:
    """1.0 where a group has somebody to talk to, 0.0 for a group of one."""
    return np.minimum(np.maximum(1.0 * devices - 1.0, 0.0), 1.0)


def ceil_log2(count: Numeric) -> Numeric:
    """Smallest k with 2**k >= count, exactly: read off the exponent of the float, no logarithm. [-]

    Examples
    --------
    >>> [float(ceil_log2(n)) for n in (1, 2, 3, 4, 5, 1024, 1025)]
    [0.0, 1.0, 2.0, 2.0, 3.0, 10.0, 11.0]
    """
    mantissa, exponent = np.frexp(np.maximum(1.0 * count, 1.0))
    return 1.0 * exponent - np.where(mantissa == 0.5, 1.0, 0.0)


def wire_bytes(op: str, total_bytes: Numeric, devices: Numeric) -> Numeric:
    """Bytes each device sends, in the convention of the nccl-tests bus bandwidth [bytes].

    A ring moves (n-1)/n of the buffer per phase, and no algorithm without help from the switch can send less
    (Thakur, Rabenseifner, Gropp, "Optimization of Collective Communication Operations in MPICH", 2005; nccl-tests,
    PERFORMANCE.md). An all-reduce has two phases, a reduce-scatter and an all-gather.

    Parameters
    ----------
    op
        all_reduce, all_gather, reduce_scatter, all_to_all or send_recv.
    total_bytes
        Size in the nccl-tests sense [bytes]: the vector reduced, the gathered output, the input scattered, the send
        buffer of one device in an all-to-all, the message of a send.
    devices
        Members of the group, n.

    Examples
    --------
    A ring all-reduce of 800 bytes over 8 devices sends 14 chunks of 100 bytes:

    >>> float(wire_bytes("all_reduce", 800, 8))
    1400.0
    >>> float(wire_bytes("all_gather", 800, 8)), float(wire_bytes("send_recv", 800, 2))
    (700.0, 800.0)
    """
    if op == "send_recv":
        return 1.0 * total_bytes * _present(devices)
    return RING_PHASES[op] * total_bytes * ((1.0 * devices - 1.0) / devices)


def steps(op: str, algorithm: str, devices: Numeric) -> Numeric:
    """Number of dependent messages, each of which pays the latency of a hop once. [-]

    A ring passes n-1 messages per phase. A tree needs ceil(log2 n) per phase; the double binary tree keeps all links
    busy at that depth (Sanders, Speck, Träff, "Two-tree algorithms for full bandwidth broadcast, reduction and scan",
    2009). A switch that reduces is one message up and one down.

    Parameters
    ----------
    op
        all_reduce, all_gather, reduce_scatter, all_to_all or send_recv.
    algorithm
        ring, tree or switch.
    devices
        Members of the group, n.

    Examples
    --------
    >>> [float(steps("all_reduce", name, 8)) for name in ("ring", "tree", "switch")]
    [14.0, 6.0, 2.0]
    >>> float(steps("all_gather", "ring", 8)), float(steps("send_recv", "ring", 2))
    (7.0, 1.0)
    >>> float(steps("all_reduce", "tree", 1))
    0.0
    """
    if op == "send_recv":
        return _present(devices)
    return RING_PHASES[op] * _PHASE_STEPS[algorithm](devices)


def _ring_steps(devices: Numeric) -> Numeric:
    return 1.0 * devices - 1.0


_PHASE_STEPS = {"ring": _ring_steps, "tree": ceil_log2, "switch": _present}


def protocol_s(
    wire_bytes: Numeric, steps: Numeric, latency_s: Numeric, hop_s: Numeric, bandwidth_bytes_per_s: Numeric
) -> Numeric:
    """Time of a collective run with one protocol: latency + steps * hop + bytes / bandwidth [s].

    The alpha-beta model of Thakur et al. (2005), with the fixed cost of the call apart from the cost of a step. A
    group of one has no steps, sends nothing and costs nothing.

    Parameters
    ----------
    wire_bytes
        Bytes each device sends [bytes], from `wire_bytes`.
    steps
        Dependent messages, from `steps`; 0 for a group of one.
    latency_s
        Fixed time of the call [s].
    hop_s
        Time per step [s].
    bandwidth_bytes_per_s
        Bus bandwidth this protocol reaches on large messages, per device and direction [bytes/s].

    Examples
    --------
    14 steps of 1 us, 10 us fixed, 1.4 MB at 140 GB/s (10 us):

    >>> float(protocol_s(1.4e6, 14.0, 10e-6, 1e-6, 140e9)) * 1e6
    34.0
    """
    return np.where(1.0 * steps > 0.0, latency_s, 0.0) + steps * hop_s + wire_bytes / bandwidth_bytes_per_s


def sent_share(devices: Numeric, own_share: Numeric) -> Numeric:
    """Fraction of a protocol's bandwidth at large groups that `devices` members reach: (n-1) / (n-1 + own share). [-]

    Copying or reducing the own share takes time although it is not sent: the n-1 shares that are sent take the time of
    ``n - 1 + own_share``.

    Parameters
    ----------
    devices
        Members of the group, n.
    own_share
        Cost of the own share in shares sent; 1 where a switch reduces, as every member sends its whole buffer.

    Examples
    --------
    >>> [float(sent_share(n, 1.0)) for n in (2, 4, 8)]
    [0.5, 0.75, 0.875]
    """
    others = np.maximum(1.0 * devices, 2.0) - 1.0
    return others / (others + own_share)


def crowding(devices: Numeric, sharing: Numeric) -> Numeric:
    """Fraction of a pair's rate left to each of `devices` members that crowd a host bridge. [-]

    With ``y = n / 2`` it is ``1 / y`` where all share what one pair has, and ``1 / y**2`` where the bridge also slows
    down by as much; in between, the time is interpolated.

    Parameters
    ----------
    devices
        Members of the group, n.
    sharing
        0 on a switch, 1 where all members share what one pair has, 2 where that slows down as well.

    Examples
    --------
    >>> [[float(crowding(n, sharing)) for n in (1, 2, 4, 8)] for sharing in (0.0, 1.0, 2.0)]
    [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.5, 0.25], [1.0, 1.0, 0.25, 0.0625]]
    """
    pairs = np.maximum(1.0 * devices, 2.0) / 2.0
    once, again = np.minimum(sharing, 1.0), np.maximum(1.0 * sharing - 1.0, 0.0)
    return 1.0 / ((1.0 - once + once * pairs) * (1.0 - again + again * pairs))
