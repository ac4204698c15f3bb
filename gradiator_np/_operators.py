"""A Jacobian as SciPy's linear operator."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator


class JacobianOperator(LinearOperator):
    """J of shape (n, m) with true adjoint products.

    ``matvec(u)`` = J u, ``rmatvec(v)`` = J^H v as SciPy defines it (conjugated), ``matmat`` and
    ``rmatmat`` on columns.

    Examples
    --------
    >>> from gradiator_np import jacobian
    >>> operator = jacobian(lambda x: [x[0] * x[1]], [2.0, 3.0]).as_linear_operator()
    >>> operator.shape, operator.rmatvec([1.0]).round(6)
    ((1, 2), array([3., 2.]))
    """

    def __init__(self, jac: NDArray[Any]) -> None:
        super().__init__(dtype=jac.dtype, shape=jac.shape)  # type: ignore[call-arg]
        self.jac = jac

    def _matvec(self, x: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(self.jac @ x)

    def _rmatvec(self, x: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(self.jac.conj().T @ x)

    def _matmat(self, X: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(self.jac @ X)

    def _rmatmat(self, X: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(self.jac.conj().T @ X)
