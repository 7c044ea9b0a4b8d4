"""Serving: tokens from guesses, blocks of a KV cache, pools that keep pace."""

from __future__ import annotations

import numpy as np

from hwsim.formulas.types import Numeric

MOST_GUESSES = 64
"""Most tokens guessed ahead."""


def accepted_tokens(guesses: Numeric, acceptance: Numeric) -> Numeric:
    """Mean tokens that one verification of some guesses gives: those right up to the first wrong one, and one more. [-]

    Parameters
    ----------
    guesses
        Tokens guessed ahead, k; at most 64.
    acceptance
        Probability that a guess is right given that those before it were, a: ``1 + a + ... + a^k``.

    References
    ----------
    .. [1] Y. Leviathan, M. Kalman, Y. Matias, "Fast inference from Transformers via speculative decoding", ICML 2023,
       equation 1.

    Examples
    --------
    >>> float(accepted_tokens(0, 0.7)), round(float(accepted_tokens(4, 0.8)), 3)
    (1.0, 3.362)
    """
    total: Numeric = 1.0
    power: Numeric = 1.0
    right = np.maximum(1.0 * acceptance, 1e-150)  # what is smaller adds nothing, and would underflow
    for place in range(MOST_GUESSES):
        power = np.maximum(power, 1e-150) * right
        total = total + np.where(np.less(place, guesses), power, 0.0)
    return total


def cache_blocks(tokens: Numeric, block_tokens: Numeric) -> Numeric:
    """Blocks that hold the keys and values of some tokens. [-]

    Examples
    --------
    >>> [float(cache_blocks(n, 16)) for n in (1, 16, 17)]
    [1.0, 1.0, 2.0]
    """
    return np.ceil(1.0 * tokens / block_tokens)
