"""What a power limit leaves of the clock."""

from __future__ import annotations

import numpy as np

from hwsim.formulas.types import Numeric


def sustained_share(limit_w: Numeric, idle_w: Numeric, unlimited_w: Numeric) -> Numeric:
    """Share of the boost clock that a device holds for hours under its power limit. [-]

    Power above idle goes as f V^2, and voltage rises with frequency: as the cube of the clock.

    Parameters
    ----------
    limit_w, idle_w : numeric
        Power limit, and power when doing nothing. [W]
    unlimited_w : numeric
        What the load would draw at the boost clock if nothing limited it. [W]

    References
    ----------
    .. [1] T. Mudge, "Power: a first-class architectural design constraint", IEEE Computer 34(4), 2001.

    Examples
    --------
    >>> float(sustained_share(700, 100, 700)), round(float(sustained_share(500, 100, 900)), 3)
    (1.0, 0.794)
    """
    left = np.maximum(limit_w - 1.0 * idle_w, 0.0) / np.maximum(unlimited_w - 1.0 * idle_w, 1e-9)
    return np.cbrt(np.minimum(left, 1.0))


def loaded_w(idle_w: Numeric, full_w: Numeric, awake_share: Numeric, active_j: Numeric, seconds: Numeric) -> Numeric:
    """Mean power of a device at work: idle, awake, and the energy of what it does, up to its limit. [W]

    Parameters
    ----------
    idle_w, full_w : numeric
        Power when doing nothing, and the most it draws. [W]
    awake_share : numeric
        Of what lies between them, drawn while any work is queued. [-]
    active_j : numeric
        Energy of the operations and bytes themselves. [J]
    seconds : numeric
        In which they are done. [s]

    References
    ----------
    .. [1] S. Hong and H. Kim, "An integrated GPU power and performance model", ISCA 2010.

    Examples
    --------
    >>> float(loaded_w(100, 700, 0.2, 180.0, 1.0)), float(loaded_w(100, 700, 0.2, 900.0, 1.0))
    (400.0, 700.0)
    """
    span = np.maximum(full_w - 1.0 * idle_w, 0.0)
    return idle_w + np.minimum(awake_share * span + active_j / np.maximum(seconds, 1e-12), span)
