"""Least squares in square-root form, with samples as they come.

The state is the triangle of a QR factorisation, ``[R | Z]`` with R^T R = sum d d^T and
R J^T = Z: it is as accurate as a QR of all samples at once. Forms that carry the covariance or
the normal equations lose twice as many digits, and the covariance form with forgetting reached
NaN after 8e5 updates (measured). The prior is kept apart and added when J is read, so that a
merge of two states does not count it twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack, solve_triangular

from gradiator_np.covariance import NULL_TOL, Covariance
from gradiator_np.kernels.rank_one import qr_update
from gradiator_np.solvers.solution import Solution
from gradiator_np.status import Status

Array = NDArray[np.float64]

BLOCK = 64  #: rows that are factored together
# Inner block of LAPACK's triangular-pentagonal QR: 8 was fastest at m = 64 (68 us a block of 64;
# 117 us with 64), 32 from a few hundred inputs on.
INNER = (8, 32)
# A direction whose column-scaled information is below this is rounding (3e5 updates left 2e-15).
RANK_TOL = 1e-12
# Default prior relative to the displacements of an input: a bias of (PRIOR_REL / s)^2 in a
# direction of column-scaled information s, rounding down to s = 1e-2.
PRIOR_REL = 1e-10


@dataclass(frozen=True)
class Fit:
    """What a square-root state says about J under a prior.

    Attributes
    ----------
    coef : array, shape (n, m)
    root : array, shape (m, m)
        Upper triangular, root^T root = Lambda = sum d d^T + diag(prior)^2.
    prior : array, shape (m,)
    cond : float
        Condition of the samples with scaled columns (1-norm estimate); inf where singular.
    rounding : array, shape (n,)
        Squared residual that rounding hid in directions without information.
    data_rank : int
        Number of directions that the samples fill beyond rounding.
    """

    coef: Array
    root: Array
    prior: Array
    cond: float
    rounding: Array
    data_rank: int

    def unknown(self, u: Array) -> Array:
        """sqrt(u' Lambda^-1 u / u' Lambda_0^-1 u) for u of shape (..., m)."""
        flat = np.moveaxis(u, -1, 0).reshape(u.shape[-1], -1)
        post = solve_triangular(self.root, flat, trans="T", check_finite=False)
        ratio = np.linalg.norm(post, axis=0) / np.linalg.norm(flat / self.prior[:, None], axis=0)
        return np.asarray(np.minimum(ratio, 1.0).reshape(u.shape[:-1]))

    @cached_property
    def factors(self) -> tuple[Array, Array | None]:
        """Factor F, Lambda^-1 = F F^T on what the samples determine, and the null directions.

        A direction is null where the prior outweighs the samples.
        """
        inverse = np.asarray(lapack.dtrtri(self.root)[0])
        relative = self.prior[:, None] * inverse
        # Its singular values are ``unknown`` along the principal directions.
        if np.linalg.norm(relative) <= np.sqrt(0.5):
            return inverse, None
        u, s, _ = np.linalg.svd(relative)
        lost = u[:, s > np.sqrt(0.5)]
        if not lost.size:
            return inverse, None
        inverse -= (lost @ (lost.T @ relative)) / self.prior[:, None]
        lost[np.abs(lost) < NULL_TOL] = 0.0
        null = lost / self.prior[:, None]
        return inverse, null / np.abs(null).max(axis=0)


@dataclass
class SquareRoot:
    """Least squares in triangular form, R J^T = Z, which takes samples as they come.

    Parameters
    ----------
    r : array, shape (m, m), z : array, shape (m, n)
        The triangle and its right-hand side; Fortran order for LAPACK without forgetting, C order
        for the row-by-row kernel with it.
    ssr : array, shape (n,)
        Squares that the factorisation left below the triangle.
    forgetting : float
        Weight that a row leaves of earlier information along its own direction.
    total, degrees, squares : float
        Sum of the weights of all rows in ``ssr``; of those that tell about the noise (without
        forgetting: all, less the rank when read); of the squares of these.
    """

    r: Array
    z: Array
    ssr: Array
    forgetting: float = 1.0
    total: float = 0.0
    degrees: float = 0.0
    squares: float = 0.0
    _work: Array = field(default_factory=lambda: np.empty(0), repr=False)

    @classmethod
    def zeros(cls, m: int, n: int, forgetting: float = 1.0) -> SquareRoot:
        """State before any sample."""
        order: Literal["C", "F"] = "F" if forgetting == 1 else "C"
        return cls(
            np.zeros((m, m), order=order), np.zeros((m, n), order=order), np.zeros(n), forgetting
        )

    def copy(self) -> SquareRoot:
        return replace(
            self,
            r=self.r.copy(order="K"),
            z=self.z.copy(order="K"),
            ssr=self.ssr.copy(),
            _work=np.empty(0),
        )

    def absorb(self, dx: Array, df: Array) -> None:
        """Add rows, dx (k, m) and df (k, n), in order; blocks by matrix products."""
        order: Literal["C", "F"] = "F" if self.forgetting == 1 else "C"
        for start in range(0, len(dx), BLOCK):
            rows = slice(start, start + BLOCK)
            self._absorb(np.array(dx[rows], order=order), np.array(df[rows], order=order))

    def _absorb(self, dx: Array, df: Array) -> None:
        k, m = dx.shape
        if self.forgetting == 1:
            inner = min(m, INNER[m > 256])
            # Both calls work in place: all four arrays are Fortran-ordered.
            _, v, t, _ = lapack.dtpqrt(0, inner, self.r, dx, overwrite_a=1, overwrite_b=1)
            lapack.dtpmqrt(0, v, t, self.z, df, side="L", trans="T", overwrite_a=1, overwrite_b=1)
            self.ssr += np.square(df).sum(axis=0)
            self.total += k
            self.degrees += k
            self.squares += k
            return
        if not self._work.size:
            self._work = np.empty(2 * m + self.ssr.size)
        known = np.empty(k, np.bool_)
        qr_update(self.r, self.z, self.ssr, dx, df, self.forgetting, known, self._work)
        fade = self.forgetting ** np.arange(k - 1, -1, -1)
        self.total = self.forgetting**k * self.total + fade.sum()
        self.degrees = self.forgetting**k * self.degrees + fade[known].sum()
        self.squares = self.forgetting ** (2 * k) * self.squares + np.square(fade[known]).sum()

    def merge(self, other: SquareRoot) -> None:
        """Add all that another state has seen."""
        before = self.total, self.degrees, self.squares
        self.absorb(other.r, other.z)
        self.ssr += other.ssr
        self.total, self.degrees, self.squares = (
            a + b for a, b in zip(before, (other.total, other.degrees, other.squares))
        )

    def rescale(self, factor: float) -> None:
        """Multiply all rows so far by ``factor``."""
        self.r *= factor
        self.z *= factor
        self.ssr *= factor**2

    def drift(self, variance: Array) -> None:
        """Let J wander: add diag(variance) to the covariance of its rows at unit noise.

        R (J + W)^T = Z + e + R W^T, so the rows' noise is I + R Q R^T = U U^T; an upper
        triangular U keeps U^-1 R upper triangular.
        """
        root = self.r
        noise = np.eye(len(root)) + (root * variance) @ root.T
        upper = np.linalg.cholesky(noise[::-1, ::-1])[::-1, ::-1]
        self.r[:] = solve_triangular(upper, root, check_finite=False)
        self.z[:] = solve_triangular(upper, self.z, check_finite=False)

    def fit(self, prior_scale: Array | None) -> Fit:
        """J with prior rows ``prior_scale[j] e_j`` that saw 0; None for the flattest that works."""
        m, n = self.z.shape
        lengths = np.sqrt(np.square(self.r).sum(axis=0))
        prior = _prior(lengths, prior_scale)
        scaled = self.r / np.where(lengths > 0, lengths, 1.0)
        rcond = float(lapack.dtrcon(scaled)[0])
        post = SquareRoot.zeros(m, n)
        rounding, data_rank = np.zeros(n), m
        if rcond > 100 * RANK_TOL:
            post.r[:], post.z[:] = self.r, self.z
        elif not lengths.any():
            data_rank = 0
        else:
            # Rounding fills directions without information with parts of the residual that a
            # weak prior would blow up: they are cut off and given back to the residual.
            u, s, vt = np.linalg.svd(scaled)
            data_rank = int((s > RANK_TOL * s[0]).sum())
            rotated = u.T @ self.z
            rounding = np.square(rotated[data_rank:]).sum(axis=0)
            clean = s[:data_rank, None] * vt[:data_rank] * lengths
            post.absorb(clean, rotated[:data_rank])
        _absorb_diagonal(post, prior)
        coef = solve_triangular(post.r, post.z, check_finite=False).T
        cond = 1 / rcond if data_rank == m else np.inf
        return Fit(np.ascontiguousarray(coef), post.r, prior, cond, rounding, data_rank)

    def scale(self, fit: Fit) -> tuple[Array, float]:
        """Noise of one row per output, from the residuals, and its degrees of freedom."""
        lost = fit.data_rank if self.forgetting == 1 else 0
        degrees, squares = self.degrees - lost, self.squares - lost
        if degrees < 0.5:
            return np.full(self.ssr.shape, np.nan), 0.0
        # Welch-Satterthwaite: equal to ``degrees`` where every row has weight 1.
        return np.sqrt((self.ssr + fit.rounding) / degrees), degrees**2 / squares

    def misfit(self, fit: Fit) -> Array:
        """Root mean square misfit of the rows per output; nan before any."""
        if not self.total:
            return np.full(self.ssr.shape, np.nan)
        pull = np.square(self.r @ fit.coef.T - self.z).sum(axis=0)
        return np.asarray(np.sqrt((self.ssr + pull) / self.total))


def _prior(lengths: Array, prior_scale: Array | None) -> Array:
    """Prior rows' lengths (m,); by default relative to the displacements seen."""
    if prior_scale is not None:
        return prior_scale
    moved = lengths[lengths > 0]
    # An input that never moved is as uncertain as the least certain of the others.
    still = moved.min() if moved.size else 1.0
    return np.asarray(PRIOR_REL * np.where(lengths > 0, lengths, still))


def _absorb_diagonal(state: SquareRoot, diagonal: Array) -> None:
    m, n = state.z.shape
    for start in range(0, m, BLOCK):
        rows = np.arange(start, min(start + BLOCK, m))
        dx = np.zeros((len(rows), m), order="F")
        dx[np.arange(len(rows)), rows] = diagonal[rows]
        state.absorb(dx, np.zeros((len(rows), n), order="F"))


def solution_of(
    state: SquareRoot, fit: Fit, *, noise: Array | None = None, intercept: bool = False
) -> Solution:
    """What a square-root state says, as a Solution; ``noise`` is given or learned from residuals.

    With ``intercept`` the first input is the constant 1.
    """
    m, n = state.z.shape
    scale, degrees = state.scale(fit) if noise is None else (noise, np.inf)
    factor, null = fit.factors
    rank = m - (0 if null is None else null.shape[1])
    value = value_stderr = None
    coef = fit.coef
    if intercept:
        value, coef = coef[:, 0].copy(), np.ascontiguousarray(coef[:, 1:])
        spread = np.linalg.norm(factor[0])
        value_stderr = scale * spread
        factor = np.ascontiguousarray(factor[1:])
        if null is not None:
            if null[0].any():
                value_stderr = np.full(n, np.inf)
            null = null[1:]
            null = null[:, null.any(axis=0)]
            null = null if null.size else None
        m, rank = m - 1, m - 1 - (0 if null is None else null.shape[1])
    return Solution(
        coef=coef,
        cov=Covariance(scale, factor=factor, null=null),
        dof=np.full(n, degrees),
        rank=np.asarray(rank, np.intp),
        cond=np.asarray(fit.cond),
        residual=state.misfit(fit),
        value=value,
        value_stderr=value_stderr,
        **status_of(rank, m),
    )


def status_of(rank: int, m: int) -> dict[str, Any]:
    """Status and message for ``rank`` determined directions of ``m``."""
    if rank == m:
        return {}
    return {
        "status": Status.UNDETERMINED.value,
        "message": f"{m - rank} of {m} directions are determined by no sample: stderr is inf "
        "there and jac keeps its prior; add samples that move along them",
    }
