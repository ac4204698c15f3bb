"""Recursive least squares in square-root (information filter) form.

The state is the triangle of a QR factorisation, ``[R | Z]`` with R^T R = sum d d^T and
R J^T = Z: it is as accurate as a QR of all samples at once. Forms that carry the covariance or
the normal equations lose twice as many digits, and the covariance form with forgetting reached
NaN after 8e5 updates (measured). The prior is kept apart and added when J is read, so that a
merge of two states does not count it twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.linalg import blas, lapack, solve_triangular

from gradiator_np._covariance import NULL_TOL, Covariance
from gradiator_np._status import Status
from gradiator_np._typing import Array
from gradiator_np.kernels.rank_one import qr_update
from gradiator_np.solvers._least_squares.linear import stacked_lstsq, unit_columns
from gradiator_np.solvers._solution import Solution

BLOCK = 64  #: rows that are factored together
# Inner block of LAPACK's triangular-pentagonal QR: 8 was fastest at m = 64 (68 us a block of 64;
# 117 us with 64), 32 from a few hundred inputs on.
INNER = (8, 32)
# A direction whose column-scaled information is below this is rounding (3e5 updates left 2e-15).
RANK_TOL = 1e-12
# Outputs beyond this, or its inverse, are held in units of their own: squares of their residuals
# would leave the range of floats.
WIDE = 1e70


@dataclass(frozen=True)
class LeastNorm:
    """The fit of least norm, in the caller's units: the limit of a prior that weighs nothing.

    Attributes
    ----------
    coef : array, shape (n, m)
    factors : array, shape (m, r), and array, shape (m, q), or None
        F, the covariance F F^T of a row at unit noise, and the directions that no sample shows.
    unit : array, shape (m,)
        What scales each input's displacements to norm 1.
    cond : float
        Condition of the samples with scaled columns (1-norm estimate); inf where singular.
    rounding : array, shape (n,)
        Squared residual that rounding hid in directions without information.
    data_rank : int
        Number of directions that the samples fill beyond rounding.
    """

    coef: Array
    factors: tuple[Array, Array | None]
    unit: Array
    cond: float
    rounding: Array
    data_rank: int

    def unknown(self, u: Array) -> Array:
        """The share of u (..., m) that no sample moved along, in scaled inputs."""
        null = self.factors[1]
        if null is None:
            return np.zeros(u.shape[:-1])
        # An input that never moved counts in units of the least displaced of the others.
        still = (null != 0).sum(axis=1) == 1
        moved = self.unit[~still]
        unit = np.where(still, moved.max() if moved.size else 1.0, self.unit)
        scaled = u * unit
        # Null vectors are orthonormal in scaled inputs.
        rest = scaled @ (null / self.unit[:, None])
        share = np.linalg.norm(rest, axis=-1) / np.linalg.norm(scaled, axis=-1)
        return np.asarray(np.minimum(share, 1.0))


@dataclass(frozen=True)
class Shrunk:
    """Posterior of J under a prior: Bayesian linear regression at unit noise.

    Attributes
    ----------
    coef, cond, rounding, data_rank
        As in `LeastNorm`.
    root : array, shape (m, m)
        Upper triangular, root^T root = Lambda = sum d d^T + diag(prior)^2.
    prior : array, shape (m,)
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
        """A direction is null where the prior outweighs the samples."""
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


Posterior = LeastNorm | Shrunk


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
    unit : array, shape (n,)
        ``z`` and ``ssr`` are in these units, powers of two: 1 for outputs of ordinary size.
    total, degrees, squares : float
        Sum of the weights of all rows in ``ssr``; of those with information on the noise (without
        forgetting: all, less the rank when read); of the squares of these.
    """

    r: Array
    z: Array
    ssr: Array
    unit: Array
    forgetting: float = 1.0
    total: float = 0.0
    degrees: float = 0.0
    squares: float = 0.0
    _most: float = field(default=-1.0, repr=False)  # up to this size outputs are as they are
    _work: Array = field(default_factory=lambda: np.empty(0), repr=False)

    @classmethod
    def zeros(cls, m: int, n: int, forgetting: float = 1.0) -> SquareRoot:
        """State before any sample."""
        order: Literal["C", "F"] = "F" if forgetting == 1 else "C"
        return cls(
            np.zeros((m, m), order=order), np.zeros((m, n), order=order), np.zeros(n), np.ones(n),
            forgetting,
        )  # fmt: skip

    def copy(self) -> SquareRoot:
        return replace(
            self,
            r=self.r.copy(order="K"),
            z=self.z.copy(order="K"),
            ssr=self.ssr.copy(),
            unit=self.unit.copy(),
            _work=np.empty(0),
        )

    def absorb(self, dx: Array, df: Array) -> None:
        """Add rows, dx (k, m) and df (k, n), in order; blocks by matrix products."""
        order: Literal["C", "F"] = "F" if self.forgetting == 1 else "C"
        for start in range(0, len(dx), BLOCK):
            rows = slice(start, start + BLOCK)
            right = np.array(df[rows], order=order)
            self._to_units(right)
            self._absorb(np.array(dx[rows], order=order), right)

    def _to_units(self, df: Array) -> None:
        """Divide ``df`` (k, n) by units in which its squares, and all before, are floats."""
        if blas.dnrm2(df.ravel("K")) <= self._most:
            return
        size = np.abs(df).max(axis=0, initial=0.0)
        relative = size / self.unit
        fresh = (self.ssr == 0) & ~self.z.any(axis=0)
        change = (relative > WIDE) | (fresh & (relative > 0) & (relative < 1 / WIDE))
        unit = np.where(change, 2.0 ** np.frexp(np.where(change, size, 1.0))[1], self.unit)
        ratio = np.divide(self.unit, unit, out=np.ones_like(unit), where=~fresh)
        self.z *= ratio
        self.ssr *= np.square(ratio)
        self.unit = unit
        df /= unit
        usual = (unit == 1).all() and (~fresh | (size > 0)).all()
        self._most = WIDE if usual else -1.0

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
        # rows of a triangle whose outputs are in units of their own
        self.absorb(other.r, other.z * other.unit)
        self.ssr += other.ssr * np.square(other.unit / self.unit)
        self.total, self.degrees, self.squares = (
            a + b for a, b in zip(before, (other.total, other.degrees, other.squares))
        )

    def rescale(self, factor: float) -> None:
        """Multiply all rows so far by ``factor``."""
        self.r *= factor
        self.z *= factor
        self.ssr *= factor**2

    def inflate(self, variance: Array) -> None:
        """Let J wander: add diag(variance) to the covariance of its rows at unit noise.

        R (J + W)^T = Z + e + R W^T, so the rows' noise is I + R Q R^T = U U^T; an upper
        triangular U keeps U^-1 R upper triangular.
        """
        root = self.r
        noise = np.eye(len(root)) + (root * variance) @ root.T
        upper = np.linalg.cholesky(noise[::-1, ::-1])[::-1, ::-1]
        self.r[:] = solve_triangular(upper, root, check_finite=False)
        self.z[:] = solve_triangular(upper, self.z, check_finite=False)

    def posterior(self, prior_scale: Array | None) -> Posterior:
        """J with prior rows ``prior_scale[j] e_j`` that saw 0; None for the fit of least norm.

        Noise, rounding and J are in the outputs' ``unit``.
        """
        m, n = self.z.shape
        unit = unit_columns(self.r)
        scaled = self.r * unit
        rcond = float(lapack.dtrcon(scaled)[0])
        if prior_scale is None:
            return self._least_norm(unit, rcond)
        post = SquareRoot.zeros(m, n)
        rounding, data_rank = np.zeros(n), m
        if rcond > 100 * RANK_TOL:
            post.r[:], post.z[:] = self.r, self.z
        elif not self.r.any():
            data_rank = 0
        else:
            # Rounding fills directions without information with parts of the residual that a
            # weak prior would blow up: they are cut off and given back to the residual.
            u, s, vt = np.linalg.svd(scaled)
            data_rank = int((s > RANK_TOL * s[0]).sum())
            rotated = u.T @ self.z
            rounding = np.square(rotated[data_rank:]).sum(axis=0)
            clean = s[:data_rank, None] * vt[:data_rank] / unit
            post.absorb(clean, rotated[:data_rank])
        _absorb_diagonal(post, prior_scale)
        coef = solve_triangular(post.r, post.z, check_finite=False).T
        cond = 1 / rcond if data_rank == m else np.inf
        return Shrunk(
            np.ascontiguousarray(coef * post.unit[:, None]), post.r, prior_scale, cond, rounding,
            data_rank,
        )  # fmt: skip

    def _least_norm(self, unit: Array, rcond: float) -> LeastNorm:
        m, n = self.z.shape
        if rcond > 100 * RANK_TOL:
            coef = solve_triangular(self.r, self.z, check_finite=False).T
            factors = np.asarray(lapack.dtrtri(self.r)[0]), None
            return LeastNorm(
                np.ascontiguousarray(coef), factors, unit, 1 / rcond, np.zeros(n), m
            )  # fmt: skip
        fit = stacked_lstsq(self.r[None], self.z[None], RANK_TOL)
        rank = int(fit.rank[0])
        null = None if fit.null is None else fit.null[0]
        return LeastNorm(
            fit.coef[0], (fit.factor[0], null), unit, np.inf if rank < m else float(fit.cond[0]),
            fit.rss[0], rank,
        )  # fmt: skip

    def scale(self, found: Posterior) -> tuple[Array, float]:
        """Noise of one row per output, from the residuals, and its degrees of freedom."""
        lost = found.data_rank if self.forgetting == 1 else 0
        degrees, squares = self.degrees - lost, self.squares - lost
        if degrees < 0.5:
            return np.full(self.ssr.shape, np.nan), 0.0
        # Welch-Satterthwaite: equal to ``degrees`` where every row has weight 1.
        return self.unit * np.sqrt((self.ssr + found.rounding) / degrees), degrees**2 / squares

    def misfit(self, found: Posterior) -> Array:
        """Root mean square misfit of the rows per output; nan before any."""
        if not self.total:
            return np.full(self.ssr.shape, np.nan)
        pull = np.square(self.r @ found.coef.T - self.z).sum(axis=0)
        return np.asarray(self.unit * np.sqrt((self.ssr + pull) / self.total))

    def without_intercept(self) -> SquareRoot:
        """The same rows, centred: all but the first input, which is the constant 1."""
        own = 1.0 if self.forgetting == 1 else 0.0
        return replace(
            self,
            r=self.r[1:, 1:],
            z=self.z[1:],
            degrees=self.degrees - own,
            squares=self.squares - own,
            _work=np.empty(0),
        )


def _absorb_diagonal(state: SquareRoot, diagonal: Array) -> None:
    m, n = state.z.shape
    for start in range(0, m, BLOCK):
        rows = np.arange(start, min(start + BLOCK, m))
        dx = np.zeros((len(rows), m), order="F")
        dx[np.arange(len(rows)), rows] = diagonal[rows]
        state.absorb(dx, np.zeros((len(rows), n), order="F"))


def solution_of(state: SquareRoot, found: Posterior, *, noise: Array | None = None) -> Solution:
    """The posterior of a state as a Solution; ``noise`` is given or learned from the residuals."""
    m, n = state.z.shape
    scale, degrees = state.scale(found) if noise is None else (noise, np.inf)
    factor, null = found.factors
    lost = 0 if null is None else null.shape[1]
    return Solution(
        coef=found.coef * state.unit[:, None],
        cov=Covariance(scale, factor=factor, null=null),
        dof=np.full(n, degrees),
        rank=np.asarray(m - lost, np.intp),
        cond=np.asarray(found.cond),
        residual=state.misfit(found),
        status=Status.UNDETERMINED if lost else Status.OK,
        message=f"{lost} of {m} directions are determined by no sample: stderr is inf there and "
        "jac keeps its prior; add samples that move along them"
        if lost
        else "",
        classical=noise is None and state.forgetting == 1,
    )


def with_value(solution: Solution, state: SquareRoot, origin: Array) -> Solution:
    """Add the value at 0 to the solution of ``state.without_intercept()``, whose rows count from
    ``origin`` (1, m)."""
    if not len(origin):  # no rows
        n = len(solution.coef)
        return replace(solution, value=np.zeros(n), value_stderr=np.full(n, np.inf))
    assert solution.cov.factor is not None
    mean = origin[0] + state.r[0, 1:] / state.r[0, 0]
    spread = np.hypot(1 / state.r[0, 0], np.linalg.norm(mean @ solution.cov.factor))
    outside = solution.cov.undetermined_along(mean[None])
    return replace(
        solution,
        value=state.unit * (state.z[0] / state.r[0, 0]) - solution.coef @ mean,
        value_stderr=np.where(outside, np.inf, solution.cov.scale * spread),
    )
