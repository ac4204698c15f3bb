"""Matrices of directions that attain the least variance a number of runs can give.

In a box, where every input may move by +-1 on its own, no k runs have a smaller variance than
1/k per coordinate at unit noise, and columns of a Hadamard matrix attain it. In a ball, where the
length of the step is limited, the bound is m/k, and unit-norm tight frames attain it.
"""

from __future__ import annotations

import numpy as np

from gradiator_np._typing import Array


def is_prime(q: int) -> bool:
    """Whether q is prime, by trial division (orders are small)."""
    return q > 1 and all(q % p for p in range(2, int(q**0.5) + 1))


def _construction(order: int) -> str | None:
    """Which construction gives a Hadamard matrix of this order; None where none of ours does."""
    if order in (1, 2):
        return "trivial"
    if order % 4:
        return None
    if is_prime(order - 1):
        return "paley 1"  # order - 1 = 3 mod 4 follows from order = 0 mod 4
    half = order // 2 - 1
    if half % 4 == 1 and is_prime(half):
        return "paley 2"
    return "double" if _construction(order // 2) else None


def hadamard_order(runs: int) -> int:
    """The least order >= runs that ``hadamard`` can construct (a gap is at most a factor of 2)."""
    order = max(1, runs)
    while _construction(order) is None:
        order += 1
    return order


def _jacobsthal(q: int) -> Array:
    """Quadratic character of a - b modulo the prime q, shape (q, q)."""
    chi = -np.ones(q)
    chi[np.arange(1, q) ** 2 % q] = 1.0
    chi[0] = 0.0
    index = np.arange(q)
    return np.asarray(chi[(index[:, None] - index) % q])


def hadamard(order: int) -> Array:
    """Hadamard matrix of +-1, its first column all ones.

    Sylvester's doubling and both constructions of Paley for prime fields (R. E. A. C. Paley,
    J. Math. Phys. 12, 1933), which serve all multiples of 4 up to 48.

    Raises
    ------
    ValueError
        If none of them gives this order; ``hadamard_order`` finds the next that exists.
    """
    kind = _construction(order)
    if kind is None:
        raise ValueError(
            f"no Hadamard matrix of order {order} is known to this construction; "
            f"the next order is {hadamard_order(order)}"
        )
    if kind == "trivial":
        h = np.array([[1.0, 1.0], [1.0, -1.0]])[:order, :order]
    elif kind == "paley 1":
        h = np.ones((order, order))
        h[1:, 0] = -1.0
        h[1:, 1:] = _jacobsthal(order - 1)
        np.fill_diagonal(h, 1.0)
    elif kind == "paley 2":
        conference = np.ones((order // 2, order // 2))
        conference[1:, 1:] = _jacobsthal(order // 2 - 1)
        np.fill_diagonal(conference, 0.0)
        h = np.kron(conference, [[1.0, 1.0], [1.0, -1.0]])
        h += np.kron(np.eye(order // 2), [[1.0, -1.0], [-1.0, -1.0]])
    else:
        h = np.kron([[1.0, 1.0], [1.0, -1.0]], hadamard(order // 2))
    return np.asarray(h * h[:, :1])


def two_level(m: int, runs: int) -> Array:
    """m columns of a Hadamard matrix, the constant one left out: shape (runs', m).

    The design of Plackett and Burman (Biometrika 33, 1946): columns of +-1, orthogonal to each
    other and to the mean. runs' is the least order >= max(runs, m + 1).
    """
    return hadamard(hadamard_order(max(runs, m + 1)))[:, 1 : m + 1]


def simplex(m: int) -> Array:
    """Vertices of the regular simplex with centre 0 and radius 1, shape (m + 1, m)."""
    # Helmert contrasts: orthonormal columns that sum to 0, so every row has norm^2 m / (m + 1).
    k = np.arange(1, m + 1)
    rows = np.arange(m + 1)[:, None]
    helmert = np.where(rows < k, 1.0, np.where(rows == k, -k, 0.0)) / np.sqrt(k * (k + 1))
    return np.asarray(helmert * np.sqrt((m + 1) / m))


def tight_frame(m: int, rows: int) -> Array:
    """``rows`` >= m unit vectors with D^T D = (rows / m) I: shape (rows, m).

    The identity for rows == m, else the real harmonic frame (Goyal, Kovacevic and Kelner, Appl.
    Comput. Harmon. Anal. 10, 2001, section 2.3).
    """
    if rows < m:
        raise ValueError(f"{rows} directions cannot span {m} inputs: ask for at least {m}")
    if rows == m:
        return np.eye(m)
    phase = 2 * np.pi / rows * np.outer(np.arange(rows), np.arange(1, m // 2 + 1))
    frame = np.empty((rows, m))
    frame[:, 0 : 2 * (m // 2) : 2] = np.cos(phase)
    frame[:, 1 : 2 * (m // 2) : 2] = np.sin(phase)
    if m % 2:
        frame[:, -1] = np.sqrt(0.5)
    return np.asarray(frame * np.sqrt(2 / m))


def rotation(m: int, rng: np.random.Generator) -> Array:
    """Orthogonal matrix, uniform over all of them (Haar), shape (m, m)."""
    q, r = np.linalg.qr(rng.standard_normal((m, m)))
    return np.asarray(q * np.sign(np.diag(r)))
