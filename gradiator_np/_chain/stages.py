"""The stages of a composition: what may be one, and what its derivatives cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse
from scipy.sparse.linalg import LinearOperator

from gradiator_np._differentiable.function import Gradiator
from gradiator_np._differentiable.point import DifferentiablePoint
from gradiator_np.designs._finite_difference.stencil import RULES

#: Evaluations that a tangent costs beyond the value at x, the complex step's check included; an
#: input of the Jacobian the same at most.
RUNS = {"cs": 2} | {method: len(rule.points) for method, rule in RULES.items()}

#: Colours of a pattern that nobody knows yet.
UNKNOWN = 10


class StageCosts(NamedTuple):
    """Seconds that a stage takes; None where they are to be measured or derived.

    Attributes
    ----------
    evaluation : float or None
        One run. Measured: the least time of the runs so far.
    tangent, adjoint : float or None
        One product J u, one product v^T J. Measured where they have run; before, 5/2 and 4
        evaluations where they are given (Griewank and Walther, *Evaluating Derivatives*, ch. 3).
    jacobian : float or None
        The whole Jacobian at once.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import Chain, StageCosts
    >>> slow, quick = StageCosts(evaluation=60.0), StageCosts(evaluation=1e-3)
    >>> chain = Chain(np.sin, np.cumsum, costs=[slow, quick])
    >>> chain.plan(np.ones(3)).cost < 1000.0
    True
    """

    evaluation: float | None = None
    tangent: float | None = None
    adjoint: float | None = None
    jacobian: float | None = None


@dataclass(frozen=True, eq=False)
class Stage:
    """A function, and its matrix where it is linear with one at hand."""

    function: Gradiator
    matrix: Any = None


def product_costs(
    stage: Stage, point: DifferentiablePoint, given: StageCosts, multiply: float
) -> tuple[float, float, float]:
    """Seconds of a tangent, of an adjoint and of the whole Jacobian of a stage at a point."""
    f, n, m = stage.function, point.y_layout.size, point.x_layout.size
    if stage.matrix is not None or point.formed:
        entries = getattr(stage.matrix, "nnz", n * m)
        return multiply * entries, multiply * entries, 0.0
    seen = f.counts.seconds
    one = seen.get("fun", 0.0) if given.evaluation is None else given.evaluation
    tangent = adjoint = jacobian = np.inf
    if f.jvp_fun is not None:
        tangent = seen.get("jvp", 2.5 * one)
    if f.grad_fun is not None:
        adjoint = seen.get("grad", 4 * one)
    if f.jac_fun is not None:
        jacobian = seen.get("jac", min(m, n) * 4 * one)
    elif f.jvp_fun is None:
        tangent = RUNS.get(str(f.options.get("method")), 2) * one
        jacobian = m * tangent if f.grad_fun is None else np.inf
        if f.grad_fun is None and f.options.get("sparsity") is not None:
            # One sparse Jacobian serves all adjoints; written out it is one of many zeros.
            adjoint = _colors(f.options["sparsity"], n, m) * tangent
            jacobian = adjoint + multiply * n * m
        # At equal cost the Jacobian is better: it serves the next product, and has error bars.
        tangent *= 1 + 1e-6
    return (
        tangent if given.tangent is None else given.tangent,
        adjoint if given.adjoint is None else given.adjoint,
        jacobian if given.jacobian is None else given.jacobian,
    )


def _colors(sparsity: Any, n: int, m: int) -> int:
    """About how many colours a pattern takes: the entries of its densest row, or what it has."""
    from gradiator_np.sparsity import Coloring, SparsityPattern

    if isinstance(sparsity, Coloring):
        return sparsity.n_column_colors
    if isinstance(sparsity, str):  # to be detected
        return min(m, UNKNOWN)
    return int(SparsityPattern.of(sparsity, (n, m)).row_counts.max(initial=1))


def as_stage(stage: Any, options: Mapping[str, Any]) -> Stage:
    """A stage as differentiable functions."""
    if isinstance(stage, Gradiator):
        return Stage(stage)
    if issparse(stage) or (isinstance(stage, np.ndarray) and stage.ndim == 2):
        linear = _linear(lambda u: _times(stage, u), lambda v: np.ravel(v) @ stage)
        return Stage(linear, stage)
    if isinstance(stage, LinearOperator):
        # rmatvec is J^H v; a VJP takes no conjugate.
        return Stage(
            _linear(lambda u: _times(stage, u), lambda v: stage.rmatvec(np.conj(v)).conj())
        )
    if isinstance(stage, tuple) and len(stage) == 2 and all(callable(f) for f in stage):
        vjp, jvp = stage
        return Stage(_linear(jvp, vjp))
    if callable(stage):
        return Stage(Gradiator(stage, options=options))
    raise TypeError(
        f"a stage is a function, a Gradiator, a matrix, a LinearOperator, a pair (vjp, jvp) of a "
        f"linear stage, or a Chain, and several come one by one, Chain(f, g); got "
        f"{type(stage).__name__} {stage!r:.60}"
    )


def _linear(apply: Callable[[Any], Any], adjoint: Callable[[Any], Any]) -> Gradiator:
    return Gradiator(
        apply,
        lambda x, v: np.reshape(adjoint(v), np.shape(x)),
        jvp_fun=lambda x, u: apply(u),
    )


def _times(matrix: Any, x: Any) -> Any:
    if np.size(x) != matrix.shape[1]:
        raise ValueError(
            f"a stage is a matrix of shape {matrix.shape}, but it receives {np.size(x)} numbers "
            f"(shape {np.shape(x)})"
        )
    return matrix @ np.ravel(x)
