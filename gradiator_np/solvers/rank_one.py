"""The incremental solver: rank-1 pinning, and recursive least squares as a batch solver."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import blas

from gradiator_np.covariance import Covariance
from gradiator_np.kernels.rank_one import pin_update
from gradiator_np.solvers.solution import Constraints, Solution
from gradiator_np.solvers.square_root import BLOCK, PRIOR_REL, SquareRoot, solution_of, status_of

Array = NDArray[np.float64]
Mode = Literal["least-squares", "pin"]

# Below this many rows one fused pass through memory a row beats two matrix products.
PIN_ROWS = 4


def on_lines(a: Array) -> Array:
    """A C-contiguous copy whose data start on a cache line of 64 bytes.

    NumPy aligns large arrays to 16 bytes; single pins at n = m = 2000 took 1.93 ms there and
    1.69 ms here.
    """
    raw = np.empty(a.size + 7)
    start = -(raw.ctypes.data // raw.itemsize) % 8
    out = raw[start : start + a.size].reshape(a.shape)
    out[:] = a
    return out


def pin(jac: Array, dx: Array, df: Array) -> None:
    r"""Pin a Jacobian to samples in turn, in place (Kaczmarz; Broyden's good update).

    .. math:: J \leftarrow J + (df - J dx)\, dx^T / |dx|^2

    A run of rows is one block: with unit rows u, G = u u^T and the misfit E = f - u J^T, the
    triangular system tril(G) c = E gives J + c^T u, the same numbers by matrix products.

    Parameters
    ----------
    jac : array, shape (n, m)
        C-contiguous; updated in place.
    dx : array, shape (k, m)
        Displacements, none of them zero, in units of x.
    df : array, shape (k, n)
        Changes of the outputs, in units of y.

    Raises
    ------
    ValueError
        If a row of ``dx`` is zero; ``jac`` is then as it was.
    """
    size = np.abs(dx).max(axis=1, initial=0.0)
    if not size.all():
        row = int(np.flatnonzero(size == 0)[0])
        raise ValueError(
            f"dx[{row}] is zero: a Jacobian cannot be pinned to a sample that did not move. "
            "Leave it out, or use mode='least-squares', where it is a replicate of the base"
        )
    if len(dx) < PIN_ROWS:
        pin_update(jac, dx, df, np.empty(jac.shape[1] + 8))
        return
    for start in range(0, len(dx), BLOCK):
        rows = slice(start, start + BLOCK)
        u = dx[rows] / size[rows, None]
        length = np.sqrt(np.square(u).sum(axis=1, keepdims=True))
        u /= length
        # In BLAS' eyes all three are transposed, so each call works in place.
        gain = (df[rows] / (size[rows, None] * length)).T
        blas.dgemm(-1.0, jac.T, u.T, beta=1.0, c=gain, trans_a=1, overwrite_c=1)
        blas.dtrsm(1.0, u @ u.T, gain, side=1, lower=1, trans_a=1, diag=1, overwrite_b=1)
        blas.dgemm(1.0, u.T, gain, beta=1.0, c=jac.T, trans_b=1, overwrite_c=1)


@dataclass(frozen=True, slots=True)
class RankOne:
    """Options of the incremental solver: samples are taken row by row, in their order.

    Parameters
    ----------
    mode : {"least-squares", "pin"}
        "least-squares" averages noise and equals a ridge fit of all rows at once; "pin" fits the
        newest row exactly and keeps what is orthogonal to it (Kaczmarz, Broyden).
    prior_scale : float or array, shape (m,), or None
        The prior counts as one row of this displacement along each input, in units of x, which
        saw ``jac0`` (zero by default): the ridge is its square. None: the least-norm limit.
    forgetting : float
        Weight, in (0, 1], that a row leaves of earlier information along its own direction.
    """

    mode: Mode = "least-squares"
    prior_scale: ArrayLike | None = None
    forgetting: float = 1.0

    def __post_init__(self) -> None:
        check_options(self.mode, self.forgetting)

    def solve(
        self,
        dx: Array,
        df: NDArray[Any],
        *,
        weights: Array | None = None,
        intercept: bool = False,
        constraints: Constraints | None = None,
        jac0: NDArray[Any] | None = None,
    ) -> Solution:
        """Fit df = J dx (+ c): see ``gradiator_np.solvers.solution.Solver.solve``.

        Raises
        ------
        ValueError
            For known structure, and in pin mode for an intercept or a zero row.
        """
        if constraints is not None:
            raise ValueError(
                "RankOne knows no structure (sparsity, known entries, symmetry): "
                "use Pinv() or Spectral()"
            )
        if intercept and self.mode == "pin":
            raise ValueError(
                "pin mode cannot tell the noise of a shared base: pass base='exact', or use "
                "RankOne(mode='least-squares')"
            )
        k, m = dx.shape[-2:]
        n = df.shape[-1]
        batch = np.broadcast_shapes(dx.shape[:-2], df.shape[:-2])
        dx = np.broadcast_to(dx, (*batch, k, m))
        df = np.broadcast_to(df, (*batch, k, n))
        # One column where all outputs share their weights, so that they share one triangle.
        full = np.ones((*batch, k, 1))
        if weights is not None:
            full = full * (weights if weights.ndim == df.ndim else weights[..., None])
        failed = np.isnan(df)
        if failed.any():
            full = np.where(failed, 0.0, full)
        start = np.zeros((n, m)) if jac0 is None else jac0
        start = np.broadcast_to(start, (*batch, n, m))
        prior = prior_lengths(self.prior_scale, m)
        parts = [
            self._solve_one(dx[i], df[i], full[i], intercept, start[i], prior)
            for i in np.ndindex(*batch)
        ]
        return _stack(parts, batch, m, n)

    def _solve_one(
        self,
        dx: Array,
        df: NDArray[Any],
        weights: Array,
        intercept: bool,
        jac0: NDArray[Any],
        prior: Array | None,
    ) -> list[tuple[NDArray[np.intp], Solution]]:
        """Solutions of the groups of outputs that share their weights."""
        patterns, group = np.unique(weights, axis=1, return_inverse=True)
        parts = []
        n = df.shape[1]
        shared = patterns.shape[1] == 1
        for g in range(patterns.shape[1]):
            outputs = np.arange(n) if shared else np.flatnonzero(group.ravel() == g)
            rows = patterns[:, g] > 0
            root = np.sqrt(patterns[rows, g])[:, None]
            x, y = dx[rows], df[np.ix_(rows, outputs)]
            if np.iscomplexobj(y) or np.iscomplexobj(jac0):
                y = y - x @ jac0[outputs].T
                fitted = self._fit(x, np.hstack([y.real, y.imag]), root, intercept, prior)
                fitted = _as_complex(fitted)
            else:
                fitted = self._fit(x, y - x @ jac0[outputs].T, root, intercept, prior)
            parts.append((outputs, replace(fitted, coef=fitted.coef + jac0[outputs])))
        return parts

    def _fit(
        self, dx: Array, df: Array, root: Array, intercept: bool, prior: Array | None
    ) -> Solution:
        columns = np.hstack([np.ones((len(dx), 1)), dx]) if intercept else dx
        if intercept and prior is not None:
            # The value at the base has no prior: a row far below the weight of one sample.
            prior = np.concatenate([[PRIOR_REL * np.sqrt(max(len(dx), 1))], prior])
        state = SquareRoot.zeros(columns.shape[1], df.shape[1], self.forgetting)
        weighted = bool((root != 1).any())
        state.absorb(columns * root if weighted else columns, df * root if weighted else df)
        solution = solution_of(state, state.fit(prior), intercept=intercept)
        if self.mode == "least-squares":
            return solution
        jac = np.zeros((df.shape[1], dx.shape[1]))
        pin(jac, np.ascontiguousarray(dx), np.ascontiguousarray(df))
        miss = np.sqrt(np.square(df - dx @ jac.T).mean(axis=0)) if len(dx) else solution.residual
        return replace(
            solution,
            coef=jac,
            cov=replace(solution.cov, scale=np.full(df.shape[1], np.nan)),
            dof=np.zeros(df.shape[1]),
            residual=miss,
        )


def check_options(mode: str, forgetting: float) -> None:
    """Refuse options that no solver has.

    Raises
    ------
    ValueError
    """
    if mode not in ("least-squares", "pin"):
        raise ValueError(f"mode must be 'least-squares' or 'pin', got {mode!r}")
    if not 0 < forgetting <= 1:
        raise ValueError(
            f"forgetting is the weight kept per row, in (0, 1], got {forgetting!r}: "
            "1 forgets nothing"
        )
    if mode == "pin" and forgetting != 1:
        raise ValueError(
            "pin mode overwrites along each sample and has nothing to forget gradually: "
            "use forgetting=1, or mode='least-squares'"
        )


def prior_lengths(prior_scale: ArrayLike | None, m: int) -> Array | None:
    """``prior_scale`` as an array of shape (m,), or None.

    Raises
    ------
    ValueError
        If it is not positive and finite, or of another length.
    """
    if prior_scale is None:
        return None
    scale = np.asarray(prior_scale, dtype=np.float64)
    if scale.shape not in ((), (m,)):
        raise ValueError(f"prior_scale must be a number or of shape ({m},), got {scale.shape}")
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise ValueError(
            "prior_scale is a displacement in units of x and must be positive and finite, got "
            f"{prior_scale!r:.60}: use None for the least-norm limit"
        )
    return np.broadcast_to(scale, (m,)).copy()


def _as_complex(solution: Solution) -> Solution:
    """Join the real and imaginary parts that were solved as outputs of their own."""
    n = len(solution.coef) // 2

    def size(a: Array) -> Array:
        return np.asarray(np.hypot(a[:n], a[n:]))

    value, error = solution.value, solution.value_stderr
    return replace(
        solution,
        coef=solution.coef[:n] + 1j * solution.coef[n:],
        cov=replace(solution.cov, scale=size(solution.cov.scale)),
        dof=solution.dof[:n],
        residual=size(solution.residual),
        value=None if value is None else value[:n] + 1j * value[n:],
        value_stderr=None if error is None else size(error),
    )


def _stack(
    parts: list[list[tuple[NDArray[np.intp], Solution]]], batch: tuple[int, ...], m: int, n: int
) -> Solution:
    """One Solution from those of the batch's members and their groups of outputs."""
    flat = [solution for groups in parts for _, solution in groups]
    per_output = any(len(groups) > 1 for groups in parts)
    q = max((0 if s.cov.null is None else s.cov.null.shape[1] for s in flat), default=0)
    lead = (len(parts), n) if per_output else (len(parts),)
    width = max((s.cov.factor.shape[1] for s in flat if s.cov.factor is not None), default=m)
    factor, null = np.zeros((*lead, m, width)), np.zeros((*lead, m, q))
    kind = np.result_type(*(s.coef for s in flat)) if flat else np.dtype(np.float64)
    coef = np.zeros((len(parts), n, m), kind)
    value = np.zeros((len(parts), n), kind)
    rows = {name: np.zeros((len(parts), n)) for name in ("scale", "dof", "residual", "error")}
    for b, groups in enumerate(parts):
        for outputs, s in groups:
            at = (b, outputs) if per_output else (b,)
            factor[at] = s.cov.factor
            if s.cov.null is not None:
                null[(*at, slice(None), slice(s.cov.null.shape[1]))] = s.cov.null
            coef[b, outputs] = s.coef
            rows["scale"][b, outputs] = s.cov.scale
            rows["dof"][b, outputs] = s.dof
            rows["residual"][b, outputs] = s.residual
            if s.value is not None and s.value_stderr is not None:
                value[b, outputs] = s.value
                rows["error"][b, outputs] = s.value_stderr
    rank = np.array([min((int(s.rank) for _, s in g), default=0) for g in parts], np.intp)
    cond = np.array([max((float(s.cond) for _, s in g), default=np.nan) for g in parts])
    fitted = bool(flat) and flat[0].value is not None

    def shaped(a: NDArray[Any]) -> Any:
        return a.reshape((*batch, *a.shape[1:]))

    return Solution(
        coef=shaped(coef),
        cov=Covariance(
            shaped(rows["scale"]),
            factor=shaped(factor),
            null=shaped(null) if q else None,
            per_output=per_output,
        ),
        dof=shaped(rows["dof"]),
        rank=shaped(rank),
        cond=shaped(cond),
        residual=shaped(rows["residual"]),
        value=shaped(value) if fitted else None,
        value_stderr=shaped(rows["error"]) if fitted else None,
        **status_of(int(rank.min(initial=m)), m),
    )
