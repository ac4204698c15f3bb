"""A Jacobian as SciPy's linear operator, of its entries or of its products alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator

from gradiator_np import _checks as checks
from gradiator_np._structure import Layout


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


class LazyOperator(ABC):
    """What SciPy takes for a linear operator: J of shape (n, m), by its products alone.

    ``lsmr``, ``gmres``, ``svds`` and others run on it as it is (``aslinearoperator`` takes what has
    ``shape``, ``dtype``, ``matvec`` and ``rmatvec``); ``as_linear_operator`` is one to calculate
    with. x and y are flat here, whatever their shapes. It is no ``LinearOperator`` itself, whose
    ``*``, ``@`` and ``T`` would be those of matrices on objects that are more.
    """

    @abstractmethod
    def _layouts(self) -> tuple[Layout, Layout]:
        """How y and x lie in flat vectors."""

    @abstractmethod
    def _is_complex(self) -> bool:
        """Whether J may be complex."""

    @abstractmethod
    def _jvp_rows(self, tangents: NDArray[Any]) -> NDArray[Any]:
        """J u for rows u, (p, m) to (p, n)."""

    @abstractmethod
    def _vjp_rows(self, cotangents: NDArray[Any]) -> NDArray[Any]:
        """v^T J for rows v, (p, n) to (p, m)."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m): numbers in y and in x.

        Raises
        ------
        ValueError
            For a batch of points.
        """
        y, x = self._layouts()
        if x.batch:
            raise ValueError("a batch of Jacobians is no single operator; take one of the batch")
        return y.size, x.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """float64, or complex128 where y is complex."""
        return np.dtype(np.complex128 if self._is_complex() else np.float64)

    def matvec(self, u: Any) -> NDArray[Any]:
        """J u for a flat u, shape (m,) or (m, 1); at the evaluations of one JVP, of two if complex.

        Returns
        -------
        array, shape (n,) or (n, 1)
        """
        return _one_column(self.matmat, u)

    def rmatvec(self, v: Any) -> NDArray[Any]:
        r""":math:`J^H v` (conjugated, as SciPy defines it) for a flat v, shape (n,) or (n, 1).

        Returns
        -------
        array, shape (m,) or (m, 1)
        """
        return _one_column(self.rmatmat, v)

    def matmat(self, u: Any) -> NDArray[Any]:
        """J U for columns, (m, p) to (n, p), which share the value at x."""
        return self._columns(u, self.shape[1], self._jvp_rows, "u")

    def rmatmat(self, v: Any) -> NDArray[Any]:
        r""":math:`J^H V` for columns, (n, p) to (m, p), which share their evaluations."""

        def adjoint(rows: NDArray[Any]) -> NDArray[Any]:
            return np.asarray(np.conj(self._vjp_rows(rows)))

        return self._columns(v, self.shape[0], adjoint, "v")

    def as_linear_operator(self) -> LinearOperator:
        """The same as a ``scipy.sparse.linalg.LinearOperator``, which has ``@``, ``.T`` and ``.H``.

        Returns
        -------
        scipy.sparse.linalg.LinearOperator
        """
        return LinearOperator(
            self.shape,
            matvec=self.matvec,
            rmatvec=self.rmatvec,
            matmat=self.matmat,
            rmatmat=self.rmatmat,
            dtype=self.dtype,
        )

    def _columns(self, value: Any, size: int, product: Any, what: str) -> NDArray[Any]:
        """A product with columns; complex ones as real and imaginary parts, since it is linear."""
        a = checks.numeric(value, what)
        if a.ndim != 2 or a.shape[0] != size:
            raise ValueError(
                f"{what} has shape {a.shape}, but J has shape {self.shape}: give a flat vector of "
                f"{size} numbers, or such columns"
            )
        if not a.shape[1]:
            return np.zeros((sum(self.shape) - size, 0), self.dtype)
        rows = np.ascontiguousarray(a.T)
        if rows.dtype.kind != "c":
            return np.asarray(product(rows).T)
        real, imaginary = np.split(product(np.concatenate([rows.real, rows.imag])), 2)
        return np.asarray((real + 1j * imaginary).T)


class PointOperator(LazyOperator):
    """A lazy operator that unpacks to ``value, pushforward, pullback``."""

    def __iter__(self) -> Iterator[Any]:
        yield self.value
        yield self.pushforward
        yield self.pullback

    @property
    @abstractmethod
    def value(self) -> Any:
        """The value at the point."""

    @property
    @abstractmethod
    def y_layout(self) -> Layout:
        """How the outputs lie in a flat vector of n numbers."""

    @abstractmethod
    def pushforward(self, u: Any) -> Any:
        """J u for u of the shape of x, or several on a leading axis."""

    @abstractmethod
    def pullback(self, v: Any) -> Any:
        """v^T J for v of the shape of y (no conjugate), or several on a leading axis."""


def _one_column(product: Any, value: Any) -> NDArray[Any]:
    a = np.asarray(value)
    if a.ndim == 1:
        return np.asarray(product(a[:, None])[:, 0])
    return np.asarray(product(a))
