"""Guaranteed bounds under bounded noise: all Jacobians that the samples allow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np import _checks as checks
from gradiator_np._checks import EPS
from gradiator_np._covariance import has_part
from gradiator_np._typing import Array
from gradiator_np.solvers._least_squares.linear import stacked_lstsq
from gradiator_np.solvers._operator_norm.douglas_rachford import spectral_norm
from gradiator_np.solvers._regression import RegressionProblem


def spectral_from_entry(
    entry_bound: float, n_samples: int, n_outputs: int, *, differences: bool = False
) -> float:
    """Bound on the operator norm of an error matrix from a bound on each of its entries.

    Parameters
    ----------
    entry_bound : float
        Largest possible error of one value of one output, in units of y.
    n_samples, n_outputs : int
        k and n.
    differences : bool
        Whether each entry is the difference of two such values.

    Returns
    -------
    float
        ``e sqrt(n k)``, twice that for differences: the Frobenius norm bounds the operator norm,
        and errors that are all equal attain it.
    """
    if not 0 <= checks.real(entry_bound, "entry_bound") < np.inf:
        raise ValueError(f"entry_bound must be finite and not negative, got {entry_bound}")
    return float((2 if differences else 1) * entry_bound * np.sqrt(n_samples * n_outputs))


class ConsistentSet:
    r"""The Jacobians J with ``||J dx^T - df^T||_2 <= eps``.

    With B = dx^T, C = df^T, A = C B^+ and F = C (I - B^+ B) these are

    .. math:: A + (\epsilon^2 I - F F^T)^{1/2} K (B B^T)^{-1/2}, \quad \|K\|_2 \le 1,

    since ``(J B - C)(J B - C)^T = (J - A) B B^T (J - A)^T + F F^T``. Every bound is attained.

    Parameters
    ----------
    dx : array_like, shape (k, m)
        Input displacements, in units of x.
    df : array_like, shape (k, n), or (k,) for one output
        Output displacements, in units of y. A sample with a nan is dropped whole: the operator
        norm couples the outputs.
    eps : float
        Bound on the operator norm of the whole error matrix of df, in units of y
        (``spectral_from_entry`` turns a bound per entry into one).

    Attributes
    ----------
    center : array, shape (n, m)
        A, the least squares solution.
    optimum : float
        ``rho = ||F||_2``: no Jacobian fits the samples better than this.
    radius : float
        Largest ``||J - A||_2``; inf where the samples leave a direction of x open.

    Raises
    ------
    ValueError
        Where eps is below the optimum: no linear function fits the samples within eps.

    Examples
    --------
    >>> from gradiator_np.solvers import ConsistentSet
    >>> found = ConsistentSet([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [2.0, 3.0, 5.1], eps=0.2)
    >>> found.center.round(2), float(found.bound([1.0], [1.0, 0.0]).round(3))
    (array([[2.03, 3.03]]), 0.156)
    """

    def __init__(self, dx: ArrayLike, df: ArrayLike, eps: float) -> None:
        problem = RegressionProblem.of(dx, df)
        if problem.batch:
            raise ValueError(f"give one problem at a time, got batch axes {problem.batch}")
        finite = np.isfinite(problem.df).all(1)
        x, y = problem.dx[finite], problem.df[finite]
        if not len(x):
            raise ValueError("every sample has a nan: nothing is left to bound a Jacobian by")
        if not 0 <= checks.real(eps, "the bound eps on the operator norm of the errors") < np.inf:
            raise ValueError(f"eps must be finite and not negative, got {eps}")
        fit = stacked_lstsq(x[None], np.empty((1, len(x), 0)))
        # (B B^T)^+ = M M^T, and dx M is orthonormal.
        self._factor = fit.factor[0]
        self._null = None if fit.null is None else fit.null[0]
        basis = x @ self._factor
        inner = basis.T @ y
        self._rest = y - basis @ inner
        correction = basis.T @ self._rest  # basis is orthonormal to cond * eps only
        self._rest -= basis @ correction
        self.center: NDArray[Any] = (self._factor @ (inner + correction)).T
        self.optimum = spectral_norm(self._rest)
        self.eps = float(eps)
        # What rounding leaves of an exact fit.
        rounding = 10 * EPS * np.sqrt(x.size) * float(np.linalg.norm(y))
        if self.eps < self.optimum - rounding:
            raise ValueError(
                f"no Jacobian is consistent with eps = {self.eps:g}: the best linear fit of "
                f"these samples leaves an operator norm of {self.optimum:g}. Either the noise "
                "is larger than the bound says, or the function bends over the samples: raise "
                "the bound or take smaller steps"
            )

    @property
    def radius(self) -> float:
        if self._null is not None:
            return float(np.inf)
        k, n = self._rest.shape
        least = np.linalg.svd(self._rest, compute_uv=False)[-1] if k >= n else 0.0
        return float(self._reach(least)) * float(np.linalg.norm(self._factor, 2))

    def __repr__(self) -> str:
        n, m = self.center.shape
        return (
            f"ConsistentSet: Jacobians of {n} outputs by {m} inputs that leave at most "
            f"{self.eps:.6g} (the best leaves {self.optimum:.6g}); radius {self.radius:.6g}"
        )

    def bound(self, v: ArrayLike, u: ArrayLike, jac: ArrayLike | None = None) -> Array:
        r"""Largest ``|v^T (J - jac) u|`` over the set.

        ``|v^T (J - A) u|`` reaches
        :math:`\|(\epsilon^2 I - F F^T)^{1/2} v\| \, \|(B B^T)^{-1/2} u\|`.

        Parameters
        ----------
        v : array_like, shape (..., n)
            Cotangents, in 1 / y.
        u : array_like, shape (..., m)
            Tangents, in units of x.
        jac : array_like, shape (n, m), or None
            The Jacobian to bound the error of; the set's centre by default. Any other adds its
            own distance from the centre.

        Returns
        -------
        array, shape (...)
            inf where u leaves what was sampled (and v is not 0).
        """
        v, u = np.asarray(v), np.asarray(u)
        n, m = self.center.shape
        if v.shape[-1:] != (n,) or u.shape[-1:] != (m,):
            raise ValueError(
                f"v and u must end in axes of {n} outputs and {m} inputs, "
                f"got shapes {v.shape} and {u.shape}"
            )
        outer = self._reach(np.linalg.norm(v @ self._rest.T, axis=-1), np.linalg.norm(v, axis=-1))
        size = np.linalg.norm(u @ self._factor, axis=-1)
        lost = np.zeros(size.shape, bool)
        if self._null is not None:
            lost = has_part(u, self._null)
        outer, size, lost = np.broadcast_arrays(outer, size, lost)
        out = outer * size
        if jac is not None:
            shift = np.asarray(jac) - self.center
            out = out + np.abs(np.einsum("...n,nm,...m->...", v, shift, u))
        moved = np.broadcast_to(np.linalg.norm(v, axis=-1) > 0, out.shape)
        return np.asarray(np.where(lost & moved, np.inf, out))

    def _reach(self, fitted: ArrayLike, size: ArrayLike = 1.0) -> Array:
        """sqrt((eps |v|)^2 - |F^T v|^2), where |F^T v| is ``fitted``."""
        total, part = self.eps * np.asarray(size), np.asarray(fitted)
        return np.asarray(np.sqrt(np.maximum(total - part, 0.0)) * np.sqrt(total + part))
