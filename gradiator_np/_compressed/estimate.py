"""The result type of sparse Jacobians: entries of a pattern with their error bars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from gradiator_np import _checks as checks
from gradiator_np._compressed.compression import Compression
from gradiator_np._compressed.pattern_check import PatternCheck
from gradiator_np._covariance import ConfidenceInterval
from gradiator_np._results import Frame, JacobianEstimate, origin
from gradiator_np._samples import Samples
from gradiator_np._status import Status
from gradiator_np._text import extent, largest, verdict
from gradiator_np._typing import Array
from gradiator_np.sparsity import Coloring, SparsityPattern


class Results(NamedTuple):
    """What a sparse Jacobian was made of.

    Attributes
    ----------
    compressed : JacobianEstimate
    compression : Compression
    check : PatternCheck or None
    """

    compressed: JacobianEstimate
    compression: Compression
    check: PatternCheck | None


@dataclass(frozen=True, eq=False, repr=False)
class SparseJacobianEstimate:
    """An estimated sparse Jacobian with its error bars.

    Matrices have shape (n, m) whatever the shapes of x and y, which are taken flat; of a batch of
    points they are lists, one for each point.

    Attributes
    ----------
    frame : Frame
        x and the value there as flat arrays, and how they lie in the user's shapes.
    coloring : Coloring
        Which inputs moved together, and the pattern.
    nfev, n_failed : int
        Evaluations of ``fun`` by this call, and those that failed.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import jacobian
    >>> def fun(x):
    ...     return x**2 - np.roll(x, 1)
    >>> pattern = np.eye(6) + np.roll(np.eye(6), 1, axis=0)
    >>> estimate = jacobian(fun, np.arange(1.0, 7.0), sparsity=pattern)
    >>> estimate.jac.toarray()[1].round(6), estimate.coloring.n_column_colors, estimate.status
    (array([-1.,  4.,  0.,  0.,  0.,  0.]), 2, <Status.OK: 'ok'>)
    """

    frame: Frame
    coloring: Coloring
    nfev: int
    n_failed: int
    _results: Callable[[], Results]
    _data: NDArray[Any] | None = None

    @cached_property
    def _found(self) -> Results:
        return self._results()

    @property
    def compressed(self) -> JacobianEstimate:
        """Of ``fun`` by one input for each colour, in units of about the size of x: shape (n, c),
        with what designs and solvers tell."""
        return self._found.compressed

    @property
    def check(self) -> PatternCheck | None:
        """Whether the runs agree with the pattern; None where nothing can tell: before there is a
        value at x, and where J is doubtful for another reason."""
        return self._found.check

    @property
    def amended(self) -> SparsityPattern:
        """The pattern, with the entries that the runs showed to be missing from it."""
        pattern = self.coloring.pattern
        return pattern if self.check is None else self.check.amended(pattern)

    def held_against(self, check: PatternCheck) -> SparseJacobianEstimate:
        """The same, and what runs made elsewhere say of the pattern."""
        results = self._found._replace(check=check)
        return replace(self, nfev=self.nfev + check.nfev, _results=lambda: results)

    @property
    def _compression(self) -> Compression:
        return self._found.compression

    # -- matrices ----------------------------------------------------------------------------

    @cached_property
    def jac(self) -> Any:
        """The Jacobian, a ``scipy.sparse.csr_array`` with the entries of the pattern."""
        return self._matrices(self.data)

    @cached_property
    def stderr(self) -> Any:
        """One standard error of each entry of ``jac``, in the same places."""
        return self._matrices(self.data_stderr)

    def toarray(self) -> NDArray[Any]:
        """The Jacobian with its zeros, batch + (n, m)."""
        pattern = self.coloring.pattern
        out = np.zeros((*self.frame.x_layout.batch, *pattern.shape), self.data.dtype)
        rows = np.repeat(np.arange(pattern.shape[0]), pattern.row_counts)
        out[..., rows, pattern.indices] = self.data
        return out

    @cached_property
    def data(self) -> NDArray[Any]:
        """The entries of the pattern, row by row: batch + (nnz,)."""
        if self._data is not None:
            return self._data
        return self._compression.entries(self.compressed.solution.coef)

    @cached_property
    def data_stderr(self) -> Array:
        """One standard error of each of ``data``: inf where no run determines it."""
        solution = self.compressed.solution
        error = np.broadcast_to(solution.cov.stderr(), solution.coef.shape)
        return self._compression.errors(error)

    def confidence_interval(self, confidence_level: float = 0.95) -> ConfidenceInterval:
        """The interval that holds each entry with probability ``confidence_level``.

        Returns
        -------
        ConfidenceInterval
            ``low`` and ``high``, sparse as ``jac`` is.
        """
        if self.data.dtype.kind == "c":
            raise ValueError("a complex Jacobian has no interval; use stderr, the error of |J|")
        solution = self.compressed.solution
        half = np.broadcast_to(
            solution.interval(checks.level(confidence_level)), solution.coef.shape
        )
        width = self._compression.errors(half)
        return ConfidenceInterval(
            self._matrices(self.data - width), self._matrices(self.data + width)
        )

    def _matrices(self, data: NDArray[Any]) -> Any:
        """Entries (*batch, nnz) as matrices of the pattern."""
        return self._matrix(data) if data.ndim == 1 else [self._matrices(part) for part in data]

    def _matrix(self, data: NDArray[Any]) -> csr_array:
        return self.coloring.pattern.to_csr(data)

    # -- products ----------------------------------------------------------------------------

    def jvp(self, u: Any) -> Any:
        """J u for a tangent u of the shape of x, or several on a leading axis."""
        flat, _ = checks.direction(u, self.frame.x_layout, "u")
        return self.frame.y_layout.unflatten(self._times(self.data, flat, transposed=True))

    def vjp(self, v: Any) -> Any:
        """v^T J (no conjugate) for v of the shape of y, or several on a leading axis."""
        flat, _ = checks.direction(v, self.frame.y_layout, "v")
        return self.frame.x_layout.unflatten(self._times(self.data, flat))

    def jvp_stderr(self, u: Any) -> Any:
        """Standard error of ``jvp(u)``, from the covariance: inputs share the base's noise."""
        flat, _ = checks.direction(u, self.frame.x_layout, "u")
        tangents = self._compression.tangents(flat)
        out = self.compressed.solution.cov.jvp_stderr(tangents, each_output=True)
        return self.frame.y_layout.unflatten(out)

    def vjp_stderr(self, v: Any) -> Any:
        """Standard error of ``vjp(v)``; the noise of different outputs is independent."""
        flat, _ = checks.direction(v, self.frame.y_layout, "v")
        variances = self._times(np.square(self.data_stderr), np.square(np.abs(flat)))
        return self.frame.x_layout.unflatten(np.sqrt(variances))

    def _times(
        self, data: NDArray[Any], flat: NDArray[Any], *, transposed: bool = False
    ) -> NDArray[Any]:
        """Rows (..., *batch, size) times the matrices of ``data``, or times their transposes."""
        batch = self.frame.x_layout.batch
        stack = data.reshape(-1, data.shape[-1])
        rows = flat.reshape(-1, len(stack), flat.shape[-1])
        matrices = [self._matrix(part) for part in stack]
        out = np.stack(
            [
                (rows[:, b] @ (matrix.T if transposed else matrix))
                for b, matrix in enumerate(matrices)
            ],
            axis=1,
        )
        return np.asarray(out.reshape(*flat.shape[: flat.ndim - 1 - len(batch)], *batch, -1))

    def as_linear_operator(self) -> LinearOperator:
        """The Jacobian as a ``scipy.sparse.linalg.LinearOperator`` of shape (n, m)."""
        if self.frame.x_layout.batch:
            raise ValueError("a batch of Jacobians is no single operator; take one of the batch")
        return aslinearoperator(self.jac)

    # -- what was done -----------------------------------------------------------------------

    @property
    def x(self) -> Any:
        """The point at which the Jacobian holds."""
        return self.frame.x_layout.unflatten(self._compression.x.copy())

    @property
    def y(self) -> Any:
        """The value at x."""
        return self.compressed.y

    @property
    def noise(self) -> Any:
        """Standard deviation of one evaluation, per output; nan where nothing tells it."""
        return self.compressed.noise

    @property
    def dof(self) -> Any:
        """Degrees of freedom behind ``noise``: inf where it was given, 0 where unknown."""
        return self.compressed.dof

    @property
    def step(self) -> Any:
        """The step of each input, in units of x; nan for inputs that were not moved."""
        step = self.compressed.frame.step
        return None if step is None else self.frame.x_layout.unflatten(
            self._compression.steps(step)
        )  # fmt: skip

    @cached_property
    def samples(self) -> Samples | None:
        """Every run behind the estimate but those of the check, failed ones included."""
        found = self.compressed.samples
        return None if found is None else self._compression.samples(found)

    @property
    def status(self) -> Status:
        """How far the estimate can be trusted."""
        if self.check is not None and len(self.check.outputs):
            return Status.PATTERN
        found = self.compressed.status
        if self.check is not None and len(self.check.inexact) and found.success:
            return Status.LACK_OF_FIT
        return Status.UNDETERMINED if self._fixed and found is Status.OK else found

    @property
    def _fixed(self) -> bool:
        """Whether entries belong to inputs that were not moved, since their bounds are equal."""
        return not self._compression.seeds[..., self.coloring.pattern.indices].all()

    @property
    def success(self) -> bool:
        """Whether the estimate is what was asked for: ``status.success``."""
        return self.status.success

    @property
    def message(self) -> str:
        """What limits the estimate, and what would improve it."""
        parts = [self.compressed.message]
        if self.check is not None:
            parts.insert(0, self.check.message(self.frame))
        if self._fixed:
            parts.append("fixed inputs (lower == upper) were not moved: stderr is inf there")
        if self.compressed.status.doubtful:
            parts.append(
                "inputs are counted by colours here: coloring.column_colors tells which inputs "
                "input 0 stands for"
            )
        return "; ".join(part for part in parts if part)

    def __repr__(self) -> str:
        n, m = self.coloring.pattern.shape
        batch = self.frame.x_layout.batch
        return "\n".join([
            f"SparseJacobianEstimate: {extent((*batch, n, m))}, {self.data.shape[-1]} entries in "
            f"{self.coloring.n_column_colors} colours {origin(self)}",
            f"largest entry {np.abs(self.data).max(initial=0.0):.6g}, {largest(self.data_stderr)}",
            "all entries: .jac, .stderr",
            verdict(self),
        ])  # fmt: skip

    @property
    def design(self) -> str:
        """Directions and signs of the samples."""
        return self.compressed.design
