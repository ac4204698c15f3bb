"""The front door: Jacobians of a function that can only be run, by a loop around the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack, overload

from gradiator_np import _checks as checks
from gradiator_np._drive import evaluator_options, run, warned
from gradiator_np._engine import Engine
from gradiator_np._evaluate import Evaluator
from gradiator_np._fast_path import fast_path
from gradiator_np._options import Options, takes
from gradiator_np._results import JacobianEstimate
from gradiator_np._settings import Settings
from gradiator_np._signatures import complete
from gradiator_np._structure import Layout

if TYPE_CHECKING:
    from gradiator_np._compressed import SparseJacobianEstimate


@overload
def jacobian(
    fun: Callable[..., Any], x: Any, *, sparsity: None = None, **options: Unpack[Options]
) -> JacobianEstimate: ...


@overload
def jacobian(
    fun: Callable[..., Any], x: Any, *, sparsity: object, **options: Unpack[Options]
) -> SparseJacobianEstimate: ...


@takes(Options)
def jacobian(
    fun: Callable[..., Any], x: Any, *, sparsity: Any = None, **options: Unpack[Options]
) -> JacobianEstimate | SparseJacobianEstimate:
    """Estimate the Jacobian of ``fun`` at x.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args, **kwargs)`` with x of any shape, or a dict of arrays; returns an array of
        any shape, a scalar, or a dict of arrays. Called once for each point.
    x : array_like or dict of array_like
        The point. Integers are promoted to float64; float32 stays, with steps for that precision.
    sparsity : sparse array or matrix, array_like, tuple or sparsity.Coloring, optional
        Which outputs read which inputs, as ``sparsity.SparsityPattern.of`` takes it: shape (n, m),
        of flat y and x. Inputs that share no output then move together, c of them in place of m,
        and two to ten runs more tell whether the pattern holds (where it does not, some 25 to 45
        beyond max_nfev tell what is missing). "detect": it is found first, by about
        s log m runs where outputs read s inputs (`detect_sparsity` tells more of it).
    **options : Options

    Returns
    -------
    JacobianEstimate
        ``jac`` and ``stderr`` of shape ``y.shape + x.shape``, in y per x.
    SparseJacobianEstimate
        With ``sparsity``: ``jac`` and ``stderr`` are ``scipy.sparse.csr_array`` of shape (n, m).

    Raises
    ------
    EvaluationError
        Where ``fun`` fails at x itself, where the first points all fail alike (a bug in ``fun``),
        or at the first failure with ``on_error="raise"``; its ``samples`` hold every run made.
    TypeError, ValueError
        For arguments that make no sense, before ``fun`` is called.

    Warns
    -----
    GradiatorWarning
        Where the estimate may be wrong; ``status`` and ``message`` say why. Where warnings are
        errors, the exception carries the estimate as ``estimate``.

    Examples
    --------
    >>> from gradiator_np import jacobian
    >>> estimate = jacobian(lambda x: [x[0] * x[1], x[0] ** 2], [2.0, 3.0], method="5-point")
    >>> estimate.jac.round(8)
    array([[3., 2.],
           [4., 0.]])
    """
    if sparsity is None:
        return _estimate(fun, x, options)
    from gradiator_np._compressed import SparseRuns

    known = complete(options, Options)
    point = checks.point(x, known["batch_dims"])
    Settings.of(point, known)  # refuses what makes no sense before anything runs
    with Evaluator(fun, point.layout, **evaluator_options(known)) as evaluate:
        return SparseRuns(evaluate, sparsity).at(point, known, known["f0"])


@takes(Options)
def gradient(fun: Callable[..., Any], x: Any, **options: Unpack[Options]) -> JacobianEstimate:
    """Estimate the gradient of a scalar function.

    Parameters
    ----------
    fun : callable
        Returns a scalar (or an array of one number).
    x, **options
        As in ``jacobian``.

    Returns
    -------
    JacobianEstimate
        ``grad`` (also ``jac``) and ``stderr`` of the shape of x (batch + x for batches).

    Raises
    ------
    ValueError
        Where ``fun`` returns more than one number: the gradient of which?

    Examples
    --------
    >>> from gradiator_np import gradient
    >>> gradient(lambda x: x[0] ** 2 + 3 * x[1], [1.0, 2.0]).grad.round(6)
    array([2., 3.])
    """
    estimate = _estimate(fun, x, options, scalar=True)
    frame = estimate.frame
    scalar = Layout((), frame.y_layout.batch)
    return replace(estimate, frame=frame._replace(y_layout=scalar))


def _estimate(
    fun: Callable[..., Any], x: Any, options: Options, scalar: bool = False
) -> JacobianEstimate:
    """``jacobian``; ``scalar``: of a function that must be."""
    point = checks.point(x, options.get("batch_dims", 0))
    partial = None
    quick = None if scalar else fast_path(fun, point, options)
    if quick is not None:
        found = quick.run(point, options.get("f0"))
        if isinstance(found, JacobianEstimate):
            return found
        partial = found
    known = complete(options, Options)
    engine = Engine(point, Settings.of(point, known))
    with Evaluator(fun, point.layout, **evaluator_options(known)) as evaluate:
        return warned(run(engine, evaluate, known["f0"], known["on_error"], partial, scalar=scalar))
