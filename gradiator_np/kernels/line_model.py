"""The line model: what pairs of runs at x +- t say about the slope and about the next step.

Along one input, in units t of its scale, f = f0 + g t + sum_p a_p t^p with
a_p ~ N(0, (b sd_p)^2) for p >= 2. A pair at t gives

    D = (f+ - f-) / (2 t) = g + a_3 t^2 + a_5 t^4 + ...    noise variance w v / (2 t^2)
    E = f+ + f- - 2 f0    = 2 (a_2 t^2 + a_4 t^4 + ...)    noise variance 2 v, 4 s^2 shared

with v = s^2 + b^2 k^2: noise, and the jitter k of an input that is rounded or meshed,

and every question is a small least-squares problem whose prior is a set of rows of its own. It is
solved by Givens rotations of the square-root form: pairs from 1e-8 to 0.5 meet in one fit, which
covariances do not survive.

Shapes: D rows of data (one input and one output each), P pairs, S states of the model, C of them at
work, Q terms of each parity. All arrays float64 and C-contiguous.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]


# One kernel without callees: everything inlined is compiled again in every caller, and two kernels
# for the design and the estimate took 7 s where this takes less than 1.
@njit(cache=True, nogil=True, error_model="numpy")
def fit(
    basis: Array, weight: Array, y: Array, amp: Array, last: Array, prior: float, sharp: Array,
    sd: Array, pick: Index, held: int, block: int, mean: Array, variance: Array, log: Array,
) -> None:  # fmt: skip
    """Solve for the last unknown, g or the error of f0, from pairs in hand and with new ones.

    The unknowns are a_(2Q+1) .. a_3 (or a_(2Q) .. a_2) over their prior, then the last one.

    Parameters
    ----------
    basis : array, shape (D, P, Q)
        What each term adds to what was measured.
    weight, y : array, shape (D, P)
        Weights at unit noise, and what was measured; nan in ``y`` where there is no pair.
    amp, last : array, shape (D,)
        Factors of the terms and of the last unknown.
    prior : float
        1 over the prior standard deviation of the last unknown.
    sharp : array, shape (D, C)
        1 over the noise under each state.
    sd : array, shape (S, Q)
        Prior standard deviations of the terms at ``amp`` 1.
    pick : array of int, shape (D, C)
        The states; -1 for none.
    held, block : int
        The first ``held`` pairs are in hand, each further ``block`` is one candidate.
    mean, variance : array, shape (D, C, 1 + candidates)
        The last unknown from the pairs in hand, and from them and each candidate; left as it is
        where nothing is known of it.
    log : array, shape (D, C)
        Overwritten: log-likelihood of the pairs in hand.
    """
    terms, size = sd.shape[1], sd.shape[1] + 1
    r = np.zeros((size, size + 1))
    start = np.zeros((size, size + 1))
    row = np.zeros(size + 1)
    for j in range(pick.shape[0]):
        for c in range(pick.shape[1]):
            s = pick[j, c]
            if s < 0:
                continue
            # the triangle, and the right-hand side as its last column
            for q in range(size):
                for d in range(q, size + 1):
                    start[q, d] = 0.0
                start[q, q] = 1.0 if q < terms else prior
            for a in range(mean.shape[2]):
                for q in range(size):
                    for d in range(q, size + 1):
                        r[q, d] = start[q, d]
                first = 0 if a == 0 else held + (a - 1) * block
                squares, weights, logs = 0.0, 1.0, 0.0
                for p in range(first, held if a == 0 else first + block):
                    if y[j, p] != y[j, p]:
                        continue
                    w = weight[j, p] * sharp[j, c]
                    scale = w * amp[j]
                    for q in range(terms):
                        term = scale * basis[j, p, q] * sd[s, q]
                        # terms below 1e-4 of the noise change nothing that rounding does not,
                        # and their rotations are saved
                        row[terms - 1 - q] = term if abs(term) > 1e-4 else 0.0
                    row[terms], row[size] = w * last[j], w * y[j, p]
                    for q in range(size):
                        if row[q] != 0.0:
                            h = np.sqrt(r[q, q] * r[q, q] + row[q] * row[q])
                            cs, sn = r[q, q] / h, row[q] / h
                            r[q, q] = h
                            for d in range(q + 1, size + 1):
                                old, new = r[q, d], row[d]
                                r[q, d], row[d] = cs * old + sn * new, cs * new - sn * old
                    # what is left of y belongs to the residual sum of squares
                    squares += row[size] * row[size]
                    weights *= w
                    if weights > 1e150 or weights < 1e-150:
                        logs += np.log(weights)
                        weights = 1.0
                pivot = r[terms, terms]
                if pivot != 0.0:
                    mean[j, c, a] = r[terms, size] / pivot
                    variance[j, c, a] = 1.0 / (pivot * pivot)
                if a == 0:
                    for q in range(size):
                        for d in range(q, size + 1):
                            start[q, d] = r[q, d]
                        if r[q, q] != 0.0:
                            weights /= r[q, q]
                            if weights > 1e150 or weights < 1e-150:
                                logs += np.log(weights)
                                weights = 1.0
                    log[j, c] = logs + np.log(weights) - 0.5 * squares
