"""Linear least squares by a rank-revealing factorisation of the scaled samples.

Plain arrays, weights already multiplied in and nothing missing: what ``Pinv`` and its relatives
rest on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import lapack

from gradiator_np._checks import EPS
from gradiator_np._covariance import NULL_TOL, SPAN_TOL, map_fields
from gradiator_np._text import between, extent
from gradiator_np._typing import Array, Mask
from gradiator_np.solvers._regression import RegressionProblem

Bools = Mask


# Fewer problems than this take LAPACK one by one, some 50 microseconds each: compiling the kernel
# costs a machine a few seconds, once, which only large batches are worth.
_FEW = 64
# From this many inputs on, one LAPACK call per problem is as fast as the kernel (measured: the
# kernel takes 1/5 of np.linalg.pinv at (40, 32, 16), 1/2.2 at (128, 100, 50), LAPACK 1/1.9).
_LARGE = 128
# No power of two, at which columns evict each other: 10 000 problems of (8, 6, 4) and 1000 of
# (40, 32, 16) take 3.1 and 21.0 ms with 72 lanes, 3.5 and 22.9 with 48, 4.9 and 27.3 with 64.
_LANES = 72
# Two steps of power iteration mostly hold the condition number within a factor of two.
_POWER_STEPS = 2
# Factors of an SVD held at once.
_PART_BYTES = 2**20
# Up to this size the singular values of R cost less than the solution itself.
_EXACT_CONDITION = 128


@dataclass(frozen=True, slots=True, repr=False)
class LinearFit:
    """Solutions of linear least-squares problems; leading axes ``...`` are batch axes.

    Attributes
    ----------
    coef : array, shape (..., n, m)
        Of least norm where the samples leave a choice.
    factor : array, shape (..., m, r)
        F with F F^T = (dx^T dx)^+.
    null : array, shape (..., m, q), or None
        Basis of the directions orthogonal to all samples, orthonormal in scaled inputs; exact
        zeros for inputs that the samples determine.
    rank : array of int, shape (...)
    cond : array, shape (...)
        Condition number of the samples, columns scaled to norm 1, over the rank: exact for few
        problems of up to 128 inputs and where the rank is in doubt, else by power iteration,
        which is at most the true value and rarely below half of it.
    rss : array, shape (..., n)
        Residual sums of squares.
    span, unit : array, shape (..., m, r) and (..., m), or None
        In place of ``null``, where that was asked for and would be large: orthonormal basis of
        the directions of the samples, in inputs divided by ``unit``.

    Examples
    --------
    The covariance of a row of J is its noise squared times F F^T:

    >>> from gradiator_np.solvers import lstsq
    >>> fit = lstsq([[1.0, 0.0], [0.0, 2.0], [1.0, 2.0]], [[3.0], [8.0], [11.0]])
    >>> (fit.factor @ fit.factor.T).round(3)
    array([[ 0.667, -0.167],
           [-0.167,  0.167]])
    """

    coef: Array
    factor: Array
    null: Array | None
    rank: NDArray[np.intp]
    cond: Array
    rss: Array
    span: Array | None = None
    unit: Array | None = None

    def __repr__(self) -> str:
        rank, cond = between(self.rank, "d"), between(self.cond)
        return f"LinearFit({extent(self.coef.shape)}, rank {rank}, cond {cond})"


def lstsq(dx: ArrayLike, df: ArrayLike, rcond: float | None = None) -> LinearFit:
    """Least-squares solutions of least norm of ``dx coef^T ~ df``.

    As ``numpy.linalg.lstsq``, but for stacks of problems and with what error bars need.

    Parameters
    ----------
    dx : array_like, shape (..., k, m)
        Real and finite.
    df : array_like, shape (..., k, n), or (..., k)
        Real and finite.
    rcond : float, optional
        Singular values below ``rcond`` times the largest count as zero; max(k, m) eps by default.

    Returns
    -------
    LinearFit

    Raises
    ------
    ValueError
        Where shapes disagree or a number is not finite.
    TypeError
        For complex numbers, or what is no number.

    Notes
    -----
    Columns of dx are scaled to norm 1, and the rank is decided on the spectrum of that: an input
    moved by 1e-8 counts as much as one moved by 1e8. Well conditioned problems take a
    Householder QR, whose inverse triangle proves the full rank; the others an SVD. Where the
    rank is below m, the solution is the one of least norm in the caller's units, as that of
    ``numpy.linalg.pinv``.

    Examples
    --------
    >>> from gradiator_np.solvers import lstsq
    >>> fit = lstsq([[1.0, 0.0], [0.0, 2.0], [1.0, 2.0]], [[3.0], [8.0], [11.0]])
    >>> fit.coef.round(6), fit.rank
    (array([[3., 4.]]), array(2))
    """
    problem = RegressionProblem.of(dx, df)
    x, y, batch = problem.dx, problem.df, problem.batch
    if y.dtype.kind == "c":
        raise TypeError("df is complex; give real and imaginary parts as outputs of their own")
    if not np.isfinite(y).all():
        raise ValueError("df must be finite; leave the sample out, or use Pinv(), which does")
    fit = stacked_lstsq(
        x.reshape(math.prod(batch), *x.shape[-2:]), y.reshape(math.prod(batch), *y.shape[-2:]),
        rcond,
    )  # fmt: skip
    return map_fields(LinearFit, lambda a: a.reshape(batch + a.shape[1:]), fit)


def ridge_lstsq(
    dx: Array, df: Array, ridge: float, rcond: float | None = None, *, compact: bool = False
) -> LinearFit:
    """As `stacked_lstsq` with ``ridge |coef|^2`` added to what is minimised, as further rows.

    ``factor`` is that of the posterior, ``rank``, ``cond``, ``null`` and ``rss`` of the samples.
    """
    if not ridge:
        return stacked_lstsq(dx, df, rcond, compact=compact)
    b, _, m = dx.shape
    seen = stacked_lstsq(dx, df[:, :, :0], rcond, compact=compact)
    extra = np.broadcast_to(math.sqrt(ridge) * np.eye(m), (b, m, m))
    fit = stacked_lstsq(
        np.concatenate([dx, extra], 1),
        np.concatenate([df, np.zeros((b, m, df.shape[2]))], 1),
    )
    rss = np.square(df - dx @ fit.coef.swapaxes(1, 2)).sum(1)
    return LinearFit(
        fit.coef, fit.factor, seen.null, seen.rank, seen.cond, rss, seen.span, seen.unit
    )


def stacked_lstsq(
    dx: Array, df: Array, rcond: float | None = None, *, compact: bool = False
) -> LinearFit:
    """As `lstsq`, for dx (b, k, m) and df (b, k, n) that have been checked.

    ``compact`` gives the span of the samples in place of their null space where m > 2 k.
    """
    b, k, m = dx.shape
    n = df.shape[2]
    limit = 1 / max(rcond or 0.0, max(k, m) * EPS)
    if k < m or m == 0:
        return _by_svd(dx, df, 1 / limit, compact and m > 2 * k)
    coef = np.empty((b, n, m))
    factor = np.zeros((b, m, m))
    cond = np.empty(b)
    rss = np.empty((b, n))
    if b < _FEW or m > _LARGE:
        out = zip(coef, factor, cond[:, None], rss)
        proven = [_by_qr(dx[i], df[i], limit, *arrays) for i, arrays in enumerate(out)]
        left = np.flatnonzero(~np.array(proven, dtype=bool))
    else:
        from gradiator_np.kernels.lstsq import lstsq_batch

        bounds = np.empty((b, 2))
        lstsq_batch(
            np.ascontiguousarray(dx), np.ascontiguousarray(df), coef, factor, rss, bounds,
            min(_LANES, b), _POWER_STEPS,
        )  # fmt: skip
        cond = bounds[:, 0]
        left = np.flatnonzero(~(bounds[:, 1] < limit))
    rank = np.full(b, m, dtype=np.intp)
    if not left.size:
        return LinearFit(coef, factor, None, rank, cond, rss)
    slow = _by_svd(dx[left], df[left], 1 / limit, False)
    coef[left], cond[left], rank[left] = slow.coef, slow.cond, slow.rank
    rss[left] = slow.rss
    factor[left] = 0.0
    factor[left, :, : slow.factor.shape[2]] = slow.factor
    null = None
    if slow.null is not None:
        null = np.zeros((b, m, slow.null.shape[2]))
        null[left] = slow.null
    return LinearFit(coef, factor, null, rank, cond, rss)


def unit_columns(dx: Array) -> Array:
    """What scales the columns of dx (..., k, m) to norm 1, shape (..., m); 1 for zero columns."""
    top = np.maximum(dx.max(-2, initial=0.0), -dx.min(-2, initial=0.0))
    top = np.where(top > 0, top, 1.0)
    if top.size and (top.min() < 1e-100 or top.max() > 1e100):
        # Squares would leave the range of floats.
        return unit_columns(dx / top[..., None, :]) / top
    square = np.einsum("...km,...km->...m", dx, dx)
    return np.asarray(1 / np.sqrt(np.where(square > 0, square, 1.0)))


def _by_qr(
    dx: Array, df: Array, limit: float, coef: Array, factor: Array, cond: Array, rss: Array
) -> bool:
    """Solve one problem by QR in place; False where full rank is not certain."""
    k, m = dx.shape
    scale = unit_columns(dx)
    a = np.empty((k, m), order="F")
    np.multiply(dx, scale, out=a)
    # LAPACK's blocked code needs room for blocks of 64 columns, which SciPy's default lacks.
    qr, tau, _, _ = lapack.dgeqrf(a, lwork=64 * m, overwrite_a=1)
    inverse, singular = lapack.dtrtri(qr[:m])
    if singular:
        return False
    inverse = np.triu(inverse)
    r = np.triu(qr[:m])
    if not np.linalg.norm(inverse) * np.linalg.norm(r) < limit:
        return False
    np.multiply(inverse, scale[:, None], out=factor)
    if m <= _EXACT_CONDITION:
        sigma = np.linalg.svd(r, compute_uv=False)
        cond[0] = sigma[0] / sigma[-1]
    else:
        cond[0] = _norm_2(r) * _norm_2(inverse)
    del r, inverse
    n = df.shape[1]
    c = np.array(df, order="F")
    qtf, _, _ = lapack.dormqr("L", "T", qr, tau, c, max(1, 64 * n), overwrite_c=1)
    solved, _ = lapack.dtrtrs(qr[:m], qtf[:m])
    np.multiply(solved.T, scale, out=coef)
    np.einsum("ij,ij->j", qtf[m:], qtf[m:], out=rss)
    return True


def _norm_2(r: Array) -> float:
    """2-norm of a matrix by power iteration, from below."""
    v = 1.0 + 0.37 * ((np.arange(r.shape[1]) * 7) % 11 - 5) / 11.0
    growth = 0.0
    for _ in range(10):
        y = r @ v
        v = r.T @ y
        growth = float(np.linalg.norm(v) / np.linalg.norm(y))
        v /= np.linalg.norm(v)
    return growth


def _by_svd(dx: Array, df: Array, rcond: float, compact: bool) -> LinearFit:
    """Solve by SVD whatever the rank."""
    b, k, m = dx.shape
    full = k < m and not compact
    width = min(k, m)
    coef = np.empty((b, df.shape[2], m))
    factor = np.zeros((b, m, width))
    nulls: list[tuple[NDArray[np.intp], Array]] = []
    span = np.zeros((b, m, width)) if compact else None
    rank, cond = np.zeros(b, dtype=np.intp), np.full(b, np.nan)
    unit = unit_columns(dx)
    # In parts, so that the factors of a large batch do not outweigh its samples.
    part = max(1, _PART_BYTES // (8 * max(k, m) ** 2))
    for start in range(0, b, part):
        here = slice(start, start + part)
        u, sigma, vt = np.linalg.svd(dx[here] * unit[here, None, :], full_matrices=full)
        rank[here] = (sigma > rcond * sigma.max(-1, initial=0.0)[:, None]).sum(-1)
        for r in np.unique(rank[here]):
            i = np.flatnonzero(rank[here] == r)
            at = start + i
            v = vt[i, :r].swapaxes(1, 2)
            root = np.zeros((i.size, m, 0))
            if r:
                root = _pseudo_root(v, sigma[i, :r], unit[at])
                cond[at] = sigma[i, 0] / sigma[i, r - 1]
            if span is not None:
                span[at, :, :r] = v
                touched = np.einsum("...r,...r->...", v, v) < 1 - SPAN_TOL**2
                _mend_root(root, v, sigma[i, :r], unit[at], touched)
            elif r < m:
                basis = _null_basis(vt[i, r:].swapaxes(1, 2), unit[at], cond[at])
                _mend_root(root, v, sigma[i, :r], unit[at], (basis != 0).any(2))
                nulls.append((at, basis))
            coef[at] = (root @ (u[i, :, :r].swapaxes(1, 2) @ df[at])).swapaxes(1, 2)
            factor[at, :, :r] = root
    null = np.zeros((b, m, m - int(rank.min()))) if nulls else None
    for at, basis in nulls:
        assert null is not None
        null[at, :, : basis.shape[2]] = basis
    rss = np.square(df - dx @ coef.swapaxes(1, 2)).sum(1)
    return LinearFit(coef, factor, null, rank, cond, rss, span, None if span is None else 1 / unit)


def _pseudo_root(v: Array, sigma: Array, scale: Array) -> Array:
    """G with (u sigma v^T / scale)^+ = G u^T, shape (b, m, r)."""
    m, r = v.shape[1:]
    if r == m:
        return np.asarray(scale[:, :, None] * v / sigma[:, None, :])
    # Rows of v / scale differ in size as the inputs' units do; sorted by size, Householder QR is
    # accurate row by row (Cox and Higham, SIAM J. Matrix Anal. 19, 1998).
    order = np.argsort(scale, axis=1)[:, :, None]
    rows = np.take_along_axis(v, order, 1)
    rows /= np.take_along_axis(scale[:, :, None], order, 1)
    q, t = np.linalg.qr(rows)
    inverse = np.linalg.solve(t.swapaxes(1, 2), np.broadcast_to(np.eye(r), t.shape))
    np.put_along_axis(rows, order, q @ (inverse / sigma[:, None, :]), 1)
    return rows


def _mend_root(root: Array, v: Array, sigma: Array, scale: Array, touched: Bools) -> None:
    """Keep inputs that the samples determine out of the choice of least norm, in place.

    Rounding leaves 1e-16 of them in the null space, and where their unit is 1e16 times that of a
    dependent input, least norm would trade on it: a residual of 2.1 in place of 1.2 for inputs
    of 1e8 (twice), 1e4 and 1e-9.
    """
    for i in np.flatnonzero(~touched.all(1)):
        t, unit = touched[i], scale[i][:, None]
        root[i] = unit * v[i] / sigma[i]
        # v^T v = 1 and determined inputs are directions of their own: what v has of the others
        # has singular values 1, and 0 for each of those.
        left, size, _ = np.linalg.svd(v[i, t], full_matrices=False)
        others = left[:, size > 0.5]
        one = np.ones((1, others.shape[1]))
        least = _pseudo_root(others[None], one, scale[i, t][None])[0] if one.size else others
        root[i, t] = least @ (others.T @ v[i, t]) / sigma[i]


def _null_basis(v: Array, scale: Array, cond: Array) -> Array:
    """Null vectors in the inputs' units, with exact zeros for inputs that they leave alone."""
    # Rounding turns the null space by about m eps cond.
    tol = np.maximum(NULL_TOL, 10 * v.shape[1] * EPS * np.nan_to_num(cond, nan=1.0))
    large = np.abs(v) > np.minimum(tol, 1e-3)[:, None, None]
    return np.asarray(np.where(large, v * scale[:, :, None], 0.0))
