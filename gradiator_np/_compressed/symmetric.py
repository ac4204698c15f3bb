"""Jacobians of gradients, which are symmetric: fewer colours, since each entry stands twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._compressed.estimate import SparseJacobianEstimate
from gradiator_np._compressed.runs import SparseRuns
from gradiator_np._drive import evaluator_options
from gradiator_np._evaluate import Evaluator
from gradiator_np._settings import Settings
from gradiator_np._typing import Array
from gradiator_np.sparsity import Coloring, StarColoring


class SymmetricJacobian(NamedTuple):
    """The Jacobian of a gradient.

    Attributes
    ----------
    coef, error : array, shape (m, m)
        Both readings of an entry where it has two, in its two places; where it has one, that in
        both, with errors of the root of 2 times its own: as if both were independent and averaged.
    estimate : SparseJacobianEstimate
        Of the colours: what was run. Its matrix is none, where entries do not stand alone.
    """

    coef: NDArray[Any]
    error: Array
    estimate: SparseJacobianEstimate


def symmetric_jacobian(
    fun: Callable[..., Any], x: Any, star: StarColoring, known: Mapping[str, Any]
) -> SymmetricJacobian:
    """The Jacobian of a gradient by a star colouring, with complete options. Nothing checks that
    it is symmetric, or that the pattern holds."""
    pattern, n = star.pattern, star.pattern.shape[0]
    coloring = Coloring(
        pattern, star.colors, np.full(n, -1, np.int32), star.n_colors, 0, star.order
    )
    point = checks.point(x)
    Settings.of(point, known)  # refuses what makes no sense before anything runs
    with Evaluator(fun, point.layout, **evaluator_options(known)) as evaluate:
        found = SparseRuns(evaluate, pattern, coloring).at(point, known, known["f0"])
    rows = np.repeat(np.arange(n), pattern.row_counts)
    shared = ~(star.alone & star.alone[star.turned])
    coef, error = np.zeros((n, n), found.data.dtype), np.zeros((n, n))
    for matrix, data in ((coef, found.data), (error, found.data_stderr)):
        own = np.where(star.alone, data, data[star.turned])
        matrix[rows, pattern.indices] = own
    error[rows[shared], pattern.indices[shared]] *= np.sqrt(2)
    return SymmetricJacobian(coef, error, found)
