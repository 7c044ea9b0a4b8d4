"""Where the members of a communication group sit on the tiers of a network.

Devices are numbered so that neighbours share the innermost tier. A group of `size` members takes every `stride`-th
device; a domain is the set of devices below one switch (or on one torus) of a tier.
"""

from __future__ import annotations

import numpy as np

from hwsim.formulas.types import Numeric


def members_within(domain: Numeric, stride: Numeric, size: Numeric) -> Numeric:
    """Members of a group that share one domain, for the group that is split worst. [-]

    Parameters
    ----------
    domain : numeric
        Devices in a domain. [-]
    stride : numeric
        Distance between consecutive members. [-]
    size : numeric
        Members of the group. [-]

    Notes
    -----
    The group covers `stride * size` consecutive devices; what it shares with a domain that it does not fill evenly is
    their greatest common divisor.

    Examples
    --------
    >>> [int(members_within(8, stride, size)) for stride, size in ((1, 8), (1, 16), (2, 8), (8, 4), (1, 6))]
    [8, 8, 4, 1, 2]
    """
    span = np.asarray(stride, np.int64) * np.asarray(size, np.int64)
    shared = np.gcd(np.asarray(domain, np.int64), span) / np.asarray(stride, np.float64)
    return np.clip(np.floor(shared), 1.0, size)


def boundary_share(inside: Numeric, outside: Numeric, size: Numeric) -> Numeric:
    """Share of a ring's messages that cross from a domain with `inside` members into one with `outside`. [-]

    On average over the members, for the group that is split worst.

    A ring visits the members domain by domain, so ``size / inside`` of its ``size`` hops leave a domain of the lower
    tier, and ``size / outside`` of those (when there is an outer domain at all) leave the upper one too.

    Parameters
    ----------
    inside, outside : numeric
        Members in one domain of the tier below, and of the tier itself. [-]
    size : numeric
        Members of the group. [-]

    Examples
    --------
    >>> float(boundary_share(1, 8, 32)), float(boundary_share(8, 32, 32))
    (0.875, 0.125)
    """
    crossing = 1.0 / inside - np.where(outside < size, 1.0 / outside, 0.0)
    return np.where(inside < size, crossing, 0.0)


def line_share(inside: Numeric, outside: Numeric, size: Numeric, rounds: Numeric) -> Numeric:
    """Share of a pipeline's sends that cross from a domain with `inside` stages into one with `outside`. [-]

    The chunks of an interleaved pipeline lie on a line that goes round the stages `rounds` times.

    Parameters
    ----------
    inside, outside : numeric
        Stages in one domain of the tier below, and of the tier itself. [-]
    size, rounds : numeric
        Stages, and chunks per stage. [-]

    Examples
    --------
    Four stages, two to a node: one of three boundaries leaves the node; twice round, three of seven.

    >>> float(line_share(2, 4, 4, 1)) == 1 / 3, float(line_share(2, 4, 4, 2)) == 3 / 7
    (True, True)
    """
    boundaries = np.maximum(1.0 * size * rounds - 1.0, 1.0)

    def leaving(members: Numeric) -> Numeric:
        return np.where(members < size, (1.0 * size * rounds / members - 1.0) / boundaries, 0.0)

    return leaving(inside) - leaving(outside)


def torus_share(size: Numeric, edge: Numeric, dimensions: Numeric, multiple: Numeric) -> Numeric:
    """Fraction of a chip's torus links that a collective over `size` chips can drive. [-]

    Parameters
    ----------
    size : numeric
        Chips in the group, laid out along as few axes as hold them. [-]
    edge : numeric
        Chips along one axis of the slice. [-]
    dimensions : numeric
        Axes of the torus. [-]
    multiple : numeric
        An axis closes into a ring where its length is a multiple of this; else it is a line, which drives only one of
        its two directions. [-]

    References
    ----------
    .. [1] J. Austin et al., "How to Scale Your Model", Google DeepMind, 2025, part 2 (TPU networking).

    Examples
    --------
    >>> float(torus_share(16, 16, 2, 16)), float(torus_share(256, 16, 2, 16)), float(torus_share(4, 16, 2, 16))
    (0.5, 1.0, 0.25)

    Where optical switches join cubes of four, four chips of a larger slice are given an axis of their own:

    >>> float(torus_share(4, 8, 3, 4)) * 3
    1.0
    """
    axes = np.minimum(1.0 + (size > edge) + (size > 1.0 * edge * edge), dimensions)
    return axes / dimensions * np.where(_closes(np.minimum(1.0 * size, edge), multiple), 1.0, 0.5)


def _closes(axis: Numeric, multiple: Numeric) -> Numeric:
    """Whether an axis of this length closes into a ring."""
    return np.mod(axis, multiple) == 0


def torus_walk(size: Numeric, edge: Numeric, multiple: Numeric) -> Numeric:
    """Length of one ring with as many steps as a torus takes axis by axis: 1 + the sum of the steps of its axes. [-]

    A full axis that closes is walked both ways at once, ``axis // 2`` steps; a line from end to end, ``axis - 1``.

    Parameters
    ----------
    size : numeric
        Chips in the group. [-]
    edge : numeric
        Chips along one axis of the slice. [-]
    multiple : numeric
        An axis closes into a ring where its length is a multiple of this. [-]

    References
    ----------
    .. [1] J. Austin et al., "How to Scale Your Model", Google DeepMind, 2025, part 3 (sharding).

    Examples
    --------
    >>> float(torus_walk(256, 16, 16)), float(torus_walk(256, 16, 32)), float(torus_walk(8, 16, 16))
    (17.0, 31.0, 8.0)
    """

    def walked(axis: Numeric) -> Numeric:
        return np.where(_closes(axis, multiple), np.floor(axis / 2.0), axis - 1.0)

    row, column = np.minimum(1.0 * size, edge), np.minimum(np.ceil(1.0 * size / edge), edge)
    return 1.0 + walked(row) + walked(column) + walked(np.ceil(1.0 * size / (1.0 * edge * edge)))


def torus_exchange_share(size: Numeric, edge: Numeric, dimensions: Numeric, multiple: Numeric) -> Numeric:
    """Fraction of a chip's torus links that an all-to-all over `size` chips amounts to. [-]

    Messages travel k/4 links along a closed axis of k chips and are forwarded by those between, so an all-to-all of
    ``b`` bytes per chip takes ``b * k / 4`` over both directions of one axis; the axes work side by side. The middle
    link of a line carries twice that.

    Parameters
    ----------
    size : numeric
        Chips in the group, laid out along as few axes as hold them. [-]
    edge : numeric
        Chips along one axis of the slice. [-]
    dimensions : numeric
        Axes of the torus. [-]
    multiple : numeric
        An axis closes into a ring where its length is a multiple of this. [-]

    References
    ----------
    .. [1] J. Austin et al., "How to Scale Your Model", Google DeepMind, 2025, part 3: a quarter of an all-gather.

    Examples
    --------
    Sixteen chips of a 16 x 16 torus: of two axes one, and 15/16 of the bytes take 4 of them.

    >>> float(torus_exchange_share(16, 16, 2, 16)) == 0.5 * (15 / 16) / 4
    True
    """
    axis = np.maximum(np.minimum(1.0 * size, edge), 2.0)
    members = np.maximum(1.0 * size, 2.0)
    sent = (members - 1.0) / members
    return sent * 4.0 / axis / dimensions * np.where(_closes(np.minimum(1.0 * size, edge), multiple), 1.0, 0.5)


def mesh_share(size: Numeric, devices: Numeric) -> Numeric:
    """Fraction of a device's links in a full mesh that lead to other members of its group. [-]

    Eight MI300X are joined pairwise: a group of two has one of a device's seven links.

    Parameters
    ----------
    size : numeric
        Members of the group. [-]
    devices : numeric
        Devices in the mesh. [-]

    Examples
    --------
    >>> float(mesh_share(8, 8)), float(mesh_share(1, 8)) * 7
    (1.0, 1.0)
    """
    return np.minimum(np.maximum(1.0 * size - 1.0, 1.0) / np.maximum(1.0 * devices - 1.0, 1.0), 1.0)
